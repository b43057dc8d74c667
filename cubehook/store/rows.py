"""
What is to be written: values turned into rows, and a group of rows into few statements.

The first half runs in the reactor's thread, when a value is handed in, since values change
afterwards; the second in the writer's.  Under the interpreter lock each statement may have to wait
for a busy reactor, so a group sends as few as it can: one statement writes many rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, ClassVar, TypeAlias

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Dialect,
    Executable,
    Integer,
    String,
    and_,
    case,
    column,
    exists,
    func,
    or_,
    select,
    update,
    values,
)
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from twisted.internet.defer import Deferred

from cubehook.events import Call, Event, full_body
from cubehook.records import Attempt, Delivery, DeliveryStatus, Notification, Registration
from cubehook.store.packing import pack
from cubehook.store.schema import (
    PENDING,
    attempts,
    calls,
    deliveries,
    events,
    notifications,
    registration_changes,
    registrations,
)
from cubehook.store.sqlite import insert

Row: TypeAlias = tuple[Any, ...]
Execute: TypeAlias = Callable[[str, Row], object]
"""A DBAPI cursor's `execute`."""

_encode = msgspec.json.Encoder().encode
_PENDING = DeliveryStatus.PENDING

_ITEM_BYTES = 1000
"""What an item weighs beside its texts: its rows, its Deferred and what waits on it."""

# The driver binds plain strings and integers several times faster than enumerations and booleans,
# so the rows below hold only those.


class Rows:
    """The rows of one group, by table."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.notifications: list[Row] = []
        self.calls: dict[int, Row] = {}
        self.events: list[Row] = []
        self.deliveries: dict[int, Row] = {}
        self.attempts: list[Row] = []
        self.standings: dict[int, Row] = {}
        self.settled_lanes: dict[tuple[int, str], None] = {}
        self.registrations: list[Registration] = []
        for item in items:
            item.add_to(self)

    def write(self, execute: Execute) -> None:
        """
        Send everything, inside the caller's transaction.

        Settled deliveries come before new ones, so that a new one finds its lane empty or not.
        """
        if self.notifications:
            _INSERT_NOTIFICATIONS.run(execute, self.notifications)
        if self.calls:
            _SAVE_CALLS.run(execute, list(self.calls.values()))
        if self.events:
            _INSERT_EVENTS.run(execute, self.events)
        if self.attempts:
            _INSERT_ATTEMPTS.run(execute, self.attempts)
        if self.standings:
            _SAVE_STANDINGS.run(execute, list(self.standings.values()))
        if self.settled_lanes:
            _ADVANCE_LANES.run(execute, list(self.settled_lanes))
        if self.deliveries:
            _INSERT_DELIVERIES.run(execute, self._with_heads())
        for registration in self.registrations:
            change = (registration.cube, registration.since, str(registration.state), registration.reason,
                      registration.last_error)  # fmt: skip
            _ADD_REGISTRATION_CHANGE.run(execute, [change])
            _SAVE_REGISTRATIONS.run(execute, [registration_row(registration)])

    def _with_heads(self) -> list[Row]:
        """The new deliveries, each marked whether it is the first pending one of its lane in this group."""
        seen = set()
        rows = []
        for row in self.deliveries.values():
            head = 0
            if row[4] == "pending":
                lane = row[1:3]
                if lane not in seen:
                    seen.add(lane)
                    head = 1
            rows.append((*row, head))
        return rows


class Item:
    """One thing to write: whole or not at all, in the order handed in."""

    __slots__ = ("done", "result", "size")

    held_is_enough: ClassVar[bool] = False
    """`done` fires when the item is held in memory, if the database cannot be written."""

    size: int
    done: Deferred[Any] | None
    result: object

    def __init__(self, size: int) -> None:
        self.size = size
        self.result = None
        self.done = Deferred()

    def add_to(self, rows: Rows) -> None:
        """Put this item's rows beside those of the items before it."""


class Accepted(Item):
    """Everything that one notification changed."""

    __slots__ = ("_calls", "_deliveries", "_events", "_notification")

    def __init__(
        self,
        notification: Notification | None,
        changed: Sequence[Call],
        told: Sequence[Event],
        owed: Sequence[Delivery],
    ) -> None:
        size = _ITEM_BYTES
        self._notification: Row | None = None
        if notification is not None:
            body = pack(notification.body)
            size += len(body)
            self._notification = (
                notification.id,
                notification.cube,
                notification.call,
                notification.at,
                notification.message,
                body,
            )
        self._calls = [call_row(call) for call in changed]
        for row in self._calls:
            size += len(row[-1])
        self._events = [event_row(event) for event in told] if told else ()
        for row in self._events:
            size += len(row[-1])
        self._deliveries = [delivery_row(delivery) for delivery in owed] if owed else ()
        super().__init__(size)

    def add_to(self, rows: Rows) -> None:
        if self._notification is not None:
            rows.notifications.append(self._notification)
        for row in self._calls:
            rows.calls[row[0]] = row
        if self._events:
            rows.events += self._events
        for row in self._deliveries:
            rows.deliveries[row[0]] = row


class Recorded(Item):
    """One attempt and how its delivery stands after it; without the attempt if `attempt` is None."""

    __slots__ = ("_attempt", "_delivery", "_lane", "_standing")

    held_is_enough = True

    def __init__(self, attempt: Attempt | None, delivery: Delivery) -> None:
        size = _ITEM_BYTES
        self._attempt: Row | None = None
        if attempt is not None:
            detail = _encode(attempt).decode()
            size += len(detail)
            self._attempt = (attempt.id, attempt.delivery, detail)
        status = delivery.status
        self._delivery = delivery.id
        self._standing = (str(status), delivery.attempts, delivery.due_at)
        self._lane = None if status is _PENDING else (delivery.event.call, delivery.webhook)
        super().__init__(size)

    def add_to(self, rows: Rows) -> None:
        if self._attempt is not None:
            rows.attempts.append(self._attempt)
        new = rows.deliveries.get(self._delivery)
        if new is not None:
            rows.deliveries[self._delivery] = new[:4] + self._standing
            return
        rows.standings[self._delivery] = (self._delivery, *self._standing)
        if self._lane is not None:
            rows.settled_lanes[self._lane] = None


class Registered(Item):
    """How a cube's registration stands."""

    __slots__ = ("_registration",)

    def __init__(self, registration: Registration) -> None:
        self._registration = registration
        super().__init__(_ITEM_BYTES)

    def add_to(self, rows: Rows) -> None:
        rows.registrations.append(self._registration)


class Job(Item):
    """Work with a transaction of its own; `done` fires with what it returned."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[Connection], object]) -> None:
        self.work = work
        super().__init__(_ITEM_BYTES)


def call_row(call: Call) -> Row:
    """`call` in the order of its table's columns."""
    outcome = call.outcome
    return (
        call.id,
        call.cube,
        call.gateway_call_id,
        call.guid,
        call.calling_number,
        call.called_number,
        None if outcome is None else str(outcome),
        call.started_at,
        call.alerting_at,
        call.connected_at,
        call.disconnected_at,
        1 if call.ended else 0,
        _encode(call).decode(),
    )


def event_row(event: Event) -> Row:
    """`event` in the order of its table's columns."""
    payload = event.payload
    return (
        event.id,
        event.call,
        event.cube,
        str(event.granularity),
        str(payload.call_state),
        event.at,
        full_body(payload).decode(),
    )


def delivery_row(delivery: Delivery) -> Row:
    """`delivery` in the order of its table's columns, as far as `ready_at`."""
    event = delivery.event
    return (
        delivery.id,
        delivery.webhook,
        event.call,
        event.id,
        str(delivery.status),
        delivery.attempts,
        delivery.due_at,
    )


def registration_row(registration: Registration) -> Row:
    """`registration` in the order of its table's columns."""
    return (
        registration.cube,
        str(registration.state),
        registration.since,
        registration.registration_id,
        registration.last_message_at,
        registration.failure_count,
        registration.last_error,
        registration.reason,
    )


_ROWS_AT_ONCE = 64
"""Rows of one statement at most; a greater gain from there on is not to be measured."""

_VALUES = re.compile(r"VALUES (\([^()]*\))")


class ManyRows:
    """
    A statement with one VALUES list, compiled once to SQL that takes 1, 2, 4, ... rows.

    Powers of two, so that few texts stay prepared in the connection and any number of rows
    takes few of them.
    """

    def __init__(self, statement: Executable, dialect: Dialect) -> None:
        text = str(statement.compile(dialect=dialect))  # type: ignore[attr-defined]
        match = _VALUES.search(text)
        if match is None or text.count("?") != match[1].count("?"):
            raise ValueError(f"not a statement whose only parameters are one row of values: {text}")
        self._head, self._row, self._tail = text[: match.start(1)], match[1], text[match.end(1) :]
        self._texts: dict[int, str] = {}

    def text(self, count: int) -> str:
        """The SQL for `count` rows."""
        text = self._texts.get(count)
        if text is None:
            text = self._texts[count] = self._head + ", ".join([self._row] * count) + self._tail
        return text

    def run(self, execute: Execute, rows: Sequence[Row]) -> None:
        """Execute for all `rows`, in as few statements as may be."""
        start = 0
        left = len(rows)
        while left:
            count = min(_ROWS_AT_ONCE, 1 << (left.bit_length() - 1))
            part = rows if left == count and not start else rows[start : start + count]
            execute(self.text(count), tuple(chain.from_iterable(part)))
            start += count
            left -= count


_dialect = sqlite_dialect()


def _insert_delivery() -> Executable:
    """A new delivery leads its lane if it is the first of its group and none is pending on disk."""
    new = (
        values(
            column("id", BigInteger),
            column("webhook", String),
            column("call", BigInteger),
            column("event", BigInteger),
            column("status", String),
            column("attempts", Integer),
            column("due_at", BigInteger),
            column("head", Boolean),
            name="new",
        )
        .data([(0,) * 8])
        .cte("new")
    )
    older = deliveries.alias("older")
    leads = and_(
        new.c.head,
        ~exists().where(
            older.c.call == new.c.call, older.c.webhook == new.c.webhook, older.c.status == PENDING
        ),
    )
    return plain_insert(deliveries).from_select(
        [*deliveries.c.keys()],
        select(*(new.c[name] for name in deliveries.c.keys()[:-1]), case((leads, new.c.due_at))),
    )


def _save_standing() -> Executable:
    """
    A delivery as it stands after an attempt.

    One settled meanwhile (its webhook was removed) does not become pending again.
    """
    after = (
        values(
            column("id", BigInteger),
            column("status", String),
            column("attempts", Integer),
            column("due_at", BigInteger),
            name="after",
        )
        .data([(0,) * 4])
        .cte("after")
    )
    still_leads = and_(after.c.status == PENDING, deliveries.c.ready_at.is_not(None))
    return (
        update(deliveries)
        .values(
            status=after.c.status,
            attempts=after.c.attempts,
            due_at=after.c.due_at,
            ready_at=case((still_leads, after.c.due_at)),
        )
        .where(deliveries.c.id == after.c.id, or_(after.c.status != PENDING, deliveries.c.status == PENDING))
    )


def _advance_lane() -> Executable:
    """The oldest pending delivery of each lane leads it."""
    lane = (
        values(column("call", BigInteger), column("webhook", String), name="lane").data([(0, "")]).cte("lane")
    )
    waiting = deliveries.alias("waiting")
    oldest = (
        select(func.min(waiting.c.id))
        .where(
            waiting.c.call == lane.c.call, waiting.c.webhook == lane.c.webhook, waiting.c.status == PENDING
        )
        .correlate(lane)
        .scalar_subquery()
    )
    return (
        update(deliveries)
        .values(ready_at=deliveries.c.due_at)
        .where(deliveries.c.id.in_(select(oldest).select_from(lane)))
    )


def _save_calls() -> Executable:
    new = insert(calls)
    fixed = {"id", "cube", "gateway_call_id", "started_at"}
    return new.on_conflict_do_update(
        index_elements=["id"], set_={c.name: new.excluded[c.name] for c in calls.c if c.name not in fixed}
    )


def _save_registrations() -> Executable:
    new = insert(registrations)
    return new.on_conflict_do_update(
        index_elements=["cube"],
        set_={c.name: new.excluded[c.name] for c in registrations.c if c.name != "cube"},
    )


def _add_registration_change() -> Executable:
    names = ["cube", "at", "state", "reason", "last_error"]
    new = (
        values(
            column("cube", String),
            column("at", BigInteger),
            column("state", String),
            column("reason", String),
            column("last_error", String),
            name="new",
        )
        .data([("", 0, "", "", "")])
        .cte("new")
    )
    unchanged = exists().where(registrations.c.cube == new.c.cube, registrations.c.state == new.c.state)
    return plain_insert(registration_changes).from_select(
        names, select(*(new.c[name] for name in names)).where(~unchanged)
    )


_INSERT_NOTIFICATIONS = ManyRows(plain_insert(notifications), _dialect)
_SAVE_CALLS = ManyRows(_save_calls(), _dialect)
_INSERT_EVENTS = ManyRows(plain_insert(events), _dialect)
_INSERT_DELIVERIES = ManyRows(_insert_delivery(), _dialect)
_INSERT_ATTEMPTS = ManyRows(plain_insert(attempts), _dialect)
_SAVE_STANDINGS = ManyRows(_save_standing(), _dialect)
_ADVANCE_LANES = ManyRows(_advance_lane(), _dialect)
_SAVE_REGISTRATIONS = ManyRows(_save_registrations(), _dialect)
_ADD_REGISTRATION_CHANGE = ManyRows(_add_registration_change(), _dialect)
