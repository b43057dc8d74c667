"""The sink over real sockets: what it believes, what it counts, how it misbehaves."""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any

import treq
from standardwebhooks.webhooks import Webhook
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.client import ResponseNeverReceived

from cubehook.delivery.signing import decode_secret, sign
from cubehook.simulator.sink import Behaviour, Received, Sink

reactor: Any = installed
NOW = 1_732_377_816_200_940
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()


class Timers(Clock):
    """The reactor, whose timers of a second and more are moved by hand."""

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def callLater(self, delay: float, *args: Any, **keywords: Any) -> Any:
        if delay < 1:
            return reactor.callLater(delay, *args, **keywords)
        return super().callLater(delay, *args, **keywords)


class SinkTestCase(TestCase):
    timeout = 30

    async def start(self, **settings: Any) -> Sink:
        self.now = NOW
        self.received: list[Received] = []
        self.timers = Timers()
        self.sink = Sink(
            self.timers,
            lambda: self.now,
            random=Random(1),
            received=self.received.append,
            **settings,
        )
        await self.sink.start("tcp:0:interface=127.0.0.1")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.sink.stop()))
        return self.sink

    def body(self, **changes: Any) -> bytes:
        payload = {
            "call_state": "ALERTING",
            "called_number": "+12512501663",
            "calling_number": None,
            "timestamp": "2024-11-23T16:03:36.100940Z",
            **changes,
        }
        return json.dumps(payload).encode()

    def post(
        self, id: str | None = "1", body: bytes | None = None, path: str = "", **headers: str
    ) -> Deferred[Any]:
        all_headers: dict[str | bytes, str | bytes] = {"webhook-id": id} if id is not None else {}
        for name, value in headers.items():
            all_headers[name.replace("_", "-")] = value
        return treq.post(
            self.sink.url + path,
            data=self.body() if body is None else body,
            headers=all_headers,
            persistent=False,
            timeout=20,
        )

    async def status(self, *args: Any, **keywords: Any) -> int:
        answer = await self.post(*args, **keywords)
        await answer.content()
        return int(answer.code)

    def signed(self, secret: str, id: str = "1", body: bytes | None = None) -> dict[str, str]:
        seconds = self.now // 1_000_000
        return {
            "webhook_timestamp": str(seconds),
            "webhook_signature": sign([decode_secret(secret)], id, seconds, body or self.body()),
        }


class CountingTests(SinkTestCase):
    async def test_delivery_is_taken_and_looked_at(self) -> None:
        await self.start()
        self.assertEqual(await self.status(path="calls"), 200)
        (one,) = self.received
        assert one.payload is not None
        assert one.latency is not None
        self.assertEqual((one.path, one.id, one.status, one.signature), ("/calls", "1", 200, "unchecked"))
        self.assertEqual((one.payload.call_state, one.payload.calling_number), ("ALERTING", None))
        self.assertApproximates(one.latency, 0.1, 1e-6)
        self.assertEqual(one.body, self.body())
        stored = one.stored()
        self.assertEqual(stored["received_at"], "2024-11-23T16:03:36.200940Z")
        self.assertEqual(stored["body"], self.body().decode())
        self.assertEqual(one.headers["webhook-id"], "1")

    async def test_repeats_are_of_what_was_accepted_at_the_same_path(self) -> None:
        await self.start(behaviour=Behaviour(status=503), first=1)
        statuses = [await self.status("a", path=path) for path in ("x", "x", "x", "y")]
        self.assertEqual(statuses, [503, 200, 200, 200])
        self.assertEqual([one.repeat for one in self.received], [False, False, True, False])
        summary = self.sink.summary()
        self.assertEqual(
            (summary.received, summary.accepted, summary.refused, summary.unique, summary.repeats),
            (4, 3, 1, 2, 1),
        )
        self.assertEqual(summary.latency.count, 2)

    async def test_order_within_a_call(self) -> None:
        await self.start()
        for id, call, sequence in (("1", "a", 1), ("2", "b", 1), ("3", "a", 3), ("4", "a", 2), ("5", "b", 2)):
            await self.status(id, self.body(call_id=call, sequence=sequence))
        self.assertEqual(self.sink.summary().order_violations, 1)
        # A repeat is no violation, and another webhook's copy none either.
        await self.status("1", self.body(call_id="a", sequence=1))
        await self.status("1", self.body(call_id="a", sequence=1), path="other")
        self.assertEqual(self.sink.summary().order_violations, 1)

    async def test_bodies_that_are_no_event(self) -> None:
        await self.start()
        for body in (b"", b"junk", b"[]", b"{}", b"\xff", self.body(timestamp="yesterday")):
            self.assertEqual(await self.status(None, body), 200)
        self.assertEqual(self.sink.summary().malformed, 6)
        self.assertEqual(self.sink.summary().latency.count, 0)

    async def test_only_what_a_webhook_sends(self) -> None:
        await self.start()
        answer = await treq.get(self.sink.url, persistent=False)
        self.assertEqual(answer.code, 405)
        self.assertEqual(self.sink.summary().received, 0)


class SignatureTests(SinkTestCase):
    async def test_good_signature(self) -> None:
        await self.start(secrets=[decode_secret(OTHER), decode_secret(SECRET)])
        self.assertEqual(await self.status(**self.signed(SECRET)), 200)
        self.assertEqual(self.received[0].signature, "ok")

    async def test_signature_of_the_reference_implementation(self) -> None:
        from datetime import UTC, datetime

        await self.start(secrets=[decode_secret(SECRET)])
        at = datetime.fromtimestamp(NOW // 1_000_000, UTC)
        signature = Webhook(SECRET).sign("1", at, self.body().decode())
        headers = {"webhook_timestamp": str(NOW // 1_000_000), "webhook_signature": signature}
        self.assertEqual(await self.status(**headers), 200)

    async def test_bad_signatures_are_refused_and_counted(self) -> None:
        await self.start(secrets=[decode_secret(SECRET)])
        good = self.signed(SECRET)
        self.assertEqual(await self.status(**self.signed(OTHER)), 401)
        self.assertEqual(await self.status(body=self.body(call_state="CONNECTED"), **good), 401)
        self.assertEqual(await self.status("2", **good), 401)
        self.assertEqual(await self.status(), 401)
        self.now += 301 * 1_000_000
        self.assertEqual(await self.status(**good), 401)
        summary = self.sink.summary()
        self.assertEqual((summary.bad_signatures, summary.accepted, summary.unique), (5, 0, 0))
        self.assertEqual(self.received[3].signature, "the header webhook-timestamp is missing")
        self.assertIn("s old", self.received[4].signature)


class BehaviourTests(SinkTestCase):
    async def test_paths_name_behaviours(self) -> None:
        await self.start()
        for path, status in (
            ("status/500", 500),
            ("hook/status/404?x=1", 404),
            ("gone", 410),
            ("retry-after/7", 503),
            ("status/junk", 200),
            ("status/99", 200),
            ("status", 200),
            ("flaky/0", 200),
            ("flaky/1", 503),
            ("flaky/nan", 200),
        ):
            self.assertEqual(await self.status(path=path), status, path)

    async def test_retry_after_says_so(self) -> None:
        await self.start()
        answer = await self.post(path="retry-after/7")
        self.assertEqual(answer.headers.getRawHeaders("Retry-After"), ["7"])

    async def test_dropped_connection(self) -> None:
        await self.start()
        await self.assertFailure(self.post(path="drop"), ResponseNeverReceived)
        self.assertEqual((self.received[0].status, self.sink.summary().refused), (None, 1))

    async def test_stalled_answer_comes_when_its_time_is_over(self) -> None:
        await self.start()
        answer = self.post(path="stall/10")
        while not self.timers.getDelayedCalls():
            await self.turn()
        self.assertEqual((self.sink.summary().received, self.received), (1, []))
        self.timers.advance(9.9)
        self.assertEqual(self.received, [])
        self.timers.advance(0.1)
        self.assertEqual((await answer).code, 200)
        self.assertEqual(self.sink.summary().accepted, 1)

    async def test_stop_leaves_stalled_requests_unanswered(self) -> None:
        await self.start(behaviour=Behaviour(stall=10.0))
        answer = self.post()
        while not self.timers.getDelayedCalls():
            await self.turn()
        await self.sink.stop()
        await self.assertFailure(answer, ResponseNeverReceived)
        self.assertEqual(self.timers.getDelayedCalls(), [])

    def turn(self) -> Deferred[None]:
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        return turn

    async def test_share_is_kept(self) -> None:
        await self.start(behaviour=Behaviour(status=503, share=0.3))
        statuses = [await self.status(str(number)) for number in range(200)]
        self.assertApproximates(statuses.count(503), 60, 25)
        self.assertEqual(set(statuses), {200, 503})

    async def test_behaviour_for_a_time(self) -> None:
        await self.start(behaviour=Behaviour(status=503), seconds=10)
        self.assertEqual(await self.status(), 503)
        self.now += 9_999_999
        self.assertEqual(await self.status(), 503)
        self.now += 1
        self.assertEqual(await self.status(), 200)
