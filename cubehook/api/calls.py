"""Calls and their timelines: `/calls`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec

from cubehook.api.errors import NotFoundError
from cubehook.api.exchanges import AttemptView, DeliveryKept, attempt_view, kept
from cubehook.api.operations import Caller, operation
from cubehook.api.views import IdGiven, Limit, Time, TimeGiven, shown_time
from cubehook.calls.causes import cause_text
from cubehook.events import (
    Call,
    CallEvent,
    CallState,
    Connection,
    Direction,
    Granularity,
    MediaStatistics,
    Outcome,
    iso,
)
from cubehook.ids import id_text, parse_id
from cubehook.records import Attempt
from cubehook.store.histories import CallHistory, LeftOut, call_history
from cubehook.store.lists import CallItem, DeliveryItem, list_calls, state_of
from cubehook.store.store import Store
from cubehook.text import printable


class CallsQuery(msgspec.Struct, frozen=True):
    """
    `limit` calls at most, after those that gave `cursor` as their `next`.

    They began from `since` up to but without `until`; `state` is that of the last event told of them.  A
    `number` was calling or called; it may be only the end of one, and be written in any way.
    """

    limit: Limit = 50
    cursor: IdGiven | None = None
    cube: str | None = None
    number: str | None = None
    state: CallState | None = None
    outcome: Outcome | None = None
    since: TimeGiven | None = None
    until: TimeGiven | None = None


class CallListed(msgspec.Struct, frozen=True, kw_only=True):
    """A call; `state` is that of the last event told of it, null before the first."""

    id: str
    cube: str
    calling_number: str | None
    called_number: str | None
    direction: Direction | None
    state: CallState | None
    outcome: Outcome | None
    inferred: bool
    started_at: Time
    alerting_at: Time | None
    connected_at: Time | None
    disconnected_at: Time | None
    ring_seconds: float | None
    talk_seconds: float | None


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """
    Calls, newest first.

    A page may be short, or even empty, and yet have a `next`: then the rest is still to be looked through.
    """

    items: list[CallListed]
    next: str | None


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One leg of a call: Cisco's connection."""

    connection_id: str
    direction: Direction | None
    state: str
    calling_number: str | None
    called_number: str | None
    interface: str | None
    route: str | None
    codec: str | None
    guid: str | None
    alerting_at: Time | None
    connected_at: Time | None
    disconnected_at: Time | None
    disconnect_cause: int | None
    media: MediaStatistics | None


class NotificationTold(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway told: the raw SOAP is `body`, null if that was too much to show."""

    id: str
    at: Time
    message: str
    body: str | None


class EventTold(msgspec.Struct, frozen=True, kw_only=True):
    """An event and its `full` payload."""

    event_id: str
    at: Time
    state: CallState
    granularity: Granularity
    payload: CallEvent


class DeliveryTried(DeliveryKept, frozen=True, kw_only=True):
    """A delivery with its last attempts, oldest first."""

    attempts: list[AttemptView]


class CallWhole(CallListed, frozen=True, kw_only=True):
    """
    A call with its timeline: the notifications about it, its events, and their deliveries, each oldest first.

    `left_out` counts what is there beyond what is shown; `bodies` are those of notifications.
    """

    gateway_call_id: str
    guid: str | None
    original_called_number: str | None
    redirected_to: str | None
    calling_withheld: bool
    disconnect_cause: int | None
    disconnect_text: str | None
    connections: list[Leg]
    notifications: list[NotificationTold]
    events: list[EventTold]
    deliveries: list[DeliveryTried]
    left_out: LeftOut


class CallsPart:
    """The operations that look at calls."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("GET", "/calls", query=CallsQuery, result=Calls)
    async def list_calls(self, caller: Caller, query: CallsQuery) -> Calls:
        """Calls, newest first."""
        page = await self._store.read(partial(list_calls, **msgspec.structs.asdict(query)))
        return Calls(
            items=[call_listed(item) for item in page.items],
            next=None if page.next is None else id_text(page.next),
        )

    @operation("GET", "/calls/{call}", result=CallWhole)
    async def get_call(self, caller: Caller, call: str) -> CallWhole:
        """
        One call with its timeline.

        What the gateway told stands beside the events it became and every attempt to deliver these.
        """
        try:
            number = parse_id(call)
        except ValueError as error:
            raise NotFoundError(f"There is no call of that id: {error}") from None
        found = await self._store.read(partial(call_history, id=number))
        if found is None:
            raise NotFoundError(f"There is no call {printable(call)}")
        return _whole(found)


def call_listed(item: CallItem) -> CallListed:
    """`item` as it is shown."""
    return CallListed(
        id=id_text(item.id),
        cube=item.cube,
        calling_number=item.calling_number,
        called_number=item.called_number,
        direction=item.direction,
        state=item.state,
        outcome=item.outcome,
        inferred=item.inferred,
        started_at=iso(item.started_at),
        alerting_at=shown_time(item.alerting_at),
        connected_at=shown_time(item.connected_at),
        disconnected_at=shown_time(item.disconnected_at),
        ring_seconds=item.ring_seconds,
        talk_seconds=item.talk_seconds,
    )


def _whole(found: CallHistory) -> CallWhole:
    call = found.call
    return CallWhole(
        **_facts(call),
        connections=[_leg(connection) for connection in call.connections],
        notifications=[
            NotificationTold(
                id=id_text(each.id),
                at=iso(each.at),
                message=each.message,
                body=each.body.decode("utf-8", "replace") if each.body else None,
            )
            for each in found.notifications
        ],
        events=[
            EventTold(
                event_id=payload.event_id,
                at=iso(each.at),
                state=payload.call_state,
                granularity=each.granularity,
                payload=payload,
            )
            for each in found.events
            if isinstance(payload := each.payload, CallEvent) and each.granularity is not None
        ],
        deliveries=[_tried(each.delivery, each.attempts) for each in found.deliveries],
        left_out=found.left_out,
    )


def _facts(call: Call) -> dict[str, Any]:
    return {
        "id": id_text(call.id),
        "cube": call.cube,
        "calling_number": call.calling_number,
        "called_number": call.called_number,
        "direction": call.direction,
        "state": state_of(call),
        "outcome": call.outcome,
        "inferred": call.inferred,
        "started_at": iso(call.started_at),
        "alerting_at": shown_time(call.alerting_at),
        "connected_at": shown_time(call.connected_at),
        "disconnected_at": shown_time(call.disconnected_at),
        "ring_seconds": call.ring_seconds,
        "talk_seconds": call.talk_seconds,
        "gateway_call_id": call.gateway_call_id,
        "guid": call.guid,
        "original_called_number": call.original_called_number,
        "redirected_to": call.redirected_to,
        "calling_withheld": call.calling_withheld,
        "disconnect_cause": call.disconnect_cause,
        "disconnect_text": cause_text(call.disconnect_cause),
    }


def _leg(connection: Connection) -> Leg:
    return Leg(
        connection_id=connection.connection_id,
        direction=connection.direction,
        state=connection.state,
        calling_number=connection.calling_number,
        called_number=connection.called_number,
        interface=connection.interface,
        route=connection.route,
        codec=connection.codec,
        guid=connection.guid,
        alerting_at=shown_time(connection.alerting_at),
        connected_at=shown_time(connection.connected_at),
        disconnected_at=shown_time(connection.disconnected_at),
        disconnect_cause=connection.disconnect_cause,
        media=connection.media,
    )


def _tried(delivery: DeliveryItem, attempts: Iterable[Attempt]) -> DeliveryTried:
    fields: dict[str, Any] = kept(delivery)
    return DeliveryTried(**fields, attempts=[attempt_view(attempt) for attempt in attempts])
