# SPDX-License-Identifier: Apache-2.0
"""Private database servers for a test session, where the machine has the programs.

Each listens on a Unix socket in a directory of its own and nowhere else; the services
of the machine, if there are any, are left alone.
"""

import contextlib
import dataclasses
import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import sqlalchemy as sa

#: Seconds for a server to start or to stop.
PATIENCE = 180


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server.

    :ivar template: a URL with the fields ``{user}`` and ``{database}``
    :ivar root: the user with all rights
    """

    template: str
    root: str
    first: str

    def url(self, database: str, user: str = "") -> str:
        return self.template.format(database=database, user=user or self.root)

    def run(self, *statements: str, database: str = "") -> None:
        """Run statements as the user with all rights, each in its own transaction."""
        engine = sa.create_engine(
            self.url(database or self.first),
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
        )
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))


@contextlib.contextmanager
def mariadb(directory: pathlib.Path) -> Iterator[Server | None]:
    """MariaDB with its data in ``directory``; None where there is none."""
    program, install = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    if program is None or install is None:
        yield None
        return
    data, socket = directory / "data", directory / "socket"
    user = pwd.getpwuid(os.geteuid()).pw_name
    own = ["--no-defaults", f"--datadir={data}", f"--user={user}"]
    subprocess.run(
        [install, *own, "--auth-root-authentication-method=normal"],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    command = [
        program,
        *own,
        f"--socket={socket}",
        "--skip-networking",
        # The data need not outlive the machine.
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-flush-method=nosync",
        "--innodb-buffer-pool-size=32M",
    ]
    server = Server(
        f"mysql+pymysql://{{user}}@localhost/{{database}}?unix_socket={socket}",
        "root",
        "mysql",
    )
    with _running(command, server, directory, signal.SIGTERM):
        yield server


@contextlib.contextmanager
def postgresql(directory: pathlib.Path) -> Iterator[Server | None]:
    """PostgreSQL with its data in ``directory``; None where there is none."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    initdb = shutil.which("initdb") or (found[-1] if found else None)
    if initdb is None:
        yield None
        return
    prefix: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL does not run as
        with contextlib.suppress(KeyError):
            pwd.getpwnam("postgres")
            prefix = [
                "setpriv",
                "--reuid=postgres",
                "--regid=postgres",
                "--init-groups",
            ]
        if not prefix:
            yield None
            return
        shutil.chown(directory, "postgres")
    data = directory / "data"
    subprocess.run(
        [*prefix, initdb, "-D", str(data), "-A", "trust", "-U", "postgres", "-N"],
        check=True,
        capture_output=True,
        cwd=directory,
        timeout=PATIENCE,
    )
    command = [
        *prefix,
        str(pathlib.Path(initdb).resolve().with_name("postgres")),
        "-D",
        str(data),
        "-k",
        str(directory),
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
    ]
    server = Server(
        f"postgresql+psycopg2://{{user}}@/{{database}}?host={directory}",
        "postgres",
        "postgres",
    )
    with _running(command, server, directory, signal.SIGINT):
        yield server


@contextlib.contextmanager
def _running(
    command: list[str], server: Server, directory: pathlib.Path, stop: signal.Signals
) -> Iterator[None]:
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=directory)
    try:
        _wait(process, server, log)
        yield
    finally:
        # PostgreSQL waits for its clients when it is asked to terminate.
        process.send_signal(stop)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(
    process: "subprocess.Popen[bytes]", server: Server, log: pathlib.Path
) -> None:
    """Wait until the server answers."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            server.run("SELECT 1")
        except sa.exc.OperationalError:
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(log.read_text()) from None
            time.sleep(0.1)
        else:
            return
