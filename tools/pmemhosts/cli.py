# SPDX-License-Identifier: Apache-2.0
"""The command line of the PMEM hosts; the work is in the other modules."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys

from aiolib import command

from pmemhosts import bed, layout, network


def _up(options: argparse.Namespace) -> int:
    bed.up()
    return 0


def _prepare(options: argparse.Namespace) -> int:
    bed.prepare()
    return 0


def _down(options: argparse.Namespace) -> int:
    bed.down()
    if options.purge:
        shutil.rmtree(layout.HOME, ignore_errors=True)
    return 0


def _status(options: argparse.Namespace) -> int:
    running = [each.running() for each in bed.HOSTS]
    for each, is_up in zip(bed.HOSTS, running, strict=True):
        print(f"{each.name} {each.address} {'up' if is_up else 'down'}")
    return 0 if all(running) else 1


def _exec(options: argparse.Namespace) -> int:
    (chosen,) = (each for each in bed.HOSTS if each.name == options.host)
    bed.require_up()
    words = [*chosen.ssh(), shlex.join(options.words)]
    os.execvpe(words[0], words, command.clean_environment())  # noqa: S606


def _cut(options: argparse.Namespace) -> int:
    network.cut()
    return 0


def _mend(options: argparse.Namespace) -> int:
    network.mend()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/pmemhosts/run",
        description="Two virtual machines with persistent memory, ndctl and daxio. "
        "State is under PMEM_HOSTS_HOME (default /var/lib/nova-ext-pmem).",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    up = verbs.add_parser("up", help="build what is missing, start both hosts anew")
    up.set_defaults(call=_up)
    prepare = verbs.add_parser("prepare", help="build what is missing, start nothing")
    prepare.set_defaults(call=_prepare)
    down = verbs.add_parser("down", help="end both hosts and remove their network")
    down.add_argument("--purge", action="store_true", help="remove the images, too")
    down.set_defaults(call=_down)
    status = verbs.add_parser("status", help="what runs; exit 1 if not both do")
    status.set_defaults(call=_status)
    run = verbs.add_parser("exec", help="run a command in a host, as root")
    run.add_argument("host", choices=[each.name for each in bed.HOSTS])
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    run.set_defaults(call=_exec)
    cut = verbs.add_parser("cut", help="drop what the hosts send to each other")
    cut.set_defaults(call=_cut)
    mend = verbs.add_parser("mend", help="let them reach each other again")
    mend.set_defaults(call=_mend)
    options = parser.parse_args()
    # so that a start that is told to end takes the way out through the clean-up
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return int(options.call(options))
    except layout.Failure as failure:
        print(f"pmemhosts: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
