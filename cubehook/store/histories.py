"""
One call whole, and one delivery whole: all that came in, what was told of it, and every try to send that.

Plain functions of a connection, for `Store.read`.  What is given is bounded, however much there is; how
much was left out is told.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Select, func, select
from twisted.logger import Logger

from cubehook.events import Call, Event
from cubehook.ids import id_text
from cubehook.records import Attempt, Notification
from cubehook.store import queries
from cubehook.store.lists import CallItem, DeliveryItem, call_items, call_of, delivery_items
from cubehook.store.packing import unpack
from cubehook.store.schema import attempts, calls, deliveries, events, notifications

ENDS = 150
"""Of notifications, events and deliveries so many are given: of the first, and of the last."""

ATTEMPTS = 50
"""The last so many attempts of each delivery of a call are given."""

EVERY_ATTEMPT = 1_000
"""The same of a delivery on its own."""

TEXT_BYTES = 8 * 1024 * 1024
"""What notifications may weigh together, and attempts; bodies and attempts beyond that are left out."""

_AT_ONCE = 20
"""Rows in memory that may be large."""

_log = Logger()


class LeftOut(msgspec.Struct, kw_only=True):
    """How many of each are there, but not given."""

    notifications: int = 0
    events: int = 0
    deliveries: int = 0
    attempts: int = 0
    bodies: int = 0
    """Notifications that are given without their bodies."""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery with its attempts, oldest first."""

    delivery: DeliveryItem
    attempts: list[Attempt]


class CallHistory(msgspec.Struct, frozen=True, kw_only=True):
    """
    A call, the notifications that told of it, its events and their deliveries, each oldest first.

    A notification's body is empty if it was left out.  What cannot be read back is left out too.
    """

    call: Call
    notifications: list[Notification]
    events: list[Event]
    deliveries: list[Tried]
    left_out: LeftOut


class DeliveryHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery with its attempts, oldest first, its event and its call; None where that is no more kept."""

    delivery: DeliveryItem
    attempts: list[Attempt]
    event: Event | None
    call: CallItem | None
    left_out: LeftOut


class _Budget:
    """Bytes that may still be given."""

    def __init__(self, size: int) -> None:
        self._left = size

    def takes(self, size: int) -> bool:
        """Whether that much is left, and if so, that it is no longer."""
        if size > self._left:
            return False
        self._left -= size
        return True


def call_history(connection: Connection, id: int) -> CallHistory | None:
    """The call `id` and all that came of it; None if there is none."""
    row = connection.execute(select(calls).where(calls.c.id == id)).one_or_none()
    if row is None:
        return None
    left_out = LeftOut()
    told, left_out.notifications = _notifications(connection, id, left_out)
    happened, left_out.events = _ends(
        connection, select(*_EVENT).where(events.c.call == id), events.c.id, events.c.call == id
    )
    of_call = deliveries.c.call == id
    owed, left_out.deliveries = _ends(
        connection, select(deliveries.c.id).where(of_call), deliveries.c.id, of_call
    )
    budget = _Budget(TEXT_BYTES)
    # The last ones first, should not all find room: they are what is looked for.
    tried = [
        Tried(delivery=item, attempts=_attempts(connection, item.id, ATTEMPTS, budget, left_out))
        for item in delivery_items(connection, [each.id for each in owed])
    ]
    return CallHistory(
        call=call_of(row),
        notifications=told,
        events=_events(happened),
        deliveries=tried[::-1],
        left_out=left_out,
    )


def delivery_history(connection: Connection, id: int) -> DeliveryHistory | None:
    """The delivery `id` and every attempt of it; None if there is none."""
    items = delivery_items(connection, [id])
    if not items:
        return None
    [item] = items
    left_out = LeftOut()
    of = _events(connection.execute(select(*_EVENT).where(events.c.id == item.event)))
    call = [] if item.call is None else call_items(connection, [item.call])
    return DeliveryHistory(
        delivery=item,
        attempts=_attempts(connection, id, EVERY_ATTEMPT, _Budget(TEXT_BYTES), left_out),
        event=of[0] if of else None,
        call=call[0] if call else None,
        left_out=left_out,
    )


_EVENT = (events.c.id, events.c.call, events.c.cube, events.c.granularity, events.c.at, events.c.body)


def _ends(
    connection: Connection, rows: Select[Any], id: Column[int], where: Any
) -> tuple[Sequence[Any], int]:
    """The first and the last of `rows` in the order of `id`, and how many between them are left out."""
    first = connection.execute(rows.order_by(id).limit(2 * ENDS + 1)).all()
    if len(first) <= 2 * ENDS:
        return first, 0
    last = connection.execute(rows.order_by(id.desc()).limit(ENDS)).all()
    count = connection.scalar(select(func.count()).select_from(id.table).where(where)) or 0
    return [*first[:ENDS], *reversed(last)], count - 2 * ENDS


def _notifications(connection: Connection, call: int, left_out: LeftOut) -> tuple[list[Notification], int]:
    id, of_call = notifications.c.id, notifications.c.call == call
    columns = (id, notifications.c.cube, notifications.c.at, notifications.c.message)
    rows, missing = _ends(connection, select(*columns).where(of_call), id, of_call)
    bodies = _bodies(connection, [row.id for row in rows])
    left_out.bodies = len(rows) - len(bodies)
    return [
        Notification(
            id=row.id,
            cube=row.cube,
            call=call,
            at=row.at,
            message=row.message,
            body=bodies.get(row.id, b""),
        )
        for row in rows
    ], missing


def _bodies(connection: Connection, ids: Sequence[int]) -> dict[int, bytes]:
    """The bodies of these notifications, the first of them, as far as their size goes."""
    found: dict[int, bytes] = {}
    budget = _Budget(TEXT_BYTES)
    those = select(notifications.c.id, notifications.c.body).where(notifications.c.id.in_(ids))
    for id, packed in connection.execute(those.order_by(notifications.c.id)).yield_per(_AT_ONCE):
        body = _unpacked(id, packed)
        if not budget.takes(len(body)):
            break
        found[id] = body
    return found


def _unpacked(id: int, packed: bytes) -> bytes:
    try:
        return unpack(packed)
    except zlib.error as error:
        _log.error(
            "The notification {notification} in the database cannot be read back: {why}",
            notification=id_text(id),
            why=str(error),
        )
        return b""


def _events(rows: Iterable[Any]) -> list[Event]:
    """The events of these rows; one that cannot be read back is left out, loudly."""
    found = []
    for row in rows:
        try:
            found.append(queries.event(row.id, row.call, row.cube, row.granularity, row.at, row.body))
        except msgspec.MsgspecError as error:
            _log.error(
                "The event {event} in the database cannot be read back and is not shown: {why}",
                event=id_text(row.id),
                why=str(error),
            )
    return found


def _attempts(
    connection: Connection, delivery: int, most: int, budget: _Budget, left_out: LeftOut
) -> list[Attempt]:
    """The last `most` attempts of `delivery`, oldest first, as far as `budget` goes."""
    of = attempts.c.delivery == delivery
    rows = select(attempts.c.id, attempts.c.detail).where(of).order_by(attempts.c.id.desc()).limit(most)
    found = []
    for id, detail in connection.execute(rows).yield_per(_AT_ONCE):
        if not budget.takes(len(detail)):
            break
        try:
            found.append(queries.attempt(detail))
        except msgspec.MsgspecError as error:
            _log.error(
                "The attempt {attempt} in the database cannot be read back and is not shown: {why}",
                attempt=id_text(id),
                why=str(error),
            )
    count = connection.scalar(select(func.count()).select_from(attempts).where(of)) or 0
    left_out.attempts += count - len(found)
    return found[::-1]
