# SPDX-License-Identifier: Apache-2.0
"""Owns which suites the referee runs and which differences it accepts.

nova's have their name below nova.tests, cinder's their whole name.
"""

#: Suites of a whole run.
FULL = (
    "functional.libvirt.test_vpmem",
    "functional.test_servers",
    "functional.api_sample_tests",
    "unit.compute.test_api",
    "unit.virt.libvirt.test_driver",
    "cinder.tests.unit.backup",
)

#: The part that is short enough for every change.
SHORT = (
    "unit.compute.test_api",
    "cinder.tests.unit.backup.test_backup",
)

_VERSIONS = (
    "nova.tests.functional.api_sample_tests.test_versions.VersionsSampleJsonTest"
)
_BACKUP = "cinder.tests.unit.backup.test_backup.BackupTestCase"

#: Test id to the reason why the extension cannot and need not pass it. An entry that
#: passes again is reported as a failure, so that the list stays true.
EXPECTED_DIFFERENCES = {
    f"{_VERSIONS}.{test}": "nova's sample fixes the maximum microversion at 2.104, "
    "the extension announces 2.105"
    for test in (
        "test_versions_get_base_1_",
        "test_versions_get_base_2__",
        "test_versions_get_versioned_3",
        "test_versions_get_versioned_4",
    )
} | {
    f"{_BACKUP}.{test}": "it counts the calls of cinder's own notifier, the extension "
    "sends its notifications in place of cinder's"
    for test in (
        "test_create_backup_with_notify",
        "test_delete_backup_with_notify",
        "test_restore_backup_with_notify",
    )
}


def service(suite: str) -> str:
    """Whose suite it is: nova's or cinder's."""
    return "cinder" if suite.startswith("cinder.") else "nova"


def whole_name(suite: str) -> str:
    """The name under which Python imports it."""
    return suite if service(suite) == "cinder" else f"nova.tests.{suite}"
