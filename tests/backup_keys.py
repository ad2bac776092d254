# SPDX-License-Identifier: Apache-2.0
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
