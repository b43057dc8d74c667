"""How many calls are in progress: looked at several times a minute, and the most of each minute kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from twisted.logger import Logger

from cubehook.events import Micros
from cubehook.interfaces import StoreFullError
from cubehook.store.errors import StoreError

MINUTE: Micros = 60_000_000

LOOK_SECONDS = 10.0
"""Between two looks: a call that is shorter may be missed."""


class Sampler:
    """
    Has `keep` write down what `active` tells of each cube at the time `now`.

    Within a minute it is written again only if there is more to tell, so that a quiet service writes
    once a minute.
    """

    _log = Logger()

    def __init__(
        self,
        active: Callable[[], Mapping[str, int]],
        keep: Callable[[int, Mapping[str, int]], Awaitable[None]],
        now: Callable[[], Micros],
    ) -> None:
        self._active = active
        self._keep = keep
        self._now = now
        self._minute = -1
        self._most: dict[str, int] = {}
        self._most_in_all = 0

    async def look(self) -> None:
        """Look once; that it cannot be kept is told in the log."""
        minute, active = self._now() // MINUTE, self._active()
        if minute != self._minute:
            self._minute, self._most, self._most_in_all = minute, {}, -1
        in_all = sum(active.values())
        more = {cube for cube, count in active.items() if count > self._most.get(cube, -1)}
        if not more and in_all <= self._most_in_all:
            return
        self._most |= {cube: active[cube] for cube in more}
        self._most_in_all = max(in_all, self._most_in_all)
        try:
            await self._keep(minute, active)
        except (StoreError, StoreFullError) as error:
            self._log.warn(
                "How many calls are in progress was not kept for this minute: {error}", error=str(error)
            )
