# SPDX-License-Identifier: Apache-2.0
"""A cell's database with nova's tables and those of the extension, for one test."""

import dataclasses
import datetime
import uuid
from typing import Any

import sqlalchemy as sa
from nova import context as nova_context
from nova.db import migration as nova_migration
from nova.db.main import api as main_api
from nova.db.main import models as main_models

from nova_ext.db import migration, models, schema

INSTANCES: Any = main_models.Instance.__table__


@dataclasses.dataclass
class Database:
    """A cell's database.

    :ivar manager: the transaction context manager of a cell, as nova keeps it
    """

    manager: Any

    @property
    def engine(self) -> Any:
        return self.manager.writer.get_engine()

    def context(self) -> Any:
        """A new context that is targeted at the cell; not shared between threads."""
        context = nova_context.get_admin_context()
        context.db_connection = self.manager
        return context

    def execute(self, statement: Any, *args: Any) -> Any:
        """Run a statement in a transaction of its own, past nova and the extension."""
        with self.engine.begin() as connection:
            options = schema.options(connection)
            return connection.execute(statement, *args, execution_options=options)

    def clear(self) -> None:
        """Remove all servers, and what the extension has of them."""
        for table in models.metadata.sorted_tables:
            self.execute(sa.delete(table))
        for name in ("system_metadata", "info_caches", "extra"):
            table = main_models.BASE.metadata.tables[f"instance_{name}"]
            self.execute(sa.delete(table))
        self.execute(sa.delete(INSTANCES))

    def drop(self) -> None:
        """Remove what the extension has beside it."""
        migration.drop(self.engine, migration.MAIN)

    def add_instance(self, **values: Any) -> str:
        """Insert a server and return its UUID; active on compute1 unless told."""
        row = {
            "uuid": str(uuid.uuid4()),
            "host": "compute1",
            "vm_state": "active",
            "task_state": None,
            "deleted": 0,
            "created_at": datetime.datetime(2026, 11, 26),
            **values,
        }
        self.execute(sa.insert(INSTANCES).values(row))
        return str(row["uuid"])

    def change_instance(self, instance_uuid: str, **values: Any) -> None:
        where = INSTANCES.c.uuid == instance_uuid
        self.execute(sa.update(INSTANCES).where(where).values(values))

    def instance(self, instance_uuid: str) -> Any:
        where = INSTANCES.c.uuid == instance_uuid
        statement = sa.select(INSTANCES).where(where)
        return self._read(statement)

    def _read(self, statement: Any) -> Any:
        with self.engine.connect() as connection:
            options = schema.options(connection)
            result = connection.execute(statement, execution_options=options)
            return result.mappings().first()

    def explain(self, statement: Any) -> list[Any]:
        """How MariaDB would run a statement: a row for each table."""
        compiled = statement.compile(
            self.engine,
            schema_translate_map=schema.options(self.engine)["schema_translate_map"],
            compile_kwargs={"literal_binds": True, "render_schema_translate": True},
        )
        return list(self.execute(sa.text(f"EXPLAIN {compiled}")).mappings())

    def window(self, instance_uuid: str) -> Any:
        table = models.quiesce_windows
        where = table.c.instance_uuid == instance_uuid
        return self._read(sa.select(table).where(where))

    def copy(self, instance_uuid: str) -> Any:
        table = models.pmem_copies
        where = table.c.instance_uuid == instance_uuid
        return self._read(sa.select(table).where(where))


def connect(url: str) -> Database:
    """The database at ``url``, with the account that is named there."""
    return Database(main_api.create_context_manager(url))


def make(url: str, bare: bool = False) -> Database:
    """The database at ``url``, which exists, with the tables of nova.

    :param bare: only ``instances``
    """
    made = connect(url)
    if bare:
        INSTANCES.create(made.engine)
    elif made.engine.dialect.name == "sqlite":
        # What nova's migrations make, in a tenth of the time.
        main_models.BASE.metadata.create_all(made.engine)
    else:
        nova_migration.db_sync(context=made.context())
    return made
