"""The overview: what one wants to see at a glance, and what needs somebody first."""

from __future__ import annotations

from cubehook.api.cubes import Cube
from cubehook.console.desk import Desk
from cubehook.console.pages.calls import in_progress
from cubehook.console.routes import Answer, Visit, page
from cubehook.console.telling_webhooks import standing, success
from cubehook.console.words import REGISTRATION

_SHOWN = 200
_LATEST = 6
"""How many calls in progress are shown, and how many deliveries."""
_RANK = {"bad": 0, "wait": 1, "good": 2, "off": 3}


class Pages:
    """`/`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @page("GET", "/")
    async def overview(self, visit: Visit) -> Answer:
        cubes = await visit.ask("list_cubes", query={"limit": _SHOWN})
        webhooks = await visit.ask("list_webhooks", query={"limit": _SHOWN})
        status = await visit.ask("get_status")
        talking = await in_progress(visit, _LATEST)
        sent = await visit.ask("list_deliveries", query={"limit": str(_LATEST)})
        told = [(webhook, standing(webhook), success(webhook.counters)) for webhook in webhooks.items]
        return visit.show(
            "overview_now.html" if visit.live else "overview.html",
            cubes=sorted(cubes.items, key=lambda cube: (_rank(cube), cube.id)),
            webhooks=sorted(told, key=lambda each: (each[1].rank, each[0].name or each[0].id)),
            calls=sum(cube.calls_active for cube in cubes.items),
            pending=sum(webhook.pending for webhook in webhooks.items),
            talking=talking["items"][:_LATEST],
            sent=sent.items,
            names={webhook.id: webhook.name or webhook.id for webhook in webhooks.items},
            service=status,
            more_cubes=cubes.next is not None,
            more_webhooks=webhooks.next is not None,
        )


def _rank(cube: Cube) -> int:
    look, _ = REGISTRATION.get(cube.registration.state.value, ("off", ""))
    return _RANK.get(look, 1)
