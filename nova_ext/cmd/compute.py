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

"""Owns ``nova-ext-compute``: nova-compute with the extension, for explicit units."""

# nova patches threading before anything else is imported.
from nova import monkey_patch

monkey_patch.patch(backend="threading")

from nova.cmd import compute  # noqa: E402

from nova_ext import install  # noqa: E402


def main() -> None:
    """Run nova-compute with the extension, whatever ``config_source`` says."""
    install.install()
    compute.main()
