"""The MQTT transport against a real Mosquitto, and with something in between that breaks."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
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
from cubehook.transports.brokers import GOODBYE_SECONDS
from cubehook.transports.mqtt import MqttOptions, MqttPlugin
from cubehook.transports.mqtt_session import packet_length
from tests.functional.harness import free_port
from tests.transports.relay import (
    MOSQUITTO,
    FastClock,
    Mosquitto,
    Relay,
    Silent,
    Subscriber,
    need,
    reactor,
)
from tests.transports.support import LOOPBACK, Authority, Names, context_for

_numbers = itertools.count()

CONNACK = b"\x20\x03\x00\x00\x00"
SERVER_BUSY = b"\x20\x03\x00\x89\x00"


def topic_of() -> str:
    """A level of topics that nobody else uses."""
    return f"cubehook-test/{os.getpid()}-{next(_numbers)}-{time.time_ns() % 10**9}"


def puback(identifier: int, reason: int) -> bytes:
    return b"\x40\x04" + identifier.to_bytes(2, "big") + bytes((reason, 0))


class ConformanceTests(
    TransportTests, UnresponsiveReceiverTests, RecoveringReceiverTests, EgressTests, TestCase
):
    plugin = MqttPlugin()

    def _webhook(self, port: int, topic: str = "a") -> Webhook:
        # Of its own, since one client of a name drives out another.
        options: dict[str, object] = {"topic": topic + "/{state}", "client_id": topic_of()}
        return Webhook(id="crm", transport="mqtt", url=f"mqtt://127.0.0.1:{port}", options=options)

    async def accepting(self) -> Webhook:
        need(MOSQUITTO, "Mosquitto")
        topic = topic_of()
        self.subscriber = Subscriber(self, topic + "/#")
        return self._webhook(MOSQUITTO[1], topic)

    async def arrived(self, count: int) -> Sequence[bytes]:
        return [bytes(message.payload) for message in await self.subscriber.until(count)]

    async def failing(self) -> Webhook:
        need(MOSQUITTO, "Mosquitto")
        topic = topic_of()
        self.subscriber = Subscriber(self, topic + "/#")
        self.relay = Relay(self, MOSQUITTO)
        await self.relay.refuse()
        return self._webhook(self.relay.port, topic)

    async def mend(self) -> None:
        self.relay.accept()

    async def hanging(self) -> Webhook:
        return self._webhook(Silent(self).port)


class MqttCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        need(MOSQUITTO, "Mosquitto")
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.topic = topic_of()

    async def transport(
        self,
        port: int = MOSQUITTO[1],
        *,
        url: str | None = None,
        headers: dict[str, str] | None = None,
        clock: Any = None,
        egress: Egress = LOOPBACK,
        names: Names | None = None,
        **options: Any,
    ) -> Any:
        options = {"topic": self.topic, "client_id": topic_of(), **options}
        webhook = Webhook(
            id="crm",
            transport="mqtt",
            url=url or f"mqtt://127.0.0.1:{port}",
            headers=headers or {},
            options=options,
        )
        plugin = MqttPlugin()
        converted = msgspec.convert(options, MqttOptions)
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

    async def delivered(self, transport: Any, outbound: Outbound | None = None) -> Sent:
        sent: Sent = await transport.deliver(outbound or call_outbound())
        self.assertTrue(sent.delivered, sent.error)
        return sent


def sending(transport: Any, outbound: Outbound | None = None) -> Deferred[Sent]:
    return Deferred.fromCoroutine(transport.deliver(outbound or call_outbound()))


class MessageTests(MqttCase):
    async def test_everything_that_a_message_says(self) -> None:
        subscriber = Subscriber(self, self.topic + "/#")
        transport = await self.transport(
            topic=self.topic + "/{cube}/{state}/{calling_number}", headers={"X-Tenant": "s3cret"}
        )
        outbound = call_outbound(state=CallState.CONNECTED, redelivery=True)
        sent = await self.delivered(transport, outbound)
        [message] = await subscriber.until(1)
        self.assertEqual(message.topic, self.topic + "/hq/CONNECTED/12517676234")
        self.assertEqual((message.payload, message.qos, message.retain), (outbound.body, 1, False))
        properties: Any = message.properties
        self.assertEqual((properties.ContentType, properties.PayloadFormatIndicator), ("application/json", 1))
        self.assertEqual(
            properties.UserProperty,
            [
                ("webhook-id", outbound.id),
                ("cubehook-state", "CONNECTED"),
                ("cubehook-cube", "hq"),
                ("cubehook-call", outbound.event.call_event.call_id),
                ("cubehook-sequence", "2"),
                ("cubehook-redelivery", "true"),
                ("X-Tenant", "s3cret"),
            ],
        )
        self.assertEqual((sent.url, sent.remote_address), ("mqtt://127.0.0.1:1883", "127.0.0.1:1883"))
        self.assertEqual(sent.request_headers["topic"], message.topic)
        self.assertEqual(sent.request_headers["X-Tenant"], "***")
        self.assertEqual(list(sent.phases), ["connecting", "logging in", "waiting for the broker"])
        self.assertIsNone(sent.note)

    async def test_over_version_3_1_1(self) -> None:
        subscriber = Subscriber(self, self.topic)
        transport = await self.transport(version="3.1.1")
        for outbound in (call_outbound(), notice_outbound()):
            sent = await self.delivered(transport, outbound)
            self.assertEqual(sent.request_headers, {"topic": self.topic})
        again = await self.delivered(transport)
        self.assertEqual(list(again.phases), ["waiting for the broker"])
        self.assertEqual(len(await subscriber.until(3)), 3)

    async def test_nobody_subscribes(self) -> None:
        sent = await self.delivered(await self.transport())
        self.assertIn("no subscriber", sent.note or "")

    async def test_a_retained_message_stays_for_who_subscribes_later(self) -> None:
        transport = await self.transport(retain=True)
        outbound = call_outbound()
        await self.delivered(transport, outbound)
        self.addCleanup(lambda: self._forget())
        [message] = await Subscriber(self, self.topic).until(1)
        self.assertEqual((message.payload, message.retain), (outbound.body, True))

    async def _forget(self) -> None:
        transport = await self.transport(retain=True)
        await self.delivered(transport, call_outbound(body=b""))

    async def test_a_number_is_no_level_and_no_wildcard(self) -> None:
        subscriber = Subscriber(self, self.topic + "/#")
        transport = await self.transport(topic=self.topic + "/{calling_number}/{called_number}")
        await self.delivered(transport, call_outbound(calling_number="+1/#/+", called_number=None))
        [message] = await subscriber.until(1)
        self.assertEqual(message.topic, self.topic + "/1_/unknown")


class RefusalTests(MqttCase):
    async def own(self, settings: str) -> Mosquitto:
        broker = Mosquitto(self, self.folder, settings)
        await broker.start()
        return broker

    async def test_a_wrong_password_is_not_shown(self) -> None:
        (self.folder / "passwords").write_text("")
        broker = await self.own(f"allow_anonymous false\npassword_file {self.folder.absolute()}/passwords")
        for version in ("5", "3.1.1"):
            transport = await self.transport(
                url=f"mqtt://someone:wr0ng%2Fpass@127.0.0.1:{broker.port}", version=version
            )
            sent = await transport.deliver(call_outbound())
            self.failed(sent, ErrorClass.OTHER, "the broker refused the login: Not authorized")
            self.assertEqual(sent.url, f"mqtt://***@127.0.0.1:{broker.port}")
            for secret in ("wr0ng", "someone"):
                self.assertNotIn(secret, repr(sent))
                self.assertNotIn(secret, repr(vars(transport)))

    async def test_a_topic_that_may_not_be_written(self) -> None:
        (self.folder / "acl").write_text("topic readwrite allowed/#\n")
        broker = await self.own(f"allow_anonymous true\nacl_file {self.folder.absolute()}/acl")
        transport = await self.transport(broker.port, topic="{state}/a")
        sent = await transport.deliver(call_outbound())
        self.failed(sent, ErrorClass.OTHER, "the broker did not take the message: Not authorized")
        self.assertEqual((sent.permanent, sent.hold), (False, None))
        transport = await self.transport(broker.port, topic="allowed/{state}")
        await self.delivered(transport)

    async def test_a_message_that_is_too_large(self) -> None:
        broker = await self.own("allow_anonymous true\nmax_packet_size 1000")
        transport = await self.transport(broker.port)
        sent = await transport.deliver(call_outbound(body=b"x" * 1000))
        self.failed(sent, ErrorClass.OTHER, "up to 1000 bytes")
        self.assertTrue(sent.permanent)
        await self.delivered(transport, call_outbound(body=b"x" * 500))

    async def test_no_more_are_on_their_way_than_the_broker_takes(self) -> None:
        broker = await self.own("allow_anonymous true\nmax_inflight_messages 3")
        relay = Relay(self, ("127.0.0.1", broker.port))
        subscriber = Subscriber(self, self.topic, ("127.0.0.1", broker.port))
        transport = await self.transport(relay.port)
        await self.delivered(transport)
        relay.holding = True
        outbounds = [call_outbound() for _ in range(10)]
        sendings = [sending(transport, each) for each in outbounds]
        dropped = sendings.pop(7)
        _ = dropped.addErrback(lambda failure: failure.trap(CancelledError))
        dropped.cancel()
        await subscriber.until(4)
        relay.holding = False
        [leg] = relay.legs
        leg.release()
        await gatherResults(sendings)
        # What was cancelled before its turn came is not sent.
        del outbounds[7]
        bodies = [message.payload for message in await subscriber.until(10)]
        self.assertEqual(bodies[1:], [each.body for each in outbounds])
        self.assertEqual(relay.made, 1)

    async def test_who_has_the_same_client_id_drives_us_out(self) -> None:
        silent = Silent(self)
        transport = await self.transport(silent.port, client_id="twin")
        sendings = [sending(transport) for _ in range(2)]
        broker = await silent.said(b"MQTT")
        broker.write(CONNACK)
        await silent.said(self.topic.encode())
        broker.write(b"\xe0\x02\x8e\x00")
        for sent in await gatherResults(sendings):
            self.failed(
                sent,
                ErrorClass.OTHER,
                "ended the connection: Session taken over",
                "twin",
                "options.client_id",
            )

    async def test_reasons_of_a_broker(self) -> None:
        for reason, words, hold in (
            (0x97, "Quota exceeded", 0.0),
            (0x83, "Implementation specific error", None),
            (0x99, "Payload format invalid", None),
        ):
            silent = Silent(self)
            transport = await self.transport(silent.port)
            attempt = sending(transport)
            broker = await silent.said(b"MQTT")
            broker.write(CONNACK)
            await silent.said(self.topic.encode())
            broker.write(puback(1, reason))
            sent = await attempt
            self.failed(sent, ErrorClass.OTHER, f"did not take the message: {words}")
            self.assertEqual((sent.hold, sent.permanent), (hold, False))

    async def test_a_broker_that_is_busy_holds_the_webhook_back(self) -> None:
        silent = Silent(self)
        transport = await self.transport(silent.port)
        attempt = sending(transport)
        (await silent.said(b"MQTT")).write(SERVER_BUSY)
        sent = await attempt
        self.failed(sent, ErrorClass.OTHER, "refused the login: Server busy")
        self.assertEqual(sent.hold, 0.0)

    async def test_a_broker_that_keeps_no_messages(self) -> None:
        silent = Silent(self)
        transport = await self.transport(silent.port)
        attempt = sending(transport)
        (await silent.said(b"MQTT")).write(b"\x20\x05\x00\x00\x02\x24\x00")
        self.failed(await attempt, ErrorClass.OTHER, "QoS 0 only")


class NetworkTests(MqttCase):
    async def test_a_closed_port(self) -> None:
        port = free_port()
        transport = await self.transport(port)
        self.failed(
            await transport.deliver(call_outbound()), ErrorClass.CONNECTION_REFUSED, f"127.0.0.1:{port}: "
        )

    async def test_one_that_never_answers(self) -> None:
        silent = Silent(self)
        transport = await self.transport(silent.port)
        sent = await transport.deliver(call_outbound(timeout=0.2))
        self.failed(sent, ErrorClass.TIMEOUT, "timed out after 0.2 s while logging in")

    async def test_what_does_not_speak_mqtt(self) -> None:
        for answer, words in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "lost while logging in"),
            (b"\x20\xff\xff\xff\xff\x7f", "does not speak"),
            (b"\x20\xff\xff\xff\x7f", "a frame of"),
            (b"\x20\x01\x00", ""),
            (b"\xf0\x00", ""),
            (b"\x20\x03\x00\x84\x00", "Unsupported protocol version"),
        ):
            silent = Silent(self)
            transport = await self.transport(silent.port)
            attempt = sending(transport, call_outbound(timeout=2))
            broker = await silent.said(b"MQTT")
            broker.write(answer)
            broker.loseConnection()
            sent = await attempt
            self.assertFalse(sent.delivered)
            self.assertIn(words, sent.error or "", answer)

    async def test_the_egress_policy_holds_for_addresses_and_names(self) -> None:
        transport = await self.transport(egress=Egress())
        self.failed(await transport.deliver(call_outbound()), ErrorClass.BLOCKED, "egress.allow")
        transport = await self.transport(
            url="mqtt://mq.test", egress=Egress(), names=Names(**{"mq.test": ["127.0.0.1"]})
        )
        self.failed(
            await transport.deliver(call_outbound()), ErrorClass.BLOCKED, "mq.test resolves to 127.0.0.1"
        )

    async def test_tls_is_verified(self) -> None:
        authority = Authority()
        authority.write(self.folder / "ca.pem")
        relay = Relay(self, MOSQUITTO, tls=authority.server("127.0.0.1"))
        url = f"mqtts://127.0.0.1:{relay.port}"
        sent = await self.delivered(await self.transport(url=url, ca_file="ca.pem"))
        self.assertNotIn("not verified", sent.note or "")
        transport = await self.transport(url=url)
        self.failed(await transport.deliver(call_outbound()), ErrorClass.TLS, "not trusted")
        sent = await self.delivered(await self.transport(url=url, insecure=True))
        self.assertIn("not verified", sent.note or "")
        self.assertIn("no subscriber", sent.note or "")


class SharingTests(MqttCase):
    async def begin(self, **settings: Any) -> Any:
        self.subscriber = Subscriber(self, self.topic)
        self.relay = Relay(self, MOSQUITTO)
        return await self.transport(self.relay.port, **settings)

    async def bodies(self, count: int) -> list[bytes]:
        return [bytes(message.payload) for message in await self.subscriber.until(count)]

    async def test_all_deliveries_share_one_connection_and_keep_their_order(self) -> None:
        for version in ("5", "3.1.1"):
            transport = await self.begin(version=version)
            outbounds = [call_outbound() for _ in range(50)]
            sents = await gatherResults([sending(transport, each) for each in outbounds])
            self.assertTrue(all(sent.delivered for sent in sents))
            self.assertEqual(self.relay.made, 1)
            self.assertEqual(await self.bodies(50), [each.body for each in outbounds])

    async def test_a_connection_that_is_cut_fails_what_was_not_confirmed(self) -> None:
        transport = await self.begin()
        await self.delivered(transport)
        self.relay.holding = True
        outbounds = [call_outbound() for _ in range(3)]
        sendings = [sending(transport, each) for each in outbounds]
        await self.bodies(4)
        await self.relay.cut()
        for sent in await gatherResults(sendings):
            self.failed(sent, ErrorClass.CONNECTION_LOST, f"127.0.0.1:{self.relay.port}: ", "confirmed")
            self.assertFalse(sent.permanent)
        # At least once: they had come, and come again, and nothing else is lost or sent by itself.
        self.relay.holding = False
        for each in outbounds:
            await self.delivered(transport, each)
        self.assertEqual((await self.bodies(7))[1:], [each.body for each in outbounds] * 2)
        self.assertEqual(self.relay.made, 2)

    async def test_a_broker_that_is_killed_and_comes_back(self) -> None:
        broker = Mosquitto(self, self.folder)
        await broker.start()
        subscriber = Subscriber(self, self.topic, ("127.0.0.1", broker.port))
        transport = await self.transport(broker.port)
        await self.delivered(transport)
        self.assertEqual(len(await subscriber.until(1)), 1)
        await broker.kill()
        # The loss may be noticed only with the next attempt, which is then a failed one, too.
        self.assertFalse((await transport.deliver(call_outbound())).delivered)
        for _ in range(2):
            self.failed(await transport.deliver(call_outbound()), ErrorClass.CONNECTION_REFUSED)
        await broker.start()
        outbounds = [call_outbound() for _ in range(5)]
        sents = await gatherResults([sending(transport, each) for each in outbounds])
        self.assertTrue(all(sent.delivered for sent in sents), sents)

    async def test_a_broker_that_hangs_is_given_up_with_all_that_waits(self) -> None:
        transport = await self.begin()
        await self.delivered(transport)
        self.relay.stalled = True
        patient = sending(transport, call_outbound(timeout=30))
        sent = await transport.deliver(call_outbound(timeout=0.2))
        self.failed(sent, ErrorClass.TIMEOUT, "timed out after 0.2 s while waiting for the broker")
        self.failed(await patient, ErrorClass.CONNECTION_LOST, "given up")
        self.relay.stalled = False
        await self.delivered(transport)
        self.assertEqual(self.relay.made, 2)

    async def test_cancelling_one_delivery_leaves_the_others(self) -> None:
        transport = await self.begin()
        await self.delivered(transport)
        self.relay.holding = True
        kept = [sending(transport), sending(transport)]
        dropped = sending(transport)
        ended: list[Any] = []
        _ = dropped.addErrback(ended.append)
        dropped.cancel()
        self.assertTrue(ended and ended[0].check(CancelledError))
        kept.append(sending(transport))
        await self.bodies(5)
        self.relay.holding = False
        [leg] = self.relay.legs
        leg.release()
        self.assertTrue(all(sent.delivered for sent in await gatherResults(kept)))
        self.assertEqual(self.relay.made, 1)

    async def test_a_silent_broker_is_noticed(self) -> None:
        # paho keeps time by itself, so this is as long as its keepalive.
        self.patch_keepalive(1)
        transport = await self.begin(clock=FastClock(1))
        await self.delivered(transport)
        [leg] = self.relay.legs
        self.relay.stalled = True
        await leg.lost.addTimeout(20, reactor)
        self.assertEqual(self.relay.legs, [])

    def patch_keepalive(self, seconds: int) -> None:
        from cubehook.transports import mqtt_session

        self.patch(mqtt_session, "KEEPALIVE", seconds)

    async def test_a_quiet_connection_is_kept(self) -> None:
        self.patch_keepalive(1)
        transport = await self.begin()
        await self.delivered(transport)
        self.relay.sent.pending.clear()
        for _ in range(2):
            self.assertEqual(await self.relay.sent.get(), b"\xc0\x00")
        await self.delivered(transport)
        self.assertEqual(self.relay.made, 1)

    async def test_stop_leaves_in_an_orderly_way(self) -> None:
        transport = await self.begin()
        await self.delivered(transport)
        [leg] = self.relay.legs
        self.relay.sent.pending.clear()
        await transport.stop()
        await leg.lost
        said = b"".join(self.relay.sent.pending)
        self.assertEqual(said[:1], b"\xe0")

    async def test_stop_does_not_wait_for_a_broker_that_hangs(self) -> None:
        transport = await self.begin()
        await self.delivered(transport)
        self.relay.stalled = True
        [leg] = self.relay.legs
        await Deferred.fromCoroutine(transport.stop()).addTimeout(GOODBYE_SECONDS + 2, reactor)
        await leg.lost


class PacketTests(SynchronousTestCase):
    @given(st.integers(0, 2**28 - 1))
    def test_any_length_is_read_as_soon_as_it_is_there(self, length: int) -> None:
        head = b"\x30"
        rest = length
        while True:
            rest, digit = divmod(rest, 128)
            assert packet_length(head) is None
            head += bytes((digit | (0x80 if rest else 0),))
            if not rest:
                break
        assert packet_length(head) == len(head) + length
        assert packet_length(head + b"\xff" * 9) == len(head) + length

    def test_a_length_without_an_end(self) -> None:
        self.assertIsNone(packet_length(b"\x30\xff\xff\xff"))
        with self.assertRaises(ValueError):
            packet_length(b"\x30\xff\xff\xff\xff")


class CheckTests(SynchronousTestCase):
    def check(self, url: str = "mqtts://u:p@mq.example.com:8883", **settings: Any) -> list[tuple[str, str]]:
        headers = settings.pop("headers", {})
        options = msgspec.convert({"topic": "calls/{cube}", **settings}, MqttOptions)
        return MqttPlugin().check(Webhook(id="m", transport="mqtt", url=url, headers=headers), options)

    def test_what_is_well(self) -> None:
        self.assertEqual(self.check(), [])
        self.assertEqual(self.check("mqtt://[::1]/"), [])
        self.assertEqual(self.check(client_id="é", version="3.1.1", retain=True), [])
        self.assertEqual(self.check(headers={"X-Tenant": "a"}), [])

    def test_what_is_not(self) -> None:
        for key, words, settings in (
            ("url", "mqtt://", {"url": ""}),
            ("url", "mqtt://", {"url": "amqp://mq.example.com"}),
            ("url", "path", {"url": "mqtt://mq/calls"}),
            ("url", "a user", {"url": "mqtt://:secret@mq"}),
            ("url", "mqtts://", {"url": "mqtt://mq", "ca_file": "ca.pem"}),
            ("options.topic", "such as", {"topic": ""}),
            ("options.topic", "subscribers", {"topic": "calls/#"}),
            ("options.topic", "subscribers", {"topic": "calls/+/a"}),
            ("options.topic", "$", {"topic": "$SYS/calls"}),
            ("options.topic", "control", {"topic": "a\x00"}),
            ("options.topic", "{cube}", {"topic": "{nothing}"}),
            ("options.topic", "65535", {"topic": "é" * 32_768}),
            ("options.client_id", "1 to 256", {"client_id": ""}),
            ("options.client_id", "control", {"client_id": "a\n"}),
            ("headers", "3.1.1", {"headers": {"X-Tenant": "a"}, "version": "3.1.1"}),
            ("headers.X-Tenant", "control", {"headers": {"X-Tenant": "a\tb"}}),
            ("headers.cubehook-x", "cubehook-", {"headers": {"cubehook-x": "1"}}),
        ):
            [(found, expected)] = self.check(**settings)
            self.assertEqual(found, key, settings)
            self.assertIn(words, expected)
