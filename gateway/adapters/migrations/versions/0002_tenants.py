"""Tenant → project → key, each with limits and models of its own. The projects that keys name already are made."""

import sqlalchemy as sa
from alembic import op

revision = "0002_tenants"
down_revision = "0001_first"


def upgrade() -> None:
    with op.batch_alter_table("tenants") as tenants:
        tenants.add_column(sa.Column("weight", sa.Double, nullable=False, server_default="1"))
        tenants.add_column(sa.Column("models", sa.Text))  # JSON list of allowed models; NULL: all
        tenants.add_column(sa.Column("fallbacks", sa.Text, nullable=False, server_default="[]"))  # JSON list of models
        tenants.add_column(sa.Column("limits", sa.Text, nullable=False, server_default="{}"))  # JSON object of those that are set
        tenants.add_column(sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "projects",
        sa.Column("tenant", sa.Text, sa.ForeignKey("tenants.name"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("models", sa.Text),
        sa.Column("limits", sa.Text, nullable=False, server_default="{}"),
        sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.execute("INSERT INTO projects (tenant, name, created_at) SELECT tenant, project, min(created_at) FROM keys GROUP BY 1, 2")
    with op.batch_alter_table("keys") as keys:
        keys.add_column(sa.Column("tier", sa.Text))  # NULL: the tenant's
        keys.add_column(sa.Column("limits", sa.Text, nullable=False, server_default="{}"))
        keys.create_foreign_key("keys_project", "projects", ["tenant", "project"], ["tenant", "name"])
    op.create_index("keys_project", "keys", ["tenant", "project"])
