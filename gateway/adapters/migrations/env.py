"""What Alembic runs to run the revisions, on the connection and in the transaction that `gateway.adapters.schema` gives it."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
