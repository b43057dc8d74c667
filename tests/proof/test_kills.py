"""Twenty SIGKILLs under load: what a gateway was answered 200 for reaches its webhooks, in order."""

from __future__ import annotations

import json
from collections import defaultdict
from random import Random
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from cubehook.simulator.gateway import Notification, Observer, Settings, SimulatedGateway
from cubehook.simulator.provider import Probing
from cubehook.simulator.scenarios import CALLER, Traffic
from tests.functional.test_main_job import MainJobCase

reactor: Any = installed
KILLS = 20
CALLS_PER_SECOND = 40.0
MIX = {
    "answered": 50.0,
    "busy": 10.0,
    "no_answer": 10.0,
    "abandoned": 10.0,
    "hunt": 10.0,
    "simultaneous": 5.0,
    "early_media": 5.0,
}


class Answered(Observer):
    """Every notification that was answered 200, by callID, in the order of the answers."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.callers: dict[str, str] = {}
        """The incoming legs, by callID."""
        self.failed = 0

    def notified(self, notification: Notification, status: int | None, error: str, at: float) -> None:
        if status == 200:
            self.calls[notification.call_id].append((notification.connection_id, notification.name))
            self.callers[notification.call_id] = notification.call.connection_ids[CALLER]
        else:
            self.failed += 1


def owed(told: list[tuple[str, str]], caller: str) -> set[str]:
    """
    The states that a call is owed webhooks for, going by what was answered 200 of it.

    Where the creation of the caller's leg was not, the call is seen from its middle: its legs cannot
    be told apart, and a hunt may look like an end.
    """
    if (caller, "created") not in told:
        return set()
    names = [name for _, name in told]
    states = set()
    if "connected" in names:
        states.add("CONNECTED")
    if "alerting" in names[: names.index("connected") if states else None]:
        states.add("ALERTING")
    if (caller, "disconnected") in told:
        states.add("DISCONNECTED")
    return states


class KillTests(MainJobCase):
    timeout = 600

    async def test_twenty_kills_under_load(self) -> None:
        random = Random(2026)
        await self.begin(payload="full", webhook=f"concurrency = 16\nretry = {[1] * 60}")
        await self.gateway.stop()
        answered = Answered()
        settings = Settings(
            remote_url=self.service.application_url("hq"),
            listen=f"tcp:{self.gateway_port}:interface=127.0.0.1",
            connections=32,
            negative_loss=False,
            probing=Probing(exchange_max_failures=1000, max_failures=1000, negative=1.0),
        )
        self.gateway = SimulatedGateway(reactor, settings, Random(1), [answered])
        await self.gateway.start()
        await self.gateway.when_registered()
        traffic = Traffic(mix=MIX, rate=CALLS_PER_SECOND, hold_seconds=2.0)
        calls = Deferred.fromCoroutine(self.gateway.make_calls(traffic))
        for _ in range(KILLS):
            # The moment is what is tried, so nothing is waited for but time.
            await deferLater(reactor, random.uniform(0.2, 2.0), lambda: None)
            assert self.service.process is not None
            await self.service.process.kill()
            await self.service.start()
        _ = calls.addErrback(lambda _: None)
        calls.cancel()
        await self.gateway.when_idle()

        async def drained() -> bool:
            _, metrics = await self.service.get("/metrics")
            return 'cubehook_deliveries_pending{webhook="crm"} 0.0' in metrics

        await self.poll(drained)
        self.check(answered)

    def check(self, answered: Answered) -> None:
        assert self.sink is not None
        summary = self.sink.summary()
        self.assertEqual((summary.bad_signatures, summary.malformed, summary.order_violations), (0, 0, 0))
        call_of = {connection: call for call, told in answered.calls.items() for connection, _ in told}
        came: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for received in self.received:
            body = json.loads(received.body)
            for connection in body["connections"]:
                call = call_of.get(connection["connection_id"])
                if call is not None:
                    came[call][body["call_state"]].add(received.id)
        missing = {
            call: (states - set(came[call]), told)
            for call, told in answered.calls.items()
            if (states := owed(told, answered.callers[call])) - set(came[call])
        }
        self.maxDiff = None
        self.assertEqual(missing, {}, "missing, of what was told")
        middle = {call for call, told in answered.calls.items() if "alerting" in {name for _, name in told}}
        self.assertEqual(middle - set(came), set(), "calls of which nothing came")
        twice = {
            call: (dict(states), answered.calls[call])
            for call, states in came.items()
            if (answered.callers[call], "created") in answered.calls[call]
            and any(len(ids) > 1 for ids in states.values())
        }
        self.assertEqual(twice, {}, "told twice")
        # The load was real, and the kills did hurt.
        taken = sum(map(len, answered.calls.values()))
        self.assertGreater(taken, KILLS * CALLS_PER_SECOND)
        self.assertGreater(answered.failed, 0)
        print(
            f"{len(answered.calls)} calls, {taken} notifications answered 200, {answered.failed} not; "
            f"{summary.unique} events, {summary.repeats} repeated"
        )
