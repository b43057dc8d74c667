"""How far this machine's clock is off, by what others say the time is.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from cubehook.doctor.findings import Finding, failed, ok, skipped, warning

AREA = "clock"

_NOTED = 5.0
"""Seconds of difference that are worth a word: a Date is of whole seconds, and was on its way."""

_WRONG = 60.0
_REFUSED = 240.0
"""Receivers refuse signatures that are 300 s off (Standard Webhooks)."""


class Opinion(msgspec.Struct, frozen=True):
    """By how many seconds this machine is ahead of `who`; negative if it is behind."""

    who: str
    ahead: float


def opinion(who: str, date: str | None, at: float) -> Opinion | None:
    """What `who` thinks, whose Date header came `at` (seconds since the epoch); None if that is no date."""
    if not date:
        return None
    try:
        told = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    if told.tzinfo is None:
        told = told.replace(tzinfo=UTC)
    try:
        # The fraction of its second is not told.
        return Opinion(who, at - told.timestamp() - 0.5)
    except OverflowError:
        return None


def judge(opinions: Sequence[Opinion]) -> Iterator[Finding]:
    """One says little, since it may be wrong itself; two that agree are believed."""
    if not opinions:
        yield skipped(AREA, "Nobody answered who tells the time")
        return
    off = [each for each in opinions if abs(each.ahead) > _NOTED]
    if not off:
        worst = max(opinions, key=lambda each: abs(each.ahead))
        yield ok(AREA, f"It agrees with {_names(opinions)}, to {max(1, round(abs(worst.ahead)))} s")
        return
    told = "; ".join(_told(each) for each in off)
    far = [each for each in off if abs(each.ahead) > _WRONG]
    agree = [each for each in off if abs(each.ahead - off[0].ahead) < _WRONG]
    if len(off) == len(opinions) and len(agree) == len(off) > 1 and far:
        yield failed(AREA, f"It is wrong: {told}", *_STEPS)
    elif any(abs(each.ahead) > _REFUSED for each in off):
        yield failed(
            AREA,
            f"{told}. Receivers refuse deliveries whose time is five minutes off",
            "Which of the two clocks is wrong cannot be told from here.",
            *_STEPS,
        )
    else:
        yield warning(AREA, told, "Which of the two clocks is wrong cannot be told from here.", *_STEPS)


_STEPS = ("On this machine, see `timedatectl`; on a router, `show clock detail` and `ntp server`.",)


def _told(of: Opinion) -> str:
    where = "ahead of" if of.ahead > 0 else "behind"
    return f"this machine is {abs(of.ahead):,.0f} s {where} {of.who}"


def _names(opinions: Sequence[Opinion]) -> str:
    names = list(dict.fromkeys(each.who for each in opinions))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
