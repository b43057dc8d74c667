"""The record of changes that people made: kept for every operation that changes anything, and `/audit`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from cubehook.api.guard import Change
from cubehook.api.operations import Caller, operation
from cubehook.api.views import IdGiven, Limit, Time, TimeGiven
from cubehook.events import Micros, iso
from cubehook.ids import Ids, id_text
from cubehook.store.access import Entry
from cubehook.store.lists import list_audit
from cubehook.store.store import Store


class Record:
    """Keeps changes in the store."""

    def __init__(self, store: Store, ids: Ids, now: Callable[[], Micros]) -> None:
        self._store = store
        self._ids = ids
        self._now = now

    async def keep(self, change: Change) -> None:
        """Keep it; StoreError if that cannot be."""
        await self._store.access.keep(Entry(id=self._ids.next(self._now()), **msgspec.structs.asdict(change)))


class AuditQuery(msgspec.Struct, frozen=True):
    """
    `limit` changes at most, after those that gave `cursor` as their `next`.

    Made from `since` up to but without `until`, by `who`, of the kind `action`, to `subject`.
    """

    limit: Limit = 50
    cursor: IdGiven | None = None
    who: str | None = None
    action: str | None = None
    subject: str | None = None
    since: TimeGiven | None = None
    until: TimeGiven | None = None


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """
    A change: `who` did `action`, an operation of this API, to `subject`.

    `detail` has the fields that were given, with secrets masked.
    """

    id: str
    at: Time
    who: str
    action: str
    subject: str
    detail: dict[str, Any]


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Changes, newest first."""

    items: list[AuditEntry]
    next: str | None


class AuditPart:
    """The operation that looks at the record of changes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("GET", "/audit", query=AuditQuery, result=Audit, access="admin")
    async def list_audit(self, caller: Caller, query: AuditQuery) -> Audit:
        """Who changed what and when, newest first."""
        page = await self._store.read(partial(list_audit, **msgspec.structs.asdict(query)))
        return Audit(
            items=[
                AuditEntry(
                    id=id_text(item.id),
                    at=iso(item.at),
                    who=item.who,
                    action=item.action,
                    subject=item.subject,
                    detail=item.detail,
                )
                for item in page.items
            ],
            next=None if page.next is None else id_text(page.next),
        )
