"""An event as a message of RFC 5424; pure."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, get_args

from cubehook.events import CallEvent, NoticeType
from cubehook.interfaces import Outbound
from cubehook.text import printable

Facility: TypeAlias = Literal[
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "audit",
    "alert",
    "clock",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
]
"""Numbered in this order (section 6.2.1)."""

WARNING, NOTICE, INFORMATIONAL = 4, 5, 6

_BOM = b"\xef\xbb\xbf"
_WARNINGS = frozenset((NoticeType.CUBE_LOST, NoticeType.WEBHOOK_FAILING, NoticeType.WEBHOOK_DISABLED))
_UNFIT = re.compile(r"[^!-~]")


def format_message(
    outbound: Outbound,
    *,
    facility: Facility,
    hostname: str,
    app_name: str,
    process: str,
    enterprise: int,
    bom: bool,
) -> bytes:
    """
    The datagram for `outbound`: header, structured data, and the body as it is.

    With `bom` the body is marked as UTF-8, as the RFC asks.
    """
    payload = outbound.event.payload
    if isinstance(payload, CallEvent):
        severity, kind, name = INFORMATIONAL, payload.call_state.value, "call"
        known = {"cube": payload.cube, "call": payload.call_id, "sequence": str(payload.sequence)}
    else:
        severity = WARNING if payload.type in _WARNINGS else NOTICE
        kind, name = payload.type.value, "notice"
        known = {key: str(payload.data[key]) for key in ("cube", "webhook") if key in payload.data}
    known = {"event": outbound.id, **known, "attempt": str(outbound.attempt)}
    if outbound.redelivery:
        known["redelivery"] = "true"
    header = (
        f"<{get_args(Facility).index(facility) * 8 + severity}>1",
        payload.timestamp,
        _field(hostname, 255),
        _field(app_name, 48),
        _field(process, 128),
        _field(kind, 32),
        structured_data(f"{name}@{enterprise}", known),
    )
    return " ".join(header).encode() + b" " + (_BOM if bom else b"") + outbound.body


def structured_data(id: str, parameters: dict[str, str]) -> str:
    """One element of section 6.3; names are taken as they are."""
    written = "".join(f' {name}="{_value(value)}"' for name, value in parameters.items())
    return f"[{id}{written}]"


def _value(text: str) -> str:
    return re.sub(r'(["\\\]])', r"\\\1", printable(text))


def _field(text: str, most: int) -> str:
    """A field of the header: printable ASCII without spaces, `-` for nothing."""
    return _UNFIT.sub("_", text)[:most] or "-"
