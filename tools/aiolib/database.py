# SPDX-License-Identifier: Apache-2.0
"""The databases: makes the server's directory, the schemas, keystone's first user."""

from __future__ import annotations

import concurrent.futures
import pathlib

from aiolib import command, config, wheels
from aiolib.progress import say
from aiolib.settings import REGION, Settings

_NAMES = (
    "keystone",
    "placement",
    "glance",
    "nova_api",
    "nova_cell0",
    "nova_cell1",
    "cinder",
)


_NAMES_WITH_EXTENSION = ("nova_api", "nova_cell1")


def prepare(s: Settings) -> None:
    """Before the first start of the server."""
    data = s.state("mariadb")
    if (data / "mysql").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    log = s.log / "setup.log"
    command.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--user=root",
            "--auth-root-authentication-method=socket",
            "--auth-root-socket-user=root",
            "--skip-test-db",
        ],
        timeout=120,
        log=log,
    )


def _statements(s: Settings) -> str:
    user = "'aio'@'%'"
    lines = [f"create user if not exists {user} identified by '{s.password}';"]
    for name in _NAMES:
        lines.append(f"create database if not exists {name} character set utf8mb3;")
        lines.append(f"grant all on {name}.* to {user};")
    # nova-ext-manage makes those of the extension.
    lines += [
        f"grant all on {name}_nova_ext.* to {user};" for name in _NAMES_WITH_EXTENSION
    ]
    return "\n".join(lines)


def _jobs(s: Settings) -> list[list[list[str]]]:
    def manage(service: str, config_file: str) -> list[str]:
        binary, path = f"{service}-manage", s.etc / service / config_file
        return [str(s.venv / "bin" / binary), "--config-file", str(path)]

    keystone = manage("keystone", "keystone.conf")
    nova = manage("nova", "nova.conf")
    extension = [str(s.venv / "bin/nova-ext-manage"), *nova[1:], "db", "sync"]
    owner = ["--keystone-user", "root", "--keystone-group", "root"]
    bootstrap = ["bootstrap", "--bootstrap-password", s.password]
    bootstrap += ["--bootstrap-region-id", REGION]
    for kind in ("public", "internal", "admin"):
        bootstrap += [f"--bootstrap-{kind}-url", s.url("keystone", "/v3/")]
    cell0 = s.database_url("nova_cell0")
    return [
        [
            [*keystone, "db_sync"],
            [*keystone, "fernet_setup", *owner],
            [*keystone, "credential_setup", *owner],
            [*keystone, *bootstrap],
        ],
        [[*manage("placement", "placement.conf"), "db", "sync"]],
        [[*manage("glance", "glance-api.conf"), "db_sync"]],
        [
            [*nova, "api_db", "sync"],
            [*nova, "cell_v2", "map_cell0", "--database_connection", cell0],
            [*nova, "db", "sync"],
            [*nova, "cell_v2", "create_cell", "--name", "cell1"],
            *([] if s.stock else [extension]),
        ],
        [[*manage("cinder", "cinder.conf"), "db", "sync"]],
    ]


def synchronise(s: Settings) -> None:
    """Make or upgrade the schemas, once for each set of wheels."""
    parts = wheels.SERVICES if s.stock else (*wheels.SERVICES, "nova_ext")
    stamp, wanted = s.home / "db-synchronised", "\n".join(parts)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("making the databases")
    socket = s.state("mariadb") / "s"
    command.run(
        ["mariadb", "--no-defaults", "-uroot", f"--socket={socket}"],
        timeout=60,
        log=s.log / "setup.log",
        input=_statements(s),
    )
    environment = command.clean_environment(PATH=config.path_variable(s))

    def work(job: list[list[str]]) -> None:
        log = s.log / f"{pathlib.Path(job[0][0]).name}.log"
        for words in job:
            if "create_cell" in words:  # an error the second time
                listing = [*words[: words.index("create_cell")], "list_cells"]
                cells = command.run(listing, timeout=300, log=log, env=environment)
                if "| cell1 |" in " ".join(cells.split()):
                    continue
            command.run(words, timeout=300, log=log, env=environment)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(work, _jobs(s)))
    stamp.write_text(wanted)
