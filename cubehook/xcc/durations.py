"""Lengths of time as gateways write them: `120` is what routers send, `PT120S` what the schema says."""

from __future__ import annotations

import re

_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_DURATION = re.compile(
    r"P(?:([0-9]{1,9})D)?(?:T(?=[0-9])(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)S)?)?"
)


def duration_seconds(text: str | None) -> float | None:
    """Seconds of a plain number or an xs:duration; None for others, and with years or months: no length."""
    if text is None:
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    duration = _DURATION.fullmatch(text)
    if duration is None or not any(duration.groups()):
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in duration.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
