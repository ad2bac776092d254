# SPDX-License-Identifier: Apache-2.0
"""Owns ``nova-ext-status upgrade check``, which tells what the extension still lacks.

The exit status is that of oslo.upgradecheck: 0 when all is well, 1 when something
should be looked at, 2 when something will not work, 255 when a check itself failed.
"""

# nova patches threading before anything else is imported.
from nova import monkey_patch

monkey_patch.patch(backend="threading")

import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import nova.conf  # noqa: E402
from nova import config, objects  # noqa: E402
from oslo_upgradecheck import upgradecheck  # noqa: E402

from nova_ext.cmd import common  # noqa: E402
from nova_ext.db import api as db  # noqa: E402
from nova_ext.db import migration  # noqa: E402
from nova_ext.objects import capability  # noqa: E402

CONF = nova.conf.CONF

Result = upgradecheck.Result
Code = upgradecheck.Code

_SYNC = "run nova-ext-manage db sync"
_SHOWN = 10


class UpgradeCommands(upgradecheck.UpgradeCommands):
    """What is looked at; each check answers for all cells together."""

    def _databases(self) -> Any:
        """Each cell has its tables at the newest version, and they may be used."""

        def look(place: common.Place) -> str | None:
            current = migration.version(place.engine)
            if current is None:
                return f"has no database of the extension: {_SYNC}"
            if current in migration.older(place.kind):
                return f"has version {current}, not the newest: {_SYNC}"
            if place.kind == migration.MAIN:
                for context in (place.context, *place.others):
                    db.check(context)
            return None

        def places() -> list[common.Place]:
            return [*common.cells(), common.api_database()]

        return _each(places, look, Code.FAILURE)

    def _hosts(self) -> Any:
        """Each compute host publishes the version of this extension."""

        def look(place: common.Place) -> str | None:
            nodes = objects.ComputeNodeList.get_all(place.context)
            without, older = set(), set()
            for node in nodes:
                version = capability.of_node(node)
                if not version:
                    without.add(node.host)
                elif version < capability.VERSION:
                    older.add(f"{node.host} ({version})")
            found = [
                f"{text}: {_some(hosts)}"
                for text, hosts in (
                    ("hosts without the extension", without),
                    (f"hosts below version {capability.VERSION}", older),
                )
                if hosts
            ]
            return "has " + "; ".join(found) if found else None

        return _each(common.cells, look, Code.WARNING)

    def _guards(self) -> Any:
        """Each compute host that freezes guests has a guard beside nova-compute."""

        def look(place: common.Place) -> str | None:
            nodes = objects.ComputeNodeList.get_all(place.context)
            without = {node.host for node in nodes if capability.lacks_guard(node)}
            if not without:
                return None
            return (
                "has hosts that keep no deadline while nova-compute is down: "
                f"{_some(without)}: run nova-ext-guard there"
            )

        return _each(common.cells, look, Code.WARNING)

    def _rows(self) -> Any:
        """No row is kept of a server that is gone."""

        def look(place: common.Place) -> str | None:
            count = db.count_gone(place.context)
            if not count:
                return None
            return f"keeps {count} rows of them: run nova-ext-manage db archive"

        return _each(common.cells, look, Code.WARNING)

    _upgrade_checks = (
        ("Databases of the extension", _databases),
        ("Compute hosts", _hosts),
        ("Guards of frozen guests", _guards),
        ("Rows of servers that are gone", _rows),
    )


def _each(
    places: Callable[[], list[common.Place]],
    look: Callable[[common.Place], str | None],
    code: Any,
) -> Any:
    """One result for all places: what ``look`` found where, or success.

    :param code: of what was found; an error is always a failure
    """
    try:
        found_places = places()
    except common.ERRORS as exc:
        return Result(
            Code.FAILURE,
            "Cannot read the cell mappings from [api_database] connection: "
            f"{common.reason(exc)}",
        )
    worst, details = Code.SUCCESS, []
    for place in found_places:
        try:
            found = look(place)
        except common.ERRORS as exc:
            worst = Code.FAILURE
            details.append(f"{place.name}: {common.reason(exc)}")
        else:
            if found is not None:
                worst = max(worst, code)
                details.append(f"{place.name} {found}")
    return Result(worst, ". ".join(details) or None)


def _some(hosts: set[str]) -> str:
    text = ", ".join(sorted(hosts)[:_SHOWN])
    return f"{text} and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else text


def main() -> int:
    """Run the checks and print what they found; the exit status."""
    # Not upgradecheck.main(), which knows nothing of what nova registers first.
    upgradecheck.register_cli_options(CONF, UpgradeCommands())
    config.parse_args(sys.argv, init_rpc=False, configure_db=False)
    upgradecheck.CONF = CONF
    common.configure()
    return int(upgradecheck.run(CONF))


if __name__ == "__main__":
    sys.exit(main())
