"""SIGHUP after SIGHUP under load, with another file each time: nothing is lost and nobody is disturbed."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from cubehook.simulator.gateway import Settings, SimulatedGateway
from cubehook.simulator.provider import Probing
from cubehook.simulator.scenarios import Traffic
from tests.functional.test_main_job import STATES, reactor
from tests.functional.test_reload import ReloadCase

SECONDS = 60.0
CALLS_PER_SECOND = 60.0


class StormTests(ReloadCase):
    timeout = 600

    async def test_a_minute_of_hang_ups(self) -> None:
        random = Random(2026)
        await self.begin(payload="full", webhook="concurrency = 16")
        await self.gateway.stop()
        settings = Settings(
            remote_url=self.service.application_url("hq"),
            listen=f"tcp:{self.gateway_port}:interface=127.0.0.1",
            connections=32,
            probing=Probing(exchange_max_failures=1000, max_failures=1000, negative=1.0),
        )
        self.gateway = SimulatedGateway(reactor, settings, Random(1))
        await self.gateway.start()
        await self.gateway.when_registered()
        before = self.gateway.counters.registrations
        lab = await self.another("lab")
        await lab.start()
        service, hq = self.service, self.service.cubes
        process = service.process
        assert process is not None
        traffic = Traffic(mix={"answered": 80.0, "hunt": 20.0}, rate=CALLS_PER_SECOND, hold_seconds=2.0)
        calls = Deferred.fromCoroutine(self.gateway.make_calls(traffic))
        sent = 0
        until = reactor.seconds() + SECONDS
        while reactor.seconds() < until:
            service.cubes = hq + f'description = "{random.random()}"\n'
            if random.random() < 0.5:
                service.cubes += self.lab(lab)
            service.webhooks = self.hook("crm", f"concurrency = {random.randint(1, 30)}")
            if random.random() < 0.5:
                service.webhooks += self.hook("second", f"timeout = {random.randint(1, 9)}")
            service.extra = (
                f'[log]\nlevel = "{random.choice(("info", "debug"))}"\nkeep = {random.randint(1, 9)}\n'
                f"[delivery]\ntimeout = {random.randint(5, 9)}\njitter = {random.random()}\n"
            )
            if random.random() < 0.1:
                service.extra += "nonsense = 1\n"
            # Into its place at once now and then, else written there, so that half of it may be read.
            service.write_config()
            for _ in range(random.randint(1, 3)):
                process.send(signal.SIGHUP)
                sent += 1
            # On a slow machine a file that differs each time would never be read to its end.
            if random.random() < 0.5:
                await self.hang_up()
                sent += 1
            await deferLater(reactor, random.uniform(0.0, 0.4))
        _ = calls.addErrback(lambda _: None)
        calls.cancel()
        await self.gateway.when_idle()

        async def drained() -> bool:
            _, metrics = await service.get("/metrics")
            return 'cubehook_deliveries_pending{webhook="crm"} 0.0' in metrics

        await self.poll(drained)
        counters = self.gateway.counters
        self.assertEqual(
            (
                counters.registrations - before,
                counters.failed,
                counters.lost_negative,
                counters.probes_failed,
            ),
            (0, 0, 0, 0),
        )
        assert self.sink is not None
        summary = self.sink.summary()
        self.assertEqual((summary.bad_signatures, summary.malformed, summary.order_violations), (0, 0, 0))
        told: dict[str, list[str]] = defaultdict(list)
        for received in self.received:
            if received.path == "/crm" and not received.repeat:
                body = json.loads(received.body)
                if body["cube"] == "hq":
                    told[body["call_id"]].append(body["call_state"])
        self.assertEqual({call: states for call, states in told.items() if states != STATES}, {})
        self.assertEqual(len(told), counters.calls)
        self.assertNotIn("Traceback", process.text)
        changed = process.text.count("was reloaded: ")
        refused = process.text.count("nothing was changed")
        print(
            f"{counters.calls} calls, {counters.notifications} notifications; {sent} SIGHUPs, of which came "
            f"{changed} reloads and {refused} refusals; the lab registered {lab.counters.registrations} times"
        )
        self.assertGreater(changed, 20)
        self.assertGreater(refused, 0)
