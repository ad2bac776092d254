# SPDX-License-Identifier: Apache-2.0
"""The API samples of doc/api_samples, held against what the API takes and gives.

``GENERATE_SAMPLES=1`` writes the samples anew.
"""

import json
import pathlib
from typing import Any

from nova import context as nova_context
from nova.tests.functional import api_samples_test_base
from oslo_utils import fixture as utils_fixture
from oslo_utils import timeutils

from nova_ext.objects.pmem_copy import PmemCopy
from tests.functional import base, pmem, samples

HERE = pathlib.Path(__file__).parent
SAMPLES = HERE.parents[1] / "doc"


class ApiSampleTest(base.FunctionalTest, api_samples_test_base.ApiSampleTestBase):
    """nova's machinery for samples, on the project's own folders."""

    USE_PROJECT_ID = True
    sample_dir = ""

    def setUp(self) -> None:
        self.flags(
            glance_link_prefix=self._get_glance_host(),
            compute_link_prefix=self._get_host(),
            group="api",
        )
        super().setUp()
        self.generate_samples = False  # see verify
        self.useFixture(utils_fixture.TimeFixture(samples.NOW))
        self.useFixture(samples.wall_clock())
        self.server = self.boot(name="guest")
        self.compute = self.computes["compute1"]

    @classmethod
    def _get_sample(cls, name: str, api_version: str | None = None) -> str:
        return str(cls._get_sample_path(name, str(SAMPLES), api_version=api_version))

    @classmethod
    def _get_template(cls, name: str, api_version: str | None = None) -> str:
        return str(
            cls._get_sample_path(
                name, str(HERE), suffix=".tpl", api_version=api_version
            )
        )

    def _write_template(self, name: str, data: Any) -> None:
        # nova would write what it got, and be content with it for ever.
        self.fail(f"There is no template {self._get_template(name, '2.105')}.")

    def request(self, name: str, url: str, method: str = "POST", **subs: str) -> Any:
        """Send the template ``name``, which must be what the sample shows."""
        body = json.loads(self._read_template(name) % subs)
        self.hold(name, body)
        return self._get_response(url, method, json.dumps(body))

    def verify(self, name: str, response: Any, status: int = 200) -> None:
        """Hold a response against its template, and both against the sample."""
        self.hold(name, response.json())
        subs = {"id": self.server, "hostid": "[a-f0-9]{56}"}
        self._verify_response(name, subs, response, status)

    def hold(self, name: str, seen: Any) -> None:
        """Hold ``seen`` against the sample, or write that."""
        path = pathlib.Path(self._get_sample(name, self.microversion))
        if samples.GENERATE:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(samples.normalised(seen), indent=4, sort_keys=True)
            path.write_text(text + "\n")
        self.assertEqual(json.loads(path.read_text()), samples.normalised(seen))


class QuiesceServerSamplesTest(ApiSampleTest):
    sample_dir = "os-quiesce-server"

    def window(self) -> float:
        """Seconds for which the server, once quiesced, stays so at most."""
        shown = self.wait_status(self.server, "quiesced")
        begin, end = (
            timeutils.parse_isotime(shown[name])
            for name in ("quiesced_at", "unquiesce_at")
        )
        return float(timeutils.delta_seconds(begin, end))

    def test_quiesce_and_unquiesce(self) -> None:
        self.flags(quiesce_default_timeout=61, group="nova_ext")
        url = f"servers/{self.server}/action"
        response = self.request("quiesce-server", url)
        self.assertEqual((202, b""), (response.status_code, response.content))
        self.assertEqual(61, self.window())
        response = self.request("unquiesce-server", url)
        self.assertEqual((202, b""), (response.status_code, response.content))
        self.wait_status(self.server, None)

    def test_quiesce_with_timeout(self) -> None:
        self.flags(quiesce_default_timeout=61, group="nova_ext")
        response = self.request(
            "quiesce-server-timeout", f"servers/{self.server}/action"
        )
        self.assertEqual((202, b""), (response.status_code, response.content))
        self.assertEqual(60, self.window())


class ServersSamplesTest(ApiSampleTest):
    sample_dir = "servers"

    def quiesce(self) -> None:
        self.accepted(self.server, "quiesce", {"timeout": 60})
        self.wait_status(self.server, "quiesced")

    def test_show(self) -> None:
        self.quiesce()
        response = self._do_get(f"servers/{self.server}")
        self.verify("server-get-resp", response)

    def test_detail(self) -> None:
        self.quiesce()
        response = self._do_get("servers/detail")
        self.verify("servers-details-resp", response)

    def test_update(self) -> None:
        self.quiesce()
        response = self.request(
            "server-update-req", f"servers/{self.server}", method="PUT"
        )
        self.verify("server-update-resp", response)

    def test_rebuild(self) -> None:
        image = self.api.get_server(self.server)["image"]["id"]
        url = f"servers/{self.server}/action"
        response = self.request("server-action-rebuild", url, image_id=image)
        self.verify("server-action-rebuild-resp", response, status=202)


class CopyPmemSamplesTest(pmem.PmemHosts, ApiSampleTest):
    ADMIN_API = True

    def boot(self, **kwargs: Any) -> str:
        for host in ("compute1", "compute2"):
            self.host(host, pmem.SMALL, pmem.BIG)
        flavor = self.flavor("SMALL")
        return super().boot(flavor_id=flavor, host="compute1", **kwargs)

    def send(self, name: str, **subs: str) -> None:
        """Send the template ``name``, which must order a copy to compute2."""
        response = self.request(name, f"servers/{self.server}/action", **subs)
        self.assertEqual((202, b""), (response.status_code, response.content))
        self.assertEqual("compute2", self.until_refused(self.server, 1).host)
        self.assertIsNotNone(
            PmemCopy.find(nova_context.get_admin_context(), self.server)
        )


class ResizeSamplesTest(CopyPmemSamplesTest):
    sample_dir = "servers"

    def test_resize(self) -> None:
        flavor = self.flavor("SMALL,BIG", id="42")
        self.send("server-action-resize-copy-pmem", flavor_id=flavor)


class MigrateServerSamplesTest(CopyPmemSamplesTest):
    sample_dir = "os-migrate-server"

    def test_migrate(self) -> None:
        self.send("migrate-server-copy-pmem")

    def test_migrate_to_a_host(self) -> None:
        self.send("migrate-server-copy-pmem-host", hostname="compute2")
