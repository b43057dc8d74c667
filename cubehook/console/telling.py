"""How a call went, in a sentence.  Pure."""

from __future__ import annotations

from cubehook.calls.causes import NORMAL_CLEARING, cause_text
from cubehook.console.words import duration

NOBODY = "nobody answered"

_ENDS = {
    "busy": "Busy",
    "rejected": "Rejected",
    "failed": "Failed",
}
_ORIGINS = {
    "busy": "the called party was on another call",
    "rejected": "the called party declined it",
}
_PLAIN_CAUSES = {"busy": 17, "rejected": 21, "missed": 19}
"""The causes that say no more than the outcome does."""


def told(
    outcome: str | None,
    *,
    state: str | None,
    ring_seconds: float | None,
    talk_seconds: float | None,
    cause: int | None = None,
    inferred: bool = False,
) -> str:
    """
    How a call went: `Missed: rang 12 s, nobody answered`.

    `state` is that of the last event told of it, for a call in progress; `cause` a Q.850 number.
    """
    if outcome is None:
        if state == "CONNECTED":
            return f"In progress: answered{_after(ring_seconds)}"
        return "In progress: ringing" if state == "ALERTING" else "In progress: nobody rings yet"
    words = _ended(outcome, ring_seconds, talk_seconds)
    if cause is not None and cause not in NORMAL_CLEARING and cause != _PLAIN_CAUSES.get(outcome):
        words += f" ({cause_told(cause)})"
    if inferred:
        words += "; its end was not told by the gateway, but inferred"
    return words


def cause_told(cause: int) -> str:
    """`cause 17, User busy`: a Q.850 cause with its name, if it has one."""
    name = cause_text(cause)
    return f"cause {cause}, {name}" if name else f"cause {cause}"


def _ended(outcome: str, ring: float | None, talk: float | None) -> str:
    rang = None if ring is None else f"rang {duration(ring)}"
    match outcome:
        case "answered":
            talked = "talk time unknown" if talk is None else f"talked {duration(talk)}"
            return f"Answered{_after(ring)}, {talked}"
        case "missed":
            return f"Missed: {rang}, {NOBODY}" if rang else f"Missed: {NOBODY}"
        case "abandoned":
            if ring is None:
                return "Abandoned: the caller hung up before it rang"
            return f"Abandoned: the caller hung up after {duration(ring)} of ringing"
        case "busy" | "rejected":
            words = f"{_ENDS[outcome]}: {_ORIGINS[outcome]}"
            return words if ring is None else f"{words} after {duration(ring)} of ringing"
        case "failed":
            return (
                f"Failed: {rang}, and the call could not be completed"
                if rang
                else ("Failed: the call could not be completed")
            )
    return outcome


def _after(ring: float | None) -> str:
    return "" if ring is None else f" after {duration(ring)}"
