{
    "quiesce": {
        "partial": false,
        "timeout": 60
    }
}
