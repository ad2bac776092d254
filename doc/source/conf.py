# SPDX-License-Identifier: Apache-2.0
"""Owns how Sphinx builds the guides; the texts are beside it."""

import shutil

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.graphviz import graphviz

project = "nova-ext"
author = "nova-ext developers"
copyright = "2026, nova-ext developers"

extensions = [
    "cliff.sphinxext",
    "openstackdocstheme",
    "oslo_config.sphinxext",
    "oslo_policy.sphinxext",
    "sphinx.ext.autodoc",
    "sphinx.ext.graphviz",
]

master_doc = "index"
pygments_style = "native"

html_theme = "openstackdocs"

# The project is not published on opendev.org: no links to it.
openstackdocs_auto_name = False
openstackdocs_auto_version = False
openstackdocs_use_storyboard = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

autoprogram_cliff_application = "openstack"
# Those of the output are the same for every command of openstackclient.
autoprogram_cliff_ignored = [
    "--help",
    "--column",
    "--fit-width",
    "--format",
    "--max-width",
    "--noindent",
    "--prefix",
    "--print-empty",
    "--quote",
    "--sort-ascending",
    "--sort-column",
    "--sort-descending",
]

# Not of "--wait" in a docstring.
smartquotes_action = "qe"

graphviz_output_format = "svg"


def show_source_of_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Put the source of each picture in its place."""
    for node in list(doctree.findall(graphviz)):
        node.replace_self(nodes.literal_block(node["code"], node["code"]))


def setup(app: Sphinx) -> None:
    """Build on a machine without graphviz, too: a missing dot is a warning."""
    if shutil.which("dot") is None:
        app.connect("doctree-read", show_source_of_pictures)
