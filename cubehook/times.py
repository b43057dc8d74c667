"""Points in time as text: RFC 3339, and what people type for a moment at a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from cubehook.config_rules import duration
from cubehook.events import Micros

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_END: Micros = 1 << 51
"""In the year 2041: ids, which ranges of time become, tell of no later one."""

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_time(text: str) -> Micros:
    """
    The time that `text` tells as RFC 3339 has it, with a `Z` or an offset.

    ValueError, with words if something else than its form is wrong with it.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError
    date, time, fraction, zone = found.groups()
    micros = (fraction or "")[:6].ljust(6, "0")
    try:
        at = datetime.fromisoformat(f"{date}T{time}.{micros}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        raise ValueError("there is no such day or time") from None
    return _within_ids(at)


def parse_moment(text: str, now: Micros, zone: tzinfo | None = None) -> Micros:
    """
    The time that someone meant by `text`: RFC 3339, a date (its beginning in `zone`, the
    machine's own if None), or a duration such as `90m`, `12h` or `7d` before `now`.

    ValueError, with words that tell what is wrong.
    """
    try:
        return now - duration(text) * 1_000_000
    except ValueError:
        pass
    if _DATE.fullmatch(text):
        try:
            day = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("there is no such day") from None
        return _within_ids(day.astimezone() if zone is None else day.replace(tzinfo=zone))
    try:
        return parse_time(text)
    except ValueError as error:
        raise ValueError(
            str(error)
            or "write a time with its zone such as 2024-11-23T16:00:00Z, a date such as 2024-11-23, or how "
            "long ago it was, such as 90m, 12h or 7d"
        ) from None


def _within_ids(at: datetime) -> Micros:
    try:
        micros = (at - _EPOCH) // _MICROSECOND
    except OverflowError:
        micros = -1
    if not 0 <= micros < _END:
        raise ValueError("only times from 1970 to 2040 are known here")
    return micros
