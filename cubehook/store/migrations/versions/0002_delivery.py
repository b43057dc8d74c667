"""Held-back webhooks over a restart, attempts that spend nothing, redelivery and its jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("webhooks", sa.Column("trouble", sa.Text))
    op.add_column("deliveries", sa.Column("spent", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column(
        "deliveries", sa.Column("redelivery", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.execute("UPDATE deliveries SET spent = attempts WHERE status = 'pending'")
    op.create_table(
        "jobs",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("webhook", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
