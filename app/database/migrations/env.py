"""How Alembic runs a revision: in the transaction of whoever asks, `Database.upgrade` and `Database.downgrade`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
