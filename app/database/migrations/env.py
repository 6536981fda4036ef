"""Lets Alembic run a revision in the transaction of `Database.upgrade` or `Database.downgrade`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
