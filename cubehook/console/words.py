"""
Values as people read them: times, durations, numbers, states.  Pure; all text is for a template to escape.

Times are shown in UTC; the page's script turns them into the viewer's zone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cubehook.events import Micros, iso
from cubehook.text import printable

UNKNOWN = "\N{EN DASH}"
"""Stands for what is not known."""

_SECOND: Micros = 1_000_000

_LOCAL = re.compile(r"uid (\d+)", re.ASCII)
"""How the control socket names who asked."""

REGISTRATION = {
    "registered": ("good", "Registered"),
    "registering": ("wait", "Registering"),
    "unregistered": ("bad", "Not registered"),
    "silent": ("bad", "Silent"),
    "rejected": ("bad", "Refused"),
    "disabled": ("off", "Disabled"),
}
"""A cube's states: how they look, and their words."""

DELIVERY = {
    "delivered": ("good", "Delivered"),
    "pending": ("wait", "Pending"),
    "failed": ("bad", "Failed"),
    "expired": ("off", "Expired"),
}

CALL = {
    "ALERTING": ("wait", "Ringing"),
    "CONNECTED": ("good", "Connected"),
    "DISCONNECTED": ("off", "Ended"),
}

OUTCOME = {
    "answered": ("good", "Answered"),
    "missed": ("warn", "Missed"),
    "busy": ("warn", "Busy"),
    "abandoned": ("warn", "Abandoned"),
    "rejected": ("bad", "Rejected"),
    "failed": ("bad", "Failed"),
}

JOB = {
    "running": ("wait", "Running"),
    "done": ("good", "Done"),
    "cancelled": ("off", "Cancelled"),
    "failed": ("bad", "Failed"),
}

ERROR_CLASS = {
    "connection_refused": "Connection refused",
    "dns": "Name not found",
    "timeout": "Timed out",
    "tls": "Certificate or TLS",
    "connection_lost": "Connection lost",
    "blocked": "Blocked by the egress policy",
    "http": "Refused by the receiver",
    "other": "Other",
}


def as_time(at: str | Micros) -> datetime:
    """A time given as the API shows it, or as microseconds."""
    if isinstance(at, str):
        return datetime.fromisoformat(at.replace("Z", "+00:00"))
    return datetime.fromtimestamp(at // _SECOND, UTC).replace(microsecond=at % _SECOND)


def as_iso(at: str | Micros) -> str:
    """The same for machines."""
    return at if isinstance(at, str) else iso(at)


def moment(at: str | Micros) -> str:
    """`23 Nov 2024, 16:03:36 UTC`."""
    when = as_time(at)
    return f"{when.day} {when:%b %Y, %H:%M:%S} UTC"


def clock(at: str | Micros) -> str:
    """`16:03:36 UTC`."""
    return f"{as_time(at):%H:%M:%S} UTC"


def exact(at: str | Micros) -> str:
    """`2024-11-23 16:03:36.200940 UTC`."""
    return f"{as_time(at):%Y-%m-%d %H:%M:%S.%f} UTC"


def ago(at: str | Micros, now: Micros) -> str:
    """`just now`, `40 s ago`, `5 min ago`, `3 h ago`, `2 days ago`; `in 5 min` of what is to come."""
    when = as_time(at)
    seconds = (now - round(when.timestamp() * 1_000_000)) / 1e6
    words = _rough(abs(seconds))
    if words is None:
        return "just now"
    return f"{words} ago" if seconds > 0 else f"in {words}"


def _rough(seconds: float) -> str | None:
    if seconds < 5:
        return None
    for limit, size, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // size)} {unit}"
    days = int(seconds // 86400)
    return f"{days} day{'' if days == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """`< 0.1 ms`, `380 ms`, `4.2 s`, `1:05`, `1:02:03`; a dash if it is not known."""
    if seconds is None:
        return UNKNOWN
    if 0 < seconds < 0.00005:
        return "< 0.1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 or not seconds else f"{seconds * 1000:.1f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return timer(seconds)


def micros(value: Micros | None) -> str:
    """A duration in microseconds, as `duration` shows it."""
    return duration(None if value is None else value / 1e6)


def timer(seconds: float) -> str:
    """`0:42`, `1:02:03`: how long something has been going on."""
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(seconds: int) -> str:
    """`90 days`, `12 hours`, `1 minute`: a setting."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds and seconds % size == 0:
            count = seconds // size
            return f"{count:,} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:,} second{'' if seconds == 1 else 's'}"


def number(value: float | None) -> str:
    """`1,412`; a dash if it is not known."""
    if value is None:
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def compact(count: int) -> str:
    """`940`, `1.4k`, `12k`: a count where there is little room."""
    if count < 1000:
        return str(count)
    return f"{count // 100 / 10:g}k" if count < 10_000 else f"{count // 1000}k"


def share(part: float, whole: float) -> str:
    """`99.2 %`; never rounded up to all or down to none."""
    if not whole:
        return UNKNOWN
    percent = 100 * part / whole
    if 99.95 <= percent < 100:
        return "99.9 %"
    if 0 < percent < 0.05:
        return "0.1 %"
    return f"{percent:.1f} %" if percent % 1 else f"{percent:.0f} %"


def size(count: int) -> str:
    """`512 bytes`, `1.4 MB`."""
    if count < 1000:
        return f"{count} bytes"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    raise AssertionError


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 call`, `2 calls`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def line(text: str | None, limit: int = 200) -> str:
    """Text of others on one line, what would steer the page made visible."""
    return "" if text is None else printable(text, limit)


def first_large(text: str) -> str:
    """A sentence's beginning: `made with its first event` becomes `Made with its first event`."""
    return text[:1].upper() + text[1:]


def seconds(value: float) -> str:
    """A wait that was set: `30 s`, `10 min`, `2 h`, `1 day`."""
    for size, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if value >= size and value % size == 0:
            count = int(value // size)
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return f"{value:g} s"


def who_told(who: str) -> str:
    """Who did something: the name of a token as it is, or `the command line (root)` of this machine."""
    local = _LOCAL.fullmatch(who)
    if local is None:
        return who
    return f"the command line ({'root' if local[1] == '0' else f'user {local[1]}'})"
