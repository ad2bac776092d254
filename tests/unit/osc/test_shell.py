#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""The real openstack program with the installed entry points, and a fake cloud."""

import json
import subprocess
import sys

import pytest

FIELDS = ("quiesce_status", "quiesced_at", "unquiesce_at")

#: openstackclient as it is when this distribution is not installed.
STOCK = """
import importlib.metadata as metadata, sys
found = metadata.entry_points()
others = metadata.EntryPoints(
    point
    for group in found.groups
    for point in found.select(group=group)
    if not point.value.startswith("nova_ext"))
metadata.entry_points = lambda: others
from openstackclient import shell
sys.exit(shell.main())
"""


@pytest.fixture
def run_stock(run_openstack):
    def run(*arguments):
        return run_openstack(*arguments, program=(sys.executable, "-c", STOCK))

    return run


@pytest.fixture
def compare(cloud, run_openstack, run_stock):
    """Run with and without the plugin; the cloud must be asked the same."""

    def compare(*arguments):
        results = []
        asked = []
        for run in (run_stock, run_openstack):
            cloud.requests.clear()
            results.append(run(*arguments))
            asked.append(list(cloud.requests))
        assert asked[0] == asked[1]
        return results

    return compare


def test_the_stock_shell_of_these_tests_has_no_plugin(run_stock):
    result = run_stock("server", "quiesce", "db")
    assert result.returncode == 2
    assert "'server quiesce db' is not a" in result.stdout


def test_quiesce_prints_nothing(cloud, run_openstack):
    cloud.add("db")
    result = run_openstack("server", "quiesce", "--timeout", "30", "db")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert cloud.posts() == [("db", {"quiesce": {"timeout": 30}}, "2.105")]


def test_quiesce_with_wait_prints_a_table(cloud, run_openstack):
    cloud.add("db")
    result = run_openstack("server", "quiesce", "--wait", "db")
    assert (result.returncode, result.stderr) == (0, "")
    assert "| Quiesced At " in result.stdout
    assert "| 2026-11-21T10:01:00Z |" in result.stdout


def test_quiesce_with_wait_prints_json(cloud, run_openstack):
    server = cloud.add("db")
    result = run_openstack("server", "quiesce", "--wait", server.id, "-f", "json")
    assert json.loads(result.stdout)[0]["Unquiesce At"] == "2026-11-21T10:01:00Z"


def test_a_failure_is_one_line_and_exit_status_1(cloud, run_openstack):
    cloud.add("a")
    cloud.add("b", results=["Error"], details="agent dead")
    result = run_openstack("server", "quiesce", "--wait", "a", "b")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith(
        "Quiesced already: a. Thaw with: openstack server unquiesce a\n"
    )


def test_unquiesce_with_wait_succeeds_in_silence(cloud, run_openstack):
    cloud.add("db")
    result = run_openstack("server", "unquiesce", "--wait", "db")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert cloud.posts() == [("db", {"unquiesce": None}, "2.105")]


def test_unquiesce_with_wait_fails_for_a_broken_window(cloud, run_openstack):
    cloud.add("db", results=["Error"], details="The switch fired")
    result = run_openstack("server", "unquiesce", "--wait", "db")
    assert result.returncode == 1
    assert "The switch fired" in result.stderr


@pytest.mark.parametrize("command", ["quiesce", "unquiesce"])
@pytest.mark.parametrize(
    ("options", "maximum", "said"),
    [
        (["--os-compute-api-version", "2.104"], "2.105", "2.104 was asked for"),
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
    cloud.maximum = maximum
    cloud.add("db")
    result = run_openstack(*options, "server", command, "db")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert cloud.posts() == []


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
    cloud.add("db", statuses=["VERIFY_RESIZE"])
    stock, ours = compare(*options)
    assert ours.returncode == stock.returncode
    assert ours.stdout == stock.stdout
    assert ours.stderr == stock.stderr


def test_show_has_the_fields_from_2_105(cloud, run_openstack, run_stock):
    server = cloud.add("db")
    server.state = dict(server.after_quiesce)
    line = ("--os-compute-api-version", "2.105", "server", "show", "db", "-f", "json")
    ours = run_openstack(*line)
    stock = run_stock(*line)
    assert (ours.returncode, ours.stderr) == (0, stock.stderr)
    shown = json.loads(ours.stdout)
    assert {field: shown.pop(field) for field in FIELDS} == server.state
    assert shown == json.loads(stock.stdout)


def test_show_sorts_and_selects_the_fields_like_others(cloud, run_openstack):
    server = cloud.add("db")
    server.state = dict(server.after_quiesce)
    line = ["--os-compute-api-version", "2.105", "server", "show", server.id]
    shown = json.loads(run_openstack(*line, "-f", "json").stdout)
    assert list(shown) == sorted(shown)
    one = run_openstack(*line, "-f", "value", "-c", "unquiesce_at")
    assert one.stdout == "2026-11-21T10:01:00Z\n"


def test_show_adds_nothing_when_the_api_does_not_send_the_fields(
    cloud, run_openstack, run_stock
):
    cloud.known_fields = False
    cloud.add("db")
    line = ("--os-compute-api-version", "2.105", "server", "show", "db")
    assert run_openstack(*line).stdout == run_stock(*line).stdout


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (
            ["resize", "--flavor", "big"],
            {"resize": {"flavorRef": "big", "copy_pmem_devices": True}},
        ),
        (["migrate"], {"migrate": {"copy_pmem_devices": True}}),
    ],
)
def test_moves_that_copy_pmem(cloud, run_openstack, arguments, body):
    cloud.add("db", statuses=["VERIFY_RESIZE"])
    line = ["server", *arguments, "--copy-pmem-devices", "--wait", "db"]
    result = run_openstack(*line)
    assert (result.returncode, result.stdout) == (0, "Complete\n")
    assert cloud.posts() == [("db", body, "2.105")]
    result = run_openstack("--os-compute-api-version", "2.104", *line)
    assert (result.returncode, result.stdout) == (1, "")
    assert "2.104 was asked for: use --os-compute-api-version 2.105" in result.stderr
    assert len(cloud.posts()) == 1


def test_help_lists_the_commands_and_the_fields(run_openstack):
    quiesce = run_openstack("help", "server", "quiesce")
    assert "--timeout <seconds>" in quiesce.stdout
    unquiesce = run_openstack("help", "server", "unquiesce")
    assert "reverse order" in " ".join(unquiesce.stdout.split())
    show = run_openstack("help", "server", "show")
    assert "quiesce_status" in show.stdout
    for command in ("resize", "migrate"):
        assert "--copy-pmem-devices" in run_openstack("help", "server", command).stdout


def test_the_client_side_imports_no_nova():
    code = (
        "import sys, nova_ext.client, nova_ext.osc.plugin, "
        "nova_ext.osc.v1.server_quiesce, nova_ext.osc.v1.server_show, "
        "nova_ext.osc.v1.server_copy_pmem\n"
        "sys.exit('nova' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert result.returncode == 0
