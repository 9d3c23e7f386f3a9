"""The ledger says what a call cost and how sure that is; an outbox for events, filled with the entries.

Times are seconds since the epoch. Of entries from before, cost and energy are not known and stay 0.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003_ledger"
down_revision = "0002_tenants"


def upgrade() -> None:
    op.add_column("ledger", sa.Column("tier", sa.Text, nullable=False, server_default=""))
    op.add_column("ledger", sa.Column("reasoning_tokens", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("ledger", sa.Column("cost_ukrw", sa.BigInteger, nullable=False, server_default="0"))  # KRW / 1,000,000
    op.add_column("ledger", sa.Column("energy_wh", sa.Double, nullable=False, server_default="0"))
    op.add_column("ledger", sa.Column("estimated", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("ledger", sa.Column("continued", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ledger_key_started_at", "ledger", ["key_id", "started_at"])  # what GET /v1/usage asks by
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),  # the call's, and the event's
        sa.Column("due_at", sa.Double, nullable=False),  # nobody sends it before
    )
