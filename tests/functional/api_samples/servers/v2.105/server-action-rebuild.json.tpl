{
    "rebuild": {
        "imageRef": "%(image_id)s",
        "metadata": {
            "role": "database"
        }
    }
}
