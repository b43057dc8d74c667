"""How much happens in a minute, of counters that only grow.  Pure."""

from __future__ import annotations

from collections import deque

from cubehook.events import Micros

SECONDS = 10
"""How often the counters are to be noted."""

_MINUTE: Micros = 60_000_000


class Rates:
    """
    Notes totals now and then, and tells how much was added in the last minute.

    Before a minute has gone by it tells what was added since the first note.
    """

    def __init__(self) -> None:
        self._noted: deque[tuple[Micros, dict[str, int]]] = deque()

    def note(self, now: Micros, totals: dict[str, int]) -> None:
        """Note how much it is now; what is not needed is forgotten, and all if the clock was set back."""
        if self._noted and now < self._noted[-1][0]:
            self._noted.clear()
        self._noted.append((now, totals))
        while len(self._noted) > 1 and self._noted[1][0] <= now - _MINUTE:
            self._noted.popleft()

    def in_a_minute(self, now: Micros, totals: dict[str, int]) -> dict[str, int]:
        """How much of each was added in the minute before `now`, never less than nothing."""
        then = totals
        for at, noted in self._noted:
            if at <= now - _MINUTE or then is totals:
                then = noted
        return {name: max(0, total - then.get(name, 0)) for name, total in totals.items()}
