# SPDX-License-Identifier: Apache-2.0
"""Owns ``nova-ext-manage``: makes, brings up to date, cleans and removes the databases.

Each command does its work for every cell of the cloud but cell0, by the mappings in the
API database, and tells of each in one line; one that fails does not keep the others
from theirs. Exit status 1 means that something is left to do.
"""

# nova patches threading before anything else is imported.
from nova import monkey_patch

monkey_patch.patch(backend="threading")

import sys  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from typing import Any  # noqa: E402

import nova.conf  # noqa: E402
from nova import config  # noqa: E402
from nova.db.main import api as main_api  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_log import log as logging  # noqa: E402

from nova_ext import exception  # noqa: E402
from nova_ext.cmd import common  # noqa: E402
from nova_ext.db import api as db  # noqa: E402
from nova_ext.db import errors, migration, schema  # noqa: E402

CONF = nova.conf.CONF

#: Lines of what is live in one cell.
_SHOWN = 20


def main() -> int:
    """Run the command that the arguments name; the exit status."""
    CONF.register_cli_opt(
        cfg.SubCommandOpt(
            "category", title="Commands", help="What to do.", handler=_add_parsers
        )
    )
    config.parse_args(sys.argv, init_rpc=False, configure_db=False)
    levels = [*logging.get_default_log_levels(), "alembic=WARN"]
    logging.set_defaults(default_log_levels=levels)
    logging.setup(CONF, "nova")
    common.configure()
    command: Callable[..., int] = CONF.category.command
    try:
        places = _places(CONF.category.local_cell)
    except common.ERRORS as exc:
        _tell(
            f"Cannot read the cell mappings from [api_database] connection: "
            f"{common.reason(exc)}. Use --local_cell to leave them out."
        )
        return 1
    if command is purge:
        return purge(places, CONF.category.force)
    return command(places)


def _add_parsers(subparsers: Any) -> None:
    """``db sync`` and so on, as nova-manage has them."""
    parser = subparsers.add_parser("db", help="The databases of the extension.")
    actions = parser.add_subparsers(dest="action", required=True)
    for command in (sync, version, archive, purge):
        text = (command.__doc__ or "").partition("\n")[0]
        action = actions.add_parser(command.__name__, help=text, description=text)
        action.set_defaults(command=command)
        action.add_argument(
            "--local_cell",
            action="store_true",
            help="Only the cell of [database] connection; no use of the API database.",
        )
        if command is purge:
            action.add_argument(
                "--force",
                action="store_true",
                help="Remove them while guests are frozen or copies under way.",
            )


def _places(local_cell: bool) -> list[common.Place]:
    if local_cell:
        return [common.local_cell()]
    return [*common.cells(), common.api_database()]


def sync(places: list[common.Place]) -> int:
    """Make the databases and bring their tables to the newest version."""
    return _each(places, _sync)


def version(places: list[common.Place]) -> int:
    """Show the version of each database, and whether it is the newest."""
    return _each(places, _version)


def archive(places: list[common.Place]) -> int:
    """Remove what is kept of servers that are gone."""
    cells = [place for place in places if place.kind == migration.MAIN]
    return _each(cells, _archive)


def purge(places: list[common.Place], force: bool = False) -> int:
    """Remove the databases, unless guests are frozen or copies under way."""
    if not force:
        cells = [place for place in places if place.kind == migration.MAIN]
        if _each(cells, _refuse_live):
            _tell("Nothing was removed. Use --force to remove the databases anyway.")
            return 1
    return _each(places, _drop)


def _each(
    places: list[common.Place], work: Callable[[common.Place], Iterator[str]]
) -> int:
    """Do ``work`` for each place and tell what it yields; 1 if one has failed."""
    status = 0
    for place in places:
        try:
            for line in work(place):
                print(f"{place.name}: {line}")
        except _LeftToDo as exc:
            status = 1
            for line in exc.lines:
                _tell(f"{place.name}: {line}")
        except common.ERRORS as exc:
            status = 1
            _tell(f"{place.name}: {common.reason(exc)}")
    return status


class _LeftToDo(Exception):
    """Somebody else has to do something, which the lines tell."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = lines


def _sync(place: common.Place) -> Iterator[str]:
    engine = place.engine
    made = not migration.exists(engine)
    try:
        migration.create(engine)
        migration.upgrade(engine, place.kind)
    except common.ERRORS as exc:
        if not errors.is_denied(exc, engine):
            raise
        raise _missing_right(place.context, not migration.exists(engine)) from exc
    yield f"{'made, ' if made else ''}version {migration.version(engine)}"
    for context in place.others:
        try:
            db.check(context)
        except exception.StateDatabaseDenied as exc:
            raise _missing_right(context, place=False) from exc


def _missing_right(context: Any, place: bool) -> _LeftToDo:
    """What the database's administrator has to run for the account of ``context``."""
    engine = main_api.get_engine(context=context)
    with engine.connect() as connection:
        account = schema.account_of(connection)
    return _LeftToDo(
        f"account {account} lacks rights. Have the database's administrator run this, "
        "then run nova-ext-manage db sync again:",
        *schema.statements(engine, account, place),
    )


def _version(place: common.Place) -> Iterator[str]:
    current = migration.version(place.engine)
    if current is None:
        yield "none; run nova-ext-manage db sync"
    elif current in migration.older(place.kind):
        yield f"{current}, not the newest; run nova-ext-manage db sync"
    else:
        yield current


def _archive(place: common.Place) -> Iterator[str]:
    yield f"{db.delete_gone(place.context)} rows removed"


def _refuse_live(place: common.Place) -> Iterator[str]:
    try:
        live = db.get_live(place.context)
    except exception.StateDatabaseDenied:
        raise
    except exception.StateDatabaseMissing:
        return
    if live:
        more = [f"and {len(live) - _SHOWN} more"] if len(live) > _SHOWN else []
        raise _LeftToDo(*live[:_SHOWN], *more)
    yield from ()


def _drop(place: common.Place) -> Iterator[str]:
    engine = place.engine
    if not migration.exists(engine):
        yield "there is none"
        return
    try:
        migration.drop(engine, place.kind)
    except common.ERRORS as exc:
        if not errors.is_denied(exc, engine):
            raise
        raise _LeftToDo(
            "the account lacks the right. Have the database's administrator run this:",
            schema.drop_statement(engine),
        ) from exc
    yield "removed"


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
