# SPDX-License-Identifier: Apache-2.0
"""A program that works on groups and is sent signals; started by the tests.

It reads orders from standard input, one JSON object on a line, and does each in a
process of its own, so that the imports are paid for once. It tells the process, then
how that ended.
"""

import json
import os
import signal
import sys

from nova_ext.client.consistency import errors, groups, members, restore, transaction
from tests.unit.client import http_cloud

members.SNAPSHOT_INTERVAL = members.INTERVAL = restore._INTERVAL = 0.01


def work(order, tell):
    steps = 0

    def observe(_step):
        nonlocal steps
        steps += 1
        if steps == order.get("step"):
            os.kill(os.getpid(), order["signal"])

    conn = http_cloud.connect(order["credentials"])
    try:
        if order["what"] == "create":
            transaction.create(
                conn, order["stages"], name="made", observe=observe, **order["options"]
            )
        else:
            group = groups.find(conn, "made")
            restore.restore(conn, group, observe=observe)
    except errors.ConsistencyError as exc:
        tell({"error": str(exc), "steps": steps})
    else:
        tell({"error": None, "steps": steps})


def warm_up(order):
    """Import what the SDK imports at its first use."""
    conn = http_cloud.connect(order["credentials"])
    for service in (conn.compute, conn.block_storage, conn.image, conn.network):
        service.get_endpoint_data()
    conn.close()


def main():
    warm = False
    for line in sys.stdin:
        if not warm:
            warm_up(json.loads(line))
            warm = True
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with os.fdopen(writer, "w") as out:
                work(json.loads(line), lambda told: out.write(json.dumps(told)))
                out.flush()
                os._exit(0)
        os.close(writer)
        sys.stdout.write(json.dumps({"pid": pid}) + "\n")
        sys.stdout.flush()
        _pid, status = os.waitpid(pid, 0)
        with os.fdopen(reader) as told:
            result = json.loads(told.read() or "{}")
        result["code"] = os.waitstatus_to_exitcode(status)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
