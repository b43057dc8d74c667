"""A database that an older cubehook filled becomes what this version would have written."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from cubehook.calls.payload import call_event
from cubehook.config import Webhook
from cubehook.events import Call, CallState, Event, Granularity, Outcome, full_body
from cubehook.ids import Ids
from cubehook.store import migrate, schema
from cubehook.store.packing import pack
from cubehook.store.rows import HOUR, Accepted, Rows, call_row
from tests.store.support import NOON, SECOND, StoreCase

SECRET = "whsec_" + "QUFB" * 8
CRM = Webhook(id="crm", url="https://api.yourcrm.example/calls", secret=SECRET)
NUMBERS = ("+12512501663", "12512501663", "+12517676234", "anonymous", "+", "", None)


def stories(count: int) -> list[Call]:
    """Calls of two cubes over some hours: with and without an end, numbers, times; some ends inferred."""
    chance = random.Random(3)
    ids = Ids(chance.getrandbits)
    calls = []
    for place in range(count):
        started = NOON + place * HOUR // 40
        call = Call(
            id=ids.next(started),
            cube=chance.choice(("hq", "branch")),
            gateway_call_id=str(place),
            started_at=started,
            last_heard_at=started,
            calling_number=chance.choice(NUMBERS),
            called_number=chance.choice(NUMBERS),
        )
        at = started
        if chance.random() < 0.8:
            at = call.alerting_at = at + chance.randrange(9_999_999)
        if chance.random() < 0.6:
            # A gateway's clock is not asked, ours may have been set back.
            at = call.connected_at = at + chance.choice((-500_000, 0, 9_123_456, 30_000_000))
        if chance.random() < 0.8:
            call.disconnected_at = at + chance.choice((-500_000, 1_999, 60_300_700, 300 * SECOND))
            call.inferred = chance.random() < 0.2
            call.outcome = chance.choice((*Outcome, None))
        calls.append(call)
    return calls


def ended_event(call: Call) -> Event:
    call.sequence = 3
    at = call.disconnected_at
    assert at is not None
    return Event(
        id=call.id + 1,
        call=call.id,
        cube=call.cube,
        granularity=Granularity.CALL,
        at=at,
        payload=call_event(call, CallState.DISCONNECTED, at),
    )


def written_today(calls: list[Call]) -> tuple[list[Any], list[Any]]:
    """What this version writes into `numbers` and `hourly` for calls that ended."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(":memory:", isolation_level=None),
        poolclass=StaticPool,
    )
    try:
        with engine.connect() as connection:
            schema.metadata.create_all(connection)
            database: Any = connection.connection.dbapi_connection
            Rows(Accepted(None, [call], [ended_event(call)], []) for call in calls).write(
                database.executemany
            )
            return (
                database.execute("SELECT * FROM numbers ORDER BY key, call").fetchall(),
                database.execute("SELECT * FROM hourly ORDER BY hour, cube").fetchall(),
            )
    finally:
        engine.dispose()


class MigrationCase(StoreCase):
    """A database of `revision`, made by its own migrations and filled as its own version did."""

    revision: str
    count = 300
    columns: str
    values: str
    spent: int

    def setUp(self) -> None:
        super().setUp()
        self.calls = stories(self.count)
        self.path.parent.mkdir(parents=True)
        newest = schema.REVISION
        self.patch(schema, "REVISION", self.revision)
        self.make(self.path)
        self.patch(schema, "REVISION", newest)

    def make(self, path: Path) -> None:
        engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path), poolclass=StaticPool)
        with engine.begin() as connection:
            migrate.upgrade(connection, None, "old")
            connection.execute(
                text(
                    "INSERT INTO webhooks (id, provisioned, settings, secret) VALUES ('crm', 1, :set, :key)"
                ),
                {
                    "set": msgspec.json.encode(msgspec.structs.replace(CRM, secret=None)).decode(),
                    "key": SECRET,
                },
            )
        engine.dispose()
        database = sqlite3.connect(path)
        with database:
            database.executemany(
                f"INSERT INTO calls VALUES ({', '.join('?' * 13)})", map(call_row, self.calls)
            )
            # Two events of the first call, its first delivery failed twice already and waits.
            call = self.calls[0]
            call.sequence = 1
            body = full_body(call_event(call, CallState.ALERTING, NOON)).decode()
            for place in (0, 1):
                database.execute(
                    "INSERT INTO events VALUES (?, ?, ?, 'call', 'ALERTING', ?, ?)",
                    (call.id + 1 + place, call.id, call.cube, NOON, body),
                )
                database.execute(
                    f"INSERT INTO deliveries ({self.columns}) VALUES ({self.values})",
                    (
                        call.id + 3 + place,
                        call.id,
                        call.id + 1 + place,
                        2 - 2 * place,
                        NOON,
                        [NOON, None][place],
                    ),
                )
            database.execute(
                "INSERT INTO notifications VALUES (?, 'hq', ?, ?, 'alerting', ?)",
                (call.id + 9, call.id, NOON, pack(b"<SOAP:Envelope/>")),
            )
        database.close()

    async def is_like_a_new_one(self) -> None:
        await (await self.opened(self.path.parent / "new" / "cubehook.db")).close()
        other = sqlite3.connect(self.path.parent / "new" / "cubehook.db")
        shape = (
            "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name != 'alembic_version'"
        )
        tables = {name: " ".join(sql.split()) for name, sql in other.execute(shape)}
        other.close()
        self.assertEqual({name: " ".join(sql.split()) for name, sql in self.rows(shape)}, tables)
        self.assertEqual(self.rows("SELECT version_num FROM alembic_version"), [(schema.REVISION,)])

    async def is_filled(self) -> None:
        """Numbers and hours are those that this version writes; open calls can be found too."""
        ended = [call for call in self.calls if call.ended]
        numbers, hours = written_today(ended)
        self.assertGreater(len(hours), 10)
        self.assertEqual(self.rows("SELECT * FROM hourly ORDER BY hour, cube"), hours)
        those = {call.id for call in ended}
        found = self.rows("SELECT * FROM numbers ORDER BY key, call")
        self.assertEqual([row for row in found if row[1] in those], numbers)
        opened = {
            call.id for call in self.calls if not call.ended and (call.calling_number or call.called_number)
        }
        self.assertEqual({call for _, call in found} - those, opened)
        for key, call in found:
            self.assertIn(key, ("36610521521", "43267671521", "suomynona", ""), call)

    async def is_served(self) -> None:
        """What was owed is owed still, whole and in order, and the secret is as it was."""
        store = await self.opened()
        provisioned = await store.provision([], [CRM], at=NOON, overlap=0)
        self.assertEqual(provisioned.secrets["crm"].current, SECRET)
        self.assertNotIn(SECRET[6:].encode(), self.path.read_bytes())
        first, second = await store.pending("crm", NOON, [], 10)
        call = self.calls[0]
        self.assertEqual([first.id, second.id], [call.id + 3, call.id + 4])
        self.assertEqual((first.attempts, first.spent, first.due_at), (2, self.spent, NOON))
        self.assertEqual((first.error_class, first.answered, first.redelivery), (None, None, False))
        self.assertEqual(first.event.call_event.call_state, CallState.ALERTING)
        self.assertEqual(await store.pending_counts(), {"crm": 2})
        self.assertEqual(
            [call.id for call in await store.open_calls()],
            [call.id for call in self.calls if not call.ended],
        )
        await store.close()


class FromFirstTests(MigrationCase):
    revision = "0001"
    columns = "id, webhook, call, event, status, attempts, due_at, ready_at"
    values = "?, 'crm', ?, ?, 'pending', ?, ?, ?"
    spent = 2

    async def test_becomes_what_a_new_one_is_and_is_filled(self) -> None:
        await (await self.opened()).close()
        await self.is_like_a_new_one()
        await self.is_filled()
        await self.is_served()


class FromSecondTests(MigrationCase):
    revision = "0002"
    # More than the migration takes at a time.
    count = 5_200
    columns = "id, webhook, call, event, status, attempts, due_at, ready_at, spent"
    values = "?, 'crm', ?, ?, 'pending', ?, ?, ?, 1"
    spent = 1

    async def test_becomes_what_a_new_one_is_and_is_filled(self) -> None:
        await (await self.opened()).close()
        await self.is_like_a_new_one()
        await self.is_filled()
        await self.is_served()
