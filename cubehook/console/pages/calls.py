"""Calls: those in progress, those that were, and one of them whole."""

from __future__ import annotations

from typing import Any

from cubehook.api.errors import InvalidError
from cubehook.console.callstory import story
from cubehook.console.desk import Desk
from cubehook.console.filters import Filters
from cubehook.console.routes import Answer, Visit, page
from cubehook.console.words import CALL, OUTCOME
from cubehook.console.zones import zone_name, zone_of

FILTERS = ("number", "cube", "outcome", "state", "since", "until")

ROWS = 100
"""Calls of a page of the history."""

BOARD = 200
"""Calls in progress that the board shows of a state, at most: the newest."""


class Pages:
    """The pages about calls."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @page("GET", "/calls")
    async def calls(self, visit: Visit) -> Answer:
        """The live board, and the history below."""
        zone = zone_of(visit.cookie)
        filters = Filters(visit.query, FILTERS, zone)
        cursor = visit.query.text("cursor")
        fields: dict[str, str] = {}
        found = None
        try:
            found = await visit.ask("list_calls", query=filters.asked(cursor=cursor or None, limit=str(ROWS)))
        except InvalidError as error:
            fields = error.fields
            if not fields.keys() <= {*FILTERS}:
                raise
        older = None if found is None or found.next is None else filters.address("/calls", cursor=found.next)
        return visit.show(
            "calls.html",
            filters=filters,
            fields=fields,
            items=[] if found is None else found.items,
            rows=ROWS,
            older=older,
            newest=filters.address("/calls") if cursor else None,
            cubes=await cubes_known(visit),
            outcomes=[(value, text) for value, (_, text) in OUTCOME.items()],
            states=[(value, text) for value, (_, text) in CALL.items()],
            board=await in_progress(visit, BOARD),
            zone=zone_name(zone),
        )

    @page("GET", "/calls/board")
    async def board(self, visit: Visit) -> Answer:
        """The live board alone, for the page's script."""
        return visit.show("calls_board.html", board=await in_progress(visit, BOARD))

    @page("GET", "/calls/<call>")
    async def call(self, visit: Visit, call: str) -> Answer:
        """One call, from the first notification to the last answer of a receiver."""
        found = await visit.ask("get_call", call=call)
        names = await webhook_names(visit)
        return visit.show("call.html", call=found, story=story(found, names, visit.now), names=names)


async def in_progress(visit: Visit, limit: int) -> dict[str, Any]:
    """The calls in progress, newest first, `limit` of a state at most; and how many there are in all."""
    items: list[Any] = []
    more = False
    for state in ("CONNECTED", "ALERTING"):
        found = await visit.ask("list_calls", query={"state": state, "limit": str(limit)})
        items += found.items
        more = more or found.next is not None
    items.sort(key=lambda call: call.id, reverse=True)
    count = len(items)
    if more:
        cubes = (await visit.ask("list_cubes", query={"limit": "200"})).items
        count = max(count + 1, sum(cube.calls_active for cube in cubes))
    return {"items": items, "more": more, "count": count}


async def cubes_known(visit: Visit) -> list[str]:
    """The ids of the cubes that there are, as filters offer them."""
    if not visit.desk.has("list_cubes"):
        return []
    found = await visit.ask("list_cubes", query={"limit": "200"})
    return [cube.id for cube in found.items]


async def webhook_names(visit: Visit) -> dict[str, str]:
    """What the webhooks that there are are called, by their ids; the id of one that has no name."""
    found = await visit.ask("list_webhooks", query={"limit": "200"})
    return {webhook.id: webhook.name or webhook.id for webhook in found.items}
