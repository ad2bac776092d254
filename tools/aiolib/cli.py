# SPDX-License-Identifier: Apache-2.0
"""The command line of tools/aio; the work is in the other modules."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import subprocess
import sys

from aiolib import cloud, command, demos, records, services, settings
from aiolib.progress import say
from aiolib.settings import TOOLS, Failure, Settings


def _chosen(options: argparse.Namespace) -> Settings:
    """The settings of this `up`: the recorded ones with what is said now."""
    chosen = settings.load()
    if options.computes is not None:
        if options.computes < 1:
            raise Failure("--computes needs a number of 1 or more")
        names = tuple(f"cmp{number + 1}" for number in range(options.computes))
        chosen = dataclasses.replace(chosen, computes=names)
    if options.stock_compute is not None:
        stock = tuple(name for name in options.stock_compute if name != "none")
        chosen = dataclasses.replace(chosen, stock_computes=stock)
    if options.guard is not None:
        guards = tuple(name for name in options.guard if name != "none")
        chosen = dataclasses.replace(chosen, guards=guards)
    return dataclasses.replace(chosen, stock=os.environ.get("AIO_STOCK") == "1")


def _need_root() -> None:
    if os.geteuid() != 0:
        raise Failure("this needs root: namespaces and libvirt do")


def _up(options: argparse.Namespace) -> int:
    _need_root()
    chosen = _chosen(options)
    with cloud.alone(chosen):
        cloud.up(chosen)
    return 0


def _prepare(options: argparse.Namespace) -> int:
    _need_root()
    chosen = settings.load()
    with cloud.alone(chosen):
        cloud.prepare(chosen)
    return 0


def _status(options: argparse.Namespace) -> int:
    lines = cloud.status(settings.load())
    for line in lines:
        state = "up" if line.answers else "no answer" if line.running else "down"
        pid = str(line.pid or "")
        print(f"{line.name:20} {state:9} {pid:>8}  {line.note}".rstrip())
    return 0 if all(line.answers for line in lines) else 1


def _down(options: argparse.Namespace) -> int:
    chosen = settings.load()
    if not chosen.home.exists():
        print("nothing is up")
        return 0
    with cloud.alone(chosen):
        left = cloud.down(chosen, purge=options.purge)
    for text in left:
        print(f"left: {text}")
    return 1 if left else 0


def _logs(options: argparse.Namespace) -> int:
    chosen = settings.load()
    names = [options.service] if options.service else list(services.table(chosen))
    for name in names:
        path = records.log_path(chosen, name)
        if options.service and not path.exists():
            raise Failure(f"{path} does not exist: see {chosen.log} for what does")
        if not options.service:
            print(f"==> {path}")
        print(command.tail(path, options.lines if options.service else 3))
    return 0


def _shell(chosen: Settings) -> dict[str, str]:
    path = os.environ.get("PATH", os.defpath)
    return {
        "AIO_HOME": str(chosen.home),
        "OS_CLIENT_CONFIG_FILE": str(chosen.home / "clouds.yaml"),
        "OS_CLOUD": "aio-demo",
        "PATH": f"{chosen.venv}/bin:{path}",
    }


def _env(options: argparse.Namespace) -> int:
    for name, value in _shell(settings.load()).items():
        print(f"export {name}={value}")
    return 0


def _exec(options: argparse.Namespace) -> int:
    chosen = settings.load()
    if not options.words:
        raise Failure("exec needs a command: tools/aio exec openstack server list")
    environment = command.clean_environment() | _shell(chosen)
    environment["PYTHONPATH"] = str(TOOLS)
    try:
        return subprocess.run(options.words, env=environment, check=False).returncode
    except FileNotFoundError as missing:
        raise Failure(f"{options.words[0]} is not there: is the cloud up?") from missing


def _demo(options: argparse.Namespace) -> int:
    demos.check(options.name)
    chosen = settings.load()
    if not all(line.answers for line in cloud.status(chosen)):
        with cloud.alone(chosen):
            fresh = dataclasses.replace(
                chosen, stock=os.environ.get("AIO_STOCK") == "1"
            )
            cloud.up(fresh)
    python = chosen.venv / "bin/python"
    code = (
        f"import sys; from aiolib import demos; sys.exit(demos.run({options.name!r}))"
    )
    options.words = [str(python), "-c", code]
    return _exec(options)


def _service(options: argparse.Namespace) -> int:
    chosen = settings.load()
    services.get(chosen, options.service)
    if options.action == "kill":
        number = signal.Signals[f"SIG{options.signal.upper().removeprefix('SIG')}"]
        services.kill(chosen, options.service, number)
        say(f"sent {number.name} to {options.service}")
        return 0
    if options.action in ("stop", "restart"):
        services.stop(chosen, options.service)
        say(f"{options.service} stopped")
    if options.action in ("start", "restart"):
        services.start(chosen, options.service)
        say(f"{options.service} started")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/aio",
        description="A whole cloud on this machine: stock services, nova_ext loaded "
        "by configuration. State is under AIO_HOME (default /var/lib/nova-ext-aio). "
        "AIO_STOCK=1 leaves the extension out, AIO_PORT_OFFSET moves all ports. "
        "AIO_BESIDE=HOME makes a second, smaller site under another AIO_HOME: it "
        "borrows programs, guest image and S3 server of the cloud in HOME, whose "
        "clouds.yaml names its clouds site2-demo, site2-admin, site2-demo-admin.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    up = verbs.add_parser("up", help="install and start what is missing")
    up.add_argument("--computes", type=int, metavar="N", help="compute hosts (3)")
    up.add_argument(
        "--stock-compute",
        action="append",
        metavar="HOST",
        help="a host whose nova-compute runs without the extension (cmp3); `none`",
    )
    up.add_argument(
        "--guard",
        action="append",
        metavar="HOST",
        help="a host with nova-ext-guard beside nova-compute (cmp4, cmp5); `none`",
    )
    up.set_defaults(call=_up)
    prepare = verbs.add_parser("prepare", help="install and build, start nothing")
    prepare.set_defaults(call=_prepare)
    status = verbs.add_parser("status", help="what runs; exit 1 if not all does")
    status.set_defaults(call=_status)
    down = verbs.add_parser("down", help="end everything; exit 1 if something is left")
    down.add_argument("--purge", action="store_true", help="remove the state, too")
    down.set_defaults(call=_down)
    logs = verbs.add_parser("logs", help="the end of the logs")
    logs.add_argument("service", nargs="?", metavar="SERVICE")
    logs.add_argument("-n", "--lines", type=int, default=100)
    logs.set_defaults(call=_logs)
    names = [
        f"{name} (default)" if name == demos.DEFAULT else name for name in demos.DEMOS
    ]
    demo = verbs.add_parser(
        "demo",
        help=f"run a demo, of {', '.join(names)}; brings the cloud up if needed",
    )
    demo.add_argument("name", nargs="?", default=demos.DEFAULT, metavar="NAME")
    demo.set_defaults(call=_demo)
    env = verbs.add_parser("env", help="print the exports for a shell")
    env.set_defaults(call=_env)
    run = verbs.add_parser("exec", help="run a command with them")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    run.set_defaults(call=_exec)
    for action in ("start", "stop", "restart", "kill"):
        verb = verbs.add_parser(action, help=f"{action} one service")
        verb.add_argument("service", metavar="SERVICE")
        if action == "kill":
            verb.add_argument("-s", "--signal", default="KILL", metavar="SIGNAL")
        verb.set_defaults(call=_service, action=action)
    return parser


def main() -> int:
    options = _parser().parse_args()
    try:
        return int(options.call(options))
    except Failure as failure:
        print(f"aio: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("aio: interrupted; `tools/aio down` ends what is up", file=sys.stderr)
        return 130
