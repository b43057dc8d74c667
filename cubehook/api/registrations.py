"""How registrations went: `/cubes/{cube}/registrations`."""

from __future__ import annotations

from functools import partial

import msgspec

from cubehook.api.operations import Caller, operation
from cubehook.api.views import Limit, Time
from cubehook.events import iso
from cubehook.records import RegistrationState
from cubehook.store.lists import list_registration_changes
from cubehook.store.store import Store


class RegistrationsQuery(msgspec.Struct, frozen=True):
    """`limit` changes at most, older than those that gave `cursor` as their `next`."""

    limit: Limit = 50
    cursor: int | None = None


class RegistrationChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a cube's registration: what it is since then, the `reason` in words, and what was met."""

    at: Time
    state: RegistrationState
    reason: str
    last_error: str | None


class RegistrationChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of a cube's registration, newest first."""

    items: list[RegistrationChange]
    next: str | None


class RegistrationsPart:
    """The operation that tells how a cube's registration went."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("GET", "/cubes/{cube}/registrations", query=RegistrationsQuery, result=RegistrationChanges)
    async def list_registrations(
        self, caller: Caller, cube: str, query: RegistrationsQuery
    ) -> RegistrationChanges:
        """
        How a cube's registration went, newest first.

        Also of a cube that is no more, as long as its history is kept.
        """
        page = await self._store.read(
            partial(list_registration_changes, cube=cube, cursor=query.cursor, limit=query.limit)
        )
        return RegistrationChanges(
            items=[
                RegistrationChange(
                    at=iso(each.at), state=each.state, reason=each.reason, last_error=each.last_error
                )
                for each in page.items
            ],
            next=None if page.next is None else str(page.next),
        )
