#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.
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
