"""Receivers in trouble, through the real service: held back, disabled, expired, and told of."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from cubehook.simulator.sink import Behaviour, Received, Sink
from tests.functional.control import ask
from tests.functional.harness import free_port
from tests.functional.test_main_job import SECRET, MainJobCase, reactor


class TroubleTests(MainJobCase):
    def of(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(received.body) for received in self.received if received.path == path]

    def hook(self, id: str, path: str, settings: str = "") -> str:
        return f'[webhooks.{id}]\nurl = "http://127.0.0.1:SINK{path}"\nsecret = "{SECRET}"\n{settings}\n'

    async def begin_with(self, *hooks: str) -> None:
        await self.begin(webhook="\n".join(hooks))

    async def metric(self, line: str) -> bool:
        _, text = await self.service.get("/metrics")
        return line in text

    async def test_notices_of_a_cube_and_of_a_webhook_that_fails_for_too_long(self) -> None:
        notices = '["cube.registered", "cube.lost", "webhook.disabled"]'
        await self.begin_with(
            self.hook("ops", "/ops", f'states = ["ALERTING"]\nnotices = {notices}'),
            self.hook(
                "bad",
                "/status/500/bad",
                'disable_after = "2s"\nbreaker = { failures = 2, first = 0.2 }\nretry = [0.1, 0.1, 0.1]',
            ),
        )
        await self.until(lambda: len(self.of("/ops")) == 1)
        (registered,) = self.of("/ops")
        self.assertEqual(("cube.registered", "hq"), (registered["type"], registered["data"]["cube"]))
        await self.gateway.shut_down_provider()
        await self.until(lambda: len(self.of("/ops")) == 2)
        self.assertEqual("cube.lost", self.of("/ops")[1]["type"])
        self.gateway.start_provider()
        await self.until(lambda: len(self.of("/ops")) == 3)
        self.assertEqual("cube.registered", self.of("/ops")[2]["type"])

        self.call()
        await self.until(lambda: any(body.get("type") == "webhook.disabled" for body in self.of("/ops")))
        disabled = next(body for body in self.of("/ops") if body.get("type") == "webhook.disabled")
        self.assertEqual("bad", disabled["data"]["webhook"])
        self.assertIn("500", disabled["data"]["reason"])
        self.assertGreater(disabled["data"]["pending"], 0)
        self.assertTrue(await self.metric('cubehook_webhook_disabled{webhook="bad"} 1.0'))

        await self.service.process.stop()  # type: ignore[union-attr]
        await self.service.start()
        self.assertTrue(await self.metric('cubehook_webhook_disabled{webhook="bad"} 1.0'))
        lost = sum(body.get("type") == "cube.lost" for body in self.of("/ops"))
        self.assertEqual(1, lost, "that we left ourselves is not told")

    async def test_a_receiver_that_is_held_back_stays_so_over_a_kill(self) -> None:
        await self.begin_with(self.hook("busy", "/retry-after/600/busy"))
        self.call()
        await self.until(lambda: len(self.states()) == 3)
        held = 'cubehook_webhook_held{webhook="busy"} 1.0'
        self.assertTrue(await self.poll(lambda: self.metric(held)))
        before = len(self.of("/retry-after/600/busy"))
        self.service.process.send(signal.SIGKILL)  # type: ignore[union-attr]
        await self.service.process.ended()  # type: ignore[union-attr]
        await self.service.start()
        await self.gateway.when_registered()
        self.call()
        await self.until(lambda: len(self.states()) == 6)
        self.assertTrue(await self.metric(held))
        self.assertEqual(before, len(self.of("/retry-after/600/busy")))

    async def test_one_that_is_enabled_again_is_tried_once_before_the_rest(self) -> None:
        port = free_port()
        got: list[Received] = []

        async def receiver(behaviour: Behaviour) -> Sink:
            got.clear()
            sink = Sink(reactor, lambda: time.time_ns() // 1000, behaviour=behaviour, received=got.append)
            await sink.start(f"tcp:{port}:interface=127.0.0.1")
            self.addCleanup(sink.stop)
            return sink

        async def count(least: int) -> bool:
            return len(got) >= least

        # Until it answers, all three calls have happened.
        sink = await receiver(Behaviour(status=410, stall=3.0))
        notices = 'states = ["ALERTING"]\nnotices = ["webhook.disabled", "webhook.recovered"]'
        await self.begin_with(
            self.hook("ops", "/ops", notices), f'[webhooks.bad]\nurl = "http://127.0.0.1:{port}/"'
        )
        for _ in range(3):
            self.call()
        process = self.service.process
        assert process is not None
        await process.wait_for("Webhook bad is disabled")
        pending = (await ask(self.service, "GET", "/webhooks/bad")).body["pending"]
        self.assertGreater(pending, 3, "what is pending is of several calls")
        await sink.stop()
        stall = 0.5
        await receiver(Behaviour(stall=stall))

        answer = await ask(self.service, "POST", "/webhooks/bad/enable")
        self.assertEqual((answer.status, answer.body["disabled_reason"]), (200, None))
        await self.poll(lambda: count(pending))
        first, *rest = sorted(received.at for received in got)
        self.assertGreaterEqual(min(rest) - first, stall * 1_000_000)
        await self.until(lambda: any(body.get("type") == "webhook.recovered" for body in self.of("/ops")))
        told = [body["type"] for body in self.of("/ops") if "type" in body]
        self.assertEqual(told, ["webhook.disabled", "webhook.recovered"])

    async def test_what_comes_too_late_expires_and_the_rest_of_the_call_goes_on(self) -> None:
        await self.begin_with(self.hook("pop", "/retry-after/2/pop", "expire = { ALERTING = 1 }"))
        self.call()

        async def expired() -> bool:
            rows = self.database().execute(
                "SELECT e.state, d.status FROM deliveries d JOIN events e ON e.id = d.event "
                "WHERE d.webhook = 'pop' AND d.status = 'expired'"
            )
            return rows.fetchall() == [("ALERTING", "expired")]

        await self.poll(expired)
        await self.until(
            lambda: any(body["call_state"] == "CONNECTED" for body in self.of("/retry-after/2/pop"))
        )
        log = (self.service.folder / "state" / "log" / "events.log").read_text()
        self.assertRegex(log, r" expired \S+-1 -> pop after 1 attempts")
