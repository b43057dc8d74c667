"""How long things took, counted in classes one per cent wide: memory does not grow with their number."""

from __future__ import annotations

import math
from collections import defaultdict

import msgspec

_LEAST = 1e-6
_CLASSES = 100
"""Classes for each factor of e, which makes them one per cent wide."""


class Percentiles(msgspec.Struct, frozen=True):
    """In milliseconds, to one per cent; the maximum is exact.  None when nothing was counted."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Latencies:
    """A distribution of durations."""

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)
        self.count = 0
        self.max = 0.0

    def add(self, seconds: float) -> None:
        """Count one; below a microsecond, and before zero when clocks disagree, counts as a microsecond."""
        self.count += 1
        if seconds > self.max:
            self.max = seconds
        self._counts[int(math.log(seconds / _LEAST) * _CLASSES) if seconds > _LEAST else 0] += 1

    def percentile(self, share: float) -> float | None:
        """Seconds that `share` of all (0 to 1) took at most; None if there are none."""
        wanted = max(1, math.ceil(self.count * share))
        seen = 0
        for number in sorted(self._counts):
            seen += self._counts[number]
            if seen >= wanted:
                return min(self.max, _LEAST * math.exp((number + 1) / _CLASSES))
        return None

    def percentiles(self) -> Percentiles:
        """The usual ones."""
        greatest = self.max if self.count else None
        half, most = self.percentile(0.5), self.percentile(0.99)
        return Percentiles(self.count, _milliseconds(half), _milliseconds(most), _milliseconds(greatest))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
