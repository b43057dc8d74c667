"""The listeners' side of HTTP, over real sockets; its times with a clock in the hand."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from treq.client import HTTPClient
from twisted.internet import reactor as installed
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from cubehook.net import admission, ration, site
from cubehook.net.admission import Admission
from cubehook.net.site import (
    CLOSING_SECONDS,
    IDLE_SECONDS,
    MAX_HEAD,
    MAX_HEADERS,
    REQUEST_SECONDS,
    TICK_SECONDS,
    AccessSite,
    LimitedRequest,
    TimedChannel,
)
from tests.functional.harness import PATIENCE
from tests.transports.support import Authority

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
        return await client.closed.addTimeout(PATIENCE, reactor)

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

    async def test_continue_is_said_to_who_waits_for_it(self) -> None:
        head = b"POST / HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        answer = await self.send(head, b"xx")
        self.assertTrue(answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), answer)

    async def test_http_1_0(self) -> None:
        answer = await self.send(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nxx")
        self.assertTrue(answer.startswith(b"HTTP/1.0 200 "))
        self.assertTrue(answer.endswith(b"\r\n\r\n2"))

    async def test_what_is_no_request_is_told(self) -> None:
        said: list[LogEvent] = []
        observer = implementer(ILogObserver)(lambda event: said.append(event))
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        globalLogPublisher.addObserver(observer)
        self.patch(ration, "MOST", 2)
        hello, no_header = b"\x16\x03\x01\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n"
        for nonsense in (hello, no_header, hello):
            self.assertEqual(await self.send(nonsense), b"HTTP/1.1 400 Bad Request\r\n\r\n")
        found = [text for text in map(formatEvent, said) if "no HTTP/1 request" in text]
        self.assertEqual(found, ["127.0.0.1 sent what is no HTTP/1 request, and is answered 400"] * 2)
        self.assertEqual(self.seen, [])

    async def test_many_requests_sent_ahead(self) -> None:
        count = 3_000
        ahead = b"POST / HTTP/1.1\r\n\r\n" * (count - 1)
        answer = await self.send(ahead + b"POST / HTTP/1.1\r\nConnection: close\r\n\r\n")
        self.assertEqual((answer.count(b"HTTP/1.1 200 "), len(self.seen)), (count, count))

    async def test_connection_is_kept(self) -> None:
        request = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"
        last = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nxx"
        answer = await self.send(request, last)
        self.assertEqual(answer.count(b"HTTP/1.1 200 "), 2)
        self.assertEqual(len(self.seen), 2)


class CrowdTests(TestCase):
    """More connections than are let in, over real sockets."""

    plain = False

    def listen(self, most: int, of_address: int, tls: object = None) -> None:
        self.counted: list[None] = []
        self.admission = Admission(
            "listen.cubes", most, of_address, reactor.seconds, counted=lambda: self.counted.append(None)
        )
        self.site = AccessSite(Echo(), lambda request: None, lambda: 1, reactor, self.admission)
        if tls is None:
            self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        else:
            self.port = reactor.listenSSL(0, self.site, tls, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.site.plain = self.plain

    async def connect(self, data: bytes = b"", source: str = "127.0.0.1") -> Client:
        client = Client()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port, bindAddress=(source, 0))
        await connectProtocol(endpoint, client)
        self.addCleanup(self.gone, client)
        client.transport.write(data)  # type: ignore[union-attr]
        return client

    async def gone(self, client: Client) -> None:
        client.transport.abortConnection()  # type: ignore[union-attr]
        await client.closed

    async def answered(self, client: Client) -> None:
        while b"\r\n\r\n" not in client.received:
            await deferLater(reactor, 0.005, lambda: None)

    async def test_one_too_many_is_closed_at_once(self) -> None:
        self.listen(2, 2)
        kept = [await self.connect(REQUEST) for _ in range(2)]
        for client in kept:
            await self.answered(client)
        refused = await self.connect(REQUEST)
        self.assertEqual(await refused.closed.addTimeout(PATIENCE, reactor), b"")
        self.assertEqual((len(self.counted), self.admission.connections), (1, 2))
        kept[0].transport.loseConnection()  # type: ignore[union-attr]
        await kept[0].closed
        while self.admission.connections > 1:
            await deferLater(reactor, 0.005, lambda: None)
        await self.answered(await self.connect(REQUEST))

    async def test_winding_down(self) -> None:
        self.listen(9, 9)
        asked = [await self.connect(REQUEST) for _ in range(2)]
        for client in asked:
            await self.answered(client)
        self.assertNotIn(b"close", asked[0].received)
        self.site.wind_down()
        asked[0].transport.write(REQUEST)  # type: ignore[union-attr]
        last = (await asked[0].closed.addTimeout(5, reactor)).split(b"HTTP/1.1")[2]
        self.assertIn(b" 200 ", last)
        self.assertRegex(last, rb"(?i)connection: close")
        # Who does not ask is left alone until all are closed.
        self.assertFalse(asked[1].closed.called)
        self.site.close_connections()
        await asked[1].closed.addTimeout(5, reactor)

    async def test_who_sends_its_headers_slowly_gives_way(self) -> None:
        self.listen(2, 2)
        slow = [await self.connect(b"POST / HTTP/1.1\r\nX-Slow: ") for _ in range(2)]
        for _ in range(3):
            client = await self.connect(REQUEST)
            await self.answered(client)
            client.transport.loseConnection()  # type: ignore[union-attr]
            await client.closed
        self.assertEqual(await slow[0].closed.addTimeout(PATIENCE, reactor), b"")

    async def test_tls(self) -> None:
        authority = Authority()
        self.listen(2, 2, authority.server("127.0.0.1"))
        # Neither of them will ever shake hands.
        silent = [await self.connect(data) for data in (b"", b"\x16\x03\x01")]
        while self.admission.connections < 2:
            await deferLater(reactor, 0.005, lambda: None)
        trusted = trustRootFromCertificates(
            [Certificate.loadPEM(authority.certificate.public_bytes(Encoding.PEM))]
        )
        agent = Agent(reactor, BrowserLikePolicyForHTTPS(trusted))
        for _ in range(3):
            url = f"https://127.0.0.1:{self.port.getHost().port}/"
            response = await HTTPClient(agent).post(url, data=b"xx")
            self.assertEqual(await response.content(), b"2")
        self.assertEqual(await silent[0].closed.addTimeout(PATIENCE, reactor), b"")
        while self.admission.connections:
            await silent[1].closed.addTimeout(PATIENCE, reactor)
            await deferLater(reactor, 0.005, lambda: None)

    async def test_bodies_that_do_not_fit_are_not_held(self) -> None:
        self.listen(9, 9)
        self.patch(admission, "HELD_MOST", 4 * site.FREE_BODY)
        size = 2 * site.FREE_BODY
        head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
        unfinished = await self.connect(head % size + b"x" * (size - 1))
        (channel,) = await self.channels(1)
        while not channel.place or channel.place.held < size - 1:
            await deferLater(reactor, 0.005, lambda: None)
        refused = await self.connect(head % size + b"x" * size)
        await self.answered(refused)
        self.assertTrue(refused.received.startswith(b"HTTP/1.1 503 "), refused.received)
        self.assertIn(b"Retry-After: 10\r\n", refused.received)
        # Small ones always fit, and so does the next once there is room.
        refused.received = b""
        refused.transport.write(head % 2 + b"xx")  # type: ignore[union-attr]
        await self.answered(refused)
        self.assertTrue(refused.received.endswith(b"2"), refused.received)
        unfinished.transport.write(b"x")  # type: ignore[union-attr]
        await self.answered(unfinished)
        self.assertEqual(channel.place.held, 0)
        refused.received = b""
        refused.transport.write(head % size + b"x" * size)  # type: ignore[union-attr]
        await self.answered(refused)
        self.assertTrue(refused.received.endswith(b"\r\n\r\n%d" % size), refused.received)

    async def channels(self, count: int) -> list[TimedChannel]:
        while len(self.site._channels) < count:
            await deferLater(reactor, 0.005, lambda: None)
        return list(self.site._channels)

    async def test_a_refused_tls_connection_is_closed(self) -> None:
        self.listen(1, 1, Authority().server("127.0.0.1"))
        place = self.admission.let_in(IPv4Address("TCP", "127.0.0.1", 1))
        assert place is not None
        place.prove()
        refused = await self.connect()
        self.assertEqual(await refused.closed.addTimeout(PATIENCE, reactor), b"")
        self.assertEqual((len(self.counted), self.admission.connections), (1, 1))

    async def test_who_never_shakes_hands_has_as_long_as_for_a_request(self) -> None:
        self.listen(1, 1, Authority().server("127.0.0.1"))
        self.site.reactor = clock = Clock()
        silent = await self.connect()
        while not self.admission.connections:
            await deferLater(reactor, 0.005, lambda: None)
        clock.pump([1.0] * (REQUEST_SECONDS - 1))
        self.assertEqual(self.admission.connections, 1)
        clock.pump([1.0] * (1 + 2 * TICK_SECONDS))
        self.assertEqual(await silent.closed.addTimeout(PATIENCE, reactor), b"")


class PlainCrowdTests(CrowdTests):
    """The same where nothing is between the site and its port."""

    def listen(self, most: int, of_address: int, tls: object = None) -> None:
        self.plain = tls is None
        super().listen(most, of_address, tls)


class Answers(Resource):
    """Answers with `body` in one piece, or only when the test says so."""

    isLeaf = True
    body = b""
    waits = False

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[LimitedRequest] = []

    def render(self, request: LimitedRequest) -> bytes | int:
        if self.waits:
            self.waiting.append(request)
            return NOT_DONE_YET
        if request.method == b"DELETE":
            request.setResponseCode(204)
        # As Klein does, which writes an empty answer too.
        request.write(self.body)
        request.finish()
        return NOT_DONE_YET


class Transport(StringTransport):
    """Closes when it is told to, unless its peer takes nothing."""

    stuck = False

    def loseConnection(self) -> None:
        super().loseConnection()
        if not self.stuck:
            self.connected = False
            self.protocol.connectionLost(Failure(connectionDone.value))  # type: ignore[attr-defined]

    def abortConnection(self) -> None:
        super().abortConnection()
        self.stuck = False
        self.loseConnection()


REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nxx"


class HeadTests(SynchronousTestCase):
    """What a request's head may be."""

    def answer(self, request: bytes) -> bytes:
        site = AccessSite(Answers(), lambda request: None, lambda: 1, Clock())
        channel = site.buildProtocol(None)
        transport = Transport()
        transport.protocol = channel  # type: ignore[attr-defined]
        channel.makeConnection(transport)
        channel.dataReceived(request)
        self.assertTrue(transport.disconnecting or b" 200 " in transport.value())
        return bytes(transport.value()).partition(b"\r\n")[0]

    def test_number_of_headers(self) -> None:
        for count, status in ((MAX_HEADERS, b"200 OK"), (MAX_HEADERS + 1, b"400 Bad Request")):
            headers = b"".join(b"X-%d: x\r\n" % n for n in range(count))
            self.assertEqual(self.answer(b"GET / HTTP/1.1\r\n" + headers + b"\r\n"), b"HTTP/1.1 " + status)

    def test_bytes_of_a_line_and_of_the_head(self) -> None:
        for request in (
            b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n",
            # One without an end.
            b"GET / HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD + 1),
            b"GET / HTTP/1.1\r\n" + (b"X: " + b"x" * (MAX_HEAD // 9) + b"\r\n") * 9 + b"\r\n",
        ):
            self.assertEqual(self.answer(request), b"HTTP/1.1 400 Bad Request", request[:20])
        fits = b"GET / HTTP/1.1\r\n" + (b"X: " + b"x" * (MAX_HEAD // 9) + b"\r\n") * 8 + b"\r\n"
        self.assertEqual(self.answer(fits), b"HTTP/1.1 200 OK")


class TimeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answers = Answers()
        self.seen: list[LimitedRequest] = []
        self.site = AccessSite(self.answers, self.seen.append, lambda: 1, self.clock)

    def connect(self) -> tuple[TimedChannel, Transport]:
        channel = self.site.buildProtocol(None)
        transport = Transport()
        transport.protocol = channel  # type: ignore[attr-defined]
        channel.makeConnection(transport)
        return channel, transport

    def drip(self, channel: TimedChannel, transport: Transport, data: bytes) -> float:
        """Send a byte every nine seconds; how long the connection lasted."""
        begun = self.clock.seconds()
        for n in range(len(data)):
            if not transport.connected:
                break
            channel.dataReceived(data[n : n + 1])
            self.advance(9)
        return self.clock.seconds() - begun

    def advance(self, seconds: int) -> None:
        self.clock.pump([1.0] * seconds)

    def test_head_byte_by_byte(self) -> None:
        lasted = self.drip(*self.connect(), b"GET /" + b"x" * 100)
        self.assertTrue(REQUEST_SECONDS <= lasted < REQUEST_SECONDS + 2 * TICK_SECONDS + 9, lasted)

    def test_body_byte_by_byte(self) -> None:
        channel, transport = self.connect()
        channel.dataReceived(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 500\r\n\r\n")
        lasted = self.drip(channel, transport, b"x" * 100)
        self.assertTrue(REQUEST_SECONDS <= lasted < REQUEST_SECONDS + 2 * TICK_SECONDS + 9, lasted)

    def test_a_later_request_has_as_long(self) -> None:
        channel, transport = self.connect()
        channel.dataReceived(REQUEST)
        self.advance(IDLE_SECONDS - 30)
        channel.dataReceived(REQUEST[:-1])
        self.advance(REQUEST_SECONDS - 1)
        channel.dataReceived(REQUEST[-1:])
        self.assertEqual(transport.value().count(b"HTTP/1.1 200 "), 2)
        lasted = self.drip(channel, transport, REQUEST[:-1])
        self.assertTrue(REQUEST_SECONDS <= lasted < REQUEST_SECONDS + 2 * TICK_SECONDS + 9, lasted)

    def test_a_connection_without_a_request(self) -> None:
        _, transport = self.connect()
        self.advance(REQUEST_SECONDS - 1)
        self.assertTrue(transport.connected)
        self.advance(1 + 2 * TICK_SECONDS)
        self.assertFalse(transport.connected)

    def test_an_idle_connection_is_kept_for_its_time(self) -> None:
        channel, transport = self.connect()
        channel.dataReceived(REQUEST)
        self.advance(IDLE_SECONDS - 1)
        self.assertTrue(transport.connected)
        self.advance(1 + 2 * TICK_SECONDS)
        self.assertFalse(transport.connected)

    def test_a_request_in_hand_takes_as_long_as_it_takes(self) -> None:
        self.answers.waits = True
        channel, transport = self.connect()
        channel.dataReceived(REQUEST + b"POST ")
        self.advance(2 * IDLE_SECONDS)
        self.assertTrue(transport.connected)
        (request,) = self.answers.waiting
        request.finish()
        self.assertIn(b"HTTP/1.1 200 ", transport.value())
        self.assertNotIn(b"Connection: close", transport.value())
        self.assertTrue(transport.connected)
        # What was sent ahead is a request begun.
        self.advance(REQUEST_SECONDS + 2 * TICK_SECONDS)
        self.assertFalse(transport.connected)

    def test_who_does_not_take_the_end_is_cut_off(self) -> None:
        for last in (REQUEST.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), b"POST "):
            channel, transport = self.connect()
            transport.stuck = True
            channel.dataReceived(last)
            self.advance(REQUEST_SECONDS + CLOSING_SECONDS + 4 * TICK_SECONDS)
            self.assertTrue(transport.disconnected)

    def test_one_timer_and_only_while_there_are_connections(self) -> None:
        pairs = [self.connect() for _ in range(3)]
        for channel, _ in pairs:
            channel.dataReceived(REQUEST)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for _, transport in pairs:
            transport.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closing_connections_breaks_no_answer(self) -> None:
        idle, idle_transport = self.connect()
        idle.dataReceived(REQUEST)
        self.answers.waits = True
        busy, busy_transport = self.connect()
        busy.dataReceived(REQUEST)
        self.site.close_connections()
        self.assertFalse(idle_transport.connected)
        self.assertTrue(busy_transport.connected)
        (request,) = self.answers.waiting
        request.finish()
        self.assertIn(b"Connection: close\r\n", busy_transport.value())
        self.assertFalse(busy_transport.connected)

    def test_who_leaves_before_the_answer_is_seen(self) -> None:
        self.answers.waits = True
        channel, transport = self.connect()
        channel.dataReceived(REQUEST)
        transport.loseConnection()
        self.assertEqual([(each.uri, each.code, each.sentLength) for each in self.seen], [(b"/", 499, 0)])

    def test_who_leaves_within_a_request_made_none(self) -> None:
        for part in (b"", b"POST / HT", REQUEST[:-1]):
            channel, transport = self.connect()
            channel.dataReceived(part)
            transport.loseConnection()
        channel, transport = self.connect()
        channel.dataReceived(REQUEST)
        transport.loseConnection()
        self.assertEqual([each.code for each in self.seen], [200])

    def answer(self, request: bytes) -> bytes:
        channel, transport = self.connect()
        channel.dataReceived(request)
        return bytes(transport.value())

    def test_an_empty_answer_has_no_chunks(self) -> None:
        answer = self.answer(REQUEST)
        self.assertIn(b"Content-Length: 0\r\n", answer)
        self.assertNotIn(b"chunked", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\n"))

    def test_answers_that_have_no_body_tell_no_length(self) -> None:
        for method in (b"HEAD", b"DELETE"):
            self.assertNotIn(b"Content-Length", self.answer(REQUEST.replace(b"POST", method)))

    def test_a_longer_answer_is_whole(self) -> None:
        self.answers.body = b"hello"
        self.assertTrue(self.answer(REQUEST).endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
