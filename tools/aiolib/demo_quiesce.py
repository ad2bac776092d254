# SPDX-License-Identifier: Apache-2.0
"""The demo of quiesce: prints what a tenant does and what it does to a real guest."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import time
from typing import Any

from aiolib import evidence, waiting
from aiolib.client import Cloud
from aiolib.demos import Stage
from nova_ext.client import compute

_FROZEN_SECONDS = 3
_DEADLINE_SECONDS = 4


def _image(
    cloud: Cloud, connection: Any, server: Any, name: str, directory: pathlib.Path
) -> pathlib.Path:
    """Create an image of a server and download it."""
    made = connection.compute.create_server_image(server, name)
    try:
        return evidence.download(connection, made.id, directory / name)
    finally:
        connection.image.delete_image(made.id)


def _until_more(cloud: Cloud, server_id: str, count: int, seconds: float) -> int:
    """Wait until the guest has written more than ``count`` records."""
    now = 0

    def more() -> bool:
        nonlocal now
        now = evidence.records(cloud, server_id)
        return now > count

    with contextlib.suppress(TimeoutError):
        waiting.until("more records", more, seconds)
    return now


def _unquiesced_since(
    connection: Any, server_id: str, when: str, seconds: float
) -> Any:
    """Wait until an ``unquiesce`` that began after ``when`` has ended; its action."""
    compute = connection.compute

    def ended() -> Any:
        for found in compute.server_actions(server_id):
            if found.action == "unquiesce" and found.start_time >= when:
                detail = compute.get_server_action(found.request_id, server_id)
                if detail.events and detail.events[0]["result"]:
                    return detail
        return None

    return waiting.until("the end of an unquiesce action", ended, seconds, 0.2)


def tell(stage: Stage) -> None:
    """Quiesce a guest, look at it from all sides, and let a deadline pass."""
    cloud, say = stage.cloud, stage.say
    tenant, admin = cloud.tenant, cloud.admin
    directory = pathlib.Path(stage.cleanup.enter_context(tempfile.TemporaryDirectory()))

    def boot(name: str, **options: Any) -> Any:
        server = cloud.boot(tenant, name, **options)
        stage.cleanup.callback(tenant.compute.wait_for_delete, server, wait=60)
        stage.cleanup.callback(tenant.compute.delete_server, server)
        return server

    say("Booting a guest that writes and syncs five records a second")
    server = boot("demo-quiesce")
    before = evidence.records(cloud, server.id)
    now = _until_more(cloud, server.id, before + 10, 10)
    say.check(now > before + 10, f"it writes: {before} records, then {now}")

    say('POST /servers/ID/action {"quiesce": {"timeout": 120}}')
    request = compute.quiesce(tenant, server.id, timeout=120)
    compute.wait_quiesced(tenant, server.id, request, interval=0.05)
    state = compute.get_quiesced(tenant, server.id)
    say(
        f"quiesce_status {state.quiesce_status}, quiesced_at {state.quiesced_at}, "
        f"unquiesce_at {state.unquiesce_at}"
    )
    written = evidence.bytes_written(cloud, server.id)
    before = evidence.records(cloud, server.id)
    time.sleep(_FROZEN_SECONDS)
    after = evidence.records(cloud, server.id)
    more = evidence.bytes_written(cloud, server.id) - written
    say.check(
        after == before and more == 0,
        f"in {_FROZEN_SECONDS} s frozen: {after - before} records, {more} bytes "
        "written to the disk",
    )

    say("createImage of the frozen server, then dumpe2fs of its file system")
    image = _image(cloud, tenant, server, "demo-frozen", directory)
    say.check(
        not evidence.needs_recovery(image), "with quiesce: clean, no needs_recovery"
    )
    state = compute.get_server(tenant, server.id)
    say.check(state.quiesce_status == "quiesced", "the image left the server quiesced")

    say('POST /servers/ID/action {"unquiesce": null}')
    before = evidence.records(cloud, server.id)
    request = compute.unquiesce(tenant, server.id)
    compute.wait_unquiesced(tenant, server.id, request, interval=0.05)
    say.check(True, "the action ended with Success: frozen without a gap")
    now = _until_more(cloud, server.id, before + 10, 10)
    say.check(now > before + 10, f"it writes again: {before} records, then {now}")

    say("The same image without quiesce: of a guest whose image enables no agent")
    other = boot("demo-no-agent", image="guest-noagent", agent=False)
    now = _until_more(cloud, other.id, 20, 60)
    say.check(now > 20, f"it writes: {now} records")
    image = _image(cloud, tenant, other, "demo-unfrozen", directory)
    say.check(evidence.needs_recovery(image), "without quiesce: needs_recovery")

    say(f'The dead man\'s switch: {{"quiesce": {{"timeout": {_DEADLINE_SECONDS}}}}}')
    request = compute.quiesce(tenant, server.id, timeout=_DEADLINE_SECONDS)
    compute.wait_quiesced(tenant, server.id, request, interval=0.05)
    state = compute.get_quiesced(tenant, server.id)
    assert state.unquiesce_at is not None
    before = evidence.records(cloud, server.id)
    say(f"frozen until {state.unquiesce_at}; nobody unquiesces")
    # Only an administrator sees the details of an event by default.
    detail = _unquiesced_since(
        admin, server.id, state.unquiesce_at.rstrip("Z"), _DEADLINE_SECONDS + 30
    )
    event = detail.events[0]
    say.check(
        event["result"] == "Error",
        f"the compute host thawed it; action unquiesce: {detail.message}, "
        f"event {event['event']}: {event['result']}: {event['details']}",
    )
    now = _until_more(cloud, server.id, before + 10, 10)
    say.check(now > before + 10, f"it writes again: {before} records, then {now}")
    state = compute.get_server(tenant, server.id)
    say.check(state.quiesce_status is None, "quiesce_status is null again")
