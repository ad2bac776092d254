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
"""Owns which of nova's suites the referee runs and which differences it accepts."""

#: Suites of a whole run, below nova.tests.
FULL = (
    "functional.libvirt.test_vpmem",
    "functional.test_servers",
    "functional.api_sample_tests",
    "unit.compute.test_api",
    "unit.virt.libvirt.test_driver",
)

#: The part that is short enough for every change.
SHORT = (
    "functional.libvirt.test_vpmem",
    "unit.compute.test_api",
)

_VERSIONS = (
    "nova.tests.functional.api_sample_tests.test_versions.VersionsSampleJsonTest"
)

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
}
