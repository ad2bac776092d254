# SPDX-License-Identifier: Apache-2.0
"""openstackclient's shell with the installed entry points, and a fake cloud.

Most commands run in forks of a process that has imported openstackclient; that the
installed program does the same is shown by few, because each start takes seconds.
"""

import datetime
import json

import pytest

FIELDS = ("quiesce_status", "quiesced_at", "unquiesce_at")


@pytest.fixture
def compare(cloud, run_openstack, run_stock):
    """Run with and without the plugin; the cloud must be asked the same."""

    def compare(*arguments):
        results = []
        asked = []
        for run in (run_stock, run_openstack):
            cloud.calls.clear()
            results.append(run(*arguments))
            asked.append(list(cloud.calls))
        assert asked[0] == asked[1]
        return results

    return compare


@pytest.fixture(autouse=True)
def ten_o_clock(cloud):
    """Let guests be frozen at a time that is known."""
    cloud.compute.now = lambda: datetime.datetime(2026, 11, 21, 10, 0)


# The installed program.


def test_the_program_finds_the_plugin(cloud, run_program):
    cloud.compute.add("db")
    result = run_program("server", "quiesce", "--wait", "db")
    assert (result.returncode, result.stderr) == (0, "")
    assert "| 2026-11-21T10:01:00Z |" in result.stdout


def test_the_program_fails_with_one_line(cloud, run_program):
    cloud.compute.add("a")
    cloud.compute.add("b", freeze_fails="agent dead")
    result = run_program("server", "quiesce", "--wait", "a", "b")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("Thaw with: openstack server unquiesce a\n")


def test_the_program_prints_what_a_fork_prints(cloud, run_program, run_openstack):
    cloud.compute.freeze(cloud.compute.add("db"))
    line = ("--os-compute-api-version", "2.105", "server", "show", "db")
    result, fork = run_program(*line), run_openstack(*line)
    assert (result.returncode, result.stderr) == (fork.returncode, fork.stderr)
    assert result.stdout == fork.stdout
    assert "| unquiesce_at " in result.stdout


# Forks.


def test_the_stock_shell_of_these_tests_has_no_plugin(run_stock):
    result = run_stock("server", "quiesce", "db")
    assert result.returncode == 2
    assert "'server quiesce db' is not a" in result.stdout


def test_quiesce_prints_nothing(cloud, run_openstack):
    cloud.compute.add("db")
    result = run_openstack("server", "quiesce", "--timeout", "30", "db")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert cloud.actions() == [("db", {"quiesce": {"timeout": 30}}, "2.105")]


def test_quiesce_with_wait_prints_a_table(cloud, run_openstack):
    cloud.compute.add("db")
    result = run_openstack("server", "quiesce", "--wait", "db")
    assert (result.returncode, result.stderr) == (0, "")
    assert "| Quiesced At " in result.stdout
    assert "| 2026-11-21T10:01:00Z |" in result.stdout


def test_quiesce_with_wait_prints_json(cloud, run_openstack):
    server = cloud.compute.add("db")
    result = run_openstack("server", "quiesce", "--wait", server.id, "-f", "json")
    assert json.loads(result.stdout)[0]["Unquiesce At"] == "2026-11-21T10:01:00Z"


def test_a_failure_is_one_line_and_exit_status_1(cloud, run_openstack):
    cloud.compute.add("a")
    cloud.compute.add("b", freeze_fails="agent dead")
    result = run_openstack("server", "quiesce", "--wait", "a", "b")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(
        "Quiesced already: a. Thaw with: openstack server unquiesce a\n"
    )


def test_unquiesce_with_wait_succeeds_in_silence(cloud, run_openstack):
    cloud.compute.freeze(cloud.compute.add("db"))
    result = run_openstack("server", "unquiesce", "--wait", "db")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert cloud.actions() == [("db", {"unquiesce": None}, "2.105")]


def test_unquiesce_with_wait_fails_for_a_broken_window(cloud, run_openstack):
    cloud.compute.freeze(cloud.compute.add("db", unfit="The switch fired"))
    result = run_openstack("server", "unquiesce", "--wait", "db")
    assert result.returncode == 1
    assert "The switch fired" in result.stderr


@pytest.mark.parametrize("command", ["quiesce", "unquiesce"])
@pytest.mark.parametrize(
    ("options", "maximum", "said"),
    [
        (["--os-compute-api-version", "2.104"], "2.105", "2.104 was asked for"),
        (
            ["--os-compute-api-version", "2.200"],
            "2.105",
            "use --os-compute-api-version 2.105, or choose none",
        ),
        (
            ["--os-compute-api-version", "2.105"],
            "2.104",
            "not offer microversion 2.105",
        ),
        ([], "2.104", "not offer microversion 2.105 (its maximum is 2.104)"),
    ],
)
def test_a_wrong_microversion_is_one_line(
    cloud, run_openstack, command, options, maximum, said
):
    cloud.compute.maximum = maximum
    cloud.compute.add("db")
    result = run_openstack(*options, "server", command, "db")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert cloud.actions() == []


@pytest.mark.parametrize(
    "options",
    [
        ["server", "show", "db"],
        ["server", "show", "db", "-f", "json"],
        ["--os-compute-api-version", "2.104", "server", "show", "db", "-f", "json"],
        ["server", "show", "missing"],
        ["server", "list", "--long", "--name", "db"],
        ["--os-compute-api-version", "2.105", "server", "list", "--name", "db"],
        ["server", "resize", "--flavor", "big", "db"],
        ["server", "resize", "--flavor", "big", "--wait", "db"],
        ["server", "resize", "--confirm", "db"],
        ["--os-compute-api-version", "2.105", "server", "resize", "--revert", "db"],
        ["server", "resize", "confirm", "db"],
        ["server", "migrate", "db"],
        ["server", "migrate", "--wait", "db"],
        ["server", "migrate", "--live-migration", "--host", "h", "db"],
        ["--os-compute-api-version", "2.30", "server", "migrate", "--host", "h", "db"],
        ["--os-compute-api-version", "2.56", "server", "migrate", "--host", "h", "db"],
    ],
)
def test_other_output_is_the_stock_one_to_the_byte(cloud, compare, options):
    cloud.compute.add("db", statuses=["VERIFY_RESIZE"])
    stock, ours = compare(*options)
    assert ours.returncode == stock.returncode
    assert ours.stdout == stock.stdout
    assert ours.stderr == stock.stderr


def test_show_has_the_fields_from_2_105(cloud, run_openstack, run_stock):
    cloud.compute.freeze(cloud.compute.add("db"))
    line = ("--os-compute-api-version", "2.105", "server", "show", "db", "-f", "json")
    ours = run_openstack(*line)
    stock = run_stock(*line)
    assert (ours.returncode, ours.stderr) == (0, stock.stderr)
    shown = json.loads(ours.stdout)
    assert [shown.pop(field) for field in FIELDS] == [
        "quiesced",
        "2026-11-21T10:00:00Z",
        "2026-11-21T10:01:00Z",
    ]
    assert shown == json.loads(stock.stdout)


def test_show_sorts_and_selects_the_fields_like_others(cloud, run_openstack):
    server = cloud.compute.add("db")
    cloud.compute.freeze(server)
    line = ["--os-compute-api-version", "2.105", "server", "show", server.id]
    shown = json.loads(run_openstack(*line, "-f", "json").stdout)
    assert list(shown) == sorted(shown)
    one = run_openstack(*line, "-f", "value", "-c", "unquiesce_at")
    assert one.stdout == "2026-11-21T10:01:00Z\n"


@pytest.mark.parametrize("chosen", [[], ["--os-compute-api-version", "2.104"]])
def test_show_says_what_to_add_for_the_fields(cloud, run_openstack, chosen):
    cloud.compute.add("db")
    line = ["server", "show", "db", "-c", "status", "-c", "Quiesce Status"]
    result = run_openstack(*chosen, *line)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "quiesce_status can be shown from compute API microversion 2.105 on: add "
        "--os-compute-api-version 2.105.\n"
    )


def test_a_wrong_command_line_is_exit_status_2(cloud, run_openstack):
    cloud.compute.add("db")
    for line in (["quiesce", "--timeout", "0", "db"], ["quiesce"], ["unquiesce"]):
        assert run_openstack("server", *line).returncode == 2
    assert cloud.actions() == []


def test_show_adds_nothing_when_the_api_does_not_send_the_fields(
    cloud, run_openstack, run_stock
):
    cloud.compute.knows_quiesce = False
    cloud.compute.add("db")
    line = ("--os-compute-api-version", "2.105", "server", "show", "db")
    assert run_openstack(*line).stdout == run_stock(*line).stdout


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (
            ["resize", "--flavor", "big"],
            {"resize": {"flavorRef": "f2", "copy_pmem_devices": True}},
        ),
        (["migrate"], {"migrate": {"copy_pmem_devices": True}}),
    ],
)
def test_moves_that_copy_pmem(cloud, run_openstack, arguments, body):
    cloud.compute.add("db", statuses=["VERIFY_RESIZE"])
    line = ["server", *arguments, "--copy-pmem-devices", "--wait", "db"]
    result = run_openstack(*line)
    assert (result.returncode, result.stdout) == (0, "Complete\n")
    assert cloud.actions() == [("db", body, "2.105")]
    result = run_openstack("--os-compute-api-version", "2.104", *line)
    assert (result.returncode, result.stdout) == (1, "")
    assert "2.104 was asked for: use --os-compute-api-version 2.105" in result.stderr
    assert len(cloud.actions()) == 1


def test_help_lists_the_commands_and_the_fields(run_openstack):
    quiesce = run_openstack("help", "server", "quiesce")
    assert "--timeout <seconds>" in quiesce.stdout
    assert "--partial" in quiesce.stdout
    unquiesce = run_openstack("help", "server", "unquiesce")
    assert "reverse order" in " ".join(unquiesce.stdout.split())
    show = run_openstack("help", "server", "show")
    assert "quiesce_status" in show.stdout
    for command in ("resize", "migrate"):
        assert "--copy-pmem-devices" in run_openstack("help", "server", command).stdout
