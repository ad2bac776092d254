# SPDX-License-Identifier: Apache-2.0
"""Owns which cells servers are in."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from nova import context as nova_context
from nova.db.api import api as api_db_api
from nova.db.api import models


def of_instances(context: Any, uuids: Iterable[str]) -> list[Any]:
    """The mappings of the cells that these instances are in, each once.

    nova's ``InstanceMappingList`` would give an object for each instance.
    """
    wanted = _ids(context, list(uuids))
    if not wanted <= {cell.id for cell in nova_context.CELLS}:
        nova_context.load_cells()
    return [cell for cell in nova_context.CELLS if cell.id in wanted]


@api_db_api.context_manager.reader
def _ids(context: Any, uuids: list[str]) -> set[int]:
    mapping = models.InstanceMapping
    statement = (
        sa.select(mapping.cell_id).where(mapping.instance_uuid.in_(uuids)).distinct()
    )
    return {found for found in context.session.scalars(statement) if found is not None}
