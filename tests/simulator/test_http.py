"""The lean HTTP of the simulator, over real sockets and against every way bytes can be cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.simulator.gateway import CLIENT_HEADERS
from cubehook.simulator.http import (
    MAX_HEAD,
    Answer,
    AnswerReader,
    Exchange,
    HttpError,
    Poster,
    Request,
    Server,
    response,
)

reactor: Any = installed
PATIENCE = 20.0

ANSWERS = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello": Answer(200, b"hello", True),
    b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n": Answer(204, b"", False),
    b"HTTP/1.0 503 Later\r\ncontent-length:  2 \r\n\r\nno": Answer(503, b"no", False),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n": Answer(
        200, b"hello!", True
    ),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n0\r\nTrailer: 1\r\n\r\n": Answer(
        200, b"ab", True
    ),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n": Answer(200, b"", True),
}


class AnswerReaderTests(SynchronousTestCase):
    @settings(max_examples=100)
    @given(st.sampled_from(list(ANSWERS)), st.lists(st.integers(0, 200), max_size=6))
    def test_answer_is_the_same_however_it_is_cut(self, data: bytes, cuts: list[int]) -> None:
        reader = AnswerReader()
        places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        answers = [reader.feed(data[a:b]) for a, b in pairwise(places) if a < b]
        self.assertEqual(answers[-1], ANSWERS[data])
        self.assertEqual(set(answers[:-1]), {None} if answers[:-1] else set())

    def test_answer_without_length_ends_with_the_connection(self) -> None:
        reader = AnswerReader()
        self.assertIsNone(reader.feed(b"HTTP/1.1 200 OK\r\n\r\nsome"))
        self.assertIsNone(reader.feed(b" more"))
        self.assertEqual(reader.closed(), Answer(200, b"some more", False))

    def test_answer_cut_short_is_none(self) -> None:
        reader = AnswerReader()
        reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
        self.assertIsNone(reader.closed())

    def test_what_is_not_http_is_refused(self) -> None:
        for data in (
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"x" * (MAX_HEAD + 1),
        ):
            self.assertRaises(HttpError, AnswerReader().feed, data)


class Peer(Protocol):
    """A connection to a raw server: keeps what comes; `answer` is sent after every `count` bytes."""

    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.data = b""

    def connectionMade(self) -> None:
        self.server.peers.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.server.data_received(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.server.lost += 1


class RawServer(Factory):
    """Takes bytes as they come; answers whenever a request is whole."""

    noisy = False

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.peers: list[Peer] = []
        self.requests: list[bytes] = []
        self.lost = 0

    def buildProtocol(self, addr: object) -> Peer:
        return Peer(self)

    def data_received(self, peer: Peer) -> None:
        while b"\r\n\r\n" in peer.data:
            head = peer.data.index(b"\r\n\r\n") + 4
            length = int(peer.data.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            if len(peer.data) < head + length:
                return
            self.requests.append(peer.data[: head + length])
            peer.data = peer.data[head + length :]
            if self.answer is not None:
                peer.transport.write(self.answer)  # type: ignore[union-attr]


class Posted(Exchange):
    def __init__(self, body: bytes | None) -> None:
        self._body = body
        self.over_with: Deferred[tuple[Answer | None, str]] = Deferred()
        self.was_dropped = False

    def body(self) -> bytes | None:
        return self._body

    def finished(self, answer: Answer | None, error: str) -> None:
        self.over_with.callback((answer, error))

    def dropped(self) -> None:
        self.was_dropped = True


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class PosterTests(TestCase):
    def serve(self, answer: bytes | None = GOOD) -> RawServer:
        server = RawServer(answer)
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        self.port = port.getHost().port
        self.addCleanup(port.stopListening)
        return server

    def poster(
        self, connections: int = 2, persistent: bool = True, timeout: float = PATIENCE, query: str = ""
    ) -> Poster:
        poster = Poster(
            reactor,
            f"http://127.0.0.1:{self.port}/xcc/hq{query}",
            CLIENT_HEADERS,
            connections=connections,
            persistent=persistent,
            timeout=timeout,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(poster.close()))
        return poster

    async def post(self, poster: Poster, body: bytes = b"<x/>") -> tuple[Answer | None, str]:
        posted = Posted(body)
        poster.post(posted)
        return await posted.over_with

    async def test_request_is_the_captured_one_byte_for_byte(self) -> None:
        server = self.serve()
        await self.post(self.poster(), b"<x/>")
        self.assertEqual(
            server.requests,
            [
                b"POST /xcc/hq HTTP/1.1\r\n"
                b"Host: 127.0.0.1:%d\r\n"
                b"Content-Length: 4\r\n"
                b"Content-Type: application/soap+xml\r\n"
                b"Connection: Keep-Alive\r\n"
                b"Accept: text/vxml, text/x-vxml, application/vxml, application/x-vxml, "
                b"application/voicexml, application/x-voicexml, text/plain, text/html, audio/basic, "
                b"audio/wav, multipart/form-data, application/octet-stream\r\n"
                b"User-Agent: Cisco-IOS-C3900/15.2\r\n"
                b"\r\n"
                b"<x/>" % self.port
            ],
        )

    async def test_query_of_the_url_is_sent(self) -> None:
        server = self.serve()
        await self.post(self.poster(query="?a=b"))
        self.assertTrue(server.requests[0].startswith(b"POST /xcc/hq?a=b HTTP/1.1\r\n"))

    async def test_persistent_connection_is_used_again(self) -> None:
        server = self.serve()
        poster = self.poster()
        for _ in range(3):
            answer, _ = await self.post(poster)
            self.assertEqual(answer, Answer(200, b"", True))
        self.assertEqual((len(server.peers), len(server.requests)), (1, 3))

    async def test_connection_for_each_message(self) -> None:
        server = self.serve()
        poster = self.poster(persistent=False)
        for _ in range(3):
            await self.post(poster)
        self.assertEqual((len(server.peers), len(server.requests)), (3, 3))

    async def test_peer_that_closes_is_obeyed(self) -> None:
        server = self.serve(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        poster = self.poster()
        await self.post(poster)
        await self.post(poster)
        self.assertEqual(len(server.peers), 2)

    async def test_no_more_connections_than_allowed_and_urgent_ones_first(self) -> None:
        server = self.serve(None)
        poster = self.poster(connections=2)
        posted = [Posted(b"%d" % number) for number in range(5)]
        for one in posted:
            poster.post(one)
        urgent = Posted(b"urgent")
        poster.post(urgent, urgent=True)
        self.assertEqual(poster.waiting, 4)
        server.answer = GOOD
        for peer in await self.peers(server, 2):
            peer.transport.write(GOOD)  # type: ignore[union-attr]
        for one in (*posted, urgent):
            await one.over_with
        self.assertEqual(len(server.peers), 2)
        bodies = [request.rpartition(b"\r\n\r\n")[2] for request in server.requests]
        self.assertLess(bodies.index(b"urgent"), bodies.index(b"2"))

    async def peers(self, server: RawServer, count: int) -> list[Peer]:
        """The server's connections once `count` requests are there."""
        while len(server.requests) < count:
            await deferred_turn()
        return list(server.peers)

    async def test_refused_connection_is_a_failure(self) -> None:
        port = reactor.listenTCP(0, RawServer(None), interface="127.0.0.1")
        self.port = port.getHost().port
        await port.stopListening()
        answer, error = await self.post(self.poster())
        self.assertIsNone(answer)
        self.assertIn("refused", error)

    async def test_silence_is_a_failure_after_the_timeout_and_cuts_the_connection(self) -> None:
        server = self.serve(None)
        poster = self.poster(connections=1, timeout=0.05)
        answer, error = await self.post(poster)
        self.assertEqual((answer, error), (None, "no answer within 0.05 s"))
        # The next one is not kept waiting by it.
        server.answer = GOOD
        self.assertEqual((await self.post(poster))[0], Answer(200, b"", True))
        self.assertEqual((len(server.peers), server.lost), (2, 1))

    async def test_nonsense_is_a_failure(self) -> None:
        self.serve(b"nonsense\r\n\r\n")
        answer, error = await self.post(self.poster())
        self.assertIsNone(answer)
        self.assertIn("not HTTP", error)

    async def test_connection_lost_before_the_answer_is_a_failure(self) -> None:
        server = self.serve(None)
        poster = self.poster()
        posted = Posted(b"<x/>")
        poster.post(posted)
        (peer,) = await self.peers(server, 1)
        peer.transport.loseConnection()  # type: ignore[union-attr]
        answer, error = await posted.over_with
        self.assertIsNone(answer)
        self.assertIn("closed", error)

    async def test_none_is_not_sent(self) -> None:
        server = self.serve()
        poster = self.poster()
        poster.post(Posted(None))
        await self.post(poster)
        self.assertEqual(len(server.requests), 1)

    async def test_drop_forgets_everything(self) -> None:
        server = self.serve(None)
        poster = self.poster(connections=1)
        under_way, waiting = Posted(b"a"), Posted(b"b")
        poster.post(under_way)
        poster.post(waiting)
        await self.peers(server, 1)
        poster.drop()
        self.assertTrue(under_way.was_dropped and waiting.was_dropped)
        server.answer = GOOD
        await self.post(poster)
        self.assertFalse(under_way.over_with.called or waiting.over_with.called)

    def test_url_that_is_not_http_is_refused(self) -> None:
        self.port = 0
        for url in ("https://192.0.2.1/x", "nonsense", "http:///x"):
            with self.assertRaises(ValueError):
                Poster(reactor, url, b"", connections=1, persistent=True, timeout=1)


def deferred_turn() -> Deferred[None]:
    """Fires in the reactor's next turn."""
    turn: Deferred[None] = Deferred()
    reactor.callLater(0, turn.callback, None)
    return turn


class Raw(Protocol):
    """A raw client."""

    def __init__(self) -> None:
        self.data = b""
        self.gone: Deferred[None] = Deferred()
        self._waiting: list[tuple[bytes, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        for entry in list(self._waiting):
            if entry[0] in self.data:
                self._waiting.remove(entry)
                entry[1].callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)

    def when(self, text: bytes) -> Deferred[None]:
        event: Deferred[None] = Deferred()
        _ = event.addTimeout(PATIENCE, reactor)
        if text in self.data:
            event.callback(None)
        else:
            self._waiting.append((text, event))
        return event


class ServerTests(TestCase):
    async def serve(self, handle: Any = None, max_connections: int | None = None) -> Server:
        self.handled: list[Request] = []

        def echo(request: Request) -> None:
            self.handled.append(request)
            request.respond(response(200, request.target + b" " + request.body))

        server = Server(handle or echo, max_connections)
        origin = await server.listen(reactor, "tcp:0:interface=127.0.0.1")
        self.assertTrue(origin.startswith("http://127.0.0.1:"))
        self.port = int(origin.rpartition(":")[2])
        self.addCleanup(lambda: Deferred.fromCoroutine(server.close()))
        return server

    async def connect(self, data: bytes = b"") -> Raw:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        raw: Raw = await connectProtocol(endpoint, Raw())
        raw.transport.write(data)  # type: ignore[union-attr]
        return raw

    async def test_requests_on_one_connection_are_answered_in_order(self) -> None:
        await self.serve()
        one = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
        raw = await self.connect(b"".join(one % number for number in range(500)))
        await raw.when(b"/499 hi")
        self.assertEqual(raw.data.count(b"HTTP/1.1 200 OK\r\nContent-Length: "), 500)
        self.assertLess(raw.data.index(b"/7 hi"), raw.data.index(b"/8 hi"))

    async def test_request_in_pieces(self) -> None:
        await self.serve()
        raw = await self.connect(b"PUT /a HTTP/1.1\r\nHost: x\r\nX-Y: z\r\nContent-")
        for piece in (b"Length: 4\r\n\r", b"\nab", b"cd"):
            await deferred_turn()
            raw.transport.write(piece)  # type: ignore[union-attr]
        await raw.when(b"/a abcd")
        self.assertEqual(self.handled[0].fields[b"x-y"], b"z")

    async def test_client_that_wants_to_close_is_obeyed(self) -> None:
        await self.serve()
        for head in (b"POST / HTTP/1.1\r\nConnection: close\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n"):
            raw = await self.connect(head)
            await raw.gone
            self.assertTrue(raw.data.startswith(b"HTTP/1.1 200 OK\r\n"))

    async def test_bad_requests_are_refused_and_closed(self) -> None:
        await self.serve()
        for request, status in (
            (b"nonsense\r\n\r\n", b"400"),
            (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
            (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
            (b"POST / HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD + 1), b"431"),
        ):
            raw = await self.connect(request)
            await raw.gone
            self.assertEqual(raw.data[9:12], status, request[:60])
        self.assertEqual(self.handled, [])

    async def test_sender_that_asks_first_is_told_to_go_on(self) -> None:
        await self.serve()
        raw = await self.connect(b"POST /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        await raw.when(b"HTTP/1.1 100 Continue\r\n\r\n")
        raw.transport.write(b"ok")  # type: ignore[union-attr]
        await raw.when(b"/a ok")

    async def test_too_many_connections_are_closed_at_once(self) -> None:
        await self.serve(max_connections=1)
        first = await self.connect(b"POST /a HTTP/1.1\r\n\r\n")
        await first.when(b"/a ")
        second = await self.connect()
        await second.gone
        self.assertEqual(second.data, b"")

    async def test_close_sends_an_answer_that_was_given(self) -> None:
        server = await self.serve()
        raw = await self.connect(b"POST /a HTTP/1.1\r\n\r\n")
        await raw.when(b"/a ")
        await server.close()
        await raw.gone

    async def test_drop_cuts_the_connection(self) -> None:
        await self.serve(lambda request: request.drop())
        raw = await self.connect(b"POST /a HTTP/1.1\r\n\r\n")
        await raw.gone
        self.assertEqual(raw.data, b"")
