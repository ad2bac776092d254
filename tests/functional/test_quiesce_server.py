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

"""Quiesce and unquiesce through the API of a whole nova in one process."""

from tests.functional import base


class QuiesceTest(base.FunctionalTest):
    def test_quiesce_and_unquiesce(self) -> None:
        server = self.boot()
        shown = self.api.get_server(server)
        self.assertIsNone(shown["quiesce_status"])
        self.assertIsNone(shown["quiesced_at"])
        self.assertIsNone(shown["unquiesce_at"])

        self.accepted(server, "quiesce", {"timeout": 60})
        shown = self.wait_status(server, "quiesced")
        self.assertIn(server, self.freezer.frozen)
        self.assertEqual("ACTIVE", shown["status"])
        event = self.wait_event(server, "quiesce")
        self.assertEqual("Success", event["result"])
        self.assertEqual("compute_quiesce_instance", event["event"])

        self.accepted(server, "unquiesce")
        self.wait_status(server, None)
        self.assertNotIn(server, self.freezer.frozen)
        event = self.wait_event(server, "unquiesce")
        self.assertEqual("Success", event["result"])
