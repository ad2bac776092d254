{
    "unquiesce": null
}
