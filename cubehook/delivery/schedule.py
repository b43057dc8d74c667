"""
When to try a delivery again.  Pure: time and chance are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

from cubehook.events import Micros

LONGEST_HOLD = 86400.0
"""Seconds; a receiver cannot ask for a longer silence than this with `Retry-After`."""

_DELAY = re.compile(r"[0-9]+(?:\.[0-9]*)?", re.ASCII)


def wait_after(failures: int, retry: Sequence[float], jitter: float, chance: float) -> float | None:
    """
    Seconds to wait after the `failures`-th failure (1 for the first), or None to give up.

    `retry` are the waits of the schedule; each is lengthened or shortened by up to the
    share `jitter` of itself, as `chance` (0 <= chance < 1) has it.
    """
    if failures > len(retry):
        return None
    return max(0.0, retry[failures - 1] * (1.0 + jitter * (2.0 * chance - 1.0)))


def parse_retry_after(value: str, now: Micros) -> float | None:
    """
    The seconds that a `Retry-After` header asks for, or None if it says nothing understandable.

    Takes seconds and the HTTP dates of RFC 9110, section 5.6.7.  A date in the past is 0,
    and nothing is longer than `LONGEST_HOLD`.
    """
    text = value.strip()
    if _DELAY.fullmatch(text):
        # float() takes any number of digits; int() refuses very long ones.
        return min(float(text), LONGEST_HOLD)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - now / 1_000_000
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(seconds, 0.0), LONGEST_HOLD)
