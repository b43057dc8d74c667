"""
Numbers, times, calls and notices in words for people.

Nothing here fails on what a gateway may have told: what cannot be made readable stays as it is.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cubehook.events import CallEvent, CallState, Notice, NoticeType, Outcome
from cubehook.text import printable

NUMBER_STYLES = ("international", "national")
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_DIRECTIVE = re.compile(r"%(-?)(.?)", re.DOTALL)
_DIRECTIVES = frozenset("aAbBdHIjmMpSfyYzZu%")
_LONGEST_FORMAT = 200


@lru_cache(maxsize=1024)
def number(text: str, style: str = "international") -> str:
    """
    An E.164 `text` with the spaces and dashes of its country, anything else as it is.

    `style` is one of `NUMBER_STYLES`; ValueError, with what was expected, if it is another.
    """
    if style not in NUMBER_STYLES:
        raise ValueError(f"one of {', '.join(NUMBER_STYLES)} for a number")
    if not _E164.fullmatch(text):
        return text
    import phonenumbers

    try:
        parsed = phonenumbers.parse(text)
    except phonenumbers.NumberParseException:
        return text
    formats = phonenumbers.PhoneNumberFormat
    return phonenumbers.format_number(
        parsed, formats.NATIONAL if style == "national" else formats.INTERNATIONAL
    )


def duration(seconds: float) -> str:
    """`seconds` as on a telephone's display: `0:07`, `1:14`, `1:02:03`."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def local_time(text: str, zone: str, format: str = TIME_FORMAT) -> str:
    """
    The time `text` (RFC 3339) as it is in `zone` (such as `Europe/Berlin`), written as `format` says.

    `format` has the directives of strftime, of which `%-d` and the like drop leading zeros.  ValueError,
    with what was expected, if one of the three is of no use.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("a time such as 2024-11-23T16:03:36Z") from None
    if at.tzinfo is None:
        raise ValueError("a time with its zone, or a Z")
    try:
        there = at.astimezone(ZoneInfo(zone))
    except (KeyError, ValueError, OSError, OverflowError):
        known = 'a time zone that is known here, such as "Europe/Berlin"'
        raise ValueError(f"{known}, and not {printable(zone, 50)}") from None
    if len(format) > _LONGEST_FORMAT:
        raise ValueError(f"a format of at most {_LONGEST_FORMAT} characters")

    def written(found: re.Match[str]) -> str:
        # One by one: the platform's strftime also takes widths, and makes gigabytes of some.
        dash, letter = found.groups()
        if letter not in _DIRECTIVES or not letter:
            known = "directives such as %Y, %m, %d, %H, %M and %S in a format of times"
            raise ValueError(f"{known}, and not {printable(found[0])}")
        plain = "%" if letter == "%" else there.strftime(f"%{letter}")
        return (plain.lstrip("0") or "0") if dash else plain

    return _DIRECTIVE.sub(written, format)


def sentence(told: CallEvent | Notice) -> str:
    """What happened, in one line without a full stop, such as `Missed call from ... to ..., rang 12 s`."""
    return _notice(told) if isinstance(told, Notice) else _call(told)


def _call(event: CallEvent) -> str:
    caller = "a withheld number" if event.calling_withheld else _named(event.calling_number)
    call = f"call from {caller} to {_named(event.called_number)}"
    if event.redirected_to is not None:
        call += f", redirected to {_named(event.redirected_to)},"
    rang = "" if event.ring_seconds is None else f"rang {_lasted(event.ring_seconds)}"
    match event.call_state:
        case CallState.ALERTING:
            return f"C{call[1:]} is ringing"
        case CallState.CONNECTED:
            after = "" if event.ring_seconds is None else f" after {_lasted(event.ring_seconds)}"
            return f"C{call[1:]} was answered{after}"
    if event.inferred:
        return f"C{call[1:]} is over; the gateway did not tell how it ended"
    match event.outcome:
        case Outcome.ANSWERED:
            after = "" if event.talk_seconds is None else f" after {_lasted(event.talk_seconds)}"
            return f"C{call[1:]} ended{after}"
        case Outcome.MISSED | Outcome.ABANDONED:
            told = f"{event.outcome.capitalize()} {call}"
            return f"{told.rstrip(',')}, {rang}" if rang else told.rstrip(",")
        case Outcome.BUSY:
            return f"C{call[1:]} found the line busy"
        case Outcome.REJECTED:
            return f"C{call[1:]} was rejected"
        case Outcome.FAILED:
            why = "" if event.disconnect_text is None else f": {event.disconnect_text}"
            return f"C{call[1:]} failed{why}"
    return f"C{call[1:]} ended"


def _notice(notice: Notice) -> str:
    data = notice.data
    cube, webhook = f"Cube {data.get('cube')}", f"Webhook {data.get('name') or data.get('webhook')}"
    match notice.type:
        case NoticeType.CUBE_REGISTERED:
            return f"{cube} is registered"
        case NoticeType.CUBE_LOST:
            return _because(f"{cube} is lost", data.get("reason"))
        case NoticeType.WEBHOOK_FAILING:
            return _because(f"{webhook} is failing", data.get("last_error"))
        case NoticeType.WEBHOOK_RECOVERED:
            return f"{webhook} works again"
        case NoticeType.WEBHOOK_DISABLED:
            return _because(f"{webhook} is disabled", data.get("reason"))


def _because(what: str, why: object) -> str:
    return f"{what}: {printable(str(why), 500)}" if why else what


def _named(party: str | None) -> str:
    return "an unknown number" if party is None else printable(number(party), 80)


def _lasted(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 59.5 else duration(seconds)
