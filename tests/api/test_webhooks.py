"""`/webhooks` and what is done with them."""

from __future__ import annotations

import msgspec

from cubehook import config
from cubehook.changes import MissingError
from cubehook.delivery.breaker import State
from cubehook.events import CallState
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
                "template": None,
                "preset": None,
                "encoding": "json",
                "granularity": "call",
                "notices": [],
                "options": {},
                "timeout": None,
                "retry": None,
                "jitter": None,
                "concurrency": None,
                "expire": {},
                "breaker": None,
                "disable_after": None,
                "provisioned": False,
                "pending": 1234,
                "in_flight": 1,
                "state": "open",
                "held_until": "2024-11-23T16:03:36.200940Z",
                "failures": 17,
                "failing_since": "2024-11-23T16:02:36.200940Z",
                "disabled_reason": None,
                "problem": None,
                "counters": {"delivered": 3},
            },
        )
        self.assertNotIn("hunter2", str(found))

    async def test_a_webhook_disabled_in_use(self) -> None:
        self.webhooks.disabled["crm"] = "its receiver answered 410 Gone"
        # As it is after a restart: what its settings say is not what it is run with.
        self.webhooks.known["crm"] = msgspec.structs.replace(CRM, enabled=False)
        self.webhooks.statuses["crm"] = status(problem="disabled")
        _, found = await self.ask("GET", "/webhooks/crm")
        self.assertEqual(
            (found["enabled"], found["disabled_reason"], found["problem"]),
            (True, "its receiver answered 410 Gone", None),
        )

    async def test_a_webhook_disabled_by_its_settings(self) -> None:
        self.webhooks.known["crm"] = msgspec.structs.replace(CRM, enabled=False)
        self.webhooks.statuses["crm"] = status(problem="disabled")
        _, found = await self.ask("GET", "/webhooks/crm")
        self.assertEqual((found["enabled"], found["disabled_reason"], found["problem"]), (False, None, None))

    async def test_a_transport_that_did_not_start(self) -> None:
        self.webhooks.statuses["crm"] = status(problem="its transport did not start")
        _, found = await self.ask("GET", "/webhooks/crm")
        self.assertEqual(found["problem"], "its transport did not start")

    async def test_pages(self) -> None:
        self.webhooks.known["last"] = msgspec.structs.replace(CRM, id="last")
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

    async def test_one_that_goes_meanwhile(self) -> None:
        self.webhooks.fault = MissingError("crm")
        code, found = await self.ask("POST", "/webhooks/crm/enable")
        self.assertEqual((code, found["error"]["message"]), (404, "There is no webhook crm"))

    async def test_a_bug_is_no_missing_webhook(self) -> None:
        self.webhooks.fault = KeyError("crm")
        code, found = await self.ask("POST", "/webhooks/crm/enable")
        self.assertEqual((code, found["error"]["code"]), (500, "internal_error"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    async def test_a_new_secret(self) -> None:
        code, found = await self.ask("POST", "/webhooks/crm/rotate-secret")
        self.assertEqual(
            (code, found),
            (200, {"webhook": "crm", "secret": "whsec_new", "former_until": "2024-11-23T16:03:36.200940Z"}),
        )
        self.assertEqual(self.headers.getRawHeaders("cache-control"), ["no-store"])
        self.assertEqual(self.webhooks.asked, [("rotate", "crm")])

    async def test_enable(self) -> None:
        self.webhooks.disabled["crm"] = "gone"
        code, found = await self.ask("POST", "/webhooks/crm/enable")
        self.assertEqual((code, found["id"], found["disabled_reason"]), (200, "crm", None))
        self.assertEqual(self.webhooks.asked, [("enable", "crm")])

    async def test_what_the_file_decides(self) -> None:
        self.webhooks.provisioned = frozenset(("crm",))
        for what in ("enable", "rotate-secret"):
            code, found = await self.ask("POST", f"/webhooks/crm/{what}")
            self.assertEqual((code, found["error"]["code"]), (409, "conflict"))
            self.assertIn("the file says", found["error"]["message"])

    async def test_what_is_masked_stays_as_it_is(self) -> None:
        options = {"password": "hunter2", "ca_file": "ca.pem", "sasl": {"token": "hunter2"}}
        self.webhooks.known["crm"] = kept = msgspec.structs.replace(CRM, options=options, secret=None)
        _, found = await self.ask("GET", "/webhooks/crm")
        self.assertEqual(found["options"], {"password": "***", "ca_file": "ca.pem", "sasl": {"token": "***"}})
        body = {name: found[name] for name in ("url", "options", "headers")} | {"name": "New"}
        body["headers"]["X-New"] = "1"
        code, found = await self.ask("PATCH", "/webhooks/crm", body)
        self.assertEqual((code, found["name"]), (200, "New"))
        changed = msgspec.structs.replace(kept, name="New", headers={**kept.headers, "X-New": "1"})
        self.assertEqual(self.webhooks.known["crm"], changed)
        self.assertNotIn("hunter2", str(found))

    async def test_a_mask_that_stands_for_nothing(self) -> None:
        body = {
            "headers": {"X-Key": "***"},
            "options": {"password": "***"},
            "url": "https://***@else.example/",
        }
        for method, path, where in (
            ("PATCH", "/webhooks/crm", ""),
            ("POST", "/webhooks/crm/test", "settings."),
        ):
            given = {"settings": body} if where else body
            code, found = await self.ask(method, path, given)
            self.assertEqual((code, found["error"]["code"]), (422, "invalid"))
            fields = found["error"]["fields"]
            self.assertEqual(
                sorted(fields), [f"{where}headers.X-Key", f"{where}options.password", f"{where}url"]
            )
            self.assertIn("there is none", fields[f"{where}url"])

    async def test_each_setting_is_read_as_in_the_file(self) -> None:
        given = {
            "disable_after": "never",
            "expire": {"ALERTING": 30},
            "breaker": {"failures": 3},
            "retry": [1, 2.5],
            "cubes": ["hq"],
        }
        code, found = await self.ask("PATCH", "/webhooks/crm", given)
        self.assertEqual(code, 200)
        self.assertEqual(
            {name: found[name] for name in ("disable_after", "expire", "retry")},
            {
                "disable_after": "never",
                "expire": {"ALERTING": 30.0},
                "retry": [1.0, 2.5],
            },
        )
        self.assertEqual(found["breaker"]["failures"], 3)
        code, found = await self.ask("PATCH", "/webhooks/crm", {"disable_after": None, "retry": None})
        self.assertEqual((found["disable_after"], found["retry"]), (None, None))
        code, found = await self.ask(
            "PATCH",
            "/webhooks/crm",
            {"disable_after": "5 days", "states": [], "secrets": [], "breaker": {"x": 1}},
        )
        self.assertEqual(
            sorted(found["error"]["fields"]), ["breaker.x", "disable_after", "secrets", "states"]
        )

    async def test_a_secret_is_told_once_if_it_was_made(self) -> None:
        code, found = await self.ask("POST", "/webhooks", {"id": "new", "url": "https://new.example/"})
        self.assertEqual((code, found["id"], found["secret"]), (201, "new", "whsec_new"))
        _, found = await self.ask("GET", "/webhooks/new")
        self.assertNotIn("secret", found)
        given = {"id": "own", "url": "https://new.example/", "secret": CRM.secret}
        code, found = await self.ask("POST", "/webhooks", given)
        self.assertEqual((code, found["secret"]), (201, None))

    async def test_entity_tags(self) -> None:
        await self.ask("GET", "/webhooks/crm")
        (before,) = self.headers.getRawHeaders("etag")
        # Also what is not shown is told apart.
        self.webhooks.known["crm"] = msgspec.structs.replace(CRM, headers={"Authorization": "Bearer other2"})
        await self.ask("GET", "/webhooks/crm")
        (after,) = self.headers.getRawHeaders("etag")
        self.assertNotEqual(before, after)
        for given, expected in (
            (before, 412),
            (f"W/{after}", 412),
            ("nonsense", 412),
            (f"{before}, {after}", 200),
            ("*", 200),
        ):
            code, _ = await self.ask("PATCH", "/webhooks/crm", {}, headers={"If-Match": given})
            self.assertEqual(code, expected, given)
        code, _ = await self.ask("DELETE", "/webhooks/crm", headers={"If-Match": before})
        self.assertEqual((code, "crm" in self.webhooks.known), (412, True))
        self.assertEqual(await self.ask("DELETE", "/webhooks/crm", headers={"If-Match": after}), (204, None))

    async def test_a_sample_of_what_it_would_be_sent(self) -> None:
        settings = {"payload": "full", "notices": ["cube.lost"]}
        code, found = await self.ask("POST", "/webhooks/preview", {"settings": settings})
        self.assertEqual(code, 200)
        self.assertEqual(
            [each["kind"] for each in found["items"]], ["ALERTING", "CONNECTED", "DISCONNECTED", "cube.lost"]
        )
        body = {"settings": {"payload": "template", "template": "{{ nothing"}, "state": "ALERTING"}
        code, found = await self.ask("POST", "/webhooks/preview", body)
        self.assertEqual((code, found["error"]["code"]), (422, "invalid"))

    async def test_try_it_with_other_settings(self) -> None:
        code, found = await self.ask("POST", "/webhooks/crm/test", {"settings": {"method": "PUT"}})
        self.assertEqual((code, found["delivered"]), (200, True))
        code, _ = await self.ask(
            "POST", "/webhooks/test", {"settings": {"url": "https://new.example/"}, "state": "CONNECTED"}
        )
        self.assertEqual(code, 200)
        changed = msgspec.structs.replace(CRM, method="PUT")
        self.assertEqual(
            self.webhooks.tried,
            [
                (changed, CallState.ALERTING),
                (config.Webhook(id="new", url="https://new.example/"), CallState.CONNECTED),
            ],
        )
        self.assertEqual(self.webhooks.known["crm"], CRM)

    async def test_secrets_of_the_file_go_nowhere_else(self) -> None:
        self.webhooks.provisioned = frozenset(("crm",))
        for name, value in (
            ("url", "https://thief.example/"),
            ("transport", "jsonl"),
            ("options", {"proxy": "http://thief.example:3128"}),
        ):
            code, found = await self.ask("POST", "/webhooks/crm/test", {"settings": {name: value}})
            self.assertEqual((code, found["error"]["code"]), (409, "conflict"))
            self.assertIn(f"({name})", found["error"]["message"])
        self.assertEqual(self.webhooks.tried, [])
        kept = {"url": CRM.url, "method": "PUT"}
        code, _ = await self.ask("POST", "/webhooks/crm/test", {"settings": kept})
        self.assertEqual((code, len(self.webhooks.tried)), (200, 1))
