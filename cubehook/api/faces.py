"""Everything that the API serves, put together for the listeners that serve it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import Resource

from cubehook.api.access import Gate
from cubehook.api.audit import AuditPart, Record
from cubehook.api.calls import CallsPart
from cubehook.api.control import caller
from cubehook.api.deliveries import DeliveriesPart
from cubehook.api.docs import PATH as DOCS
from cubehook.api.docs import DocsResource
from cubehook.api.feed import Feed, FeedPart
from cubehook.api.guard import Change, guarded, keep_or_tell
from cubehook.api.openapi import OpenApiPart
from cubehook.api.operations import PREFIX, Api
from cubehook.api.site import ConsoleSite
from cubehook.api.stats import StatsPart
from cubehook.api.tokens import TokensPart
from cubehook.events import Micros
from cubehook.ids import Ids
from cubehook.store.store import Store
from cubehook.text import printable


class Faces:
    """
    The API of `parts`, and of what it tells of `store` by itself.

    `parts`, afterwards, are all of them, each looking after who asks and recording what is changed: for
    the console, which asks them too.  `gate` knows who asks, `feed` wants to hear of every event.
    """

    _log = Logger()

    def __init__(
        self, parts: Iterable[object], store: Store, ids: Ids, now: Callable[[], Micros], reactor: Any
    ) -> None:
        self.gate = Gate(store.access, ids, now, reactor.seconds, os.urandom)
        self.feed = Feed(store, reactor, now)
        every = [
            *parts,
            CallsPart(store),
            DeliveriesPart(store),
            StatsPart(store, now),
            FeedPart(self.feed),
            TokensPart(store.access, ids, now, os.urandom),
            AuditPart(store),
        ]
        self._store = store
        self._keep = Record(store, ids, now).keep
        self.parts = guarded([*every, OpenApiPart(every)], self._keep_in_time, lambda: store.degraded)

    def record(self, who: str, action: str, subject: str, detail: dict[str, Any]) -> None:
        """Put on the record what was changed by other ways than the API: see `guard.Change`."""
        self._keep_later(Change(who=printable(who), action=action, subject=printable(subject), detail=detail))

    async def _keep_in_time(self, change: Change) -> None:
        """Keep it before the answer; or once the database can be written, if it cannot now."""
        if self._store.degraded:
            self._keep_later(change)
        else:
            await self._keep(change)

    def _keep_later(self, change: Change) -> None:
        kept = Deferred.fromCoroutine(keep_or_tell(self._keep, change))
        _ = kept.addErrback(lambda failure: self._log.failure("A change was not put on the record", failure))

    def control(self, *own: object) -> Resource:
        """
        What the control socket serves: whoever may open that may do everything.

        `own` are parts that nobody else may ask.
        """
        return Api([*self.parts, *own], caller).resource()

    def console(self, health: Resource, pages: Resource | None = None) -> Resource:
        """What the console's listener serves; `pages` take every path that is nothing else's."""
        docs = DocsResource()  # type: ignore[no-untyped-call]
        prefixes: dict[str, Resource] = {PREFIX: Api(self.parts, self.gate.who).resource(), DOCS: docs}
        prefixes |= dict.fromkeys(("/healthz", "/readyz", "/metrics"), health)
        return ConsoleSite(prefixes, health if pages is None else pages)

    def stop(self) -> None:
        """End what would go on for ever."""
        self.feed.stop()
