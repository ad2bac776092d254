# SPDX-License-Identifier: Apache-2.0
"""The client side of the extension: a library, and commands for openstackclient.

``compute`` quiesces servers and moves them with their PMEM, ``consistency`` makes
consistent snapshots of groups, ``plugin`` and ``v1`` are the commands. Nothing here
imports nova, or anything of nova_ext outside this package: it works on a desktop that
has neither.
"""
