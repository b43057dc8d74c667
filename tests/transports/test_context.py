"""What the service lends to transports that are not HTTP: endpoints, TLS, the egress policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from cubehook.config import Egress, Webhook
from cubehook.interfaces import ITransportContext
from cubehook.net.egress import BlockedError
from cubehook.net.tls import TlsOptions, UntrustedError
from tests.transports.support import OK, Authority, Names, Receiver, context_for

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


class Client(Protocol):
    def __init__(self) -> None:
        self.ended: Deferred[bytes] = Deferred()
        self._received = b""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(REQUEST)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._received == OK:
            transport: Any = self.transport
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._received:
            self.ended.callback(self._received)
        else:
            self.ended.errback(reason)


class EndpointTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority()
        self.authority.write(self.folder / "ca.pem")

    async def _ask(self, port: int, host: str = "127.0.0.1", tls: Any = None, **settings: Any) -> bytes:
        context = context_for(Webhook(id="queue", url=""), self.folder, **settings)
        if isinstance(tls, TlsOptions):
            tls = context.tls(tls)
        connecting: Any = context.endpoint(host, port, tls).connect(Factory.forProtocol(Client))
        ended: Deferred[bytes] = (await connecting).ended
        return await ended

    async def test_plain(self) -> None:
        verifyObject(ITransportContext, context_for(Webhook(id="queue", url="")))
        self.assertEqual(await self._ask(Receiver(self).port), OK)

    async def test_a_denied_address_and_a_name_for_it(self) -> None:
        receiver = Receiver(self)
        with self.assertRaises(BlockedError):
            await self._ask(receiver.port, egress=Egress())
        with self.assertRaises(BlockedError):
            await self._ask(
                receiver.port, "queue.test", egress=Egress(), names=Names(**{"queue.test": ["127.0.0.1"]})
            )
        self.assertEqual(receiver.conversations, [])

    async def test_the_policy_itself_is_lent(self) -> None:
        context = context_for(Webhook(id="queue", url=""), egress=Egress())
        with self.assertRaises(BlockedError):
            context.egress.check("127.0.0.1")

    async def test_tls_is_verified(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("127.0.0.1"))
        trusting = TlsOptions(ca_file="ca.pem")
        self.assertEqual(await self._ask(receiver.port, tls=trusting), OK)
        with self.assertRaises(UntrustedError):
            await self._ask(receiver.port, tls=True)
        with self.assertRaises(UntrustedError):
            names = Names(**{"queue.test": ["127.0.0.1"]})
            await self._ask(receiver.port, "queue.test", tls=trusting, names=names)
