"""Webhook logs: every delivery, by day and by filters, and one of them with every attempt."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta, tzinfo
from typing import Any

from cubehook.api.errors import ApiError, ConflictError, InvalidError, NotFoundError
from cubehook.console.desk import Desk
from cubehook.console.exchange import attempt_shown
from cubehook.console.filters import Filters
from cubehook.console.months import begin_of, day_given, end_of, local, month, month_given
from cubehook.console.pages.calls import cubes_known, webhook_names
from cubehook.console.routes import Answer, Visit, page
from cubehook.console.words import DELIVERY, ERROR_CLASS, as_time
from cubehook.console.zones import zone_name, zone_of
from cubehook.events import iso

FILTERS = ("day", "webhook", "status", "error_class", "number", "cube")

ROWS = 100
"""Deliveries of a page."""

MARKED = 200
"""Failures of a month that are counted; of the days before these it is told only that there were any."""


class Pages:
    """The pages about deliveries."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @page("GET", "/deliveries")
    async def deliveries(self, visit: Visit) -> Answer:
        """The calendar, the filters, and what was delivered or not."""
        zone = zone_of(visit.cookie)
        today = local(visit.now, zone).date()
        filters = Filters(visit.query, FILTERS, zone)
        cursor = visit.query.text("cursor")
        chosen = day_given(filters["day"])
        if chosen is None:
            filters.given.pop("day", None)
        first = month_given(visit.query.text("month"), chosen or today)
        fields: dict[str, str] = {}
        found = None
        try:
            asked = filters.asked(cursor=cursor or None, limit=str(ROWS), **_range_of(chosen, zone))
            found = await visit.ask("list_deliveries", query=asked)
        except InvalidError as error:
            fields = error.fields
            if not fields.keys() <= {*FILTERS}:
                raise
        names = await webhook_names(visit)
        return visit.show(
            "deliveries.html",
            filters=filters,
            fields=fields,
            items=[] if found is None else found.items,
            rows=ROWS,
            older=None
            if found is None or found.next is None
            else filters.address("/deliveries", cursor=found.next, month=visit.query.text("month") or None),
            newest=filters.address("/deliveries") if cursor else None,
            month=month(
                first,
                today=today,
                chosen=chosen,
                failures=await self._failures(visit, first, zone),
                counts=await self._counts(visit, first, zone, filters["webhook"]),
            ),
            chosen=chosen,
            names=names,
            webhooks=list(names.items()),
            cubes=await cubes_known(visit),
            statuses=[(value, text) for value, (_, text) in DELIVERY.items()],
            error_classes=list(ERROR_CLASS.items()),
            zone=zone_name(zone),
        )

    @page("GET", "/deliveries/<delivery>")
    async def delivery(self, visit: Visit, delivery: str) -> Answer:
        """One delivery: what was sent, what was answered, and how long everything took."""
        found = await visit.ask("get_delivery", delivery=delivery)
        try:
            webhook = await visit.ask("get_webhook", webhook=found.webhook)
        except NotFoundError:
            webhook = None
        return visit.show(
            "delivery.html",
            delivery=found,
            attempts=[attempt_shown(attempt) for attempt in reversed(found.attempts)],
            webhook=webhook,
            name=(webhook and webhook.name) or found.webhook,
        )

    @page("POST", "/deliveries/<delivery>/redeliver")
    async def redeliver(self, visit: Visit, delivery: str) -> Answer:
        """Send one again."""
        where = f"/deliveries/{delivery}"
        try:
            await visit.ask("redeliver_one", delivery=delivery)
        except ConflictError as error:
            return visit.go(where, error.message, kind="failed")
        return visit.go(where, "It is being sent again.")

    async def _counts(
        self, visit: Visit, first: date, zone: tzinfo, webhook: str
    ) -> dict[date, tuple[int, bool]]:
        """How many deliveries there were on each day of a month, and whether there are more than that."""
        following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
        until = min(begin_of(following, zone), visit.now + 1)
        query = {"since": iso(begin_of(first, zone)), "until": iso(until), "zone": zone_name(zone)}
        try:
            found = await visit.ask("count_deliveries", query={**query, "webhook": webhook or None})
        except ApiError:
            # As with what failed: an extra.
            return {}
        return {date.fromisoformat(each.day): (each.deliveries, each.more) for each in found.items}

    async def _failures(self, visit: Visit, first: date, zone: tzinfo) -> dict[date, int]:
        """How many deliveries of each day of a month failed; see `MARKED`."""
        following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
        try:
            found = await self._failed(visit, begin_of(first, zone), begin_of(following, zone), MARKED)
            days = [_day_of(item, zone) for item in found.items]
            marks = dict(Counter(days))
            day = (
                days[-1] - timedelta(days=1) if found.next is not None and days else first - timedelta(days=1)
            )
            while day >= first:
                if (await self._failed(visit, begin_of(day, zone), end_of(day, zone), 1)).items:
                    marks[day] = 1
                day -= timedelta(days=1)
        except ApiError:
            # Marks are an extra; whatever is wrong is told where the list is asked for.
            return {}
        return marks

    async def _failed(self, visit: Visit, since: int, until: int, limit: int) -> Any:
        query = {"status": "failed", "since": iso(since), "until": iso(until), "limit": str(limit)}
        return await visit.ask("list_deliveries", query=query)


def _range_of(chosen: date | None, zone: tzinfo) -> dict[str, str | None]:
    """The day as the API has it."""
    if chosen is None:
        return {"day": None}
    return {"day": None, "since": iso(begin_of(chosen, zone)), "until": iso(end_of(chosen, zone))}


def _day_of(item: Any, zone: tzinfo) -> date:
    return as_time(item.at).astimezone(zone).date()
