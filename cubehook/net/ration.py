"""How much is told in the log of what strangers may send as often as they like."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

MOST = 60
"""Lines in each span of time; enough to see what comes, too few to push all else out of the log."""

SPAN_SECONDS = 60.0


class Ration:
    """
    Lets so much be told of `whom` in a span of time, by a clock that may be set, and says how much was not.

    The rest is counted by who counts requests.
    """

    _log = Logger()

    def __init__(self, whom: str, seconds: Callable[[], float]) -> None:
        self._whom = whom
        self._seconds = seconds
        self._began = seconds()
        self._told = 0
        self._untold = 0

    def take(self) -> bool:
        """Whether one line more may be written."""
        now = self._seconds()
        if not 0 <= now - self._began < SPAN_SECONDS:
            untold, self._untold = self._untold, 0
            self._began, self._told = now, 0
            if untold:
                self._log.info(
                    "{count} lines more about {whom} were not written", count=untold, whom=self._whom
                )
        if self._told < MOST:
            self._told += 1
            return True
        if not self._untold:
            self._log.info(
                "There is too much to tell of {whom}: nothing more is, for {seconds:.0f} s",
                whom=self._whom,
                seconds=self._began + SPAN_SECONDS - now,
            )
        self._untold += 1
        return False
