# SPDX-License-Identifier: Apache-2.0
"""Owns what ``api-paste.ini`` names.

The operator changes one line::

    [app:osapi_compute_app_v21]
    paste.app_factory = nova_ext.wsgi.paste:osapi_compute_app_v21
"""

from typing import Any

from nova_ext import install


def osapi_compute_app_v21(global_config: Any, **local_config: Any) -> Any:
    """The compute API with the extension, as ``paste.app_factory``.

    :raises: nova_ext.exception.InstallError when the installed nova is not the one that
        the extension was built for
    """
    install.install()
    # Not before: a nova that is refused may lack what these modules import.
    from nova_ext.api.openstack.compute import routes

    install.check(*routes.CLASSES)
    return routes.APIRouterV21.factory(global_config, **local_config)
