"""The first schema: calls, their notifications and events, deliveries and their attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "cubes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("provisioned", sa.Boolean, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("provisioned", sa.Boolean, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("disabled_reason", sa.Text),
        sa.Column("disabled_at", sa.BigInteger),
    )
    op.create_table(
        "registrations",
        sa.Column("cube", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("registration_id", sa.Text),
        sa.Column("last_message_at", sa.BigInteger),
        sa.Column("failure_count", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "registration_changes",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("cube", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("last_error", sa.Text),
    )
    op.create_table(
        "calls",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("cube", sa.Text, nullable=False),
        sa.Column("gateway_call_id", sa.Text, nullable=False),
        sa.Column("guid", sa.Text),
        sa.Column("calling_number", sa.Text),
        sa.Column("called_number", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("alerting_at", sa.BigInteger),
        sa.Column("connected_at", sa.BigInteger),
        sa.Column("disconnected_at", sa.BigInteger),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    ended = sa.column("ended", sa.Boolean)
    op.create_index("calls_open", "calls", ["id"], sqlite_where=~ended, postgresql_where=~ended)
    op.create_table(
        "notifications",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("cube", sa.Text, nullable=False),
        sa.Column("call", sa.BigInteger),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("call", sa.BigInteger, nullable=False),
        sa.Column("cube", sa.Text, nullable=False),
        sa.Column("granularity", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("webhook", sa.Text, nullable=False),
        sa.Column("call", sa.BigInteger, nullable=False),
        sa.Column("event", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("ready_at", sa.BigInteger),
    )
    pending = sa.text("status = 'pending'")
    op.create_index(
        "deliveries_pending",
        "deliveries",
        ["call", "webhook"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    ready = sa.text("ready_at IS NOT NULL")
    op.create_index(
        "deliveries_ready",
        "deliveries",
        ["webhook", "ready_at"],
        sqlite_where=ready,
        postgresql_where=ready,
    )
    op.create_table(
        "attempts",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("delivery", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
