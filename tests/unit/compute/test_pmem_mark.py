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

"""The mark of a PMEM copy: what is stored, and what is made of nonsense."""

import json
import types

import pytest

from nova_ext.compute import pmem_mark

REQUEST = "req-5b6c791d-5709-4f36-8fbe-c3e02869e35d"
ORDERED = pmem_mark.PmemMark(pmem_mark.Status.ORDERED, REQUEST)


def server(**system_metadata: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(system_metadata=dict(system_metadata))


@pytest.mark.parametrize(
    "original",
    [
        ORDERED,
        pmem_mark.PmemMark(pmem_mark.Status.COPYING, REQUEST, 2**31),
        pmem_mark.PmemMark(pmem_mark.Status.COPIED, REQUEST, 7),
    ],
)
def test_round_trip(original: pmem_mark.PmemMark) -> None:
    instance = server()
    pmem_mark.write(instance, original)
    assert pmem_mark.read(instance) == original
    assert len(instance.system_metadata[pmem_mark.KEY]) <= 255


def test_the_stored_form() -> None:
    instance = server()
    pmem_mark.write(instance, pmem_mark.PmemMark(pmem_mark.Status.COPYING, REQUEST, 12))
    assert json.loads(instance.system_metadata["nova_ext:copy_pmem"]) == {
        "status": "copying",
        "request": REQUEST,
        "migration": 12,
    }


def test_write_none_removes_this_mark_only() -> None:
    instance = server(other="kept")
    pmem_mark.write(instance, ORDERED)
    pmem_mark.write(instance, None)
    pmem_mark.write(instance, None)
    assert instance.system_metadata == {"other": "kept"}
    assert pmem_mark.read(instance) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "true",
        "[]",
        "not json",
        '{"status": "ordered"}',
        '{"status": "eaten", "request": "req-1"}',
        '{"status": "copying", "request": "req-1", "migration": "x"}',
        '{"status": "copying", "request": "req-1", "migration": 1e999}',
        '{"status": "copying", "request": "req-1", "migration": []}',
    ],
)
def test_what_cannot_be_read_counts_as_none(text: str) -> None:
    assert pmem_mark.read(server(**{pmem_mark.KEY: text})) is None
