# SPDX-License-Identifier: Apache-2.0
"""Owns what a server gets back whose rebuild is refused by its host.

nova's API has given it the new image by then.
"""

from typing import Any

import oslo_messaging as messaging
from nova import exception, objects, utils
from oslo_log import log as logging

LOG = logging.getLogger(__name__)


def give_image_back(
    context: Any, instance: Any, image_ref: str, before: dict[str, str]
) -> None:
    """Undo what nova's API has saved of the new image.

    What was asked for beside the image stays: a name, metadata, a key.

    :param image_ref: the image before; a server that boots from a volume has none
    :param before: the system metadata then
    """
    prefix = utils.SM_IMAGE_PROP_PREFIX
    now = instance.system_metadata
    instance.system_metadata = {
        **{key: value for key, value in now.items() if not key.startswith(prefix)},
        **{key: value for key, value in before.items() if key.startswith(prefix)},
    }
    if instance.image_ref:
        instance.image_ref = image_ref
    properties = utils.get_image_from_system_metadata(before)["properties"]
    for name in ("architecture", "os_type", "vm_mode"):
        instance[name] = properties.get(name)
    for name in ("kernel_id", "ramdisk_id"):
        instance[name] = properties.get(name) or ""
    instance.save()
    # It is in the database of the API, which a conductor of a cell need not reach.
    try:
        spec = objects.RequestSpec.get_by_instance_uuid(context, instance.uuid)
        spec.image = objects.ImageMeta.from_instance(instance)
        spec.save()
    except (exception.NovaException, messaging.MessagingException) as exc:
        LOG.warning(
            "The scheduler takes %s for a server of the image that its refused rebuild "
            "asked for: %s",
            instance.uuid,
            exc,
        )
