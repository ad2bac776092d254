{
    "server": {
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": "nova",
        "OS-EXT-SRV-ATTR:hostname": "guest",
        "OS-EXT-STS:power_state": 1,
        "OS-EXT-STS:task_state": null,
        "OS-EXT-STS:vm_state": "active",
        "OS-SRV-USG:launched_at": "%(strtime)s",
        "OS-SRV-USG:terminated_at": null,
        "accessIPv4": "",
        "accessIPv6": "",
        "addresses": {},
        "adminPass": "%(password)s",
        "config_drive": "",
        "created": "%(isotime)s",
        "description": null,
        "flavor": {
            "disk": 1,
            "ephemeral": 0,
            "extra_specs": {},
            "original_name": "m1.tiny",
            "ram": 512,
            "swap": 0,
            "vcpus": 1
        },
        "hostId": "%(hostid)s",
        "id": "%(id)s",
        "image": {
            "id": "%(uuid)s",
            "links": [
                {
                    "href": "%(compute_endpoint)s/images/%(uuid)s",
                    "rel": "bookmark"
                }
            ],
            "properties": {
                "hw_cdrom_bus": "ide",
                "hw_disk_bus": "virtio",
                "hw_input_bus": "usb",
                "hw_machine_type": "pc",
                "hw_pointer_model": "usbtablet",
                "hw_qemu_guest_agent": "yes",
                "hw_video_model": "virtio",
                "hw_vif_model": "virtio"
            }
        },
        "key_name": null,
        "links": [
            {
                "href": "%(versioned_compute_endpoint)s/servers/%(uuid)s",
                "rel": "self"
            },
            {
                "href": "%(compute_endpoint)s/servers/%(uuid)s",
                "rel": "bookmark"
            }
        ],
        "locked": false,
        "locked_reason": null,
        "metadata": {
            "role": "database"
        },
        "name": "guest",
        "os-extended-volumes:volumes_attached": [],
        "pinned_availability_zone": null,
        "progress": 0,
        "quiesce_status": null,
        "quiesced_at": null,
        "scheduler_hints": {},
        "server_groups": [],
        "status": "ACTIVE",
        "tags": [],
        "tenant_id": "6f70656e737461636b20342065766572",
        "trusted_image_certificates": null,
        "unquiesce_at": null,
        "updated": "%(isotime)s",
        "user_data": null,
        "user_id": "fake"
    }
}
