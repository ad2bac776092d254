# SPDX-License-Identifier: Apache-2.0
"""Owns how Sphinx builds the API reference; the texts are beside it."""

project = "nova-ext"
author = "nova-ext developers"
copyright = "2026, nova-ext developers"

extensions = [
    "openstackdocstheme",
    "os_api_ref",
]

master_doc = "index"
pygments_style = "native"

html_theme = "openstackdocs"
html_theme_options = {"sidebar_mode": "toc"}

# The project is not published on opendev.org: no links to it.
openstackdocs_auto_name = False
openstackdocs_auto_version = False
openstackdocs_use_storyboard = False
