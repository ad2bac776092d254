# SPDX-License-Identifier: Apache-2.0
"""Owns the WSGI application of the compute API with the extension.

For sites that name the application in their web server and keep ``api-paste.ini`` as
nova ships it: serve ``nova_ext.wsgi.osapi_compute:application``.
"""

# nova patches threading before anything else is imported.
from nova import monkey_patch

monkey_patch.patch(backend="threading")

from nova.api.openstack import wsgi_app  # noqa: E402

from nova_ext import install  # noqa: E402
from nova_ext.api.openstack.compute import routes  # noqa: E402

install.install()
install.replace_router(routes.APIRouterV21)

application = wsgi_app.init_application("osapi_compute", "nova-api-os-compute")
