"""An attempt of a delivery, as its page shows it.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from cubehook.console.figures import Part, parts
from cubehook.console.pretty import pretty_body

PHASES = {
    "resolving": "Looking up the host",
    "connecting": "Connecting",
    "proxy": "Asking the proxy",
    "tls": "Negotiating TLS",
    "waiting": "Waiting for the answer",
    "reading": "Reading the answer",
}
"""The phases of an exchange (`docs/delivery.md`), in words."""

KINDS = 6
"""How many colours phases have."""


class Phase(msgspec.Struct, frozen=True):
    """A phase: its words, its part of the line, and which colour it has."""

    name: str
    part: Part
    kind: str


class Shown(msgspec.Struct, frozen=True):
    """An `attempt` with what is made of it: its phases, and its bodies laid out (None if there are none)."""

    attempt: Any
    title: str
    phases: list[Phase]
    request_body: str | None
    response_body: str | None


def attempt_shown(attempt: Any) -> Shown:
    """What is shown of an attempt as the API tells of it."""
    return Shown(
        attempt=attempt,
        title=_title(attempt),
        phases=phases(attempt.phases, attempt.duration),
        request_body=None if not attempt.request_body else pretty_body(attempt.request_body),
        response_body=None if not attempt.response_body else pretty_body(attempt.response_body),
    )


def phases(durations: Mapping[str, int], whole: int) -> list[Phase]:
    """The phases on a line that is as long as the attempt."""
    known = list(PHASES)
    return [
        Phase(PHASES.get(part.name, part.name), part, part.name if part.name in known else "other")
        for part in parts(durations, whole)
    ]


def status_told(status: int) -> str:
    """`503 Service Unavailable`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _title(attempt: Any) -> str:
    if attempt.status is not None:
        return status_told(attempt.status)
    return "Taken" if attempt.delivered else "No answer"
