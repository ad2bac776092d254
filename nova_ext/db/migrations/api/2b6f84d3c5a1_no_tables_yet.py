# SPDX-License-Identifier: Apache-2.0
"""Owns the first version of the database beside nova's API database: no table yet."""

revision = "2b6f84d3c5a1"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make nothing; the version says that the place is there and may be written to."""


def downgrade() -> None:
    """Remove nothing."""
