# SPDX-License-Identifier: Apache-2.0
"""What the guard of a host is made of, by the options."""

import contextlib
import pathlib
import types

import pytest
from oslo_config import cfg

from nova_ext.guard import clock, conf, host
from nova_ext.guard.guests import AgentError, LibvirtGuests
from nova_ext.guard.thaw import Thawer
from tests.unit.guard.fake_libvirt import UUID, Libvirt


@pytest.fixture
def options() -> types.SimpleNamespace:
    """All options at their defaults."""
    values = {option.name: option.default for option in conf.OPTS}
    return types.SimpleNamespace(**values)


def thawer(options: types.SimpleNamespace, name: str = host.NOVA_COMPUTE) -> Thawer:
    return host.thawer(types.SimpleNamespace(nova_ext=options), name, Libvirt.uri)


def calls(guests: LibvirtGuests, urgent: bool) -> int:
    """How many calls are made at the same time."""
    number = 0
    with contextlib.ExitStack() as stack, contextlib.suppress(AgentError):
        while number < 99:
            stack.enter_context(guests.guest(UUID, urgent))
            number += 1
    return number


@pytest.mark.parametrize(
    ("connections", "compute", "for_thaws", "process"),
    [(9, 6, 3, 3), (3, 2, 1, 1), (10, 7, 3, 3), (11, 8, 3, 3)],
)
def test_the_places_of_a_host(
    options: types.SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    connections: int,
    compute: int,
    for_thaws: int,
    process: int,
) -> None:
    Libvirt(monkeypatch)
    options.agent_connections = connections
    inside = thawer(options).guests
    beside = thawer(options, host.PROCESS).guests
    for guests in (inside, beside):
        assert isinstance(guests, LibvirtGuests)
        monkeypatch.setattr(guests, "_timeout", lambda: 0)
        assert calls(guests, urgent=True) == (compute if guests is inside else process)
    assert isinstance(inside, LibvirtGuests)
    assert calls(inside, urgent=False) == compute - for_thaws
    assert compute + process == connections


def test_by_default_half_of_libvirtds_workers_are_left(
    options: types.SimpleNamespace,
) -> None:
    assert options.agent_connections < 20 / 2


def test_the_options_are_followed(options: types.SimpleNamespace) -> None:
    options.guard_directory = "/var/lib/elsewhere"
    made = thawer(options)
    assert made.records.directory == pathlib.Path("/var/lib/elsewhere")
    assert made.timeout() == 30
    options.quiesce_agent_timeout = 7
    assert made.timeout() == 7
    assert made.clock is clock.now


def test_the_guard_uses_the_uri(
    options: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    Libvirt(monkeypatch)  # it opens no other
    with thawer(options).guests.guest(UUID, urgent=True) as guest:
        assert guest.status() == "thawed"


def test_the_directory_is_kept_over_a_boot(options: types.SimpleNamespace) -> None:
    assert options.guard_directory == "/var/lib/nova/nova_ext/guard"


@pytest.fixture
def parsed() -> cfg.ConfigOpts:
    made = cfg.ConfigOpts()
    conf.register_opts(made)
    conf.register_opts(made)  # harmless
    made([])
    return made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quiesce_agent_timeout", 0),
        ("quiesce_agent_timeout", 601),
        ("agent_connections", 2),
        ("agent_connections", 101),
    ],
)
def test_options_have_a_range(parsed: cfg.ConfigOpts, name: str, value: int) -> None:
    with pytest.raises(ValueError, match="Should be"):
        parsed.set_override(name, value, group="nova_ext")


def test_options_say_who_reads_them(parsed: cfg.ConfigOpts) -> None:
    for option in conf.OPTS:
        assert option.name in parsed.nova_ext
        assert "Read by" in option.help
