"""The transport keeps cubehook's promises, and does what only it does."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import msgspec
from cubehook_syslog.transport import SyslogOptions, SyslogPlugin
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from cubehook.config import Webhook
from cubehook.records import ErrorClass
from cubehook.testing import (
    EgressTests,
    NamedReactor,
    Names,
    RecoveringReceiverTests,
    TransportTests,
    UnresponsiveReceiverTests,
    call_outbound,
)


class Collector(DatagramProtocol):
    """Takes datagrams on a free port of loopback."""

    def __init__(self, test: TestCase, interface: str = "127.0.0.1") -> None:
        self.datagrams: list[bytes] = []
        self._waiting: list[tuple[int, Deferred[list[bytes]]]] = []
        port: Any = reactor.listenUDP(0, self, interface=interface, maxPacketSize=65536)
        self.port: int = port.getHost().port
        test.addCleanup(port.stopListening)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.datagrams.append(datagram)
        for entry in list(self._waiting):
            count, waiting = entry
            if len(self.datagrams) >= count:
                self._waiting.remove(entry)
                waiting.callback(self.datagrams)

    def wait(self, count: int) -> Deferred[list[bytes]]:
        """Fires with all datagrams once there are `count`."""
        waiting: Deferred[list[bytes]] = Deferred()
        if len(self.datagrams) >= count:
            waiting.callback(self.datagrams)
        else:
            self._waiting.append((count, waiting))
        return waiting


class SyslogCase(TestCase):
    def setUp(self) -> None:
        self.names = Names(collector=["127.0.0.1"], silent=None)

    @property
    def reactor(self) -> Any:
        return NamedReactor(self.names)

    def webhook(self, host: str, port: int, **options: object) -> Webhook:
        return Webhook(
            id="logs",
            transport="syslog",
            url=f"syslog://{host}:{port}",
            options={"max_bytes": 9000, **options},
        )


class PromisesTests(
    SyslogCase, TransportTests, UnresponsiveReceiverTests, RecoveringReceiverTests, EgressTests
):
    plugin = SyslogPlugin()

    async def accepting(self) -> Webhook:
        self.collector = Collector(self)
        return self.webhook("collector", self.collector.port)

    async def arrived(self, count: int) -> Sequence[bytes]:
        return await self.collector.wait(count)

    async def failing(self) -> Webhook:
        # That nobody listens would not show: a name that does not resolve does.
        self.collector = Collector(self)
        return self.webhook("nowhere", self.collector.port)

    async def mend(self) -> None:
        self.names.answers["nowhere"] = ["127.0.0.1"]

    async def hanging(self) -> Webhook:
        return self.webhook("silent", 514)

    # What only this transport does.

    async def test_an_event_that_is_too_long_is_given_up_whole(self) -> None:
        collector = Collector(self)
        transport = await self.started(self.webhook("collector", collector.port, max_bytes=2048))
        sent = await self.deliver(transport, call_outbound(body=b"x" * 2048))
        self.assertEqual((sent.delivered, sent.permanent), (False, True))
        self.assertIn("options.max_bytes is 2048", sent.error or "")
        await self.delivered(transport, call_outbound(body=b"y"))
        [datagram] = await collector.wait(1)
        self.assertTrue(datagram.endswith(b"y"))

    async def test_over_ipv6(self) -> None:
        try:
            collector = Collector(self, "::1")
        except CannotListenError:
            raise SkipTest("this machine has no IPv6") from None
        transport = await self.started(self.webhook("[::1]", collector.port))
        sent = await self.deliver(transport, call_outbound())
        self.assertEqual(
            (sent.delivered, sent.remote_address, sent.url),
            (True, f"[::1]:{collector.port}", f"syslog://[::1]:{collector.port}"),
        )
        self.assertEqual(len(await collector.wait(1)), 1)

    async def test_what_the_network_refuses(self) -> None:
        for error, permanent, words in (
            (OSError(errno.ENETUNREACH, "Network is unreachable"), False, "Network is unreachable"),
            (MessageLengthError("message too long"), True, "takes no datagram of that size"),
            (
                CannotListenError("", 0, OSError(errno.EMFILE, "Too many open files")),
                False,
                "Too many open files",
            ),
        ):
            transport = await self.started(self.webhook("collector", 514))
            refusing = Refusing(error)
            self.patch(transport, "_socket", lambda address, refusing=refusing: refusing)
            sent = await self.deliver(transport, call_outbound())
            self.assertEqual(
                (sent.delivered, sent.permanent, sent.error_class, sent.remote_address),
                (False, permanent, ErrorClass.OTHER, "127.0.0.1:514"),
            )
            self.assertIn(words, sent.error or "")

    async def test_each_event_asks_where_the_name_leads(self) -> None:
        transport = await self.started(await self.accepting())
        for _ in range(2):
            await self.delivered(transport, call_outbound())
        self.assertEqual(self.names.asked, ["collector", "collector"])


class Refusing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def write(self, datagram: bytes, address: object) -> None:
        raise self._error


class CheckTests(SynchronousTestCase):
    def _check(self, url: str, **options: Any) -> list[str]:
        webhook = Webhook(id="logs", transport="syslog", url=url)
        return [key for key, _ in SyslogPlugin().check(webhook, SyslogOptions(**options))]

    def test_urls(self) -> None:
        for url in ("syslog://logs.example.com", "syslog://192.0.2.5:5140/", "syslog://[2001:db8::5]:514"):
            self.assertEqual(self._check(url), [], url)
        for url in (
            "",
            "http://logs.example.com",
            "syslog://",
            "syslog://logs:0",
            "syslog://logs:70000",
            "syslog://logs/path",
            "syslog://logs?x=1",
            "syslog://user@logs",
        ):
            self.assertEqual(self._check(url), ["url"], url)

    def test_names(self) -> None:
        self.assertEqual(self._check("syslog://logs", hostname="pb\u00e9"), ["options.hostname"])
        with self.assertRaises(msgspec.ValidationError):
            msgspec.convert({"max_bytes": 100}, SyslogOptions)
