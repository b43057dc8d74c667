"""The `full` payload of an event, from a call as it stands."""

from __future__ import annotations

from cubehook.calls.causes import cause_text
from cubehook.events import (
    Call,
    CallEvent,
    CallState,
    Connection,
    ConnectionView,
    Micros,
    Outcome,
    iso,
    seconds_between,
)
from cubehook.ids import id_text


def call_event(call: Call, state: CallState, at: Micros) -> CallEvent:
    """
    What is told of the whole call, its `call.sequence`-th event, at `at`.

    Route and codec are those of the first leg that has one.
    """
    legs = call.connections
    call_id = id_text(call.id)
    return CallEvent(
        call_state=state,
        called_number=call.called_number,
        calling_number=call.calling_number,
        timestamp=iso(at),
        event_id=f"{call_id}-{call.sequence}",
        sequence=call.sequence,
        cube=call.cube,
        call_id=call_id,
        guid=call.guid,
        direction=call.direction,
        original_called_number=call.original_called_number,
        redirected_to=call.redirected_to,
        calling_withheld=call.calling_withheld,
        alerting_at=_iso(call.alerting_at),
        connected_at=_iso(call.connected_at),
        disconnected_at=_iso(call.disconnected_at),
        ring_seconds=call.ring_seconds,
        talk_seconds=call.talk_seconds,
        outcome=call.outcome,
        disconnect_cause=call.disconnect_cause,
        disconnect_text=cause_text(call.disconnect_cause),
        route=next((leg.route for leg in legs if leg.route), None),
        codec=next((leg.codec for leg in legs if leg.codec), None),
        inferred=call.inferred,
        connections=[_view(leg) for leg in legs],
    )


def leg_event(
    call: Call, leg: Connection, state: CallState, outcome: Outcome | None, inferred: bool, at: Micros
) -> CallEvent:
    """
    What is told of one leg, the `call.leg_sequence`-th event of the call's legs, at `at`.

    Numbers, times, cause, route and codec are the leg's own, and it is the only one in
    `connections`; where the call was dialled and redirected to is the call's.
    """
    call_id = id_text(call.id)
    end = None if inferred else leg.disconnected_at
    return CallEvent(
        call_state=state,
        called_number=leg.called_number,
        calling_number=leg.calling_number,
        timestamp=iso(at),
        event_id=f"{call_id}-L{call.leg_sequence}",
        sequence=call.leg_sequence,
        cube=call.cube,
        call_id=call_id,
        guid=leg.guid or call.guid,
        direction=leg.direction,
        original_called_number=call.original_called_number,
        redirected_to=call.redirected_to,
        calling_withheld=call.calling_withheld,
        alerting_at=_iso(leg.alerting_at),
        connected_at=_iso(leg.connected_at),
        disconnected_at=_iso(leg.disconnected_at),
        ring_seconds=seconds_between(leg.alerting_at, leg.connected_at or end),
        talk_seconds=seconds_between(leg.connected_at, end),
        outcome=outcome,
        disconnect_cause=leg.disconnect_cause,
        disconnect_text=cause_text(leg.disconnect_cause),
        route=leg.route,
        codec=leg.codec,
        inferred=inferred,
        connections=[_view(leg)],
    )


def _view(leg: Connection) -> ConnectionView:
    return ConnectionView(
        leg.connection_id,
        leg.direction,
        leg.state,
        leg.calling_number,
        leg.called_number,
        leg.interface,
        leg.disconnect_cause,
        leg.media,
    )


def _iso(at: Micros | None) -> str | None:
    return None if at is None else iso(at)
