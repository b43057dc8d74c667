"""What lists, calls' pages, analytics and access need."""

import json

import sqlalchemy as sa
from alembic import op

from cubehook.store.numbering import search_key

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_HOURLY = (
    "calls",
    "answered",
    "missed",
    "busy",
    "abandoned",
    "rejected",
    "failed",
    "rung",
    "ring_ms",
    "talked",
    "talk_ms",
)
_CHUNK = 5000


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("error_class", sa.Text))
    op.add_column("deliveries", sa.Column("answered", sa.Integer))
    op.drop_index("deliveries_pending", "deliveries")
    op.create_index("deliveries_call", "deliveries", ["call", "webhook"])
    op.create_index("deliveries_webhook", "deliveries", ["webhook", "id"])
    undelivered = sa.text("status != 'delivered'")
    op.create_index(
        "deliveries_undelivered",
        "deliveries",
        ["webhook", "status", "id"],
        sqlite_where=undelivered,
        postgresql_where=undelivered,
    )
    op.create_index("attempts_delivery", "attempts", ["delivery"])
    op.create_index("events_call", "events", ["call"])
    op.create_index("events_cube", "events", ["cube", "id"])
    call = sa.text("call IS NOT NULL")
    op.create_index("notifications_call", "notifications", ["call"], sqlite_where=call, postgresql_where=call)
    op.create_index("calls_cube", "calls", ["cube", "id"])
    outcome = sa.text("outcome IS NOT NULL")
    op.create_index(
        "calls_outcome",
        "calls",
        ["outcome", "cube", "id"],
        sqlite_where=outcome,
        postgresql_where=outcome,
    )
    numbers = op.create_table(
        "numbers",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("call", sa.BigInteger, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    hourly = op.create_table(
        "hourly",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cube", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Integer, nullable=False) for name in _HOURLY),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "samples",
        sa.Column("cube", sa.Text, primary_key=True),
        sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("active", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tokens",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("last_used_at", sa.BigInteger),
    )
    op.create_table(
        "sessions",
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    _fill(op.get_bind(), numbers, hourly)


def _fill(connection: sa.Connection, numbers: sa.Table, hourly: sa.Table) -> None:
    """Numbers and hours of the calls that are there."""
    names = ("id", "cube", "calling_number", "called_number", "outcome", "alerting_at", "connected_at")
    calls = sa.table("calls", *map(sa.column, (*names, "disconnected_at", "ended", "detail")))
    hours: dict[tuple[int, str], dict[str, int]] = {}
    last = 0
    while rows := connection.execute(
        sa.select(calls).where(calls.c.id > last).order_by(calls.c.id).limit(_CHUNK)
    ).all():
        last = rows[-1].id
        keys = {
            (search_key(number), row.id)
            for row in rows
            for number in (row.calling_number, row.called_number)
            if number
        }
        if keys:
            connection.execute(sa.insert(numbers), [{"key": key, "call": call} for key, call in keys])
        for row in rows:
            if row.ended:
                hour = (row.id >> 12) // 3_600_000_000
                _add(hours.setdefault((hour, row.cube), dict.fromkeys(_HOURLY, 0)), row)
    if hours:
        connection.execute(
            sa.insert(hourly),
            [{"hour": hour, "cube": cube, **sums} for (hour, cube), sums in hours.items()],
        )


def _add(sums: dict[str, int], row: sa.Row) -> None:  # type: ignore[type-arg]
    sums["calls"] += 1
    if row.outcome in sums:
        sums[row.outcome] += 1
    inferred = json.loads(row.detail).get("inferred", False)
    answered = row.connected_at or (None if inferred else row.disconnected_at)
    if row.alerting_at and answered:
        sums["rung"] += 1
        sums["ring_ms"] += max(0, answered - row.alerting_at) // 1000
    if row.connected_at and not inferred:
        sums["talked"] += 1
        sums["talk_ms"] += max(0, row.disconnected_at - row.connected_at) // 1000
