"""What transports to brokers have in common, with a protocol of one byte a message."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.config import Webhook
from cubehook.interfaces import Outbound
from cubehook.records import ErrorClass
from cubehook.testing.samples import call_outbound
from cubehook.transports.broker_url import BrokerUrl, read_broker_url
from cubehook.transports.brokers import (
    GOODBYE_SECONDS,
    Answer,
    BrokerError,
    BrokerTransport,
    Message,
    Session,
)
from tests.transports.relay import Silent, reactor
from tests.transports.support import context_for

PORTS = {"plain": 1, "secure": 2}


class ByteSession(Session[bytes]):
    """Says hello with `H`, is ready once it is answered, and takes each `+` for a confirmation."""

    def began(self) -> None:
        self.sent: list[Deferred[Answer]] = []
        self.write(b"H")

    def length(self, buffer: bytearray) -> int | None:
        return buffer[0] if len(buffer) > 1 else None

    def received(self, frame: bytes) -> None:
        if frame[1:] == b"H":
            self.is_ready()
        else:
            self.settle(self.sent.pop(0), frame[1:].decode())

    def ended(self) -> None:
        pass

    def send(self, message: bytes) -> Deferred[Answer]:
        if message == b"bug":
            raise ZeroDivisionError
        waiter = self.waiter()
        self.sent.append(waiter)
        if message == b"fail":
            self.fail(BrokerError(ErrorClass.OTHER, "it failed"))
        else:
            self.write(message)
        return waiter

    def goodbye(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]


class ByteSpeaker:
    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def session(self) -> ByteSession:
        return ByteSession(self._reactor)

    def message(self, outbound: Outbound) -> Message[bytes]:
        return Message(outbound.body, {})


class SharingTests(TestCase):
    async def begin(self) -> Any:
        self.broker = Silent(self)
        webhook = Webhook(id="crm", url=f"plain://u:secret@127.0.0.1:{self.broker.port}")
        context = context_for(webhook)
        url = read_broker_url(webhook.url, PORTS)
        transport = BrokerTransport(context, url, None, ByteSpeaker(context.reactor))
        await transport.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(transport.stop()))
        return transport

    def sending(self, transport: Any, body: bytes = b"a", timeout: float = 5.0) -> Deferred[Any]:
        return Deferred.fromCoroutine(transport.deliver(call_outbound(body=body, timeout=timeout)))

    async def test_frames_come_in_pieces_and_several_at_once(self) -> None:
        transport = await self.begin()
        sendings = [self.sending(transport, each) for each in (b"a", b"b", b"c")]
        broker = await self.broker.said(b"H")
        broker.write(b"\x02")
        broker.write(b"H")
        await self.broker.said(b"abc")
        broker.write(b"\x02x\x03y")
        broker.write(b"y\x02z")
        self.assertEqual([sent.note for sent in await gatherResults(sendings)], ["x", "yy", "z"])
        self.assertEqual(len(self.broker.connections), 1)

    async def test_a_connection_that_the_first_of_many_breaks_fails_them_all(self) -> None:
        transport = await self.begin()
        sendings = [self.sending(transport, each) for each in (b"fail", b"a", b"b")]
        (await self.broker.said(b"H")).write(b"\x02H")
        for sent in await gatherResults(sendings):
            self.assertEqual((sent.error_class, sent.error), (ErrorClass.OTHER, self._told("it failed")))

    def _told(self, words: str) -> str:
        return f"127.0.0.1:{self.broker.port}: {words}"

    async def test_a_bug_is_no_failure_of_the_broker(self) -> None:
        transport = await self.begin()
        sending = self.sending(transport, b"bug")
        (await self.broker.said(b"H")).write(b"\x02H")
        with self.assertRaises(ZeroDivisionError):
            await sending

    async def test_nobody_connects_for_nobody(self) -> None:
        transport = await self.begin()
        sendings = [self.sending(transport, timeout=60) for _ in range(2)]
        broker = await self.broker.said(b"H")
        for sending in sendings:
            _ = sending.addErrback(lambda failure: failure.trap(CancelledError))
        sendings[0].cancel()
        self.assertTrue(broker.connected)
        sendings[1].cancel()
        await self.broker.connections[0].lost.addTimeout(5, reactor)

    async def _stuck(self) -> tuple[Any, Any]:
        """A transport and its session, whose broker takes nothing more, not even what was written."""
        transport = await self.begin()
        sending = self.sending(transport)
        broker = await self.broker.said(b"H")
        broker.write(b"\x02H")
        await self.broker.said(b"a")
        broker.write(b"\x02+")
        self.assertTrue((await sending).delivered)
        broker.pauseProducing()
        self.addCleanup(broker.abortConnection)
        session = transport._session
        session.write(b"x" * (64 << 20))
        return transport, session

    async def test_a_connection_that_is_not_left_in_time_is_cut(self) -> None:
        transport, session = await self._stuck()
        await Deferred.fromCoroutine(transport.stop()).addTimeout(GOODBYE_SECONDS + 2, reactor)
        self.assertTrue(session.gone.called)

    async def test_a_connection_that_is_not_closed_in_time_is_cut(self) -> None:
        transport, session = await self._stuck()
        session.close(BrokerError(ErrorClass.OTHER, "it is of no use"))
        sent = await self.sending(transport, timeout=0.1)
        self.assertFalse(sent.delivered)
        self.assertEqual(len(self.broker.connections), 2)
        await session.gone.addTimeout(GOODBYE_SECONDS + 2, reactor)


class UrlTests(SynchronousTestCase):
    def test_its_parts(self) -> None:
        self.assertEqual(
            read_broker_url("plain://us%40er:p%2Fw%3A@mq.example.com/a%2Fb", PORTS),
            BrokerUrl(
                scheme="plain", host="mq.example.com", port=1, user="us@er", password="p/w:", path="a/b"
            ),
        )
        url = read_broker_url("secure://[::1]:7/", PORTS)
        self.assertEqual((url.port, url.user, url.password, url.path), (7, None, None, None))
        self.assertEqual(url.address, "[::1]:7")

    def test_its_password_is_not_shown(self) -> None:
        self.assertEqual(repr(read_broker_url("plain://u:secret@mq", PORTS)), "<BrokerUrl mq:1>")
