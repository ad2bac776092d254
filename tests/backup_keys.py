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

"""The keys of cinder 29's own backup notifications, which all stay."""

UPSTREAM = (
    "tenant_id",
    "user_id",
    "availability_zone",
    "backup_id",
    "host",
    "display_name",
    "created_at",
    "status",
    "volume_id",
    "size",
    "service_metadata",
    "service",
    "fail_reason",
    "parent_id",
    "num_dependent_backups",
    "snapshot_id",
)
