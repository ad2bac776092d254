{
    "quiesce": null
}
