"""Deliveries and their attempts: `/deliveries`."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import partial
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from cubehook.api.calls import CallListed, call_listed
from cubehook.api.errors import InvalidError, NotFoundError
from cubehook.api.exchanges import AttemptView, DeliveryKept, attempt_view, kept
from cubehook.api.operations import Caller, operation
from cubehook.api.views import IdGiven, Limit, TimeGiven
from cubehook.events import CallEvent, Micros, Notice
from cubehook.ids import id_text, parse_id
from cubehook.records import DeliveryStatus, ErrorClass
from cubehook.store.histories import delivery_history
from cubehook.store.lists import DeliveryItem, list_deliveries
from cubehook.store.store import Store
from cubehook.store.tallies import MOST, delivery_tallies
from cubehook.text import printable

_SECOND: Micros = 1_000_000

MOST_DAYS = 62
"""Days that are counted at once."""


class DeliveriesQuery(msgspec.Struct, frozen=True):
    """
    `limit` deliveries at most, after those that gave `cursor` as their `next`.

    They are of what was received from `since` up to but without `until`; of `error_class` if their last
    attempt failed so.  A `number` may be only the end of one, and be written in any way.
    """

    limit: Limit = 50
    cursor: IdGiven | None = None
    webhook: str | None = None
    call: IdGiven | None = None
    status: DeliveryStatus | None = None
    error_class: ErrorClass | None = None
    number: str | None = None
    cube: str | None = None
    since: TimeGiven | None = None
    until: TimeGiven | None = None


class DeliveryListed(DeliveryKept, frozen=True, kw_only=True):
    """A delivery, and how many attempts there were."""

    attempts: int


class Deliveries(msgspec.Struct, frozen=True, kw_only=True):
    """
    Deliveries, newest first.

    A page may be short, or even empty, and yet have a `next`: then the rest is still to be looked through.
    """

    items: list[DeliveryListed]
    next: str | None


class DeliveryWhole(DeliveryKept, frozen=True, kw_only=True):
    """
    A delivery with its attempts, oldest first, the event or notice it carries, and the call that this is of.

    `attempts_left_out` is how many more attempts there were: those of long ago, or too large to show.
    """

    attempts: list[AttemptView]
    attempts_left_out: int
    event: CallEvent | None
    notice: Notice | None
    call_summary: CallListed | None


class DaysQuery(msgspec.Struct, frozen=True):
    """
    The days of `zone`, the name of a time zone, from `since` up to but without `until`: 62 at most.

    What was received on them is counted, of `webhook` if it is given.
    """

    since: TimeGiven
    until: TimeGiven
    zone: str = "UTC"
    webhook: str | None = None


class DeliveryDay(msgspec.Struct, frozen=True, kw_only=True):
    """A day, and how many deliveries were made on it; that is all that was counted if there are `more`."""

    day: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date"})]
    deliveries: int
    more: bool


class DeliveryDays(msgspec.Struct, frozen=True, kw_only=True):
    """Days, the first one first."""

    items: list[DeliveryDay]


class DeliveriesPart:
    """The operations that look at deliveries."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("GET", "/deliveries", query=DeliveriesQuery, result=Deliveries)
    async def list_deliveries(self, caller: Caller, query: DeliveriesQuery) -> Deliveries:
        """Deliveries, newest first."""
        page = await self._store.read(partial(list_deliveries, **msgspec.structs.asdict(query)))
        return Deliveries(
            items=[_listed(item) for item in page.items],
            next=None if page.next is None else id_text(page.next),
        )

    @operation("GET", "/deliveries/days", query=DaysQuery, result=DeliveryDays)
    async def count_deliveries(self, caller: Caller, query: DaysQuery) -> DeliveryDays:
        """How many deliveries were made on each day."""
        begins = _days(query)
        bounds = [*(max(query.since, begin) for begin in begins), query.until]
        counts = await self._store.read(partial(delivery_tallies, bounds=bounds, webhook=query.webhook))
        return DeliveryDays(
            items=[
                DeliveryDay(day=day.isoformat(), deliveries=min(count, MOST), more=count > MOST)
                for day, count in zip(begins.values(), counts, strict=True)
            ]
        )

    @operation("GET", "/deliveries/{delivery}", result=DeliveryWhole)
    async def get_delivery(self, caller: Caller, delivery: str) -> DeliveryWhole:
        """One delivery, with every attempt whole."""
        try:
            number = parse_id(delivery)
        except ValueError as error:
            raise NotFoundError(f"There is no delivery of that id: {error}") from None
        found = await self._store.read(partial(delivery_history, id=number))
        if found is None:
            raise NotFoundError(f"There is no delivery {printable(delivery)}")
        fields: dict[str, Any] = kept(found.delivery)
        payload = None if found.event is None else found.event.payload
        return DeliveryWhole(
            **fields,
            attempts=[attempt_view(attempt) for attempt in found.attempts],
            attempts_left_out=found.left_out.attempts,
            event=payload if isinstance(payload, CallEvent) else None,
            notice=payload if isinstance(payload, Notice) else None,
            call_summary=None if found.call is None else call_listed(found.call),
        )


def _listed(item: DeliveryItem) -> DeliveryListed:
    fields: dict[str, Any] = kept(item)
    return DeliveryListed(**fields, attempts=item.attempts)


def _days(query: DaysQuery) -> dict[Micros, date]:
    """The days that are asked for, by their beginnings; InvalidError."""
    try:
        zone = ZoneInfo(query.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        found = f'found "{printable(query.zone)}"'
        words = f"expected the name of a time zone, such as Europe/Vienna; {found}"
        raise InvalidError("There is no such time zone", fields={"zone": words}) from None
    if query.since >= query.until:
        raise InvalidError("The time has no length", fields={"since": "must be before until"})
    day, found_days = datetime.fromtimestamp(query.since // _SECOND, zone).date(), {}
    while (begin := round(datetime.combine(day, time(), zone).timestamp()) * _SECOND) < query.until:
        found_days[begin] = day
        day += timedelta(days=1)
        if len(found_days) > MOST_DAYS:
            words = f"must be within {MOST_DAYS} days before until"
            raise InvalidError("The time is too long", fields={"since": words})
    return found_days
