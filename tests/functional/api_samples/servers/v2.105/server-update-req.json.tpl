{
    "server": {
        "description": "Database server"
    }
}
