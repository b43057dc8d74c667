"""Events to try a payload with before it is used: ordinary ones, and what is hardest on a template."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from cubehook.config import Webhook
from cubehook.events import (
    CallEvent,
    CallState,
    ConnectionView,
    Direction,
    Event,
    Granularity,
    MediaStatistics,
    Micros,
    Notice,
    NoticeType,
    Outcome,
    iso,
)
from cubehook.ids import first_id, id_text

HOSTILE = (
    'O\'Neil "\\" {{ 7 * 7 }} </script>, "admin": true & <!channel>\r\n\t\x00\u2028\u202e '
    "\u00fc\u4e16 \U0001f600"
)
"""A calling party's name as its owner should not be able to write it."""

_AT: Micros = 1_732_377_816_200_940
_ID = first_id(_AT)
_LATER = {CallState.ALERTING: 0, CallState.CONNECTED: 7_411_000, CallState.DISCONNECTED: 82_081_000}
_MEDIA = MediaStatistics(74.0, 3731, 596960, 3728, 596480, 0, 0, 0, 12, 40)
_REQUIRED = ("call_state", "timestamp", "event_id", "sequence", "cube", "call_id")


class Sample(NamedTuple):
    """An event, and what is special about it: `an answered call`."""

    about: str
    event: Event


def samples(webhook: Webhook) -> list[Sample]:
    """
    Events of each kind that `webhook` may be sent, the ordinary ones first.

    They are the same every time.
    """
    made: list[Sample] = []
    for about, call in (
        ("an answered call", {}),
        ("a withheld caller", {"calling_number": None, "calling_withheld": True}),
        ("a call of which nothing is known", None),
        ("a caller whose number is any text", _hostile()),
    ):
        made += [Sample(about, _event(state, call)) for state in CallState if state in webhook.states]
    if CallState.DISCONNECTED in webhook.states:
        for outcome in Outcome:
            if outcome is not Outcome.ANSWERED:
                unanswered: dict[str, Any] = {
                    "outcome": outcome,
                    "connected_at": None,
                    "talk_seconds": None,
                    "ring_seconds": 12.034,
                }
                made.append(Sample(f"a call that was {outcome}", _event(CallState.DISCONNECTED, unanswered)))
    for reason in ("no answer for 90 s", HOSTILE):
        made += [Sample(f"a notice of {type}", _notice(type, reason)) for type in webhook.notices]
    return made


def _event(state: CallState, changes: dict[str, Any] | None) -> Event:
    """An event of a call that is answered, with `changes`; without them all of it is null that may be."""
    payload = _call(state)
    if changes is None:
        unknown = {name: None for name in payload.__struct_fields__ if name not in _REQUIRED}
        changes = unknown | {"calling_withheld": False, "inferred": False, "connections": []}
    payload = msgspec.structs.replace(payload, **changes)
    return Event(
        id=_ID + payload.sequence,
        call=_ID,
        cube=payload.cube,
        granularity=Granularity.CALL,
        at=_AT + _LATER[state],
        payload=payload,
    )


def _call(state: CallState) -> CallEvent:
    connected, ended = state is not CallState.ALERTING, state is CallState.DISCONNECTED
    call_id, sequence = id_text(_ID), list(CallState).index(state) + 1
    return CallEvent(
        call_state=state,
        called_number="+12512501663",
        calling_number="+12517676234",
        timestamp=iso(_AT + _LATER[state]),
        event_id=f"{call_id}-{sequence}",
        sequence=sequence,
        cube="hq",
        call_id=call_id,
        guid="694646BC1D2311E7A8D2826ACB31D85A",
        direction=Direction.INCOMING,
        original_called_number=None,
        redirected_to=None,
        calling_withheld=False,
        alerting_at=iso(_AT),
        connected_at=iso(_AT + _LATER[CallState.CONNECTED]) if connected else None,
        disconnected_at=iso(_AT + _LATER[CallState.DISCONNECTED]) if ended else None,
        ring_seconds=7.411 if connected else None,
        talk_seconds=74.67 if ended else None,
        outcome=Outcome.ANSWERED if ended else None,
        disconnect_cause=16 if ended else None,
        disconnect_text="Normal call clearing" if ended else None,
        route="100",
        codec="g711ulaw" if connected else None,
        inferred=False,
        connections=[
            _leg("131", Direction.INCOMING, state, _MEDIA),
            _leg("132", Direction.OUTGOING, state, None),
        ],
    )


def _leg(id: str, direction: Direction, state: CallState, media: MediaStatistics | None) -> ConnectionView:
    ended = state is CallState.DISCONNECTED
    return ConnectionView(
        connection_id=id,
        direction=direction,
        state=state.value,
        calling_number="+12517676234",
        called_number="+12512501663",
        interface="CONN_SIP",
        disconnect_cause=16 if ended else None,
        media=media if ended else None,
    )


def _hostile() -> dict[str, Any]:
    texts = ("calling_number", "called_number", "original_called_number", "redirected_to", "route", "codec")
    leg = _leg("131", Direction.INCOMING, CallState.ALERTING, None)
    leg = msgspec.structs.replace(leg, calling_number=HOSTILE, called_number=HOSTILE, interface=HOSTILE)
    return {**dict.fromkeys(texts, HOSTILE), "connections": [leg]}


def _notice(type: NoticeType, reason: str) -> Event:
    data: dict[str, str | int | float | bool | None]
    match type:
        case NoticeType.CUBE_REGISTERED:
            data = {"cube": "hq", "state": "registered", "reason": reason, "last_error": None}
        case NoticeType.CUBE_LOST:
            data = {"cube": "hq", "state": "silent", "reason": reason, "last_error": None}
        case NoticeType.WEBHOOK_DISABLED:
            data = {"webhook": "erp", "name": "ERP", "reason": reason, "pending": 1412}
        case _:
            data = {"webhook": "erp", "name": "ERP", "failing_since": iso(_AT), "pending": 1412}
            if type is NoticeType.WEBHOOK_FAILING:
                data["last_error"] = reason
    payload = Notice(type=type, timestamp=iso(_AT), event_id=id_text(_ID), data=data)
    return Event(id=_ID, call=1, cube=str(data.get("cube", "")), granularity=None, at=_AT, payload=payload)
