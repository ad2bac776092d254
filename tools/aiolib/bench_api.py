# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the compute API: what microversion 2.105 costs beside stock.

Two processes answer the same requests, one with the stock router at 2.104 and one with
the extension's at 2.105, in turns, on a MariaDB of their own with some servers frozen.
What is timed is the API's own work: no HTTP server, keystone or neutron is asked, which
would be the same for both. It needs no cloud that is up.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import Any

from aiolib import waiting

_WANTED = 1.03
_PROJECT = "0123456789abcdef0123456789abcdef"
_STOCK, _OURS = "2.104", "2.105"
_DATABASES = ("nova_api", "nova_cell0", "nova_cell1")


# The processes that know nova.


def _configured(directory: pathlib.Path) -> Any:
    """nova's configuration for databases beside ``directory``; no bus is needed."""
    from nova import monkey_patch

    monkey_patch.patch(backend="threading")
    from nova import config, objects
    from nova.conf import CONF

    file = directory / "nova.conf"
    config.parse_args(["bench", "--config-file", str(file)])
    objects.register_all()
    return CONF


def _url(directory: pathlib.Path, name: str) -> str:
    return f"mysql+pymysql://root@localhost/{name}?unix_socket={directory}/socket"


def _setup(directory: pathlib.Path, servers: int, frozen: int) -> None:
    """Fill the databases."""
    _configured(directory)
    import sqlalchemy as sa
    from nova import context as nova_context
    from nova import objects
    from nova.db import migration as nova_migration

    from nova_ext.db import migration, models, schema

    context = nova_context.get_admin_context()
    nova_migration.db_sync(database="api")
    cells = []
    for name, known in (
        ("nova_cell0", objects.CellMapping.CELL0_UUID),
        ("nova_cell1", str(uuid.uuid4())),
    ):
        cell = objects.CellMapping(
            context,
            uuid=known,
            name=name,
            transport_url="none:///",
            database_connection=_url(directory, name),
        )
        cell.create()
        cells.append(cell)
        with nova_context.target_cell(context, cell) as targeted:
            nova_migration.db_sync(context=targeted)
    flavor = objects.Flavor(
        context,
        flavorid="bench",
        name="bench",
        memory_mb=512,
        vcpus=1,
        root_gb=1,
        ephemeral_gb=0,
        extra_specs={},
    )
    flavor.create()
    with nova_context.target_cell(context, cells[1]) as targeted:
        from nova.db.main import api as main_api

        engine = main_api.get_engine(context=targeted)
        migration.create(engine)
        migration.upgrade(engine, migration.MAIN)
        for number in range(servers):
            _add_server(context, targeted, cells[1], flavor, number)
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        rows = [
            {
                "instance_uuid": _server(number * servers // max(frozen, 1)),
                "window_id": str(uuid.uuid4()),
                "change_id": str(uuid.uuid4()),
                "status": "quiesced",
                "request_id": "req-bench",
                "timeout": 600,
                "quiesced_at": now,
                "created_at": now,
            }
            for number in range(frozen)
        ]
        with engine.begin() as connection:
            connection.execute(
                sa.insert(models.quiesce_windows),
                rows,
                execution_options=schema.options(engine),
            )


def _server(number: int) -> str:
    return str(uuid.UUID(int=(0xBE << 120) + (4 << 76) + (8 << 60) + number))


def _add_server(
    context: Any, targeted: Any, cell: Any, flavor: Any, number: int
) -> None:
    from nova import objects
    from nova.network import model

    address = model.FixedIP(address=f"10.0.{number // 250}.{number % 250 + 1}")
    subnet = model.Subnet(cidr="10.0.0.0/16", ips=[address], version=4)
    network = model.Network(
        id=str(uuid.uuid4()), bridge="br", label="private", subnets=[subnet]
    )
    vif = model.VIF(id=str(uuid.uuid4()), address="fa:16:3e:00:00:01", network=network)
    server = objects.Instance(
        targeted,
        uuid=_server(number),
        user_id=_PROJECT,
        project_id=_PROJECT,
        host="compute1",
        node="compute1",
        compute_id=1,
        vm_state="active",
        power_state=1,
        image_ref=str(uuid.uuid4()),
        display_name=f"server{number}",
        hostname=f"server{number}",
        reservation_id=f"r-{number}",
        launch_index=0,
        instance_type_id=flavor.id,
        memory_mb=512,
        vcpus=1,
        root_gb=1,
        ephemeral_gb=0,
        metadata={"role": "bench"},
        system_metadata={
            "image_hw_qemu_guest_agent": "yes",
            "image_min_disk": "1",
            "image_base_image_ref": str(uuid.uuid4()),
        },
        flavor=flavor,
        old_flavor=None,
        new_flavor=None,
        availability_zone="nova",
        locked=False,
        launched_at=datetime.datetime.now(datetime.UTC),
        info_cache=objects.InstanceInfoCache(
            network_info=model.NetworkInfo([vif]), instance_uuid=_server(number)
        ),
        numa_topology=None,
        pci_requests=None,
        resources=None,
    )
    server.create()
    mapping = objects.InstanceMapping(
        context,
        instance_uuid=server.uuid,
        cell_mapping=cell,
        project_id=_PROJECT,
        user_id=_PROJECT,
        queued_for_delete=False,
    )
    mapping.create()


def _serve(directory: pathlib.Path, extended: bool) -> None:
    """Answer requests from standard input: a line each way, in JSON."""
    _configured(directory)
    import webob
    from nova import context as nova_context
    from nova.api.openstack import compute
    from nova.network import security_group_api

    # The only question that a list asks another service.
    security_group_api.__dict__["get_instances_security_groups_bindings"] = (
        lambda *args, **kwargs: {}
    )
    if extended:
        from nova_ext.wsgi import paste

        app = paste.osapi_compute_app_v21({})
    else:
        app = compute.APIRouterV21.factory({})
    for line in sys.stdin:
        path, body = json.loads(line)
        request = webob.Request.blank(path, base_url="http://localhost/v2.1")
        if body is not None:
            request.method = "POST"
            request.content_type = "application/json"
            request.body = json.dumps(body).encode()
        version = _OURS if extended else _STOCK
        request.headers["OpenStack-API-Version"] = f"compute {version}"
        request.environ["nova.context"] = nova_context.RequestContext(
            user_id=_PROJECT, project_id=_PROJECT, roles=["member", "reader"]
        )
        start = time.perf_counter()
        response = request.get_response(app)
        took = (time.perf_counter() - start) * 1000
        text = response.text
        print(json.dumps([took, response.status_int, text.count('"quiesced"')]))
        sys.stdout.flush()


# The process that compares.


class _Api:
    """A process that answers requests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, path: str, status: int, body: Any = None) -> tuple[float, int]:
        """Ask for ``path``; the ms that it took, and how many servers are quiesced."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([path, body]) + "\n")
        self._process.stdin.flush()
        took, got, quiesced = json.loads(self._process.stdout.readline())
        if got != status:
            raise RuntimeError(f"{path} was answered with {got}, not {status}")
        return took, quiesced


@contextlib.contextmanager
def _mariadb(directory: pathlib.Path) -> Iterator[None]:
    data, socket = directory / "data", directory / "socket"
    common = ["--no-defaults", "--user=root", f"--datadir={data}"]
    subprocess.run(
        ["mariadb-install-db", *common, "--auth-root-authentication-method=normal"],
        check=True,
        capture_output=True,
        timeout=300,
    )
    server = [shutil.which("mariadbd") or "mariadbd", *common, "--skip-networking"]
    with (directory / "mariadb.log").open("wb") as log:
        process = subprocess.Popen(
            [*server, f"--socket={socket}", "--innodb-buffer-pool-size=256M"],
            stdout=log,
            stderr=log,
        )
    try:
        waiting.until("the database answers", socket.exists, 120)
        script = "".join(
            f"create database {name} character set utf8mb3;" for name in _DATABASES
        )
        subprocess.run(
            ["mariadb", "--no-defaults", "-uroot", f"--socket={socket}"],
            input=script.encode(),
            check=True,
            timeout=60,
        )
        yield
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def _process(
    directory: pathlib.Path, role: str, *words: str
) -> Iterator[subprocess.Popen[str]]:
    code = "import sys; from aiolib import bench_api as b; b.child(sys.argv[1:])"
    with (directory / f"{role}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, role, str(directory), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield process
    except Exception:  # whatever it was, the process may have told why
        print((directory / f"{role}.log").read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(60)


def child(arguments: list[str]) -> None:
    """What a process of the benchmark does."""
    role, directory, *numbers = arguments
    if role == "setup":
        servers, frozen = map(int, numbers)
        _setup(pathlib.Path(directory), servers, frozen)
    else:
        _serve(pathlib.Path(directory), role == "extended")


def _compare(
    name: str, stock: _Api, ours: _Api, rounds: int, question: tuple[Any, ...]
) -> float:
    """Ask both in turns; the median of the ratios of the rounds."""
    for api in (stock, ours) * 2:
        api.ask(*question)
    pairs = []
    for number in range(rounds):
        order = (stock, ours) if number % 2 else (ours, stock)
        took = {api: api.ask(*question)[0] for api in order}
        pairs.append((took[stock], took[ours]))
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    theirs, mine = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{name:44} {theirs:9.2f} {mine:9.2f} {ratio:8.3f}")
    return ratio


def main(arguments: list[str]) -> int:
    """Run the benchmark; 1 if 2.105 costs more than wanted."""
    parser = argparse.ArgumentParser(prog="tools/bench api")
    parser.add_argument("--servers", type=int, default=1000, help="default 1000")
    parser.add_argument("--frozen", type=int, default=50, help="default 50")
    parser.add_argument("--rounds", type=int, default=20, help="default 20")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-api-"))
        directory = pathlib.Path(path)
        (directory / "nova.conf").write_text(
            "[DEFAULT]\ntransport_url = fake:/\n"
            f"[api]\nmax_limit = {options.servers}\n"
            f"[oslo_concurrency]\nlock_path = {directory}\n"
            f"[api_database]\nconnection = {_url(directory, 'nova_api')}\n"
            f"[database]\nconnection = {_url(directory, 'nova_cell1')}\n"
        )
        stack.enter_context(_mariadb(directory))
        counts = (str(options.servers), str(options.frozen))
        with _process(directory, "setup", *counts) as process:
            process.communicate(timeout=1200)
            if process.returncode:
                print((directory / "setup.log").read_text(), file=sys.stderr)
                return 2
        stock, ours = (
            _Api(stack.enter_context(_process(directory, role)))
            for role in ("stock", "extended")
        )
        return _report(stock, ours, options)


def _report(stock: _Api, ours: _Api, options: argparse.Namespace) -> int:
    detail = f"/servers/detail?limit={options.servers}"
    seen = ours.ask(detail, 200)[1]
    if seen != options.frozen:
        raise RuntimeError(f"{seen} servers are shown as quiesced")
    plain, frozen = f"/servers/{_server(1)}", f"/servers/{_server(0)}"
    rounds = options.rounds
    print(f"{'':44} {_STOCK + ' ms':>9} {_OURS + ' ms':>9} {'ratio':>8}")
    ratios = [
        _compare(f"list of {options.servers}", stock, ours, rounds, (detail, 200)),
        _compare(
            "list of 50", stock, ours, 5 * rounds, ("/servers/detail?limit=50", 200)
        ),
        _compare("show, not quiesced", stock, ours, 10 * rounds, (plain, 200)),
        _compare("show, quiesced", stock, ours, 10 * rounds, (frozen, 200)),
    ]
    action = f"{frozen}/action"
    took = [
        ours.ask(action, 409, {"reboot": {"type": "SOFT"}})[0] for _ in range(rounds)
    ]
    print(
        f"{'reboot of a quiesced server, refused':44} {'':9} "
        f"{statistics.median(took):9.2f}"
    )
    worst = max(ratios)
    print(f"the greatest ratio is {worst:.3f}, wanted at most {_WANTED}")
    return int(worst > _WANTED)
