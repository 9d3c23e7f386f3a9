"""Tenants, keys and the ledger, as they were before there were revisions. Times are seconds since the epoch.

A store of that time has these tables already, and keeps them with all that is in them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001_first"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("tier", sa.Text, nullable=False, server_default="paid"),
        sa.Column("created_at", sa.Double, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.Text, primary_key=True),  # shown in lists and in the ledger; no secret
        sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),  # SHA-256 of the key
        sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.name"), nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("models", sa.Text),  # JSON list of allowed models; NULL: all
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
        if_not_exists=True,
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.Text, primary_key=True),  # the call's request id: writing an entry twice changes nothing
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("replica", sa.Text),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("queue_s", sa.Double),
        sa.Column("first_byte_s", sa.Double),
        sa.Column("duration_s", sa.Double, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ledger_started_at", "ledger", ["started_at"], if_not_exists=True)
    op.drop_index("ledger_key", "ledger", if_exists=True)  # of the earliest stores; nothing asks by it
