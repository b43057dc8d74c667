"""What is read: plain functions of a connection, run in a reading thread."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, bindparam, case, func, select, update

from cubehook.events import Call, CallEvent, CallState, Event, Granularity, Micros, Notice
from cubehook.ids import first_id
from cubehook.records import Attempt, Delivery, DeliveryStatus, ErrorClass, Registration, RegistrationState
from cubehook.store.schema import (
    PENDING,
    UNDELIVERED,
    attempts,
    audit,
    calls,
    deliveries,
    events,
    jobs,
    notifications,
    registrations,
    tokens,
)

_LANES_AT_ONCE = 64

_call_event = msgspec.json.Decoder(CallEvent).decode
_notice = msgspec.json.Decoder(Notice).decode
_call = msgspec.json.Decoder(Call).decode
attempt = msgspec.json.Decoder(Attempt).decode
"""An attempt from its `detail`."""
granularities = {str(granularity): granularity for granularity in Granularity}
"""By what `events.granularity` has of them; a notice has none."""

READY = (
    select(deliveries.c.call)
    .where(deliveries.c.webhook == bindparam("webhook"), deliveries.c.ready_at <= bindparam("now"))
    .order_by(deliveries.c.ready_at)
    .limit(bindparam("most"))
)

DELIVERY = (
    deliveries.c.id,
    deliveries.c.call,
    deliveries.c.attempts,
    deliveries.c.due_at,
    deliveries.c.spent,
    deliveries.c.redelivery,
    deliveries.c.error_class,
    deliveries.c.answered,
    events.c.id,
    events.c.cube,
    events.c.granularity,
    events.c.at,
    events.c.body,
)
"""What `delivery` makes a delivery of; the event's body last."""

LANES = (
    select(*DELIVERY)
    .join_from(deliveries, events, events.c.id == deliveries.c.event)
    .where(
        deliveries.c.call.in_(bindparam("calls", expanding=True)),
        deliveries.c.webhook == bindparam("webhook"),
        deliveries.c.status == PENDING,
    )
)

NEXT_DUE = select(func.min(deliveries.c.ready_at)).where(
    deliveries.c.webhook == bindparam("webhook"), deliveries.c.ready_at > bindparam("after")
)

PENDING_COUNTS = (
    select(deliveries.c.webhook, func.count())
    .where(UNDELIVERED, deliveries.c.status == PENDING)
    .group_by(deliveries.c.webhook)
)

# The index gives them in the order of their ids; sent again are few at a time.
OLDEST_PENDING = (
    select(events.c.at)
    .join_from(deliveries, events, events.c.id == deliveries.c.event)
    .where(
        UNDELIVERED,
        deliveries.c.webhook == bindparam("webhook"),
        deliveries.c.status == PENDING,
        ~deliveries.c.redelivery,
    )
    .order_by(deliveries.c.id)
    .limit(1)
)

OPEN_CALLS = select(calls.c.id, calls.c.detail).where(~calls.c.ended).order_by(calls.c.id)

ENDED_CALLS = (
    select(events.c.call)
    .where(
        events.c.id >= bindparam("since"),
        events.c.state == str(CallState.DISCONNECTED),
        events.c.granularity == str(Granularity.CALL),
    )
    .order_by(events.c.id.desc())
    .limit(bindparam("most"))
)

CALL_DETAILS = select(calls.c.id, calls.c.detail).where(calls.c.id.in_(bindparam("calls", expanding=True)))

_CALLS_AT_ONCE = 500


def pending(
    connection: Connection, webhook: str, now: Micros, exclude: Collection[int], limit: int
) -> list[Delivery]:
    """See `IDeliveryStore.pending`."""
    excluded = frozenset(exclude)
    ready = connection.scalars(READY, {"webhook": webhook, "now": now, "most": limit + len(excluded)})
    wanted = [call for call in ready if call not in excluded][:limit]
    found: list[Delivery] = []
    for start in range(0, len(wanted), _LANES_AT_ONCE):
        part = wanted[start : start + _LANES_AT_ONCE]
        lanes: dict[int, list[Any]] = {call: [] for call in part}
        for row in connection.execute(LANES, {"webhook": webhook, "calls": part}):
            lanes[row[1]].append(row)
        for rows in lanes.values():
            rows.sort()
            found += [delivery(webhook, row) for row in rows]
            if len(found) >= limit:
                return found
    return found


def delivery(webhook: str, row: Any) -> Delivery:
    """A pending delivery of `webhook`, from a row of `DELIVERY`; ValueError if it cannot be read back."""
    id, call, tried, due_at, spent, redelivery, error_class, answered, of, cube, kind, at, body = row
    return Delivery(
        id=id,
        webhook=webhook,
        event=event(of, call, cube, kind, at, body),
        status=DeliveryStatus.PENDING,
        attempts=tried,
        spent=spent,
        redelivery=redelivery,
        error_class=None if error_class is None else ErrorClass(error_class),
        answered=answered,
        due_at=due_at,
    )


def event(id: int, call: int, cube: str, kind: str, at: Micros, body: str) -> Event:
    """An event from columns of its row, `kind` being its `granularity`; MsgspecError if `body` is none."""
    granularity = granularities.get(kind)
    return Event(
        id=id,
        call=call,
        cube=cube,
        granularity=granularity,
        at=at,
        payload=_notice(body) if granularity is None else _call_event(body),
    )


def oldest_pending(connection: Connection, webhooks: Collection[str]) -> dict[str, Micros]:
    """See `cubehook.store.store.Store.oldest_pending`."""
    found = {webhook: connection.scalar(OLDEST_PENDING, {"webhook": webhook}) for webhook in webhooks}
    return {webhook: at for webhook, at in found.items() if at is not None}


def next_due(connection: Connection, webhook: str, after: Micros) -> Micros | None:
    """See `IDeliveryStore.next_due`."""
    due: Micros | None = connection.scalar(NEXT_DUE, {"webhook": webhook, "after": after})
    return due


def pending_counts(connection: Connection) -> dict[str, int]:
    """How many deliveries are pending, by webhook: a count over an index of just those."""
    return dict(connection.execute(PENDING_COUNTS).tuples().all())


def open_calls(connection: Connection) -> tuple[list[Call], dict[int, str]]:
    """Every call that has not ended, oldest first; and why others cannot be read back, by id."""
    return _read_back(connection.execute(OPEN_CALLS).tuples())


def _read_back(rows: Iterable[tuple[int, str]]) -> tuple[list[Call], dict[int, str]]:
    """The calls of these ids and details; and why others cannot be read back, by id."""
    found = []
    unreadable = {}
    for id, detail in rows:
        try:
            found.append(_call(detail))
        except msgspec.MsgspecError as error:
            unreadable[id] = str(error)
    return found, unreadable


def ended_calls(connection: Connection, since: Micros, most: int) -> tuple[list[Call], dict[int, str]]:
    """
    The last `most` calls that ended at `since` or later, in the order they ended; and as `open_calls`.

    Found by their DISCONNECTED, since ids of events are in the order of their times and nothing
    else of a call's end is.
    """
    ids = list(connection.scalars(ENDED_CALLS, {"since": first_id(since), "most": most}))
    ids.reverse()
    details: dict[int, str] = {}
    for start in range(0, len(ids), _CALLS_AT_ONCE):
        part = ids[start : start + _CALLS_AT_ONCE]
        details.update(connection.execute(CALL_DETAILS, {"calls": part}).tuples().all())
    return _read_back((id, details[id]) for id in ids if id in details)


def all_registrations(connection: Connection) -> list[Registration]:
    """How each cube's registration stood last."""
    return [
        Registration(**{**row, "state": RegistrationState(row["state"])})
        for row in connection.execute(select(registrations).order_by(registrations.c.cube)).mappings()
    ]


def greatest_id(connection: Connection) -> int:
    """The greatest id in use, 0 if there is none."""
    return max(
        connection.scalar(select(func.max(table.c.id))) or 0
        for table in (calls, notifications, events, deliveries, attempts, jobs, tokens, audit)
    )


def hasten(
    connection: Connection, webhook: str, after: int, most: int, by: Micros, now: Micros
) -> int | None:
    """
    Let pending deliveries of `webhook` that are due after `now` be due `by` microseconds earlier, or `now`.

    Looks at the first `most` with ids greater than `after`; the last id it looked at, None if there was none.
    """
    of_webhook = (UNDELIVERED, deliveries.c.webhook == webhook, deliveries.c.status == PENDING)
    found = list(
        connection.scalars(
            select(deliveries.c.id)
            .where(*of_webhook, deliveries.c.id > after)
            .order_by(deliveries.c.id)
            .limit(most)
        )
    )
    if not found:
        return None

    def earlier(column: Column[int]) -> ColumnElement[int]:
        return case((column - by > now, column - by), else_=now)

    connection.execute(
        update(deliveries)
        .where(deliveries.c.id.in_(found), deliveries.c.due_at > now)
        .values(
            due_at=earlier(deliveries.c.due_at),
            ready_at=case((deliveries.c.ready_at.is_not(None), earlier(deliveries.c.due_at))),
        )
    )
    return int(found[-1])


def settle(connection: Connection, delivery: int, status: str) -> None:
    """See `IDeliveryStore.settle`; the call's next delivery takes its place."""
    row = connection.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery, deliveries.c.status == PENDING)
        .values(status=status, ready_at=None)
        .returning(deliveries.c.call, deliveries.c.webhook)
    ).one_or_none()
    if row is None:
        return
    lane = (
        deliveries.c.call == row.call,
        deliveries.c.webhook == row.webhook,
        deliveries.c.status == PENDING,
    )
    oldest = select(func.min(deliveries.c.id)).where(*lane).scalar_subquery()
    connection.execute(
        update(deliveries).where(deliveries.c.id == oldest).values(ready_at=deliveries.c.due_at)
    )


def leap(connection: Connection, column: Column[str], where: ColumnElement[bool]) -> list[str]:
    """
    The different values of `column`, which an index has behind what `where` says, without a walk.

    `where` must not bound the column itself: by that bound SQLite would search, each time from it on.
    """
    seen = select(func.min(column).label("value")).where(where).cte("seen", recursive=True)
    following = select(func.min(column)).where(where, column > seen.c.value).scalar_subquery()
    seen = seen.union_all(select(following).where(seen.c.value.is_not(None)))
    return list(connection.scalars(select(seen.c.value).where(seen.c.value.is_not(None))))
