"""Webhooks that come, change and go through the API of the real service, while others are sent to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from standardwebhooks import Webhook as Verifier

from cubehook.events import iso
from cubehook.simulator.sink import Behaviour, Received, Sink
from tests.functional.control import Answer, ask
from tests.functional.harness import free_port
from tests.functional.test_main_job import SECRET, STATES, MainJobCase, reactor


class WebhooksCase(MainJobCase):
    """With a receiver of its own for the webhooks that are made, which verifies nothing."""

    async def ask(self, method: str, path: str, body: object = None, tag: str | None = None) -> Answer:
        return await ask(self.service, method, path, body, tag)

    async def receiver(self, behaviour: Behaviour | None = None) -> tuple[str, list[Received]]:
        """The URL of another receiver, and what it received."""
        got: list[Received] = []
        sink = Sink(
            reactor,
            lambda: time.time_ns() // 1000,
            behaviour=behaviour or Behaviour(),
            received=got.append,
        )
        port = free_port()
        await sink.start(f"tcp:{port}:interface=127.0.0.1")
        self.addCleanup(sink.stop)
        return f"http://127.0.0.1:{port}/hook", got

    async def when(self, condition: Callable[[], bool]) -> None:
        async def holds() -> bool:
            return condition()

        await self.poll(holds)

    def told(self, got: list[Received]) -> list[str]:
        return [json.loads(received.body)["call_state"] for received in got]

    def statuses(self, webhook: str) -> list[str]:
        rows = self.database().execute(
            "SELECT status FROM deliveries WHERE webhook = ? ORDER BY id", (webhook,)
        )
        return [status for (status,) in rows]


class WebhookTests(WebhooksCase):
    async def test_made_changed_and_removed(self) -> None:
        await self.begin()
        first, got = await self.receiver()
        second, later = await self.receiver()
        made = await self.ask(
            "POST", "/webhooks", {"id": "erp", "url": first, "headers": {"X-Key": "k3y-of-erp"}}
        )
        self.assertEqual((made.status, made.body["headers"]), (201, {"X-Key": "***"}), made.body)
        secret = made.body["secret"]
        self.call()
        await self.when(lambda: self.told(got) == STATES)
        self.assertEqual({received.headers["x-key"] for received in got}, {"k3y-of-erp"})
        for received in got:
            Verifier(secret).verify(received.body, received.headers)

        changes = {"url": second, "headers": {"X-Key": "***"}, "states": ["DISCONNECTED"]}
        changed = await self.ask("PATCH", "/webhooks/erp", changes, made.tag)
        self.assertEqual((changed.status, changed.body["url"]), (200, second), changed.body)
        stale = await self.ask("PATCH", "/webhooks/erp", {"enabled": False}, made.tag)
        self.assertEqual(stale.status, 412)
        self.call()
        await self.when(lambda: self.told(later) == ["DISCONNECTED"])
        self.assertEqual(later[0].headers["x-key"], "k3y-of-erp")
        Verifier(secret).verify(later[0].body, later[0].headers)
        self.assertEqual(len(got), 3)

        # Paused it is sent nothing, also nothing of what happened meanwhile.
        await self.ask("PATCH", "/webhooks/erp", {"enabled": False})
        self.call()
        await self.until(lambda: self.states() == STATES * 3)
        resumed = await self.ask("PATCH", "/webhooks/erp", {"enabled": True})
        self.assertEqual((resumed.body["enabled"], resumed.body["pending"]), (True, 0))
        # Unless it is asked for, and then nothing else.
        missed = {"since": "2024-11-23T00:00:00Z", "status": ["failed", "missed"]}
        refused = await self.ask("POST", "/webhooks/erp/redeliver", missed)
        self.assertEqual((refused.status, list(refused.body["error"]["fields"])), (422, ["since"]))
        missed["since"] = iso(time.time_ns() // 1000 - 3_600_000_000)
        counted = await self.ask("POST", "/webhooks/erp/redeliver", {**missed, "preview": True})
        self.assertEqual((counted.status, counted.body), (200, {"total": 1, "job": None}))
        job = (await self.ask("POST", "/webhooks/erp/redeliver", missed)).body["job"]
        self.assertEqual((job["total"], job["status"]), (1, ["failed", "missed"]))
        await self.when(lambda: self.told(later) == ["DISCONNECTED"] * 2)
        self.assertEqual(later[1].headers["cubehook-redelivery"], "true")
        counted = await self.ask("POST", "/webhooks/erp/redeliver", {**missed, "preview": True})
        self.assertEqual(counted.body["total"], 0)

        await self.service.process.stop()  # type: ignore[union-attr]
        await self.service.start()
        await self.gateway.when_registered()
        found = await self.ask("GET", "/webhooks/erp")
        self.assertEqual((found.body["provisioned"], found.body["states"]), (False, ["DISCONNECTED"]))
        self.call()
        await self.when(lambda: len(later) == 3)
        self.assertEqual((await self.ask("DELETE", "/webhooks/erp", tag=found.tag)).status, 204)
        self.assertEqual((await self.ask("GET", "/webhooks/erp")).status, 404)
        self.call()
        await self.until(lambda: self.states() == STATES * 5)
        self.assertEqual(len(later), 3)
        self.assertEqual(self.statuses("erp"), ["delivered"] * 6, "what happened stays")
        self.assertNotIn('webhook="erp"', (await self.service.get("/metrics"))[1])

    async def test_what_is_under_way_comes_to_its_end_and_what_is_pending_fails(self) -> None:
        await self.begin()
        slow, got = await self.receiver(Behaviour(stall=2.0))
        await self.ask("POST", "/webhooks", {"id": "erp", "url": slow, "concurrency": 1})
        self.call()
        await self.until(lambda: self.states() == STATES)

        async def in_flight() -> bool:
            return bool((await self.ask("GET", "/webhooks/erp")).body["in_flight"])

        await self.poll(in_flight)
        self.assertEqual((await self.ask("DELETE", "/webhooks/erp")).status, 204)
        # One of the same name is sent nothing of that.
        other, theirs = await self.receiver()
        again = await self.ask("POST", "/webhooks", {"id": "erp", "url": other})
        self.assertEqual((again.status, again.body["pending"]), (201, 0))
        self.call()
        await self.when(lambda: self.told(theirs) == STATES)
        await self.when(lambda: len(got) == 1)
        ids = {received.id for received in theirs}
        self.assertNotIn(got[0].id, ids)
        ended = ["delivered", "failed", "failed", *["delivered"] * 3]
        await self.when(lambda: self.statuses("erp") == ended)

    async def test_one_that_its_receiver_disabled_is_enabled_by_a_change(self) -> None:
        await self.begin()
        gone, refused = await self.receiver(Behaviour(status=410))
        await self.ask("POST", "/webhooks", {"id": "erp", "url": gone})
        self.call()
        process = self.service.process
        assert process is not None
        await process.wait_for("Webhook erp is disabled")
        better, got = await self.receiver()
        changed = await self.ask("PATCH", "/webhooks/erp", {"url": better})
        self.assertEqual((changed.status, changed.body["disabled_reason"]), (200, None))
        await self.when(lambda: [received.id for received in got][:1] == [refused[0].id])

    async def test_tried_out(self) -> None:
        await self.begin()
        url, got = await self.receiver()
        made = await self.ask("POST", "/webhooks", {"id": "erp", "url": url, "payload": "full"})
        tried = await self.ask("POST", "/webhooks/erp/test", {"state": "DISCONNECTED"})
        self.assertEqual((tried.status, tried.body["delivered"], tried.body["status"]), (200, True, 200))
        Verifier(made.body["secret"]).verify(got[0].body, got[0].headers)
        sent: dict[str, Any] = json.loads(got[0].body)
        self.assertEqual((sent["call_state"], sent["outcome"]), ("DISCONNECTED", "answered"))
        self.assertEqual(json.loads(tried.body["request_body"]), sent)
        self.assertIn("connecting", tried.body["phases"])
        self.assertLess(sent["alerting_at"], sent["disconnected_at"])
        self.assertEqual(sent["disconnected_at"], sent["timestamp"])

        nobody = f"http://127.0.0.1:{free_port()}/"
        tried = await self.ask("POST", "/webhooks/erp/test", {"settings": {"url": nobody}})
        self.assertEqual((tried.body["delivered"], tried.body["error_class"]), (False, "connection_refused"))
        self.assertTrue(tried.body["error"])
        tried = await self.ask("POST", "/webhooks/test", {"settings": {"url": url, "payload": "basic"}})
        self.assertTrue(tried.body["delivered"])
        self.assertEqual(next(iter(json.loads(got[1].body))), "call_state")
        tried = await self.ask("POST", "/webhooks/test", {"settings": {"url": "http://169.254.169.254/"}})
        self.assertEqual(tried.body["error_class"], "blocked")
        found = await self.ask("GET", "/webhooks/erp")
        self.assertEqual(
            (
                found.body["pending"],
                found.body["failures"],
                found.body["url"],
                found.body["counters"]["delivered"],
            ),
            (0, 0, url, 0),
        )
        self.assertEqual(self.statuses("erp"), [])

    async def test_nothing_of_others_is_lost_while_cubes_and_webhooks_come_and_go(self) -> None:
        await self.begin()
        url, _ = await self.receiver()
        branch = {
            "provider_url": f"http://127.0.0.1:{free_port()}/cisco_xcc",
            "application_url": self.service.application_url("branch"),
        }
        calls = 0
        for number in range(4):
            for method, path, body in (
                ("POST", "/cubes", {"id": "branch"} | branch),
                ("POST", "/webhooks", {"id": "erp", "url": url, "granularity": "connection"}),
                ("PATCH", "/cubes/branch", {"default_region": "US", "allow_from": [f"10.0.{number}.0/24"]}),
                ("PATCH", "/webhooks/erp", {"granularity": "call", "url": f"{url}/{number}"}),
                ("PATCH", "/cubes/branch", {"enabled": False}),
                ("DELETE", "/webhooks/erp", None),
                ("DELETE", "/cubes/branch", None),
            ):
                calls += 1
                self.call()
                answer = await self.ask(method, path, body)
                self.assertLess(answer.status, 300, answer.body)
        await self.until(lambda: len(self.states()) == 3 * calls)
        await self.gateway.when_idle()
        counters = self.gateway.counters
        self.assertEqual((counters.registrations, counters.failed, counters.lost_negative), (1, 0, 0))
        self.assertEqual(self.statuses("crm"), ["delivered"] * 3 * calls)
        self.assertNotIn("pending", self.statuses("erp"))

    async def test_what_cannot_be(self) -> None:
        await self.begin()
        for method, body in (("PATCH", {"enabled": False}), ("DELETE", None)):
            refused = await self.ask(method, "/webhooks/crm", body)
            self.assertEqual((refused.status, refused.body["error"]["code"]), (409, "conflict"))
            self.assertIn("[webhooks.crm] stands in the configuration file", refused.body["error"]["message"])
        refused = await self.ask("POST", "/webhooks", {"id": "crm", "url": "http://192.0.2.1/"})
        self.assertIn("There is a webhook crm already", refused.body["error"]["message"])
        wrong = {
            "id": "erp",
            "url": "mqtt://192.0.2.1/",
            "cubes": ["hp"],
            "headers": {"X-A": "1", "x-a": "2"},
            "secret": "whsec_dG9vIHNob3J0",
            "payload": "template",
            "template": "{{ nothing }}",
        }
        refused = await self.ask("POST", "/webhooks", wrong)
        fields = refused.body["error"]["fields"]
        self.assertEqual(
            (refused.status, sorted(fields)),
            (422, ["cubes[0]", "headers.x-a", "secret", "template", "url"]),
        )
        self.assertIn("the id of a cube (hq)", fields["cubes[0]"])
        self.assertNotIn("dG9vIHNob3J0", str(refused.body))
        refused = await self.ask("POST", "/webhooks/test", {"settings": wrong | {"id": "erp"}})
        self.assertEqual(sorted(refused.body["error"]["fields"]), ["settings.id"])
        del wrong["id"]
        refused = await self.ask("POST", "/webhooks/test", {"settings": wrong})
        self.assertIn("settings.template", refused.body["error"]["fields"])
        found = await self.ask("GET", "/webhooks")
        self.assertEqual([webhook["id"] for webhook in found.body["items"]], ["crm"])
        await self.ask("POST", "/webhooks", {"id": "erp", "url": "http://192.0.2.1/", "cubes": ["hq"]})
        refused = await self.ask("PATCH", "/webhooks/erp", {"options": {"qos": 1}, "cubes": ["hq", "hp"]})
        self.assertEqual(
            (refused.status, sorted(refused.body["error"]["fields"])), (422, ["cubes[1]", "options.qos"])
        )
        self.assertEqual((await self.ask("GET", "/webhooks/erp")).body["cubes"], ["hq"])
        self.assertNotIn(SECRET, str(found.body))
