"""The listeners' side of HTTP, over real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource

from cubehook.net import site
from cubehook.net.site import AccessSite, LimitedRequest

reactor: Any = installed


class Echo(Resource):
    """Answers with the length of the body it was given."""

    isLeaf = True

    def render(self, request: LimitedRequest) -> bytes:
        if request.too_large:
            request.setResponseCode(413)
        return b"%d" % len(request.content.getvalue())  # type: ignore[union-attr]


class Client(Protocol):
    """Collects what it is sent until the connection ends."""

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(self.received)


class SiteTests(TestCase):
    def setUp(self) -> None:
        self.seen: list[LimitedRequest] = []
        self.time = 1_000
        factory = AccessSite(Echo(), self.seen.append, lambda: self.time, reactor)
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    async def send(self, *parts: bytes) -> bytes:
        """All that comes back until the connection closes."""
        client = Client()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        await connectProtocol(endpoint, client)
        for part in parts:
            client.transport.write(part)  # type: ignore[union-attr]
        return await client.closed.addTimeout(10, reactor)

    async def test_body_is_taken(self) -> None:
        answer = await self.send(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "))
        self.assertTrue(answer.endswith(b"\r\n\r\n5"))
        self.assertEqual([(request.uri, request.received_at) for request in self.seen], [(b"/", 1_000)])

    async def test_answer_without_a_type_has_none(self) -> None:
        answer = await self.send(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.assertNotIn(b"Content-Type", answer)

    async def test_chunked_body_is_taken(self) -> None:
        answer = await self.send(
            b"POST / HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        )
        self.assertTrue(answer.endswith(b"\r\n\r\n11"))

    async def test_greatest_body(self) -> None:
        head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % site.MAX_BODY
        answer = await self.send(head, b"x" * site.MAX_BODY)
        self.assertTrue(answer.endswith(b"\r\n\r\n%d" % site.MAX_BODY))

    async def test_declared_body_over_the_limit_is_not_kept(self) -> None:
        size = site.MAX_BODY + 1
        head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        answer = await self.send(head, b"x" * size)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "))
        self.assertTrue(answer.endswith(b"\r\n\r\n0"))

    async def test_chunked_body_over_the_limit_is_not_kept(self) -> None:
        half = site.MAX_BODY // 2 + 1
        chunk = b"%x\r\n%b\r\n" % (half, b"x" * half)
        answer = await self.send(
            b"POST / HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunk,
            chunk,
            b"0\r\n\r\n",
        )
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "))
        self.assertTrue(answer.endswith(b"\r\n\r\n0"))

    async def test_endless_body_is_cut_off(self) -> None:
        self.patch(site, "MAX_DISCARDED", 1 << 20)
        size = site.MAX_BODY + (4 << 20)
        head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        self.assertEqual(await self.send(head, b"x" * (size - 1)), b"")

    async def test_connection_is_kept(self) -> None:
        request = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"
        last = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nxx"
        answer = await self.send(request, last)
        self.assertEqual(answer.count(b"HTTP/1.1 200 "), 2)
        self.assertEqual(len(self.seen), 2)
