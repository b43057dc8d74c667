"""`/webhooks` and what is done with them."""

from __future__ import annotations

import msgspec

from cubehook.delivery.breaker import State
from tests.api.support import CRM, NOW, ApiCase, status


class Webhooks(ApiCase):
    async def test_one_webhook_without_its_secrets(self) -> None:
        self.webhooks.statuses["crm"] = status(
            pending=1234,
            in_flight=1,
            state=State.OPEN,
            held_until=NOW,
            failures=17,
            failing_since=NOW - 60_000_000,
        )
        code, found = await self.ask("GET", "/webhooks/crm")
        self.assertEqual(code, 200)
        self.assertEqual(
            found,
            {
                "id": "crm",
                "name": "CRM",
                "description": "",
                "url": "https://***@crm.example/calls?token=***",
                "method": "POST",
                "transport": "http",
                "enabled": True,
                "states": ["ALERTING", "CONNECTED", "DISCONNECTED"],
                "cubes": [],
                "headers": {"Authorization": "***"},
                "payload": "basic",
                "granularity": "call",
                "notices": [],
                "pending": 1234,
                "in_flight": 1,
                "state": "open",
                "held_until": "2024-11-23T16:03:36.200940Z",
                "failures": 17,
                "failing_since": "2024-11-23T16:02:36.200940Z",
                "disabled_reason": None,
                "problem": None,
            },
        )
        self.assertNotIn("hunter2", str(found))

    async def test_a_webhook_disabled_in_use(self) -> None:
        self.webhooks.disabled_webhooks["crm"] = "its receiver answered 410 Gone"
        # As it is after a restart: what its settings say is not what it is run with.
        self.webhooks.webhooks["crm"] = msgspec.structs.replace(CRM, enabled=False)
        self.webhooks.statuses["crm"] = status(problem="disabled")
        _, found = await self.ask("GET", "/webhooks/crm")
        self.assertEqual(
            (found["enabled"], found["disabled_reason"], found["problem"]),
            (True, "its receiver answered 410 Gone", None),
        )

    async def test_a_webhook_disabled_by_its_settings(self) -> None:
        self.webhooks.webhooks["crm"] = msgspec.structs.replace(CRM, enabled=False)
        self.webhooks.statuses["crm"] = status(problem="disabled")
        _, found = await self.ask("GET", "/webhooks/crm")
        self.assertEqual((found["enabled"], found["disabled_reason"], found["problem"]), (False, None, None))

    async def test_a_transport_that_did_not_start(self) -> None:
        self.webhooks.statuses["crm"] = status(problem="its transport did not start")
        _, found = await self.ask("GET", "/webhooks/crm")
        self.assertEqual(found["problem"], "its transport did not start")

    async def test_pages(self) -> None:
        self.webhooks.webhooks["last"] = msgspec.structs.replace(CRM, id="last")
        _, found = await self.ask("GET", "/webhooks")
        self.assertEqual(
            ([each["id"] for each in found["items"]], found["next"]), (["audit", "crm", "last"], None)
        )
        _, found = await self.ask("GET", "/webhooks?limit=2")
        self.assertEqual(([each["id"] for each in found["items"]], found["next"]), (["audit", "crm"], "crm"))
        _, found = await self.ask("GET", "/webhooks?limit=2&cursor=crm")
        self.assertEqual(([each["id"] for each in found["items"]], found["next"]), (["last"], None))
        # Its row may be gone meanwhile.
        _, found = await self.ask("GET", "/webhooks?cursor=b")
        self.assertEqual([each["id"] for each in found["items"]], ["crm", "last"])

    async def test_there_is_no_such_webhook(self) -> None:
        for method, path in (
            ("GET", "/webhooks/erp"),
            ("POST", "/webhooks/erp/enable"),
            ("POST", "/webhooks/erp/rotate-secret"),
            ("GET", "/webhooks/e%2Frp%1b"),
        ):
            code, found = await self.ask(method, path)
            self.assertEqual((code, found["error"]["code"]), (404, "not_found"))
        self.assertEqual(self.webhooks.asked, [])

    async def test_a_new_secret(self) -> None:
        code, found = await self.ask("POST", "/webhooks/crm/rotate-secret")
        self.assertEqual(
            (code, found),
            (200, {"webhook": "crm", "secret": "whsec_new", "former_until": "2024-11-23T16:03:36.200940Z"}),
        )
        self.assertEqual(self.headers.getRawHeaders("cache-control"), ["no-store"])
        self.assertEqual(self.webhooks.asked, [("rotate", "crm")])

    async def test_enable(self) -> None:
        self.webhooks.disabled_webhooks["crm"] = "gone"
        code, found = await self.ask("POST", "/webhooks/crm/enable")
        self.assertEqual((code, found["id"], found["disabled_reason"]), (200, "crm", None))
        self.assertEqual(self.webhooks.asked, [("enable", "crm")])

    async def test_what_the_file_decides(self) -> None:
        self.webhooks.provisioned = True
        for what in ("enable", "rotate-secret"):
            code, found = await self.ask("POST", f"/webhooks/crm/{what}")
            self.assertEqual((code, found["error"]["code"]), (409, "conflict"))
            self.assertIn("the file says", found["error"]["message"])
