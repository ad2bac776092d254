# SPDX-License-Identifier: Apache-2.0

import re
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from cinder_ext import conf, exception


@pytest.fixture
def parsed() -> Iterator[Any]:
    made = cfg.ConfigOpts()
    conf.register_opts(made)
    conf.register_opts(made)
    made.register_opts(
        [cfg.MultiStrOpt("topics", default=["notifications"])],
        group="oslo_messaging_notifications",
    )
    made([])
    yield made
    # Copies of an option group share their options.
    for option in conf.OPTS:
        made.clear_override(option.name, group="backup_notifications")


def test_the_defaults_fit_together(parsed: Any) -> None:
    conf.check(parsed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "json"),
        ("min_interval", -1),
        ("max_interval", 0),
        ("min_percent_step", 0),
        ("min_percent_step", 101),
        ("stall_time", -1),
        ("stalled_priority", "error"),
        ("queue_length", 9),
        # oslo.messaging takes 0 for its own default, which is to try for ever.
        ("retries", 0),
    ],
)
def test_values_out_of_range_are_refused(parsed: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parsed.set_override(name, value, group="backup_notifications")


@pytest.mark.parametrize(
    "values",
    [
        {"min_interval": 121},
        {"format": "both", "versioned_topic": "notifications"},
        {"format": "versioned", "versioned_topic": "notifications"},
    ],
)
def test_contradictions_are_refused_in_one_line(
    parsed: Any, values: dict[str, Any]
) -> None:
    for name, value in values.items():
        parsed.set_override(name, value, group="backup_notifications")
    with pytest.raises(exception.InvalidOptions) as refused:
        conf.check(parsed)
    assert "\n" not in str(refused.value)


def test_the_topic_does_not_matter_to_flat_payloads(parsed: Any) -> None:
    parsed.set_override(
        "versioned_topic", "notifications", group="backup_notifications"
    )
    conf.check(parsed)


def test_each_option_says_its_effect_in_a_sentence() -> None:
    """And then, in Nova's form, its values and the options that it depends on."""
    for option in conf.OPTS:
        effect, *blocks = (option.help or "").strip().split("\n\n")
        assert re.fullmatch(r"[A-Z].{30,}\.", effect, re.DOTALL), option.name
        for number, block in enumerate(blocks):
            if block in ("Possible values:", "Related options:"):
                assert blocks[number + 1].startswith("* "), option.name


def test_options_name_others_that_exist() -> None:
    names = {option.name for option in conf.OPTS}
    for option in conf.OPTS:
        related = (option.help or "").partition("Related options:\n\n")[2]
        for name in re.findall(r"^\* ``([a-z_]+)``", related, re.MULTILINE):
            assert name in names or name.startswith("backup_"), (option.name, name)
