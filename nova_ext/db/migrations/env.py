# SPDX-License-Identifier: Apache-2.0
"""Owns how alembic runs a revision: in the connection that it is given."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    **context.config.attributes["options"],
)
with context.begin_transaction():
    context.run_migrations()
