# SPDX-License-Identifier: Apache-2.0
"""The table of services and how one of them is started; the order is cloud.py's."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.client
import json
import pathlib
import signal
import socket
import sys

from aiolib import ceph, command, config, hosts, processes, records, ssh, wheels
from aiolib.settings import (
    ADDRESS,
    PORTS,
    REPO,
    STORAGE_HOST,
    TOOLS,
    Failure,
    Settings,
)

INFRASTRUCTURE, APIS, DAEMONS, COMPUTES = range(4)
# Seconds between SIGTERM and SIGKILL. nova-compute always needs the second: it waits
# without a bound for its thread pool, where libvirt's event loop never ends.
GRACE = 8


@dataclasses.dataclass(frozen=True)
class Service:
    """One process to keep running.

    :param stage: services of a stage start together, after the stage before
    :param host: the host whose namespaces it lives in, None for the machine itself
    :param configs: files whose change asks for a restart
    :param extension: the package of ours that it loads, whose change does so, too
    :param socket: the unix socket that tells that it is ready
    :param endpoint: the address and port that tell it, outside PORTS
    """

    name: str
    command: tuple[str, ...]
    stage: int
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    host: str | None = None
    configs: tuple[pathlib.Path, ...] = ()
    extension: str | None = None
    socket: pathlib.Path | None = None
    endpoint: tuple[str, int] | None = None

    @property
    def listens(self) -> bool:
        return self.name in PORTS


def _mariadb(s: Settings) -> Service:
    data = s.state("mariadb")
    return Service(
        "mariadb",
        (
            "/usr/sbin/mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={data}/s",
            f"--pid-file={data}/pid",
            f"--bind-address={ADDRESS}",
            f"--port={s.port('mariadb')}",
            "--max-connections=1000",
            # what a power cut would lose is made again in minutes; a kill loses nothing
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--skip-innodb-doublewrite",
            "--character-set-server=utf8mb4",
        ),
        INFRASTRUCTURE,
    )


def _rabbitmq(s: Settings) -> Service:
    state = s.state("rabbitmq")
    return Service(
        "rabbitmq",
        # not the one in /usr/sbin: that becomes the rabbitmq user
        ("/usr/lib/rabbitmq/bin/rabbitmq-server",),
        INFRASTRUCTURE,
        env={
            "HOME": str(state),
            "RABBITMQ_NODENAME": "aio@localhost",
            "RABBITMQ_CONFIG_FILE": str(state / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(state / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(state / "mnesia"),
            "RABBITMQ_LOG_BASE": str(state / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(s.port("rabbitmq-dist")),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "ERL_EPMD_ADDRESS": ADDRESS,
            "ERL_EPMD_PORT": str(s.port("epmd")),
        },
        configs=(state / "rabbitmq.conf", state / "definitions.json"),
    )


def _ceph(s: Settings) -> list[Service]:
    configs = (ceph.config_path(s),)
    return [
        Service("ceph-mon", ceph.mon(s), INFRASTRUCTURE, configs=configs),
        # the monitor has to know of it before
        Service("ceph-osd", ceph.osd(s), APIS, configs=configs),
    ]


def _wsgi(
    s: Settings,
    name: str,
    module: str,
    config_file: pathlib.Path,
    *arguments: str,
    stage: int = APIS,
    extension: str | None = None,
    **env: str,
) -> Service:
    python, script = str(s.venv / "bin/python"), str(TOOLS / "aiolib/serve_wsgi.py")
    configs = [config_file, *config_file.parent.glob("*paste.ini")]
    return Service(
        name,
        (python, script, module, str(s.port(name)), *arguments),
        stage,
        env=env,
        configs=tuple(configs),
        extension=extension,
    )


def _apis(s: Settings) -> list[Service]:
    etc = s.etc
    keystone = etc / "keystone" / "keystone.conf"
    cinder = etc / "cinder" / "cinder.conf"
    stub = (sys.executable, str(TOOLS / "aiolib/network_stub.py"))
    return [
        _wsgi(
            s,
            "keystone",
            "keystone.wsgi.api",
            keystone,
            OS_KEYSTONE_CONFIG_FILES=str(keystone),
        ),
        _wsgi(
            s,
            "placement",
            "placement.wsgi.api",
            etc / "placement" / "placement.conf",
            OS_PLACEMENT_CONFIG_DIR=str(etc / "placement"),
        ),
        _wsgi(
            s,
            "glance",
            "glance.wsgi.api",
            etc / "glance" / "glance-api.conf",
            OS_GLANCE_CONFIG_DIR=str(etc / "glance"),
        ),
        Service("network-stub", (*stub, str(s.port("network-stub"))), APIS),
        _wsgi(
            s,
            "nova-api",
            "nova.wsgi.osapi_compute",
            etc / "nova-api" / "nova.conf",
            stage=DAEMONS,
            extension=None if s.stock else "nova_ext",
            OS_NOVA_CONFIG_DIR=str(etc / "nova-api"),
        ),
        _wsgi(
            s,
            "cinder-api",
            "cinder.wsgi.api",
            cinder,
            "--config-file",
            str(cinder),
            stage=DAEMONS,
        ),
    ]


def _s3(s: Settings) -> Service:
    server = wheels.s3_venv(s) / "bin/moto_server"
    return Service("s3", (str(server), "-H", ADDRESS, "-p", str(s.port("s3"))), APIS)


def _stock_api(s: Settings) -> Service:
    return _wsgi(
        s,
        "nova-api-stock",
        "nova.wsgi.osapi_compute",
        s.etc / "nova" / "nova.conf",
        stage=DAEMONS,
        OS_NOVA_CONFIG_DIR=str(s.etc / "nova"),
    )


def _daemon(
    s: Settings,
    binary: str,
    config_file: pathlib.Path,
    host: str | None = None,
    extension: str | None = None,
) -> Service:
    return Service(
        binary,
        (str(s.venv / "bin" / binary), "--config-file", str(config_file)),
        DAEMONS,
        host=host,
        configs=(config_file,),
        extension=extension,
    )


def _storage(
    s: Settings, name: str, config_file: pathlib.Path, extension: str | None
) -> Service:
    """A service of cinder that attaches volumes."""
    binary = "cinder-volume" if name == "cinder-volume" else "cinder-backup"
    daemon = _daemon(s, binary, config_file, STORAGE_HOST, extension)
    modules = {"PYTHONPATH": str(ceph.modules(s))}
    return dataclasses.replace(daemon, name=name, env=modules)


def guard_name(host: str) -> str:
    return f"nova-ext-guard-{host}"


def _compute(s: Settings, host: str) -> list[Service]:
    config_file = s.etc / f"nova-{host}.conf"
    libvirtd = Service(
        f"libvirtd-{host}",
        ("/usr/sbin/libvirtd", "-p", "/run/libvirt/libvirtd.pid"),
        INFRASTRUCTURE,
        host=host,
        socket=hosts.libvirt_socket(s, host),
    )
    sshd = Service(
        ssh.service_name(host),
        ssh.sshd(s, host),
        INFRASTRUCTURE,
        host=host,
        configs=(ssh.config_path(s, host),),
        endpoint=(s.host_address(host), ssh.PORT),
    )
    nova = Service(
        f"nova-compute-{host}",
        (str(s.venv / "bin/nova-compute"), "--config-file", str(config_file)),
        COMPUTES,
        host=host,
        configs=(config_file,),
        extension="nova_ext" if s.extended(host) else None,
    )
    guard = Service(
        guard_name(host),
        (str(s.venv / "bin/nova-ext-guard"), "--config-file", str(config_file)),
        COMPUTES,
        host=host,
        configs=(config_file,),
        extension="nova_ext",
    )
    return [libvirtd, sshd, nova, *([guard] if s.guarded(host) else [])]


@functools.cache
def table(s: Settings) -> dict[str, Service]:
    """Every service of the cloud by its name, in the order of their stages."""
    nova, cinder = s.etc / "nova" / "nova.conf", s.etc / "cinder" / "cinder.conf"
    every = [_mariadb(s), _rabbitmq(s), *_ceph(s), *_apis(s)]
    conductor = s.etc / "nova-conductor" / "nova.conf"
    extension = None if s.stock else "nova_ext"
    every += [_daemon(s, "nova-conductor", conductor, extension=extension)]
    every += [_daemon(s, "nova-scheduler", nova)]
    backups = None if s.stock else "cinder_ext"
    every += [_daemon(s, "cinder-scheduler", cinder, extension=backups)]
    # they mount shares, so they get namespaces of their own
    every += [_storage(s, "cinder-volume", cinder, None)]
    every += [
        _storage(s, name, s.etc / "cinder" / f"{name}.conf", backups)
        for name in config.backup_services(s)
    ]
    if not s.beside:
        agent = "ceilometer-agent-notification"
        ceilometer = s.etc / "ceilometer" / "ceilometer.conf"
        every += [_s3(s), _stock_api(s), _daemon(s, agent, ceilometer, None, backups)]
    for host in s.computes:
        every += _compute(s, host)
    every.sort(key=lambda service: service.stage)
    return {service.name: service for service in every}


def get(s: Settings, name: str) -> Service:
    try:
        return table(s)[name]
    except KeyError:
        names = " ".join(table(s))
        raise Failure(f"there is no service {name}: use one of {names}") from None


@functools.cache
def _extension_digest(package: str) -> str:
    digest = hashlib.sha256()
    for path in sorted((REPO / package).rglob("*.*")):
        if path.suffix in (".py", ".yaml"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def fingerprint(service: Service) -> str:
    """What the service is started from; another one asks for a restart."""
    digest = hashlib.sha256(json.dumps([service.command, service.env]).encode())
    for path in service.configs:
        digest.update(path.read_bytes())
    if service.extension:
        digest.update(_extension_digest(service.extension).encode())
    return digest.hexdigest()


def answers(s: Settings, service: Service) -> bool:
    """Whether a service that listens does; the others count as answering."""
    if service.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(2)
        try:
            client.connect(str(service.socket))
        except OSError:
            return False
        finally:
            client.close()
    if service.endpoint:
        return _connects(service.endpoint)
    if service.listens:
        return _port_answers(s.port(service.name), http_too=service.stage > 0)
    return True


def _connects(endpoint: tuple[str, int]) -> bool:
    try:
        socket.create_connection(endpoint, 2).close()
        return True
    except OSError:
        return False


def _port_answers(port: int, *, http_too: bool) -> bool:
    try:
        if http_too:
            connection = http.client.HTTPConnection(ADDRESS, port, timeout=10)
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        return _connects((ADDRESS, port))
    except (OSError, http.client.HTTPException):
        return False


def running(s: Settings, name: str) -> bool:
    return records.read(s, name) is not None


def current(s: Settings, service: Service) -> bool:
    """Running, and from what it would be started from now."""
    return running(s, service.name) and records.fingerprint(
        s, service.name
    ) == fingerprint(service)


def launch(s: Settings, service: Service) -> bool:
    """Start the service if it does not run; does not wait until it is ready."""
    if running(s, service.name):
        return False
    if service.listens and _port_answers(s.port(service.name), http_too=False):
        raise Failure(
            f"port {s.port(service.name)} of {service.name} is taken: "
            "`tools/aio down`, or choose another AIO_PORT_OFFSET"
        )
    prefix: list[str] = []
    if service.host:
        hosts.start(s, service.host)
        prefix = hosts.join(s, service.host)
    base = command.clean_environment(PATH=config.path_variable(s))
    records.spawn(
        s,
        service.name,
        [*prefix, *service.command],
        env={**base, **service.env},
        fingerprint=fingerprint(service),
    )
    return True


def wait(s: Settings, service: Service, timeout: float = 90) -> None:
    records.wait(s, service.name, lambda: answers(s, service), timeout=timeout)


def start(s: Settings, name: str) -> None:
    service = get(s, name)
    launch(s, service)
    wait(s, service)


def stop(s: Settings, name: str, grace: float = GRACE) -> None:
    process = records.read(s, get(s, name).name)
    if process:
        processes.end(processes.tree(process), grace)
    records.forget(s, name)


def kill(s: Settings, name: str, number: int = signal.SIGKILL) -> None:
    """Send a signal to all processes of the service, as a crash or a hang would."""
    process = records.read(s, get(s, name).name)
    if process is None:
        raise Failure(f"{name} does not run: `tools/aio start {name}`")
    for each in processes.tree(process):
        each.send(number)
    if number == signal.SIGKILL:
        processes.end([process], 0)
