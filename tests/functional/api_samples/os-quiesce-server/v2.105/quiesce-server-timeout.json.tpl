{
    "quiesce": {
        "timeout": 60
    }
}
