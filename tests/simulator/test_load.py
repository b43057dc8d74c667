"""A load on an application of the tests' own, with its webhooks."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cubehook.delivery.signing import decode_secret, sign
from cubehook.events import iso
from cubehook.simulator.gateway import Observer, Settings
from cubehook.simulator.http import Answer, Exchange, Poster, response
from cubehook.simulator.load import Load, LoadResult, NotRegisteredError, run_load
from cubehook.simulator.observers import Recorder
from cubehook.simulator.provider import Probing
from cubehook.simulator.scenarios import Traffic
from cubehook.xcc import messages as xcc
from tests.functional.harness import free_port
from tests.simulator.application import PATIENCE, Application, reactor, well

SECRET = decode_secret("whsec_" + base64.b64encode(b"s" * 32).decode())


class Webhook(Exchange):
    def __init__(self, body: bytes) -> None:
        self._body = body

    def body(self) -> bytes:
        return self._body

    def finished(self, answer: Answer | None, error: str) -> None:
        pass


class Delivering(Application):
    """Sends a webhook, signed, for each `disconnected` of a first leg."""

    def __init__(self, test: TestCase, sink: int) -> None:
        super().__init__(test)
        self._test = test
        self._sink = sink
        self.answer = self._answer
        self._sent = 0

    def _answer(self, message: Any) -> bytes | None:
        if isinstance(message, xcc.NotifyXccConnectionData) and isinstance(message.event, xcc.Disconnected):
            self._deliver()
        return well(message)

    def _deliver(self) -> None:
        self._sent += 1
        now = time.time_ns() // 1000
        body = msgspec.json.encode(
            {
                "call_state": "DISCONNECTED",
                "called_number": None,
                "calling_number": None,
                "timestamp": iso(now),
            }
        )
        id = str(self._sent)
        headers = (
            f"webhook-id: {id}\r\nwebhook-timestamp: {now // 1_000_000}\r\n"
            f"webhook-signature: {sign([SECRET], id, now // 1_000_000, body)}\r\n"
        )
        poster = Poster(
            reactor,
            f"http://127.0.0.1:{self._sink}/",
            headers.encode(),
            connections=1,
            persistent=False,
            timeout=PATIENCE,
        )
        self._test.addCleanup(lambda: Deferred.fromCoroutine(poster.close()))
        poster.post(Webhook(body))


def refuse_call_delivery(message: Any) -> bytes | None:
    return response(503) if isinstance(getattr(message, "event", None), xcc.CallDelivery) else well(message)


class LoadTests(TestCase):
    async def run_it(
        self, application: Application, observers: tuple[Observer, ...] = (), **changes: Any
    ) -> LoadResult:
        if not application.url:
            await application.start()
        gateway_port = free_port()
        settings = {
            "gateway": Settings(
                remote_url=application.url,
                listen=f"tcp:{gateway_port}:interface=127.0.0.1",
                speed=1000.0,
                probing=Probing(exchange_max_failures=1000),
            ),
            "traffic": Traffic(mix={"busy": 1}, rate=200, count=40, regular=True),
            "warm_up": 0.0,
            "quiet": 0.2,
            **changes,
        }
        running = Deferred.fromCoroutine(run_load(reactor, Load(**settings), observers))
        boot = application.when(xcc.NotifyXccProviderStatus)
        await boot
        await application.register(f"http://127.0.0.1:{gateway_port}/cisco_xcc")
        return await running

    async def test_figures_of_a_small_load(self) -> None:
        application = Application(self)
        result = await self.run_it(application)
        self.assertEqual((result.calls, result.answers, result.failures), (40, 200, 0))
        self.assertEqual(result.statuses, {"200": 200})
        self.assertEqual(result.answer.count, 200)
        assert result.answer.p99_ms is not None
        assert result.event_to_answer.p99_ms is not None
        self.assertGreaterEqual(result.event_to_answer.p99_ms, 0.99 * result.answer.p99_ms)
        self.assertApproximates(result.calls_per_second, 200, 60)
        self.assertEqual((result.unfinished_calls, result.expected_webhooks), (0, 40))
        self.assertEqual(sum(second.answers for second in result.series), 200)
        self.assertEqual(sum(second.calls for second in result.series), 40)
        self.assertIsNone(result.webhooks)

    async def test_warm_up_is_not_measured(self) -> None:
        application = Application(self)
        result = await self.run_it(application, warm_up=0.1)
        self.assertEqual(result.counters.notifications, 200)
        self.assertLess(result.calls, 30)
        self.assertEqual(result.answers, result.answer.count)
        self.assertLess(result.answers, 150)

    async def test_duration_ends_it(self) -> None:
        traffic = Traffic(mix={"busy": 1}, rate=100, regular=True)
        result = await self.run_it(Application(self), traffic=traffic, duration=0.3)
        self.assertApproximates(result.calls, 30, 6)
        self.assertApproximates(result.seconds, 0.3, 0.1)

    async def test_failures_are_counted(self) -> None:
        application = Application(self)
        application.answer = refuse_call_delivery
        result = await self.run_it(application)
        self.assertEqual((result.failures, result.answers), (40, 160))
        self.assertEqual(result.statuses, {"200": 160, "503": 40})

    async def test_webhooks_are_received_checked_and_measured(self) -> None:
        sink = free_port()
        result = await self.run_it(
            Delivering(self, sink), sink=f"tcp:{sink}:interface=127.0.0.1", secrets=(SECRET,)
        )
        assert result.webhooks is not None
        assert result.webhook is not None
        self.assertEqual((result.webhooks.accepted, result.webhooks.bad_signatures), (80, 0))
        self.assertEqual(result.webhooks.unique, 80)
        self.assertEqual(result.webhook.count, 80)
        self.assertEqual(sum(second.webhooks for second in result.series), 80)

    async def test_everything_answered_is_recorded_and_nothing_else(self) -> None:
        application = Application(self)
        application.answer = refuse_call_delivery
        record = io.BytesIO()
        await self.run_it(application, (Recorder(record, lambda: 7),))
        lines = [msgspec.json.decode(line) for line in record.getvalue().splitlines()]
        answered = [event for event in application.events() if event[2] != "CallDelivery"]
        recorded = [(line["callID"], line["connID"], line["event"]) for line in lines]
        named = [(call, leg, name[0].lower() + name[1:]) for call, leg, name in answered]
        self.assertEqual(sorted(recorded), sorted(named))
        self.assertEqual({line["time"] for line in lines}, {7})
        self.assertTrue(all(len(line["guid"]) == 32 for line in lines))

    async def test_what_happens_to_the_gateway(self) -> None:
        application = Application(self)
        result = await self.run_it(
            application, happenings=((0.05, "reload"), (60.0, "reload")), finish=PATIENCE
        )
        statuses = [m for m in application.received if isinstance(m, xcc.NotifyXccProviderStatus)]
        self.assertEqual([status.provider_status for status in statuses], ["IN_SERVICE"] * 2)
        self.assertEqual(result.counters.calls, 40)
        self.assertGreater(result.counters.lost_unregistered, 100)

    async def test_nobody_registers(self) -> None:
        settings = Settings(remote_url=f"http://127.0.0.1:{free_port()}/xcc/hq")
        load = Load(gateway=settings, traffic=Traffic(mix={"busy": 1}), patience=0.05)
        error = await self.assertFailure(Deferred.fromCoroutine(run_load(reactor, load)), NotRegisteredError)
        self.assertIn(settings.remote_url, str(error))

    async def test_stop_ends_it_early(self) -> None:
        stop: Deferred[None] = Deferred()
        settings = Settings(remote_url=f"http://127.0.0.1:{free_port()}/xcc/hq")
        load = Load(gateway=settings, traffic=Traffic(mix={"busy": 1}), patience=None)
        running = Deferred.fromCoroutine(run_load(reactor, load, stop=stop))
        stop.callback(None)
        result = await running
        self.assertEqual((result.calls, result.answers), (0, 0))
