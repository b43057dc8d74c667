"""A service with a past: calls of several kinds, a receiver that works and one that does not."""

from __future__ import annotations

from cubehook.simulator.sink import Behaviour
from tests.browser.case import BrowserCase
from tests.functional.harness import free_port

QUIET = "[delivery]\nretry = [600]\njitter = 0"
"""After its first failure a delivery rests, so that what a page shows stays as it is."""


class WorldCase(BrowserCase):
    """`pages` has the paths of all that the console shows."""

    extra = QUIET

    async def live(self, scenarios: tuple[str, ...] = ("answered", "busy", "forwarded", "withheld")) -> None:
        """Begin, and wait until all of it has happened."""
        await self.begin()
        await self.receiver()
        broken = free_port()
        await self.receiver(Behaviour(status=500), broken)
        await self.ask("POST", "/cubes", {"id": "branch", **self.nobody()})
        await self.add_cube(description="Head office, 192 lines")
        for id, name, port in (("crm", "CRM Call Events", self.sink_port), ("erp", "Billing", broken)):
            hook = {"id": id, "name": name, "url": f"http://127.0.0.1:{port}/{id}", "payload": "full"}
            await self.ask("POST", "/webhooks", {**hook, "headers": {"Authorization": "Bearer t0p"}})
        for scenario in scenarios:
            self.call(scenario)
        await self.gateway.when_idle()
        done = await self.deliveries(len(scenarios), webhook="crm", status="delivered")
        waiting = await self.deliveries(1, webhook="erp", attempts=1)
        answered = (await self.ask("GET", "/calls?outcome=answered"))["items"]
        self.pages = {
            "overview": "/",
            "cubes": "/cubes",
            "cube": "/cubes/hq",
            "cube-not-there": "/cubes/branch",
            "cube-add": "/cubes/_new",
            "cube-edit": "/cubes/hq/edit",
            "webhooks": "/webhooks",
            "webhook": "/webhooks/crm",
            "webhook-failing": "/webhooks/erp",
            "webhook-add": "/webhooks/_new",
            "webhook-edit": "/webhooks/crm/edit",
            "calls": "/calls",
            "call": f"/calls/{answered[-1]['id']}",
            "deliveries": "/deliveries",
            "delivery": f"/deliveries/{done[0]['id']}",
            "delivery-failing": f"/deliveries/{waiting[0]['id']}",
            "analytics": "/analytics",
            "settings": "/settings",
        }

    def nobody(self) -> dict[str, str]:
        """A cube where nothing listens."""
        return {
            "provider_url": f"http://127.0.0.1:{free_port()}/cisco_xcc",
            "application_url": self.service.application_url("branch"),
            "description": "Graz, not built yet",
        }
