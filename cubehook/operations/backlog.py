"""How long the oldest delivery of each webhook has been pending, looked up when metrics are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook.events import Micros
from cubehook.store.errors import StoreError

LOOK_SECONDS = 1.0
"""How long the database may be looked in, before the metrics tell what was found the last time."""


class PendingStore(Protocol):
    """What this needs of the store."""

    async def oldest_pending(self, webhooks: Collection[str]) -> dict[str, Micros]:
        """See `cubehook.store.store.Store.oldest_pending`."""


class Backlog:
    """
    Knows how old the oldest pending delivery of each webhook is.

    `resident` tells of each webhook that has something pending when the oldest event happened that is in
    memory, None if none is.  Deliveries that somebody asked for again are not counted: their events are old.
    """

    _log = Logger()

    def __init__(
        self,
        store: PendingStore,
        resident: Callable[[], Mapping[str, Micros | None]],
        now: Callable[[], Micros],
        reactor: IReactorTime,
    ) -> None:
        self._store = store
        self._resident = resident
        self._now = now
        self._reactor = reactor
        self._kept: dict[str, Micros] = {}
        self._looking = False
        self._waiting: list[Deferred[None]] = []

    async def look(self) -> None:
        """Look into the database, unless nothing is pending; what cannot be read stays as it was."""
        pending = self._resident()
        if not pending:
            self._kept = {}
            return
        looked: Deferred[None] = Deferred()
        self._waiting.append(looked)
        if not self._looking:
            # One at a time: a disk that hangs must not gather a thread's work for each time it is asked.
            self._looking = True
            _ = Deferred.fromCoroutine(self._read(list(pending))).addBoth(self._over)
        try:
            await looked.addTimeout(LOOK_SECONDS, self._reactor)
        except TimeoutError:
            self._waiting.remove(looked)

    async def _read(self, webhooks: list[str]) -> None:
        with suppress(StoreError):
            self._kept = await self._store.oldest_pending(webhooks)

    def _over(self, result: object) -> None:
        self._looking = False
        if isinstance(result, Failure):
            self._log.failure("The age of what is pending could not be looked up", result)
        waiting, self._waiting = self._waiting, []
        for looked in waiting:
            looked.callback(None)

    def ages(self, webhooks: Iterable[str]) -> list[tuple[str, float]]:
        """Seconds since the event of the oldest pending delivery happened, 0 where nothing is pending."""
        now, resident = self._now(), self._resident()
        ages = []
        for webhook in webhooks:
            found = [resident.get(webhook), self._kept.get(webhook) if webhook in resident else None]
            oldest = min((at for at in found if at is not None), default=now)
            # The clock may have been set back.
            ages.append((webhook, max(0, now - oldest) / 1_000_000))
        return ages
