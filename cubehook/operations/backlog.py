"""How long the oldest delivery of each webhook has been pending, looked up when metrics are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

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

    async def look(self) -> None:
        """Look into the database, unless nothing is pending; what cannot be read stays as it was."""
        pending = self._resident()
        if not pending:
            self._kept = {}
            return
        looking = Deferred.fromCoroutine(self._store.oldest_pending(list(pending)))
        with suppress(StoreError, TimeoutError):
            self._kept = await looking.addTimeout(LOOK_SECONDS, self._reactor)

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
