"""
Lists of what happened, newest first: calls, deliveries, registrations, changes that people made.

Plain functions of a connection, for `Store.read`.  Each takes any of its filters together, and a page's
`next` as `cursor`; `since` and `until` bound the time of what is listed, the latter not included.
Indexes lead to what is asked for (`cubehook.store.paging` tells what is done where none does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, select
from twisted.logger import Logger

from cubehook.events import Call, CallState, Direction, Granularity, Micros, Outcome
from cubehook.ids import first_id, id_text, id_time
from cubehook.records import DeliveryStatus, ErrorClass, RegistrationState
from cubehook.store.paging import (
    BOUND,
    NUMBER_BOUND,
    Number,
    Page,
    Path,
    Within,
    aside,
    fitting,
    page,
    within,
)
from cubehook.store.queries import granularities, leap
from cubehook.store.schema import UNDELIVERED, audit, calls, deliveries, events, registration_changes

_FEW_CALLS = 2_000
"""Of so many calls all deliveries are looked up."""

_SOME_CALLS = 20_000
"""The ids of so many calls of a number are taken from its index."""

_FEW_EVENTS = 4_000

_AT_ONCE = 500
"""Ids in one statement."""

_DELIVERED_WITHIN: Micros = 60_000_000
"""A delivery is made with its event; the ids of both are closer together than this."""

_GREATEST_LANE = 1 << 32
"""What `Event.call` of a notice is at most."""

_log = Logger()


class CallItem(msgspec.Struct, frozen=True, kw_only=True):
    """A call as a list shows it; `state` is that of the last event told of it, None before the first."""

    id: int
    cube: str
    calling_number: str | None
    called_number: str | None
    direction: Direction | None
    state: CallState | None
    outcome: Outcome | None
    inferred: bool
    started_at: Micros
    alerting_at: Micros | None
    connected_at: Micros | None
    disconnected_at: Micros | None
    ring_seconds: float | None
    talk_seconds: float | None


class DeliveryItem(msgspec.Struct, frozen=True, kw_only=True):
    """
    A delivery as a list shows it.

    `call` is None if it carries a notice.  What is known of its event is None if that is no longer kept:
    `event_id` is the event's public id, `state` the call's or the notice's type.
    """

    id: int
    webhook: str
    status: DeliveryStatus
    attempts: int
    due_at: Micros | None
    """When the next attempt may start, while it is pending."""
    error_class: ErrorClass | None
    answered: int | None
    redelivery: bool
    at: Micros
    """When what it tells of was received."""
    call: int | None
    cube: str | None
    event: int
    event_id: str | None
    granularity: Granularity | None
    state: str | None
    calling_number: str | None
    called_number: str | None


class RegistrationChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a cube's registration."""

    id: int
    cube: str
    at: Micros
    state: RegistrationState
    reason: str
    last_error: str | None


class AuditItem(msgspec.Struct, frozen=True, kw_only=True):
    """A change that someone made: who did what to which thing; `detail` tells more."""

    id: int
    at: Micros
    who: str
    action: str
    subject: str
    detail: dict[str, Any]


class _EventBody(msgspec.Struct):
    """What a list shows of `events.body`."""

    event_id: str
    calling_number: str | None = None
    called_number: str | None = None


_outcomes = {str(outcome): outcome for outcome in Outcome}
_call = msgspec.json.Decoder(Call).decode
_event_body = msgspec.json.Decoder(_EventBody).decode
_audit_detail = msgspec.json.Decoder(dict[str, Any]).decode

_STATES: dict[CallState, tuple[ColumnElement[bool], ...]] = {
    CallState.ALERTING: (~calls.c.ended, calls.c.alerting_at.is_not(None), calls.c.connected_at.is_(None)),
    CallState.CONNECTED: (~calls.c.ended, calls.c.connected_at.is_not(None)),
    CallState.DISCONNECTED: (calls.c.ended,),
}

_NOT_DELIVERED = (DeliveryStatus.PENDING, DeliveryStatus.FAILED, DeliveryStatus.EXPIRED)


# Calls.


def list_calls(
    connection: Connection,
    *,
    cube: str | None = None,
    number: str | None = None,
    state: CallState | None = None,
    outcome: Outcome | None = None,
    since: Micros | None = None,
    until: Micros | None = None,
    cursor: int | None = None,
    limit: int = 50,
) -> Page[CallItem]:
    """
    Calls that began in the time, of `cube`, in `state`, with `outcome`.

    `number` was calling or called; it may be only the end of one, or written otherwise.
    """
    range_ = within(since, until, cursor)
    limit = fitting(limit)
    ids: list[int]
    if number is None:
        ids, after = page(connection, _call_paths(connection, range_, cube, state, outcome), limit)
        return Page(call_items(connection, ids), after)
    sought = Number(number)
    found = sought.calls(connection, range_, _SOME_CALLS)
    if found is not None and (len(found) <= _FEW_CALLS or (cube is None and outcome is None)):
        wanted = _state(state)
        if cube is not None:
            wanted.append(aside(calls.c.cube, cube))
        if outcome is not None:
            wanted.append(aside(calls.c.outcome, str(outcome)))
        ids, after = _wanted_of(connection, found, wanted, limit)
        return Page(call_items(connection, ids), after)
    paths = _call_paths(connection, range_, cube, state, outcome, **_numbers_of(sought, found))
    ids, after = page(connection, paths, limit, NUMBER_BOUND)
    return Page(call_items(connection, ids), after)


def _numbers_of(sought: Number, found: Sequence[int] | None) -> dict[str, Any]:
    """How a `Path` through calls, joined or not, tells a number's: by their ids if these were found."""
    if found is not None:
        ids = frozenset(found)
        return {"chosen": lambda row: row[0] in ids}
    return {
        "columns": (calls.c.calling_number, calls.c.called_number),
        "chosen": lambda row: sought.is_one_of(row[1], row[2]),
    }


def _call_paths(
    connection: Connection,
    range_: Within,
    cube: str | None,
    state: CallState | None,
    outcome: Outcome | None,
    **numbers: Any,
) -> list[Path]:
    wanted = _state(state)
    if outcome is not None:
        # Only calls that ended have one.
        if state not in (None, CallState.DISCONNECTED):
            return []
        column = calls.c.outcome
        cubes = leap(connection, calls.c.cube, column == str(outcome)) if cube is None else [cube]
        return [
            Path(calls, range_, column == str(outcome), calls.c.cube == each, **numbers) for each in cubes
        ]
    if state not in (None, CallState.DISCONNECTED):
        if cube is not None:
            wanted.append(aside(calls.c.cube, cube))
        return [Path(calls, range_, ~calls.c.ended, wanted=wanted[1:], **numbers)]
    along = [] if cube is None else [calls.c.cube == cube]
    return [Path(calls, range_, *along, wanted=wanted, **numbers)]


def _state(state: CallState | None) -> list[ColumnElement[bool]]:
    return [] if state is None else list(_STATES[state])


def _wanted_of(
    connection: Connection, ids: Sequence[int], wanted: Sequence[ColumnElement[bool]], limit: int
) -> tuple[list[int], int | None]:
    """The first `limit` calls of `ids`, which descend, that are wanted, and where to go on."""
    found: list[int] = []
    start, chunk = 0, limit + 1
    while start < len(ids) and len(found) <= limit:
        if start >= _FEW_CALLS:
            return found, ids[start - 1]
        part = ids[start : start + chunk]
        those = select(calls.c.id).where(calls.c.id.in_(part), *wanted).order_by(calls.c.id.desc())
        found += connection.scalars(those)
        start += chunk
        chunk = _AT_ONCE
    return (found[:limit], found[limit - 1]) if len(found) > limit else (found, None)


def call_items(connection: Connection, ids: Sequence[int]) -> list[CallItem]:
    """These calls as a list shows them, newest first; those that are no longer there are left out."""
    rows = connection.execute(select(calls).where(calls.c.id.in_(ids)).order_by(calls.c.id.desc()))
    return [_call_item(call_of(row)) for row in rows]


def call_of(row: Any) -> Call:
    """The call of a row of its table; what its columns tell, loudly, if it cannot be read back."""
    try:
        return _call(row.detail)
    except msgspec.MsgspecError as error:
        _log.error(
            "The call {call} in the database cannot be read back whole, and is shown without its legs: {why}",
            call=id_text(row.id),
            why=str(error),
        )
        return Call(
            id=row.id,
            cube=row.cube,
            gateway_call_id=row.gateway_call_id,
            started_at=row.started_at,
            last_heard_at=row.started_at,
            guid=row.guid,
            calling_number=row.calling_number,
            called_number=row.called_number,
            alerting_at=row.alerting_at,
            connected_at=row.connected_at,
            disconnected_at=row.disconnected_at,
            outcome=_outcomes.get(row.outcome),
        )


def state_of(call: Call) -> CallState | None:
    """The state that `call` was last told to be in, None if no event of it was told yet."""
    if call.ended:
        return CallState.DISCONNECTED
    if call.connected_at is not None:
        return CallState.CONNECTED
    return None if call.alerting_at is None else CallState.ALERTING


def _call_item(call: Call) -> CallItem:
    return CallItem(
        id=call.id,
        cube=call.cube,
        calling_number=call.calling_number,
        called_number=call.called_number,
        direction=call.direction,
        state=state_of(call),
        outcome=call.outcome,
        inferred=call.inferred,
        started_at=call.started_at,
        alerting_at=call.alerting_at,
        connected_at=call.connected_at,
        disconnected_at=call.disconnected_at,
        ring_seconds=call.ring_seconds,
        talk_seconds=call.talk_seconds,
    )


# Deliveries.


def list_deliveries(
    connection: Connection,
    *,
    webhook: str | None = None,
    call: int | None = None,
    status: DeliveryStatus | None = None,
    error_class: ErrorClass | None = None,
    number: str | None = None,
    cube: str | None = None,
    since: Micros | None = None,
    until: Micros | None = None,
    cursor: int | None = None,
    limit: int = 50,
) -> Page[DeliveryItem]:
    """
    Deliveries of what happened in the time, to `webhook`, that stand at `status`.

    Of `error_class` are those whose last attempt failed so.  `call`, `cube` and `number` (as for
    `list_calls`) are those of the call that they tell of; notices have no call, but may have a cube.
    """
    range_ = within(since, until, cursor)
    limit = fitting(limit)
    if error_class is not None and status is DeliveryStatus.DELIVERED:
        return Page([], None)
    sought = None if number is None else Number(number)
    found = None
    if call is not None:
        if sought is not None and not _was_in(connection, sought, call):
            return Page([], None)
        found = [call]
    elif sought is not None:
        found = sought.calls(connection, Within(before=range_.before), _FEW_CALLS)
    ids: list[int]
    if found is not None:
        wanted = _delivery_filters(webhook, status, error_class, cube)
        ids, after = _of_calls(connection, found, range_, wanted, limit)
    else:
        compared: dict[str, Any] = {}
        if sought is not None:
            compared = _numbers_of(sought, None)
        paths = _delivery_paths(connection, range_, webhook, status, error_class, cube, compared)
        ids, after = page(connection, paths, limit, NUMBER_BOUND if compared else BOUND)
    return Page(delivery_items(connection, ids), after)


def _was_in(connection: Connection, sought: Number, call: int) -> bool:
    """Whether `call` is one of the number's."""
    row = connection.execute(
        select(calls.c.calling_number, calls.c.called_number).where(calls.c.id == call)
    ).one_or_none()
    return row is not None and sought.is_one_of(*row)


def _delivery_filters(
    webhook: str | None, status: DeliveryStatus | None, error_class: ErrorClass | None, cube: str | None
) -> list[ColumnElement[bool]]:
    """What is asked for, said so that no index is chosen for it."""
    wanted = []
    if webhook is not None:
        wanted.append(aside(deliveries.c.webhook, webhook))
    if status is not None:
        wanted.append(aside(deliveries.c.status, str(status)))
    if error_class is not None:
        wanted.append(aside(deliveries.c.error_class, str(error_class)))
    if cube is not None:
        told = select(events.c.cube).where(events.c.id == deliveries.c.event).scalar_subquery()
        wanted.append(told == cube)
    return wanted


def _of_calls(
    connection: Connection,
    of: Sequence[int],
    range_: Within,
    wanted: Sequence[ColumnElement[bool]],
    limit: int,
) -> tuple[list[int], int | None]:
    """The newest `limit` wanted deliveries of these calls, and where to go on."""
    # Not the column itself: the calls are to lead there, not the ids.
    id = deliveries.c.id + 0
    found: list[int] = []
    for start in range(0, len(of), _AT_ONCE):
        those = deliveries.c.call.in_(of[start : start + _AT_ONCE])
        found += connection.scalars(
            select(deliveries.c.id)
            .where(those, id < range_.before, id >= range_.first, *wanted)
            .order_by(id.desc())
            .limit(limit + 1)
        )
    found.sort(reverse=True)
    return (found[:limit], found[limit - 1]) if len(found) > limit else (found, None)


def _delivery_paths(
    connection: Connection,
    range_: Within,
    webhook: str | None,
    status: DeliveryStatus | None,
    error_class: ErrorClass | None,
    cube: str | None,
    compared: dict[str, Any],
) -> Sequence[Path]:
    source = deliveries.outerjoin(calls, calls.c.id == deliveries.c.call)
    undelivered = error_class is not None or status in _NOT_DELIVERED
    if cube is not None:
        indexed = undelivered or webhook is not None
        if not indexed or _has_few_events(connection, cube, range_):
            wanted = _delivery_filters(webhook, status, error_class, None)
            return [_CubePath(range_, cube, wanted, **compared)]
    if compared:
        compared["source"] = source
    if undelivered:
        wanted = _delivery_filters(None, None, error_class, cube)
        webhooks = leap(connection, deliveries.c.webhook, UNDELIVERED) if webhook is None else [webhook]
        return [
            Path(
                deliveries,
                range_,
                UNDELIVERED,
                deliveries.c.webhook == one,
                deliveries.c.status == str(each),
                wanted=wanted,
                **compared,
            )
            for one in webhooks
            for each in (_NOT_DELIVERED if status is None else (status,))
        ]
    along = [] if webhook is None else [deliveries.c.webhook == webhook]
    return [Path(deliveries, range_, *along, wanted=_delivery_filters(None, status, None, cube), **compared)]


def _has_few_events(connection: Connection, cube: str, range_: Within) -> bool:
    """Whether looking at all events of `cube` is little work."""
    those = _cube_events(select(events.c.id), cube, range_.first, range_.before)
    return connection.scalar(those.offset(_FEW_EVENTS).limit(1)) is None


def _cube_events(statement: Select[Any], cube: str, first: int, before: int) -> Select[Any]:
    """Those that deliveries with ids from `first` up to but without `before` can carry."""
    return statement.where(
        events.c.cube == cube,
        events.c.id < before,
        events.c.id >= first - first_id(_DELIVERED_WITHIN),
    )


class _CubePath(Path):
    """The way through deliveries that follows the events of a cube."""

    def __init__(
        self, range_: Within, cube: str, wanted: Sequence[ColumnElement[bool]], **compared: Any
    ) -> None:
        self._cube = cube
        carrying = and_(deliveries.c.call == events.c.call, deliveries.c.event == events.c.id)
        source = events.join(deliveries, carrying)
        if compared:
            source = source.outerjoin(calls, calls.c.id == deliveries.c.call)
        # There is always something to look for: no index has what this is.
        wanted = [*wanted, deliveries.c.id.is_not(None)]
        super().__init__(deliveries, range_, wanted=wanted, source=source, **compared)

    def end(self, rows: int) -> Select[Any]:
        """See `Path.end`: of the events."""
        those = _cube_events(select(events.c.id), self._cube, self._first, self.through)
        return those.order_by(events.c.id.desc()).offset(rows - 1).limit(1)

    def wanted(self, end: int | None) -> Select[Any]:
        """See `Path.wanted`."""
        first = self._first if end is None else max(end, self._first)
        # Not the column itself: the events are to lead there, not the ids.
        id = deliveries.c.id + 0
        those = select(deliveries.c.id, *self._columns).select_from(self._source)
        return (
            _cube_events(those, self._cube, first, self.through)
            .where(id < self.through, id >= first, *self._wanted)
            .order_by(id.desc())
        )


def delivery_items(connection: Connection, ids: Sequence[int]) -> list[DeliveryItem]:
    """These deliveries as a list shows them, newest first; those that are no longer there are left out."""
    told = (events.c.cube, events.c.granularity, events.c.state, events.c.at, events.c.body)
    rows = connection.execute(
        select(deliveries, *told)
        .outerjoin_from(deliveries, events, events.c.id == deliveries.c.event)
        .where(deliveries.c.id.in_(ids))
        .order_by(deliveries.c.id.desc())
    )
    return [_delivery_item(row) for row in rows]


def _delivery_item(row: Any) -> DeliveryItem:
    body = None if row.body is None else _body(row)
    return DeliveryItem(
        id=row.id,
        webhook=row.webhook,
        status=DeliveryStatus(row.status),
        attempts=row.attempts,
        due_at=row.due_at if row.status == DeliveryStatus.PENDING else None,
        error_class=None if row.error_class is None else ErrorClass(row.error_class),
        answered=row.answered,
        redelivery=bool(row.redelivery),
        at=id_time(row.id) if row.at is None else row.at,
        call=None if row.call <= _GREATEST_LANE else row.call,
        cube=row.cube or None,
        event=row.event,
        event_id=None if body is None else body.event_id,
        granularity=granularities.get(row.granularity),
        state=row.state,
        calling_number=None if body is None else body.calling_number,
        called_number=None if body is None else body.called_number,
    )


def _body(row: Any) -> _EventBody | None:
    try:
        return _event_body(row.body)
    except msgspec.MsgspecError as error:
        _log.error(
            "The event of delivery {delivery} in the database cannot be read back: {why}",
            delivery=id_text(row.id),
            why=str(error),
        )
        return None


# Registrations, and changes that people made.


def list_registration_changes(
    connection: Connection, *, cube: str | None = None, cursor: int | None = None, limit: int = 50
) -> Page[RegistrationChange]:
    """How registrations went, of `cube` or of all; their ids are not of `cubehook.ids`."""
    wanted = [] if cube is None else [aside(registration_changes.c.cube, cube)]
    path = Path(registration_changes, within(None, None, cursor), wanted=wanted)
    ids, after = page(connection, [path], fitting(limit))
    rows = connection.execute(
        select(registration_changes)
        .where(registration_changes.c.id.in_(ids))
        .order_by(registration_changes.c.id.desc())
    )
    return Page(
        [RegistrationChange(**{**row, "state": RegistrationState(row["state"])}) for row in rows.mappings()],
        after,
    )


def list_audit(
    connection: Connection,
    *,
    who: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    since: Micros | None = None,
    until: Micros | None = None,
    cursor: int | None = None,
    limit: int = 50,
) -> Page[AuditItem]:
    """Changes that someone made."""
    asked = ((audit.c.who, who), (audit.c.action, action), (audit.c.subject, subject))
    wanted = [aside(column, value) for column, value in asked if value is not None]
    path = Path(audit, within(since, until, cursor), wanted=wanted)
    ids, after = page(connection, [path], fitting(limit))
    rows = connection.execute(select(audit).where(audit.c.id.in_(ids)).order_by(audit.c.id.desc()))
    return Page(
        [
            AuditItem(
                id=row.id,
                at=id_time(row.id),
                who=row.who,
                action=row.action,
                subject=row.subject,
                detail=_audit_detail(row.detail),
            )
            for row in rows
        ],
        after,
    )
