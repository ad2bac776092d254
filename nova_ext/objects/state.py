# SPDX-License-Identifier: Apache-2.0
"""Owns the question whether a host can keep state of the extension at all."""

from typing import Any

from nova.objects import base as nova_base

from nova_ext.db import api as db
from nova_ext.objects import base


@nova_base.NovaObjectRegistry.register
class ExtensionDatabase(nova_base.NovaObject):
    """The database of the extension beside a cell's."""

    VERSION = "1.0"

    fields: dict[str, Any] = {}

    @classmethod
    @base.remotable
    def check(cls, context: Any) -> None:
        """Make sure that the tables are there, complete, and may be read and written.

        One nova-conductor has answered then: others may not have the extension yet.

        :raises: nova_ext.exception.StateDatabaseMissing or ConductorTooOld
        """
        db.check(context)
