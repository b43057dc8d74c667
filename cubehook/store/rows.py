"""
What is to be written: values turned into rows, and the items of a group put together by table.

Items are made in the reactor's thread, when values are handed in, since values change afterwards;
`Rows` works in the writer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection
from twisted.internet.defer import Deferred

from cubehook.events import Call, CallEvent, CallState, Event, Granularity, Outcome, full_body, notice_body
from cubehook.ids import id_time
from cubehook.records import Attempt, Delivery, DeliveryStatus, Notification, Registration
from cubehook.store import statements
from cubehook.store.numbering import search_key
from cubehook.store.packing import pack
from cubehook.store.schema import NOTICE
from cubehook.store.statements import ExecuteMany, Row

_encode = msgspec.json.Encoder().encode
_PENDING = DeliveryStatus.PENDING

HOUR = 3_600_000_000
"""Microseconds."""

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
        self.numbers: set[Row] = set()
        self.hourly: list[Row] = []
        self.deliveries: dict[int, Row] = {}
        self.attempts: list[Row] = []
        self.standings: dict[int, Row] = {}
        self.settled_lanes: dict[tuple[int, str], None] = {}
        self.registrations: list[Registration] = []
        for item in items:
            item.add_to(self)

    def write(self, execute_many: ExecuteMany) -> None:
        """
        Send everything, inside the caller's transaction.

        Settled deliveries come before new ones, so that a new one finds its lane empty or not.
        """
        for statement, rows in (
            (statements.INSERT_NOTIFICATION, self.notifications),
            (statements.SAVE_CALL, self.calls.values()),
            (statements.INSERT_EVENT, self.events),
            (statements.ADD_NUMBER, self.numbers),
            (statements.ADD_HOURLY, self.hourly),
            (statements.INSERT_ATTEMPT, self.attempts),
            (statements.SAVE_STANDING, self.standings.values()),
            (statements.ADVANCE_LANE, self.settled_lanes),
            (statements.INSERT_DELIVERY, self.deliveries.values()),
        ):
            if rows:
                execute_many(statement, list(rows))
        for registration in self.registrations:
            execute_many(statements.ADD_REGISTRATION_CHANGE, [registration_change_row(registration)])
            execute_many(statements.SAVE_REGISTRATION, [registration_row(registration)])


class Item:
    """One thing to write: whole or not at all, in the order handed in."""

    __slots__ = ("done", "result", "size")

    def __init__(self, size: int = _ITEM_BYTES) -> None:
        self.size = size
        """About how many bytes of memory it takes."""
        self.result: object = None
        self.done: Deferred[Any] = Deferred()
        """Fires with `result` once committed, fails if it never will be."""

    def add_to(self, rows: Rows) -> None:
        """Put this item's rows beside those of the items before it; a plain one has none."""


class Accepted(Item):
    """Everything that one notification changed."""

    __slots__ = ("_calls", "_deliveries", "_events", "_notification", "_told")

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
        self._told = told
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
            for event in self._told:
                _look_up_and_add_up(event, rows)
        for row in self._deliveries:
            rows.deliveries[row[0]] = row


def _look_up_and_add_up(event: Event, rows: Rows) -> None:
    """Let a call be found by its numbers, and counted once it is over."""
    payload = event.payload
    if not isinstance(payload, CallEvent) or event.granularity is not Granularity.CALL:
        return
    ended = payload.call_state is CallState.DISCONNECTED
    # Both numbers are known with the first event, as a rule; the last has what came later.
    if ended or payload.sequence == 1:
        for number in (payload.calling_number, payload.called_number):
            if number:
                rows.numbers.add((search_key(number), event.call))
    if ended:
        rows.hourly.append(hourly_row(event.call, event.cube, payload))


class Recorded(Item):
    """One attempt and how its delivery stands after it; without the attempt if `attempt` is None."""

    __slots__ = ("_attempt", "_delivery", "_lane", "_standing")

    def __init__(self, attempt: Attempt | None, delivery: Delivery) -> None:
        size = _ITEM_BYTES
        self._attempt: Row | None = None
        if attempt is not None:
            detail = _encode(attempt).decode()
            size += len(detail)
            self._attempt = (attempt.id, attempt.delivery, detail)
        status = delivery.status
        self._delivery = delivery.id
        error_class = delivery.error_class
        self._standing = (
            str(status),
            delivery.attempts,
            delivery.due_at,
            delivery.spent,
            None if error_class is None else str(error_class),
            delivery.answered,
        )
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
        super().__init__()

    def add_to(self, rows: Rows) -> None:
        rows.registrations.append(self._registration)


class Job(Item):
    """Work with a transaction of its own; `done` fires with what it returned."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[Connection], object]) -> None:
        self.work = work
        super().__init__()


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
    if isinstance(payload, CallEvent):
        kind, state, body = str(event.granularity), str(payload.call_state), full_body(payload)
    else:
        kind, state, body = NOTICE, str(payload.type), notice_body(payload)
    return (event.id, event.call, event.cube, kind, state, event.at, body.decode())


def hourly_row(call: int, cube: str, payload: CallEvent) -> Row:
    """A call that is over, in the order of the columns of `hourly`."""
    outcome = payload.outcome
    ring, talk = payload.ring_seconds, payload.talk_seconds
    return (
        id_time(call) // HOUR,
        cube,
        1,
        *(1 if outcome is one else 0 for one in Outcome),
        0 if ring is None else 1,
        0 if ring is None else round(ring * 1000),
        0 if talk is None else 1,
        0 if talk is None else round(talk * 1000),
    )


def delivery_row(delivery: Delivery) -> Row:
    """`delivery` in the order of `statements.NEW_DELIVERY`."""
    event = delivery.event
    return (
        delivery.id,
        delivery.webhook,
        event.call,
        event.id,
        str(delivery.status),
        delivery.attempts,
        delivery.due_at,
        delivery.spent,
        None,
        None,
    )


def registration_change_row(registration: Registration) -> Row:
    """`registration` in the order of the columns of its history, from `cube` on."""
    return (
        registration.cube,
        registration.since,
        str(registration.state),
        registration.reason,
        registration.last_error,
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
