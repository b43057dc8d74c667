"""The viewer's zone, in which days and hours are told: their browser says it in a cookie."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cubehook.console.months import micros_of
from cubehook.events import iso

COOKIE = "cubehook-zone"

_COOKIE = re.compile(
    rf"(?:^|; ?){COOKIE}=([A-Za-z0-9_+-]{{1,30}}(?:/[A-Za-z0-9_+-]{{1,30}}){{0,2}})(?:;|$)", re.ASCII
)
_TYPED = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?", re.ASCII)


def zone_of(cookie: str | None) -> tzinfo:
    """The zone that a `Cookie` header names; UTC if it names none that is known here."""
    found = _COOKIE.search(cookie or "")
    if found is None:
        return UTC
    try:
        return ZoneInfo(found[1])
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def zone_name(zone: tzinfo) -> str:
    """What it is called, such as `Europe/Berlin`."""
    return str(zone)


def typed_time(text: str, zone: tzinfo) -> str | None:
    """
    A time that was typed in `zone` (`2024-11-23T16:03`, or a date: its beginning), as the API takes it.

    What is none is left as it is, for the API to say so; None if nothing was typed.
    """
    text = text.strip()
    if not _TYPED.fullmatch(text):
        return text or None
    try:
        return iso(micros_of(datetime.fromisoformat(text).replace(tzinfo=zone)))
    except (ValueError, OverflowError):
        return text
