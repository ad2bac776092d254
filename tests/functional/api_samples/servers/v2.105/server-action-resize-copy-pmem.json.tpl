{
    "resize": {
        "flavorRef": "%(flavor_id)s",
        "copy_pmem_devices": true
    }
}
