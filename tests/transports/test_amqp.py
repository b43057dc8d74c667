"""The AMQP transport against a real RabbitMQ, and with something in between that breaks."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pika
from pika import spec
from pika.frame import Method
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.config import Egress, Webhook
from cubehook.events import CallState
from cubehook.interfaces import Outbound, Sent
from cubehook.records import ErrorClass
from cubehook.testing import (
    EgressTests,
    RecoveringReceiverTests,
    TransportTests,
    UnresponsiveReceiverTests,
)
from cubehook.testing.samples import call_outbound, notice_outbound
from cubehook.transports.amqp import AmqpOptions, AmqpPlugin
from cubehook.transports.brokers import GOODBYE_SECONDS
from tests.functional.harness import free_port
from tests.transports.relay import RABBITMQ, FastClock, Rabbit, Relay, Silent, need, reactor
from tests.transports.support import LOOPBACK, Authority, Names, context_for

_numbers = itertools.count()


def name_of(test: TestCase) -> str:
    """A name for a queue or an exchange that nobody else uses."""
    return f"cubehook-test-{os.getpid()}-{next(_numbers)}-{time.time_ns() % 10**9}"


class ConformanceTests(
    TransportTests, UnresponsiveReceiverTests, RecoveringReceiverTests, EgressTests, TestCase
):
    plugin = AmqpPlugin()
    rabbit: Rabbit | None = None

    def _webhook(self, port: int, queue: str) -> Webhook:
        return Webhook(
            id="crm", transport="amqp", url=f"amqp://127.0.0.1:{port}", options={"routing_key": queue}
        )

    async def accepting(self) -> Webhook:
        self.rabbit = Rabbit(self, name_of(self))
        self.came: list[bytes] = []
        return self._webhook(RABBITMQ[1], self.rabbit.queue)

    async def arrived(self, count: int) -> Sequence[bytes]:
        # What was confirmed is in the queue.
        assert self.rabbit is not None
        self.came += [body for _, _, body in self.rabbit.taken()]
        return self.came

    async def failing(self) -> Webhook:
        await self.accepting()
        assert self.rabbit is not None
        self.relay = Relay(self, RABBITMQ)
        await self.relay.refuse()
        return self._webhook(self.relay.port, self.rabbit.queue)

    async def mend(self) -> None:
        self.relay.accept()

    async def hanging(self) -> Webhook:
        return self._webhook(Silent(self).port, "nowhere")


class AmqpCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def rabbit(self, **arguments: Any) -> Rabbit:
        self.broker = Rabbit(self, name_of(self), **arguments)
        self.queue = self.broker.queue
        return self.broker

    async def transport(
        self,
        port: int = RABBITMQ[1],
        *,
        url: str | None = None,
        headers: dict[str, str] | None = None,
        clock: Any = None,
        egress: Egress = LOOPBACK,
        names: Names | None = None,
        **options: Any,
    ) -> Any:
        need(RABBITMQ, "RabbitMQ")
        webhook = Webhook(
            id="crm",
            transport="amqp",
            url=url or f"amqp://127.0.0.1:{port}",
            headers=headers or {},
            options=options,
        )
        plugin = AmqpPlugin()
        converted = msgspec.convert(options, AmqpOptions)
        self.assertEqual(plugin.check(webhook, converted), [])
        context = context_for(webhook, self.folder, egress, names)
        if clock is not None:
            context.reactor = clock
        transport: Any = plugin.create(webhook, converted, context)
        await transport.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(transport.stop()))
        return transport

    def failed(self, sent: Sent, error_class: ErrorClass, *words: str) -> None:
        self.assertEqual((sent.delivered, sent.error_class), (False, error_class), sent.error)
        for each in words:
            self.assertIn(each, sent.error or "")


def sending(transport: Any, outbound: Outbound | None = None) -> Deferred[Sent]:
    return Deferred.fromCoroutine(transport.deliver(outbound or call_outbound()))


class MessageTests(AmqpCase):
    async def test_everything_that_a_message_says(self) -> None:
        broker = self.rabbit()
        exchange = name_of(self)
        broker.exchange(exchange, "topic", "calls.#")
        transport = await self.transport(
            exchange=exchange,
            routing_key="calls.{cube}.{state}.{calling_number}",
            headers={"X-Tenant": "s3cret"},
        )
        outbound = call_outbound(state=CallState.CONNECTED, redelivery=True)
        sent = await transport.deliver(outbound)
        self.assertTrue(sent.delivered, sent.error)
        [(method, properties, body)] = broker.taken()
        self.assertEqual((method.exchange, method.routing_key), (exchange, "calls.hq.CONNECTED.12517676234"))
        self.assertEqual(body, outbound.body)
        event = outbound.event
        self.assertEqual(
            {name: value for name, value in vars(properties).items() if value is not None},
            {
                "content_type": "application/json",
                "delivery_mode": 2,
                "message_id": outbound.id,
                "timestamp": event.at // 1_000_000,
                "type": "CONNECTED",
                "app_id": "cubehook",
                "headers": {
                    "webhook-id": outbound.id,
                    "cubehook-state": "CONNECTED",
                    "cubehook-cube": "hq",
                    "cubehook-call": event.call_event.call_id,
                    "cubehook-sequence": "2",
                    "cubehook-redelivery": "true",
                    "X-Tenant": "s3cret",
                },
            },
        )
        self.assertEqual((sent.url, sent.remote_address), ("amqp://127.0.0.1:5672", "127.0.0.1:5672"))
        self.assertEqual(
            (sent.request_headers["exchange"], sent.request_headers["routing_key"]),
            (exchange, method.routing_key),
        )
        self.assertEqual(sent.request_headers["X-Tenant"], "***")
        self.assertEqual(list(sent.phases), ["connecting", "logging in", "waiting for the broker"])
        self.assertTrue(all(took >= 0 for took in sent.phases.values()), sent.phases)

    async def test_the_default_exchange_leads_to_a_queue(self) -> None:
        broker = self.rabbit()
        transport = await self.transport(routing_key=self.queue)
        self.assertTrue((await transport.deliver(notice_outbound())).delivered)
        again = await transport.deliver(call_outbound())
        self.assertEqual(list(again.phases), ["waiting for the broker"])
        self.assertEqual([each[1].type for each in broker.taken()], ["cube.lost", "ALERTING"])

    async def test_an_exchange_is_declared_where_that_is_asked_for(self) -> None:
        broker = self.rabbit()
        exchange = name_of(self)
        broker.drop(exchange)
        transport = await self.transport(exchange=exchange, routing_key="a", declare="fanout")
        self.failed(await transport.deliver(call_outbound()), ErrorClass.OTHER, "no queue is bound")
        broker.channel.queue_bind(self.queue, exchange)
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        self.assertEqual(len(broker.taken()), 1)
        other = await self.transport(exchange=exchange, routing_key="a", declare="topic")
        self.failed(await other.deliver(call_outbound()), ErrorClass.OTHER, "PRECONDITION_FAILED", "'fanout'")


class RefusalTests(AmqpCase):
    async def test_nowhere_to_go(self) -> None:
        self.rabbit()
        transport = await self.transport(routing_key=f"{self.queue}-none")
        sent = await transport.deliver(call_outbound())
        self.failed(
            sent, ErrorClass.OTHER, "127.0.0.1:5672: ", f"there is no queue {self.queue}-none", "NO_ROUTE"
        )
        self.assertEqual((sent.permanent, sent.hold), (False, None))
        transport = await self.transport(exchange="amq.direct", routing_key=f"{self.queue}.{{cube}}")
        self.failed(
            await transport.deliver(call_outbound()),
            ErrorClass.OTHER,
            f"no queue is bound for exchange amq.direct, routing key {self.queue}.hq",
        )

    async def test_what_comes_back_is_told_from_what_does_not(self) -> None:
        # The broker confirms many at once, those that it sent back among them.
        broker = self.rabbit()
        exchange = name_of(self)
        broker.exchange(exchange, "topic", "*.DISCONNECTED")
        transport = await self.transport(exchange=exchange, routing_key="{cube}.{state}")
        outbounds = [
            call_outbound(state=state)
            for _ in range(30)
            for state in (CallState.ALERTING, CallState.DISCONNECTED, CallState.DISCONNECTED)
        ]
        sents = await gatherResults([sending(transport, each) for each in outbounds])
        expected = [each for each in outbounds if each.event.call_event.call_state == "DISCONNECTED"]
        self.assertEqual([body for _, _, body in broker.taken()], [each.body for each in expected])
        self.assertEqual([sent.delivered for sent in sents], [each in expected for each in outbounds])

    async def test_one_confirmation_for_many_of_which_one_came_back(self) -> None:
        # As the broker may say it, however rarely it does: the second came back, and all are confirmed.
        self.rabbit()
        relay = Relay(self, RABBITMQ)
        transport = await self.transport(relay.port, routing_key=self.queue)
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        relay.holding = True
        outbounds = [call_outbound() for _ in range(3)]
        sendings = [sending(transport, each) for each in outbounds]
        [leg] = relay.legs
        properties = pika.BasicProperties(message_id=outbounds[1].id)
        relay.holding = False
        leg.answer(
            Method(1, spec.Basic.Return(312, "NO_ROUTE", "", self.queue)).marshal()
            + pika.frame.Header(1, 2, properties).marshal()
            + pika.frame.Body(1, b"{}").marshal()
            + Method(1, spec.Basic.Ack(4, multiple=True)).marshal()
        )
        relay.holding = True
        sents = await gatherResults(sendings)
        self.assertEqual([sent.delivered for sent in sents], [True, False, True])

    async def test_an_exchange_that_is_not_there(self) -> None:
        broker = self.rabbit()
        exchange = name_of(self)
        transport = await self.transport(exchange=exchange, routing_key="a")
        sents = await gatherResults([sending(transport) for _ in range(3)])
        for sent in sents:
            self.failed(sent, ErrorClass.OTHER, "closed the channel: NOT_FOUND", exchange)
        broker.exchange(exchange, "fanout", "")
        self.assertTrue((await transport.deliver(call_outbound())).delivered)

    async def test_a_full_queue_holds_the_webhook_back(self) -> None:
        broker = self.rabbit(**{"x-max-length": 1, "x-overflow": "reject-publish"})
        transport = await self.transport(routing_key=self.queue)
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        sent = await transport.deliver(call_outbound())
        self.failed(sent, ErrorClass.OTHER, "could not take the message")
        self.assertEqual((sent.hold, sent.permanent), (0.0, False))
        broker.taken()
        self.assertTrue((await transport.deliver(call_outbound())).delivered)

    async def test_a_wrong_password_is_not_shown(self) -> None:
        transport = await self.transport(url="amqp://guest:wr0ng%2Fpass@127.0.0.1:5672/%2F", routing_key="a")
        sent = await transport.deliver(call_outbound())
        self.failed(sent, ErrorClass.OTHER, "refused the login: ACCESS_REFUSED")
        self.assertEqual(sent.url, "amqp://***@127.0.0.1:5672/%2F")
        for secret in ("wr0ng", "guest"):
            self.assertNotIn(secret, repr(sent))
            self.assertNotIn(secret, repr(vars(transport)))

    async def test_a_virtual_host_that_is_not_there(self) -> None:
        transport = await self.transport(url="amqp://127.0.0.1/n%2Fowhere", routing_key="a")
        self.failed(await transport.deliver(call_outbound()), ErrorClass.OTHER, "NOT_ALLOWED", "n/owhere")


class NetworkTests(AmqpCase):
    async def test_a_closed_port(self) -> None:
        port = free_port()
        transport = await self.transport(port, routing_key="a")
        sent = await transport.deliver(call_outbound())
        self.failed(
            sent, ErrorClass.CONNECTION_REFUSED, f"127.0.0.1:{port}: the broker refused the connection"
        )
        self.assertEqual(list(sent.phases), ["connecting"])

    async def test_one_that_never_answers(self) -> None:
        silent = Silent(self)
        transport = await self.transport(silent.port, routing_key="a")
        sent = await transport.deliver(call_outbound(timeout=0.2))
        self.failed(sent, ErrorClass.TIMEOUT, "timed out after 0.2 s while logging in")
        self.assertEqual(sent.remote_address, f"127.0.0.1:{silent.port}")
        self.assertEqual(list(sent.phases), ["connecting", "logging in"])

    async def test_nobody_keeps_an_unanswered_connection_alive(self) -> None:
        # Deliveries that follow each other closely would wait on it for ever.
        silent = Silent(self)
        transport = await self.transport(silent.port, routing_key="a")
        first = sending(transport, call_outbound(timeout=0.2))
        patient = sending(transport, call_outbound(timeout=30))
        self.failed(await first, ErrorClass.TIMEOUT, "0.2 s")
        self.failed(await patient, ErrorClass.TIMEOUT, "timed out after 0.2 s while logging in")
        self.assertEqual(len(silent.connections), 1)

    async def test_what_does_not_speak_amqp(self) -> None:
        silent = Silent(self)
        transport = await self.transport(silent.port, routing_key="a")
        for answer, words in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a frame of"),
            (b"\x01\x00\x00\x00\x00\x00\x01\x00\x00", "does not speak"),
            (b"AMQP\x00\x01\x00\x00", ""),
        ):
            attempt = sending(transport, call_outbound(timeout=1))
            conversation = await silent.said(b"AMQP")
            conversation.write(answer)
            conversation.loseConnection()
            sent = await attempt
            self.assertFalse(sent.delivered)
            self.assertIn(words, sent.error or "")

    async def test_the_egress_policy_holds_for_addresses_and_names(self) -> None:
        denied = Egress()
        transport = await self.transport(routing_key="a", egress=denied)
        self.failed(await transport.deliver(call_outbound()), ErrorClass.BLOCKED, "egress.allow")
        transport = await self.transport(
            url="amqp://mq.test",
            routing_key="a",
            egress=denied,
            names=Names(**{"mq.test": ["127.0.0.1"]}),
        )
        self.failed(
            await transport.deliver(call_outbound()), ErrorClass.BLOCKED, "mq.test resolves to 127.0.0.1"
        )

    async def test_a_name_that_does_not_resolve(self) -> None:
        transport = await self.transport(url="amqp://mq.test", routing_key="a", names=Names())
        self.failed(await transport.deliver(call_outbound()), ErrorClass.DNS, "mq.test:5672: ")

    async def test_tls_is_verified(self) -> None:
        broker = self.rabbit()
        authority = Authority()
        authority.write(self.folder / "ca.pem")
        relay = Relay(self, RABBITMQ, tls=authority.server("127.0.0.1"))
        url = f"amqps://127.0.0.1:{relay.port}"
        transport = await self.transport(url=url, routing_key=self.queue, ca_file="ca.pem")
        sent = await transport.deliver(call_outbound())
        self.assertTrue(sent.delivered, sent.error)
        self.assertIsNone(sent.note)
        self.assertEqual(len(broker.taken()), 1)
        transport = await self.transport(url=url, routing_key=self.queue)
        self.failed(await transport.deliver(call_outbound()), ErrorClass.TLS, "not trusted")
        transport = await self.transport(url=url, routing_key=self.queue, insecure=True)
        sent = await transport.deliver(call_outbound())
        self.assertTrue(sent.delivered, sent.error)
        self.assertIn("not verified", sent.note or "")
        transport = await self.transport(url="amqps://127.0.0.1:5672", routing_key=self.queue)
        self.failed(await transport.deliver(call_outbound()), ErrorClass.TLS, "does not speak TLS")


class SharingTests(AmqpCase):
    async def begin(self, **settings: Any) -> Any:
        self.rabbit()
        self.relay = Relay(self, RABBITMQ)
        return await self.transport(self.relay.port, routing_key=self.queue, **settings)

    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.broker.taken()]

    async def test_all_deliveries_share_one_connection_and_keep_their_order(self) -> None:
        transport = await self.begin()
        self.assertEqual(self.relay.made, 0)
        outbounds = [call_outbound() for _ in range(50)]
        sents = await gatherResults([sending(transport, each) for each in outbounds])
        self.assertTrue(all(sent.delivered for sent in sents))
        self.assertEqual(self.relay.made, 1)
        self.assertEqual(self.bodies(), [each.body for each in outbounds])

    async def test_a_connection_that_is_cut_fails_what_was_not_confirmed(self) -> None:
        transport = await self.begin()
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        self.relay.holding = True
        outbounds = [call_outbound() for _ in range(3)]
        sendings = [sending(transport, each) for each in outbounds]
        await self._in_queue(4)
        await self.relay.cut()
        for sent in await gatherResults(sendings):
            self.failed(
                sent,
                ErrorClass.CONNECTION_LOST,
                f"127.0.0.1:{self.relay.port}: ",
                "before the broker confirmed",
            )
            self.assertFalse(sent.permanent)
        # At least once: they had come, and come again, and nothing else is lost.
        self.relay.holding = False
        for each in outbounds:
            self.assertTrue((await transport.deliver(each)).delivered)
        self.assertEqual(self.bodies()[1:], [each.body for each in outbounds] * 2)
        self.assertEqual(self.relay.made, 2)

    async def _in_queue(self, count: int) -> None:
        def ready() -> int:
            declared = self.broker.channel.queue_declare(self.queue, passive=True)
            messages: int = declared.method.message_count
            return messages

        for _ in range(1000):
            if ready() == count:
                return
            waited: Deferred[None] = Deferred()
            reactor.callLater(0.01, waited.callback, None)
            await waited
        self.fail(f"{ready()} messages in the queue, and not {count}")

    async def test_a_broker_that_restarts(self) -> None:
        transport = await self.begin()
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        await self.relay.refuse()
        # The loss may be noticed only with the next attempt, which is then a failed one, too.
        self.assertFalse((await transport.deliver(call_outbound())).delivered)
        for _ in range(2):
            self.failed(await transport.deliver(call_outbound()), ErrorClass.CONNECTION_REFUSED, "refused")
        self.relay.accept()
        sents = await gatherResults([sending(transport) for _ in range(5)])
        self.assertTrue(all(sent.delivered for sent in sents), sents)
        self.assertEqual(len(self.bodies()), 6)
        self.assertEqual(self.relay.made, 2)

    async def test_a_broker_that_hangs_is_given_up_with_all_that_waits(self) -> None:
        transport = await self.begin()
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        self.relay.stalled = True
        patient = sending(transport, call_outbound(timeout=30))
        sent = await transport.deliver(call_outbound(timeout=0.2))
        self.failed(sent, ErrorClass.TIMEOUT, "timed out after 0.2 s while waiting for the broker")
        self.assertEqual(sent.hold, None)
        self.failed(await patient, ErrorClass.CONNECTION_LOST, "given up")
        self.relay.stalled = False
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        self.assertEqual(self.relay.made, 2)

    async def test_a_broker_that_takes_nothing_for_now_says_why(self) -> None:
        transport = await self.begin()
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        [leg] = self.relay.legs
        leg.answer(Method(0, spec.Connection.Blocked("low on memory")).marshal())
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        self.relay.holding = True
        sent = await transport.deliver(call_outbound(timeout=0.2))
        self.failed(sent, ErrorClass.TIMEOUT, "takes no messages for now (low on memory)")
        self.assertEqual(sent.hold, 0.0)
        self.relay.holding = False
        sent = await transport.deliver(call_outbound())
        self.assertTrue(sent.delivered, sent.error)

    async def test_cancelling_one_delivery_leaves_the_others(self) -> None:
        transport = await self.begin()
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        self.relay.holding = True
        kept = [sending(transport), sending(transport)]
        dropped = sending(transport)
        ended: list[Any] = []
        _ = dropped.addErrback(ended.append)
        dropped.cancel()
        self.assertTrue(ended and ended[0].check(CancelledError))
        kept.append(sending(transport))
        self.relay.holding = False
        await self._in_queue(5)
        [leg] = self.relay.legs
        leg.release()
        self.assertTrue(all(sent.delivered for sent in await gatherResults(kept)))
        self.assertEqual(self.relay.made, 1)

    async def test_cancelling_one_that_waits_for_the_connection_leaves_the_others(self) -> None:
        transport = await self.begin()
        dropped, kept = sending(transport), sending(transport)
        _ = dropped.addErrback(lambda failure: failure.trap(CancelledError))
        dropped.cancel()
        self.assertTrue((await kept).delivered)
        self.assertEqual(self.relay.made, 1)

    async def test_a_connection_that_was_lost_while_idle_is_made_anew(self) -> None:
        transport = await self.begin()
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        await self.relay.cut()
        sent = await transport.deliver(call_outbound())
        # The loss may be noticed only with the attempt, which is then a failed one.
        if not sent.delivered:
            self.failed(sent, ErrorClass.CONNECTION_LOST)
            self.assertTrue((await transport.deliver(call_outbound())).delivered)
        self.assertEqual(self.relay.made, 2)

    async def test_a_silent_broker_is_noticed_by_its_heartbeats(self) -> None:
        transport = await self.begin(clock=FastClock(50))
        self.assertTrue((await transport.deliver(call_outbound(timeout=250))).delivered)
        [leg] = self.relay.legs
        self.relay.stalled = True
        await leg.lost.addTimeout(20, reactor)
        self.assertEqual(self.relay.legs, [])

    async def test_stop_leaves_in_an_orderly_way(self) -> None:
        transport = await self.begin()
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        said = b""
        [leg] = self.relay.legs
        lost = leg.lost
        self.relay.sent.pending.clear()
        await transport.stop()
        await lost
        said = b"".join(self.relay.sent.pending)
        self.assertIn(Method(0, spec.Connection.Close(200, "Normal shutdown", 0, 0)).marshal(), said)

    async def test_stop_does_not_wait_for_a_broker_that_hangs(self) -> None:
        transport = await self.begin()
        self.assertTrue((await transport.deliver(call_outbound())).delivered)
        self.relay.stalled = True
        [leg] = self.relay.legs
        await Deferred.fromCoroutine(transport.stop()).addTimeout(GOODBYE_SECONDS + 2, reactor)
        await leg.lost


class CheckTests(SynchronousTestCase):
    def check(self, url: str = "amqps://u:p@mq.example.com:5671/v", **settings: Any) -> list[tuple[str, str]]:
        headers = settings.pop("headers", {})
        options = msgspec.convert({"routing_key": "q", **settings}, AmqpOptions)
        return AmqpPlugin().check(Webhook(id="q", transport="amqp", url=url, headers=headers), options)

    def test_what_is_well(self) -> None:
        self.assertEqual(self.check(), [])
        self.assertEqual(self.check("amqp://[::1]"), [])
        self.assertEqual(self.check(exchange="é", routing_key="", declare="headers"), [])
        self.assertEqual(self.check(ca_file="ca.pem"), [])
        self.assertEqual(self.check(headers={"X-Tenant": "a"}), [])

    def test_what_is_not(self) -> None:
        for key, words, settings in (
            ("url", "amqp://", {"url": ""}),
            ("url", "amqp://", {"url": "http://mq.example.com"}),
            ("url", "a host", {"url": "amqp://:5672"}),
            ("url", "port", {"url": "amqp://mq:0"}),
            ("url", "amqp", {"url": "amqp://mq:x"}),
            ("url", "options", {"url": "amqp://mq?heartbeat=3"}),
            ("url", "letters", {"url": "amqp://m,q"}),
            ("url", "%XX", {"url": "amqp://u:100%@mq"}),
            ("url", "UTF-8", {"url": "amqp://u:%ff@mq"}),
            ("url", "amqps://", {"url": "amqp://mq", "insecure": True}),
            ("options.exchange", "255", {"exchange": "é" * 128}),
            ("options.exchange", "default", {"declare": "topic"}),
            ("options.exchange", "amq.", {"declare": "topic", "exchange": "amq.topic"}),
            ("options.routing_key", "queue", {"routing_key": ""}),
            ("options.routing_key", "{cube}", {"routing_key": "{nothing}"}),
            ("options.routing_key", "255", {"routing_key": "{cube}" * 4}),
            ("options.routing_key", "control", {"routing_key": "a\n"}),
            ("options.client_certificate", "client_key", {"client_key": "key.pem"}),
            ("headers.Webhook-Id", "webhook-", {"headers": {"Webhook-Id": "1"}}),
            ("headers", "255", {"headers": {"x" * 256: "1"}}),
        ):
            [(found, expected)] = self.check(**settings)
            self.assertEqual(found, key, settings)
            self.assertIn(words, expected)
