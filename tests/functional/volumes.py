# SPDX-License-Identifier: Apache-2.0
"""Owns servers that boot from a volume, which Cinder's fake of nova has."""

import fixtures

from tests.functional import base


class VolumeBacked(base.FunctionalTest):
    """Boots servers from volumes."""

    def volume_backed(self, require: bool = False) -> str:
        """A server that boots from a volume.

        :param require: an image of it requires a freeze
        """
        if "compute1" not in self.computes:
            self.start_compute("compute1")
        # What nova's fake Cinder leaves out of a volume.
        get = self.cinder.fake_get
        self.useFixture(
            fixtures.MonkeyPatch(
                "nova.volume.cinder.API.get",
                lambda api, *args, **kwargs: {
                    **get(*args, **kwargs),
                    "display_description": "",
                },
            )
        )
        server = self.api.post_server(
            {
                "server": {
                    "name": "bfv",
                    "flavorRef": self._create_flavor(),
                    "networks": "none",
                    "block_device_mapping_v2": [
                        {
                            "boot_index": 0,
                            "uuid": self.cinder.IMAGE_BACKED_VOL,
                            "source_type": "volume",
                            "destination_type": "volume",
                        }
                    ],
                }
            }
        )["id"]
        self._wait_for_state_change({"id": server}, "ACTIVE")
        instance = self.instance(server)
        instance.system_metadata["image_hw_qemu_guest_agent"] = "yes"
        instance.system_metadata["image_os_require_quiesce"] = str(require)
        instance.save()
        return str(server)
