"""Cubes that come, change and go through the API of the real service, while others' calls go on."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from cubehook.simulator.gateway import Settings, SimulatedGateway
from cubehook.simulator.provider import Probing
from cubehook.simulator.scenarios import script
from tests.functional.control import Answer, ask
from tests.functional.harness import PATIENCE, free_port
from tests.functional.test_main_job import STATES, MainJobCase, reactor


class CubesCase(MainJobCase):
    async def another(self, cube: str) -> SimulatedGateway:
        """A gateway beside the first, not started, for which `cube` has the right application URL."""
        settings = Settings(
            remote_url=self.service.application_url(cube),
            listen=f"tcp:{free_port()}:interface=127.0.0.1",
            speed=20.0,
            probing=Probing(response_timeout=5.0, negative=1.0),
        )
        gateway = SimulatedGateway(reactor, settings, Random(2))
        self.addCleanup(gateway.stop)
        self.ports[gateway] = settings.listen.split(":")[1]
        return gateway

    def setUp(self) -> None:
        self.ports: dict[SimulatedGateway, str] = {}

    def provider_url(self, gateway: SimulatedGateway) -> str:
        return f"http://127.0.0.1:{self.ports[gateway]}/cisco_xcc"

    async def ask(self, method: str, path: str, body: object = None, tag: str | None = None) -> Answer:
        return await ask(self.service, method, path, body, tag)

    async def add_branch(self, **settings: Any) -> tuple[SimulatedGateway, Answer]:
        gateway = await self.another("branch")
        body = {
            "id": "branch",
            "provider_url": self.provider_url(gateway),
            "application_url": self.service.application_url("branch"),
        }
        answer = await self.ask("POST", "/cubes", body | settings)
        self.assertEqual(answer.status, 201, answer.body)
        # What it says as it starts is for us already.
        await gateway.start()
        await gateway.when_registered().addTimeout(PATIENCE, reactor)
        await self.registration_is("registered")
        return gateway, answer

    async def registration_is(self, state: str) -> None:
        async def found() -> bool:
            answer = await self.ask("GET", "/cubes/branch")
            return bool(answer.body["registration"]["state"] == state)

        await self.poll(found)

    def told(self, cube: str) -> list[str]:
        """The states that were told of calls of `cube`, which need the payload full."""
        return [body["call_state"] for body in self.accepted() if body.get("cube") == cube]


class CubeTests(CubesCase):
    async def test_from_its_first_registration_to_its_removal_with_a_call_in_progress(self) -> None:
        await self.begin(payload="full", webhook='notices = ["cube.lost"]')
        gateway, added = await self.add_branch(description="Second floor")
        self.assertEqual(
            (added.body["id"], added.body["provisioned"], added.body["description"]),
            ("branch", False, "Second floor"),
        )
        gateway.place_call(script("answered", Random(5), 2.0))
        await self.until(lambda: self.told("branch") == STATES)
        found = await self.ask("GET", "/cubes/branch")
        self.assertEqual(found.tag, added.tag)
        self.assertEqual(found.body["counters"]["events"], 3)

        # The gateway need not know of these.
        changed = await self.ask(
            "PATCH", "/cubes/branch", {"description": "Third", "allow_from": ["127.0.0.1"]}, found.tag
        )
        self.assertEqual((changed.status, changed.body["description"]), (200, "Third"))
        self.assertNotEqual(changed.tag, found.tag)
        late = await self.ask("PATCH", "/cubes/branch", {"description": "Fourth"}, found.tag)
        self.assertEqual((late.status, late.body["error"]["code"]), (412, "precondition_failed"))
        late = await self.ask("DELETE", "/cubes/branch", tag=found.tag)
        self.assertEqual(late.status, 412)
        self.assertEqual(gateway.counters.registrations, 1)
        gateway.place_call(script("answered", Random(6), 10_000.0))
        await self.until(lambda: self.told("branch") == [*STATES, "ALERTING", "CONNECTED"])

        self.call()
        removed = await self.ask("DELETE", "/cubes/branch", tag=changed.tag)
        self.assertEqual((removed.status, removed.body), (204, None))
        self.assertIsNone(gateway.registration)
        await self.until(lambda: self.told("branch") == STATES * 2)
        last = [json.loads(received.body) for received in self.received]
        self.assertTrue(next(body for body in reversed(last) if body.get("cube") == "branch")["inferred"])
        self.assertEqual((await self.ask("GET", "/cubes/branch")).status, 404)
        self.assertEqual(await self.post(b"<x/>", "/xcc/branch"), 404)
        _, metrics = await self.service.get("/metrics")
        self.assertNotIn('"branch"', metrics)
        self.assertIn('cubehook_registered{cube="hq"} 1.0', metrics)

        # Nobody else noticed.
        await self.until(lambda: self.told("hq") == STATES)
        self.assertEqual((self.gateway.counters.registrations, self.gateway.counters.failed), (1, 0))
        self.assertEqual([body for body in self.accepted() if "type" in body], [], "nothing was lost")

    async def test_what_was_made_is_there_after_a_restart_and_what_was_removed_is_not(self) -> None:
        await self.begin()
        await self.add_branch()
        await self.service.process.stop()  # type: ignore[union-attr]
        await self.service.start()
        found = await self.ask("GET", "/cubes")
        self.assertEqual(
            [(cube["id"], cube["provisioned"]) for cube in found.body["items"]],
            [("branch", False), ("hq", True)],
        )
        await self.registration_is("registered")
        await self.ask("DELETE", "/cubes/branch")
        await self.service.process.stop()  # type: ignore[union-attr]
        await self.service.start()
        found = await self.ask("GET", "/cubes?limit=1")
        self.assertEqual(([cube["id"] for cube in found.body["items"]], found.body["next"]), (["hq"], None))

    async def test_another_gateway_and_none(self) -> None:
        await self.begin()
        first, _ = await self.add_branch()
        second = await self.another("branch")
        first.place_call(script("answered", Random(5), 10_000.0))

        async def active(calls: int) -> bool:
            return bool((await self.ask("GET", "/cubes/branch")).body["calls_active"] == calls)

        await self.poll(lambda: active(1))
        changed = await self.ask("PATCH", "/cubes/branch", {"provider_url": self.provider_url(second)})
        self.assertEqual(changed.body["provider_url"], self.provider_url(second))
        self.assertIsNone(first.registration)
        await second.start()
        await second.when_registered().addTimeout(PATIENCE, reactor)
        self.assertTrue(await active(1))

        disabled = await self.ask("PATCH", "/cubes/branch", {"enabled": False})
        self.assertEqual(disabled.body["registration"]["state"], "disabled")
        self.assertIsNone(second.registration)
        self.assertTrue(await active(0))
        self.assertEqual(await self.post(b"<x/>", "/xcc/branch"), 404)
        refused = await self.ask("POST", "/cubes/branch/register")
        self.assertEqual((refused.status, refused.body["error"]["code"]), (409, "conflict"))
        await self.ask("PATCH", "/cubes/branch", {"enabled": True})
        await second.when_registered().addTimeout(PATIENCE, reactor)
        await self.registration_is("registered")

    async def test_a_gateway_that_is_not_there_delays_nobody(self) -> None:
        await self.begin()
        nobody = f"http://127.0.0.1:{free_port()}/cisco_xcc"
        body = {"provider_url": nobody, "application_url": self.service.application_url("branch")}
        self.assertEqual((await self.ask("POST", "/cubes", {"id": "branch"} | body)).status, 201)
        tried = await self.ask("POST", "/cubes/branch/register")
        self.assertEqual((tried.status, tried.body["state"]), (200, "unregistered"))
        self.assertGreater(tried.body["failure_count"], 0)
        self.assertTrue(tried.body["last_error"])
        again = await self.ask("POST", "/cubes/hq/register")
        self.assertEqual((again.status, again.body["state"]), (200, "registered"))
        self.assertEqual((await self.ask("DELETE", "/cubes/branch")).status, 204)

    async def test_what_cannot_be(self) -> None:
        await self.begin()
        hq = self.service.application_url("hq")
        other = {"provider_url": "http://192.0.2.1/", "application_url": "http://192.0.2.2/other"}
        for method, body in (("PATCH", {"description": "x"}), ("DELETE", None)):
            refused = await self.ask(method, "/cubes/hq", body)
            self.assertEqual((refused.status, refused.body["error"]["code"]), (409, "conflict"))
            self.assertIn("[cubes.hq] stands in the configuration file", refused.body["error"]["message"])
        refused = await self.ask("POST", "/cubes", {"id": "hq"} | other)
        self.assertEqual(refused.status, 409)
        self.assertIn("There is a cube hq already", refused.body["error"]["message"])
        refused = await self.ask("POST", "/cubes", {"id": "branch"} | other | {"application_url": hq})
        self.assertEqual(
            (refused.status, refused.body["error"]["fields"]),
            (422, {"application_url": "expected a URL of its own; found that of cubes.hq"}),
        )
        refused = await self.ask(
            "POST",
            "/cubes",
            {"id": "Branch", "provider_url": "ftp://x", "default_region": "XX", "allow_from": ["1.2.3.4/8"]},
        )
        self.assertEqual(
            sorted(refused.body["error"]["fields"]),
            ["allow_from[0]", "application_url", "default_region", "id", "provider_url"],
        )
        for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/register")):
            answer = await self.ask(method, f"/cubes/nobody{path}", {} if method == "PATCH" else None)
            self.assertEqual(answer.status, 404, (method, path))
        found = await self.ask("GET", "/cubes")
        self.assertEqual([cube["id"] for cube in found.body["items"]], ["hq"])
