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
from tests.calls.owed import Word, owed
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
    "forwarded": 5.0,
    "blind_transfer": 5.0,
}


class Told(Observer):
    """Every notification that was sent, by callID and in order, and whether it was answered 200."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Word]] = defaultdict(list)
        self.callers: dict[str, str] = {}
        """The incoming legs, by callID."""
        self.answered = self.failed = 0

    def notified(self, notification: Notification, status: int | None, error: str, at: float) -> None:
        call = notification.call_id
        word = Word(notification.connection_id, notification.name, status == 200)
        self.calls[call].append(word)
        self.callers[call] = notification.call.connection_ids[CALLER]
        if word.answered:
            self.answered += 1
        else:
            self.failed += 1

    @property
    def of_legs(self) -> dict[str, str]:
        """The callID that each connection belongs to."""
        return {word.leg: call for call, words in self.calls.items() for word in words}


class KillTests(MainJobCase):
    timeout = 600

    async def test_twenty_kills_under_load(self) -> None:
        random = Random(2026)
        await self.begin(payload="full", webhook=f"concurrency = 16\nretry = {[1] * 60}")
        await self.gateway.stop()
        told = Told()
        settings = Settings(
            remote_url=self.service.application_url("hq"),
            listen=f"tcp:{self.gateway_port}:interface=127.0.0.1",
            connections=32,
            negative_loss=False,
            probing=Probing(exchange_max_failures=1000, max_failures=1000, negative=1.0),
        )
        self.gateway = SimulatedGateway(reactor, settings, Random(1), [told])
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
        self.check(told)

    def check(self, told: Told) -> None:
        assert self.sink is not None
        summary = self.sink.summary()
        self.assertEqual((summary.bad_signatures, summary.malformed, summary.order_violations), (0, 0, 0))
        call_of = told.of_legs
        came: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        ours: dict[str, set[str]] = defaultdict(set)
        for received in self.received:
            body = json.loads(received.body)
            for call in {call_of[leg["connection_id"]] for leg in body["connections"]}:
                came[call][body["call_state"]].add(received.id)
                ours[call].add(body["call_id"])
        debts = {call: owed(words, told.callers[call]) for call, words in told.calls.items()}
        missing = {
            call: (states - set(came[call]), told.calls[call])
            for call, states in debts.items()
            if states - set(came[call])
        }
        self.maxDiff = None
        self.assertEqual(missing, {}, "missing, of what was told")
        ringing = {
            call
            for call, words in told.calls.items()
            if any(word.event == "alerting" and word.answered for word in words)
        }
        self.assertEqual(ringing - set(came), set(), "calls of which nothing came")
        twice = {
            call: (dict(states), told.calls[call])
            for call, states in came.items()
            if len(ours[call]) > 1 or any(len(ids) > 1 for ids in states.values())
        }
        self.assertEqual(twice, {}, "told twice")
        # The load was real, and the kills did hurt.
        self.assertGreater(told.answered, KILLS * CALLS_PER_SECOND)
        self.assertGreater(told.failed, 0)
        from_the_middle = sum(
            Word(told.callers[call], "created") not in words and bool(debts[call])
            for call, words in told.calls.items()
        )
        self.assertGreater(from_the_middle, 0)
        print(
            f"{len(told.calls)} calls, {told.answered} notifications answered 200, {told.failed} not; "
            f"{sum(map(len, debts.values()))} events owed, those of {from_the_middle} calls from the middle; "
            f"{summary.unique} events came, {summary.repeats} repeated"
        )
