# SPDX-License-Identifier: Apache-2.0
"""ssh between the compute hosts: keys, sshd's configuration, links that can be cut.

Each sshd lives in a network namespace of its own that has its host's address; all else
of a host shares the machine's network. So what goes over ssh, and only that, can be
cut, and the services go on to reach each other.
"""

from __future__ import annotations

import pathlib
import subprocess

from aiolib import command, records
from aiolib.settings import TOOLS, Settings

PORT = 22
_CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {directory}/ssh/host_key
PidFile {directory}/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
StrictModes no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""


def service_name(host: str) -> str:
    return f"sshd-{host}"


def config_path(s: Settings, host: str) -> pathlib.Path:
    return s.host_dir(host) / "ssh" / "sshd_config"


def home(s: Settings, host: str) -> pathlib.Path:
    """The home directory of root inside the host."""
    return s.host_dir(host) / "root"


def _key(path: pathlib.Path) -> str:
    """Make a key pair unless it is there; the public key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path]
        command.run(words, timeout=30)
    return path.with_name(f"{path.name}.pub").read_text().strip()


def prepare(s: Settings) -> None:
    """Each host gets a key of its own, root of all hosts gets one for all of them."""
    user = s.state("ssh") / "id_ed25519"
    public = _key(user)
    known = [
        f"{host},{s.host_address(host)} {_key(s.host_dir(host) / 'ssh' / 'host_key')}"
        for host in s.computes
    ]
    for host in s.computes:
        config_path(s, host).write_text(
            _CONFIG.format(
                port=PORT,
                address=s.host_address(host),
                directory=s.host_dir(host),
            )
        )
        directory = home(s, host) / ".ssh"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "known_hosts").write_text("\n".join(known) + "\n")
        (directory / "authorized_keys").write_text(f"{public}\n")
        copy = directory / user.name
        copy.touch(mode=0o600)
        copy.write_text(user.read_text())


def sshd(s: Settings, host: str) -> tuple[str, ...]:
    """The command of the host's sshd, for the machine's network."""
    return (
        str(TOOLS / "aiolib/sshd-run"),
        s.link_name(host),
        s.host_address(host),
        s.link_address,
        str(config_path(s, host)),
    )


def set_link(s: Settings, host: str, *, up: bool) -> None:
    """Cut or mend the way to the host's sshd: packets are lost without a word.

    :raises LookupError: the host's sshd does not run
    """
    process = records.read(s, service_name(host))
    if process is None:
        raise LookupError(f"{service_name(host)} does not run")
    command.run(
        [
            *("nsenter", "-t", str(process.pid), "-n"),
            *("ip", "link", "set", "eth0", "up" if up else "down"),
        ],
        timeout=10,
    )


def links(s: Settings) -> list[str]:
    """The machine's ends of links to hosts, by name; they end with their sshd."""
    return [path.name for path in pathlib.Path("/sys/class/net").glob(s.link_name("*"))]


def remove_links(s: Settings) -> None:
    for link in links(s):
        subprocess.run(["ip", "link", "delete", link], timeout=10, check=False)
