"""The ledger says of the calls of a model with a rollout what was asked for; `model` is the version that worked."""

import sqlalchemy as sa
from alembic import op

revision = "0004_rollouts"
down_revision = "0003_ledger"


def upgrade() -> None:
    op.add_column("ledger", sa.Column("asked", sa.Text, nullable=False, server_default=""))
    named = sa.text("asked <> ''")  # all others, which are most, are not in the index
    op.create_index("ledger_asked_started_at", "ledger", ["asked", "started_at"], sqlite_where=named, postgresql_where=named)
