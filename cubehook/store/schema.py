"""
The tables, and why each index is there.

An index of some rows says which in SQLite's words alone: SQLAlchemy loads every dialect that it is told
an option of, and PostgreSQL's takes megabytes.  Migrations, which few services run, say it in both.

Ids are `cubehook.ids` numbers: they sort by time, so a primary key is also the order of a list
and the range of a sweep.  No foreign keys are declared: every write would pay for the check, and
history is swept at different ages.  `docs/decisions/0001-group-commit.md` tells more.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    literal_column,
    text,
)

REVISION = "0003"
"""The newest migration in `migrations/versions`; what this version of cubehook reads and writes."""

metadata = MetaData()

# SQLite makes a column the table's own key only if its type is spelled INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

PENDING = literal_column("'pending'", String)
"""Written into statements as it is: a planner cannot match a parameter to a partial index."""

NOTICE = "notice"
"""The `granularity` of events that tell of no call."""

HOURLY = (
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
"""What is added up of ended calls: how many, by outcome, how many rang and talked, and for how long."""

cubes = Table(
    "cubes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("provisioned", Boolean, nullable=False),
    Column("settings", Text, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("provisioned", Boolean, nullable=False),
    # Both sealed: see `cubehook.store.sealing`.  The configuration's Webhook as JSON, without its secret;
    # and `rotation.SigningSecrets` as JSON.
    Column("settings", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("disabled_reason", Text),
    Column("disabled_at", BigInteger),
    # `records.Trouble` as JSON while the webhook is held back.
    Column("trouble", Text),
)

registrations = Table(
    "registrations",
    metadata,
    Column("cube", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("registration_id", Text),
    Column("last_message_at", BigInteger),
    Column("failure_count", Integer, nullable=False),
    Column("last_error", Text),
    Column("reason", Text, nullable=False),
)

registration_changes = Table(
    "registration_changes",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("cube", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("last_error", Text),
)

calls = Table(
    "calls",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("cube", Text, nullable=False),
    Column("gateway_call_id", Text, nullable=False),
    Column("guid", Text),
    Column("calling_number", Text),
    Column("called_number", Text),
    Column("outcome", Text),
    Column("started_at", BigInteger, nullable=False),
    Column("alerting_at", BigInteger),
    Column("connected_at", BigInteger),
    Column("disconnected_at", BigInteger),
    Column("ended", Boolean, nullable=False),
    # The whole Call as JSON; the columns before it are for looking it up.
    Column("detail", Text, nullable=False),
)
# Lists are newest first, which is by id; each index for one ends in it.
Index("calls_cube", calls.c.cube, calls.c.id)
Index(
    "calls_outcome",
    calls.c.outcome,
    calls.c.cube,
    calls.c.id,
    # A save of a call in progress need not touch it.
    sqlite_where=calls.c.outcome.is_not(None),
)
# What the trackers take up again at a start, and who asks for calls in progress.
Index("calls_open", calls.c.id, sqlite_where=~calls.c.ended)

notifications = Table(
    "notifications",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("cube", Text, nullable=False),
    Column("call", BigInteger),
    Column("at", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    # Packed: see `cubehook.store.packing`.
    Column("body", LargeBinary, nullable=False),
)

# A call's page tells all of it.
Index(
    "notifications_call",
    notifications.c.call,
    sqlite_where=notifications.c.call.is_not(None),
)

events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("call", BigInteger, nullable=False),
    Column("cube", Text, nullable=False),
    # "notice" for what tells of no call; then `state` is the notice's type and `call` as `Event.call` says.
    Column("granularity", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    # The CallEvent as JSON, which is the `full` payload; or the Notice.
    Column("body", Text, nullable=False),
)

Index("events_call", events.c.call)
# A cube's deliveries are found by its events, newest first; there are fewer of these.
Index("events_cube", events.c.cube, events.c.id)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("webhook", Text, nullable=False),
    Column("call", BigInteger, nullable=False),
    Column("event", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    # `due_at` while this is the oldest pending delivery of its call to its webhook, else NULL.
    # Only these may be sent next; a call's later deliveries wait, however long ago they fell due.
    Column("ready_at", BigInteger),
    Column("spent", Integer, nullable=False, server_default=text("0")),
    Column("redelivery", Boolean, nullable=False, server_default=false()),
    # Of the last attempt, if that failed: its error class, and the status that was answered if any.
    Column("error_class", Text),
    Column("answered", Integer),
)
# A call's deliveries: its successor when one is settled, its whole lane when it is read.
Index("deliveries_call", deliveries.c.call, deliveries.c.webhook)
# Lists, newest first.
Index("deliveries_webhook", deliveries.c.webhook, deliveries.c.id)
# Lists of the few that are not delivered, and how many are pending.  Only a statement that says `UNDELIVERED`
# as it stands here may use it: no look-up of a lane is ever led astray into a million pending ones.
UNDELIVERED = deliveries.c.status != literal_column("'delivered'", String)
Index(
    "deliveries_undelivered",
    deliveries.c.webhook,
    deliveries.c.status,
    deliveries.c.id,
    sqlite_where=UNDELIVERED,
)
# What may be sent next, in the order it falls due.
Index(
    "deliveries_ready",
    deliveries.c.webhook,
    deliveries.c.ready_at,
    sqlite_where=deliveries.c.ready_at.is_not(None),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("delivery", BigInteger, nullable=False),
    # The whole Attempt as JSON.
    Column("detail", Text, nullable=False),
)

Index("attempts_delivery", attempts.c.delivery)

# Which calls a number was in.  `key` is the number backwards (`numbering.search_key`), so that the calls of
# all numbers that end alike are a range.
numbers = Table(
    "numbers",
    metadata,
    Column("key", Text, primary_key=True),
    Column("call", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# Calls that ended, added up by the hour (since the epoch, UTC) in which they began.
hourly = Table(
    "hourly",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("cube", Text, primary_key=True),
    *(Column(name, Integer, nullable=False) for name in HOURLY),
    sqlite_with_rowid=False,
)

# How many calls were in progress in a minute (since the epoch, UTC), at most; `cube` is empty for all.
samples = Table(
    "samples",
    metadata,
    Column("cube", Text, primary_key=True),
    Column("minute", Integer, primary_key=True, autoincrement=False),
    Column("active", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# Whoever may use the API: of tokens, sessions and sign-in links only hashes are kept.
tokens = Table(
    "tokens",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("created_by", Text, nullable=False),
    Column("last_used_at", BigInteger),
)

# A browser's session, or a link that begins one and is then gone.
sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

# Every change that someone made.
audit = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

# What an operator asked for and is done bit by bit, also after a restart.
jobs = Table(
    "jobs",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("webhook", Text, nullable=False),
    Column("state", Text, nullable=False),
    # The whole `records.Job` as JSON.
    Column("detail", Text, nullable=False),
)

# Alembic's own table, declared so that a new database can be stamped without importing Alembic.
version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
