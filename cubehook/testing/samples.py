"""What the service would give to a transport: events to send, and a context."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from cubehook import __version__
from cubehook.config import Egress, Webhook
from cubehook.events import (
    CallEvent,
    CallState,
    Direction,
    Event,
    Granularity,
    Micros,
    Notice,
    NoticeType,
    full_body,
    iso,
    notice_body,
)
from cubehook.ids import Ids, id_text
from cubehook.interfaces import Outbound
from cubehook.net.egress import policy_from
from cubehook.transports.context import TransportContext

SECRET: Final = "whsec_" + "Y3ViZWhvb2stdGVzdGluZy1zZWNyZXQtMDEyMzQ1Njc="
LOOPBACK: Final = Egress(allow=("127.0.0.0/8", "::1/128"))
"""The egress policy under which receivers of a test can be reached."""

_ids = Ids(lambda bits: 0)


def call_outbound(
    *,
    state: CallState = CallState.ALERTING,
    call: int | None = None,
    body: bytes | None = None,
    attempt: int = 1,
    timeout: float = 5.0,
    redelivery: bool = False,
    **changes: Any,
) -> Outbound:
    """
    An event of a new call (or of `call`, an id), to be sent now.

    `changes` are fields of its `CallEvent`; the body is the payload `full` unless given.
    """
    at = _now()
    call = _ids.next(at) if call is None else call
    sequence = list(CallState).index(state) + 1
    text = iso(at)
    fields: dict[str, Any] = {
        "call_state": state,
        "called_number": "+12512501663",
        "calling_number": "+12517676234",
        "timestamp": text,
        "event_id": f"{id_text(call)}-{sequence}",
        "sequence": sequence,
        "cube": "hq",
        "call_id": id_text(call),
        "guid": "9364550FD96211E28F0D9C9C52CD806F",
        "direction": Direction.INCOMING,
        "original_called_number": None,
        "redirected_to": None,
        "calling_withheld": False,
        "alerting_at": text,
        "connected_at": None if state is CallState.ALERTING else text,
        "disconnected_at": text if state is CallState.DISCONNECTED else None,
        "ring_seconds": None,
        "talk_seconds": None,
        "outcome": None,
        "disconnect_cause": None,
        "disconnect_text": None,
        "route": None,
        "codec": None,
        "inferred": False,
        "connections": [],
    }
    payload = CallEvent(**(fields | changes))
    event = Event(
        id=_ids.next(at), call=call, cube=payload.cube, granularity=Granularity.CALL, at=at, payload=payload
    )
    return Outbound(
        id=payload.event_id,
        event=event,
        body=full_body(payload) if body is None else body,
        content_type="application/json",
        attempt=attempt,
        at=at,
        timeout=timeout,
        redelivery=redelivery,
    )


def notice_outbound(*, type: NoticeType = NoticeType.CUBE_LOST, timeout: float = 5.0) -> Outbound:
    """A notice, as a webhook gets that asks for notices, to be sent now."""
    at = _now()
    event_id = _ids.next(at)
    about = {"cube": "hq"} if type.value.startswith("cube.") else {"webhook": "crm"}
    payload = Notice(
        type=type, timestamp=iso(at), event_id=id_text(event_id), data={**about, "reason": "a test"}
    )
    event = Event(id=event_id, call=1, cube=about.get("cube", ""), granularity=None, at=at, payload=payload)
    return Outbound(
        id=payload.event_id,
        event=event,
        body=notice_body(payload),
        content_type="application/json",
        attempt=1,
        at=at,
        timeout=timeout,
    )


def lend(
    webhook: Webhook, state_dir: Path = Path(), *, egress: Egress = LOOPBACK, reactor: Any = None
) -> TransportContext:
    """
    The context that the service would lend to the transport of `webhook`: the real one.

    `reactor` is the one that is installed, unless given.
    """
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = installed
    return TransportContext(
        reactor=reactor,
        webhook=webhook,
        egress=policy_from(egress),
        state_dir=state_dir,
        secrets=(webhook.secret or SECRET,),
        version=__version__,
        timeout=webhook.timeout or 5.0,
        concurrency=webhook.concurrency or 8,
    )


def _now() -> Micros:
    return time.time_ns() // 1000
