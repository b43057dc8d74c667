"""
HTTP/1.1 as far as a router and a plain receiver speak it, at a fraction of a full server's cost.

`twisted.web` and treq cannot write a router's header block, and as a load generator the simulator
shares a core with what it measures.  Client side: `Poster`.  Server side: `Server`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    serverFromString,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from cubehook.simulator.tls import Secure, over_tls, to_application

MAX_HEAD = 64 << 10
"""Bytes of a request's or an answer's first line and headers."""

MAX_BODY = 16 << 20
"""Bytes of a body."""


class HttpError(Exception):
    """What came is not HTTP/1.1, or larger than it may be; says what is wrong."""


class Answer(NamedTuple):
    """An HTTP response; `keep` if its connection may be used again."""

    status: int
    body: bytes
    keep: bool


_DIGITS = re.compile(rb"[0-9]{1,12}")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: .*)?")
_REQUEST_LINE = re.compile(rb"([A-Z]+) ([^ ]+) HTTP/1\.([01])")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """The headers by lower-case name; of one that is repeated, the last."""
    fields = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name[-1:] in b" \t" or name[:1] in b" \t":
            raise HttpError("a header line is malformed")
        fields[name.lower()] = value.strip(b" \t")
    return fields


def _length(value: bytes) -> int:
    if _DIGITS.fullmatch(value) is None:
        raise HttpError("the Content-Length is not a number")
    return int(value)


def _unchunk(data: bytes, start: int) -> bytes | None:
    """The whole chunked body that begins at `start`; None while its end has not come."""
    parts: list[bytes] = []
    while (line_end := data.find(b"\r\n", start)) >= 0:
        size_line = _CHUNK.fullmatch(data, start, line_end)
        if size_line is None:
            raise HttpError("a chunk's size is malformed")
        size = int(size_line[1], 16)
        start = line_end + 2
        if size == 0:
            # Trailers, if any, end with an empty line as headers do.
            if data.startswith(b"\r\n", start) or data.find(b"\r\n\r\n", start) >= 0:
                return b"".join(parts)
            return None
        if len(data) < start + size + 2:
            return None
        parts.append(data[start : start + size])
        start += size + 2
    return None


class _AnswerHead(NamedTuple):
    status: int
    keep: bool
    chunked: bool
    length: int | None


@lru_cache(maxsize=64)
def _read_answer_head(head: bytes) -> _AnswerHead:
    # Answers of one server differ by their Date at most, so nearly every head was read before.
    lines = head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(lines[0])
    if status_line is None:
        raise HttpError("the answer is not HTTP")
    status = int(status_line[2])
    fields = _fields(lines[1:])
    connection = fields.get(b"connection", b"").lower()
    keep = connection != b"close" and (status_line[1] == b"1" or connection == b"keep-alive")
    chunked = fields.get(b"transfer-encoding", b"").lower() == b"chunked"
    length = None
    if status in (204, 304):
        length = 0
    elif b"content-length" in fields:
        length = _length(fields[b"content-length"])
        if length > MAX_BODY:
            raise HttpError(f"the body is larger than {MAX_BODY} bytes")
    return _AnswerHead(status, keep, chunked, length)


class AnswerReader:
    """Puts one answer together from what a connection brings."""

    def __init__(self) -> None:
        self._data = b""
        self._start = 0
        self._head: _AnswerHead | None = None

    def feed(self, data: bytes) -> Answer | None:
        """Take what came; the answer once it is whole.  Raises HttpError."""
        self._data = data = self._data + data if self._data else data
        head = self._head
        while head is None:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD:
                    raise HttpError("the answer's headers have no end")
                return None
            head = _read_answer_head(data[:end])
            if head.status < 200:
                # It only announces another.
                self._data = data = data[end + 4 :]
                head = None
            else:
                self._head = head
                self._start = end + 4
        start = self._start
        body: bytes | None = None
        if head.chunked:
            body = _unchunk(data, start)
        elif head.length is not None and len(data) - start >= head.length:
            body = data[start : start + head.length]
        if body is not None:
            return Answer(head.status, body, head.keep)
        if len(data) > MAX_HEAD + MAX_BODY:
            raise HttpError("the answer is too large")
        return None

    def closed(self) -> Answer | None:
        """The connection ended: the answer, if that is what its end was to be."""
        head = self._head
        if head is None or head.chunked or head.length is not None:
            return None
        return Answer(head.status, self._data[self._start :], False)


class Exchange(ABC):
    """
    Something to post, and what to do with the answer.

    `sent_at` is when it was begun, in the reactor's seconds.
    """

    __slots__ = ("connecting", "connection", "over", "sent_at")

    sent_at: float
    over: bool
    connecting: Deferred[Any] | None
    connection: _PosterConnection | None

    @abstractmethod
    def body(self) -> bytes | None:
        """What to send, asked at the last moment; None if it is no longer to be sent, which ends it."""

    @abstractmethod
    def finished(self, answer: Answer | None, error: str) -> None:
        """The answer came, or none will and `error` says why."""

    def dropped(self) -> None:  # noqa: B027 - most need not know
        """It was forgotten by `Poster.drop`; `finished` will not be called."""


class Poster:
    """
    Posts bodies to one URL as a router does, over at most `connections` connections at once.

    `persistent` connections are kept and used again while the peer lets us; others carry one message
    each.  What finds no free connection waits its turn.  An exchange fails when it is not over
    `timeout` seconds after it was begun, connecting included; nothing is ever sent twice.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        headers: bytes,
        *,
        connections: int,
        persistent: bool,
        timeout: float,
        tls: Secure | None = None,
    ) -> None:
        """
        `headers` follow Content-Length in the head, each line with its end; ValueError for a bad URL.

        It must be https with `tls`, and http without.
        """
        parts = urlsplit(url)
        scheme = "http" if tls is None else "https"
        if parts.scheme != scheme or not parts.hostname:
            raise ValueError(f"{url!r} is not an {scheme} URL with a host")
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        host = parts.netloc.rpartition("@")[2]
        self._before_length = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: ".encode()
        self._after_length = b"\r\n" + headers + b"\r\n"
        self._reactor = reactor
        self._timeout = timeout
        self._persistent = persistent
        self._limit = connections
        port = parts.port or (80 if tls is None else 443)
        self._endpoint = _endpoint(reactor, parts.hostname, port, timeout)
        if tls is not None:
            self._endpoint = to_application(tls, self._endpoint)
        self._factory = Factory.forProtocol(lambda: _PosterConnection(self))
        self._factory.noisy = False
        self._waiting: deque[Exchange] = deque()
        self._connecting: set[Exchange] = set()
        self._open: set[_PosterConnection] = set()
        self._idle: list[_PosterConnection] = []
        self._deadlines: deque[Exchange] = deque()
        """What is under way, in the order it was begun."""
        self._timer: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None

    @property
    def waiting(self) -> int:
        """Exchanges that found no free connection yet."""
        return len(self._waiting)

    def post(self, exchange: Exchange, urgent: bool = False) -> None:
        """Send this when a connection is free, before all that waits if `urgent`."""
        if self._closed is not None:
            return
        if self._free():
            self._start(exchange)
        elif urgent:
            self._waiting.appendleft(exchange)
        else:
            self._waiting.append(exchange)

    def drop(self) -> None:
        """Forget what waits and what is under way, and cut the connections."""
        dropped = [*self._waiting, *self._connecting]
        self._waiting.clear()
        self._idle.clear()
        connecting, self._connecting = self._connecting, set()
        for exchange in connecting:
            if exchange.connecting is not None:
                exchange.connecting.cancel()
        for connection in self._open:
            under_way = connection.drop()
            if under_way is not None:
                dropped.append(under_way)
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in dropped:
            exchange.dropped()

    async def close(self) -> None:
        """Drop everything; done once every connection is gone.  Nothing can be posted afterwards."""
        self._closed = Deferred()
        self.drop()
        if self._open:
            await self._closed

    def _free(self) -> bool:
        return bool(self._idle) or len(self._open) + len(self._connecting) < self._limit

    def _start(self, exchange: Exchange) -> None:
        body = exchange.body()
        if body is None:
            return
        exchange.sent_at = self._reactor.seconds()
        exchange.over = False
        self._deadlines.append(exchange)
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout, self._look_for_expired)
        message = b"%b%d%b%b" % (self._before_length, len(body), self._after_length, body)
        if self._idle:
            self._idle.pop().send(exchange, message)
            return
        exchange.connection = exchange.connecting = None
        self._connecting.add(exchange)
        exchange.connecting = self._endpoint.connect(self._factory).addCallbacks(
            self._connected, self._not_connected, callbackArgs=(exchange, message), errbackArgs=(exchange,)
        )

    def _connected(self, connection: _PosterConnection, exchange: Exchange, message: bytes) -> None:
        self._connecting.discard(exchange)
        connection.send(exchange, message)

    def _not_connected(self, failure: Failure, exchange: Exchange) -> None:
        # Cancelled ones are no longer in the set, and were told already or are not to be.
        if exchange in self._connecting:
            self._connecting.remove(exchange)
            self._finish(exchange, None, failure.getErrorMessage())

    def _look_for_expired(self) -> None:
        # All have the same time, so the oldest is the first to run out of it.
        self._timer = None
        deadlines = self._deadlines
        while deadlines:
            exchange = deadlines[0]
            left = exchange.sent_at + self._timeout - self._reactor.seconds()
            if not exchange.over and left > 0:
                self._timer = self._reactor.callLater(left, self._look_for_expired)
                return
            deadlines.popleft()
            if not exchange.over:
                self._expired(exchange)

    def _expired(self, exchange: Exchange) -> None:
        if exchange in self._connecting:
            self._connecting.remove(exchange)
            if exchange.connecting is not None:
                exchange.connecting.cancel()
        elif exchange.connection is not None:
            exchange.connection.drop()
        self._finish(exchange, None, f"no answer within {self._timeout:g} s")

    def _finish(self, exchange: Exchange, answer: Answer | None, error: str) -> None:
        exchange.over = True
        deadlines = self._deadlines
        while deadlines and deadlines[0].over:
            deadlines.popleft()
        exchange.finished(answer, error)
        if self._waiting:
            self._next()

    def _next(self) -> None:
        while self._waiting and self._free():
            self._start(self._waiting.popleft())

    def opened(self, connection: _PosterConnection) -> None:
        """A connection was made."""
        self._open.add(connection)

    def answered(self, connection: _PosterConnection, exchange: Exchange, answer: Answer) -> None:
        """A connection brought an answer."""
        if self._persistent and answer.keep:
            self._idle.append(connection)
        else:
            connection.close()
        self._finish(exchange, answer, "")

    def lost(
        self, connection: _PosterConnection, exchange: Exchange | None, answer: Answer | None, error: str
    ) -> None:
        """A connection is gone; `exchange` was under way, `answer` is what its end made whole."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._closed is not None:
            if not self._open:
                self._closed.callback(None)
        elif exchange is not None:
            self._finish(exchange, answer, error)
        else:
            self._next()


def _endpoint(reactor: Any, host: str, port: int, timeout: float) -> IStreamClientEndpoint:
    # Only a name needs the resolver, which works in threads.
    if isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, timeout)
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout)
    return HostnameEndpoint(reactor, host, port, timeout)


class _PosterConnection(Protocol):
    """One connection of a `Poster`: one exchange at a time."""

    transport: ITCPTransport

    def __init__(self, poster: Poster) -> None:
        self._poster = poster
        self._exchange: Exchange | None = None
        self._reader = AnswerReader()
        self._error = ""

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._poster.opened(self)

    def send(self, exchange: Exchange, message: bytes) -> None:
        """Send `message`; what answers it goes to `exchange`."""
        exchange.connection = self
        self._exchange = exchange
        self._reader = AnswerReader()
        self.transport.write(message)

    def drop(self) -> Exchange | None:
        """Cut the connection; the exchange that was under way, which is not told."""
        exchange, self._exchange = self._exchange, None
        self.transport.abortConnection()
        return exchange

    def close(self) -> None:
        """End the connection in an orderly way."""
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Nobody asked.
            self.transport.abortConnection()
            return
        try:
            answer = self._reader.feed(data)
        except HttpError as error:
            self._error = str(error)
            self.transport.abortConnection()
            return
        if answer is not None:
            self._exchange = None
            self._poster.answered(self, exchange, answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        exchange, self._exchange = self._exchange, None
        answer = self._reader.closed() if exchange is not None else None
        words = "the connection was closed" if reason.check(ConnectionDone) else reason.getErrorMessage()
        self._poster.lost(self, exchange, answer, self._error or f"{words} before the answer was whole")


_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}


def response(status: int, body: bytes = b"", before: bytes = b"", after: bytes = b"") -> bytes:
    """A whole HTTP response; other headers, each line with its end, stand before or after Content-Length."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status
    return b"%b%bContent-Length: %d\r\n%b\r\n%b" % (line, before, len(body), after, body)


class Request:
    """
    One request, whole.  `fields` are its headers by lower-case name.

    Whoever handles it calls `respond` or `drop`, once, now or later.
    """

    __slots__ = ("_connection", "body", "fields", "method", "target")

    def __init__(
        self,
        connection: _ServerConnection,
        method: bytes,
        target: bytes,
        fields: dict[bytes, bytes],
        body: bytes,
    ) -> None:
        self._connection = connection
        self.method = method
        self.target = target
        self.fields = fields
        self.body = body

    def respond(self, answer: bytes, close: bool = False) -> None:
        """Write `answer`, which `response` made, and end the connection if `close`."""
        self._connection.respond(answer, close)

    def drop(self) -> None:
        """Cut the connection without a word."""
        self._connection.transport.abortConnection()


class Server:
    """
    Serves HTTP at one endpoint: every request goes to `handle`, one after another on a connection.

    More than `max_connections` at once are closed as soon as they open.  Bodies need a
    Content-Length; chunked ones are answered 411.
    """

    def __init__(self, handle: Callable[[Request], None], max_connections: int | None = None) -> None:
        self.handle = handle
        self._max = max_connections
        self._factory = _ServerFactory(self)
        self._open: set[_ServerConnection] = set()
        self._port: IListeningPort | None = None
        self._closed: Deferred[None] | None = None

    async def listen(self, reactor: Any, endpoint: str, tls: Secure | None = None) -> str:
        """Open `endpoint`, a Twisted endpoint string; `http://HOST:PORT` to reach it.  CannotListenError."""
        factory: IProtocolFactory = self._factory
        if tls is not None:
            factory = over_tls(tls, factory)
        self._port = await serverFromString(reactor, endpoint).listen(factory)
        address = self._port.getHost()
        host = getattr(address, "host", "127.0.0.1")
        if host in ("0.0.0.0", "::"):  # noqa: S104 - everywhere is also here
            host = "127.0.0.1"
        scheme = "http" if tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{getattr(address, 'port', 0)}"

    async def close(self) -> None:
        """Stop listening and end every connection, in mid-request too; done once they are gone."""
        if self._port is not None:
            port, self._port = self._port, None
            await maybeDeferred(port.stopListening)
        self._closed = Deferred()
        for connection in list(self._open):
            connection.end()
        if self._open:
            await self._closed

    def accepts(self) -> bool:
        """Whether one more connection may be opened."""
        return self._max is None or len(self._open) < self._max

    def opened(self, connection: _ServerConnection) -> None:
        """A connection was made."""
        self._open.add(connection)

    def lost(self, connection: _ServerConnection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        if self._closed is not None and not self._open:
            self._closed.callback(None)


class _ServerFactory(Factory):
    noisy = False

    def __init__(self, server: Server) -> None:
        self._server = server

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return _ServerConnection(self._server) if self._server.accepts() else None


class _Head(NamedTuple):
    """A request's first line and headers, as far as they matter."""

    method: bytes
    target: bytes
    fields: dict[bytes, bytes]
    length: int
    keep: bool
    size: int
    """Bytes before the body."""


class _RefusedError(Exception):
    """A request that is answered here, with `status`, and ends its connection."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _read_request_head(data: bytes) -> _Head | None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MAX_HEAD:
            raise _RefusedError(431)
        return None
    lines = data[:end].split(b"\r\n")
    request_line = _REQUEST_LINE.fullmatch(lines[0])
    if request_line is None:
        raise _RefusedError(400)
    try:
        fields = _fields(lines[1:])
        length = _length(fields.get(b"content-length", b"0"))
    except HttpError:
        raise _RefusedError(400) from None
    if b"transfer-encoding" in fields:
        raise _RefusedError(411)
    if length > MAX_BODY:
        raise _RefusedError(413)
    keep = request_line[3] == b"1" and fields.get(b"connection", b"").lower() != b"close"
    return _Head(request_line[1], request_line[2], fields, length, keep, end + 4)


class _ServerConnection(Protocol):
    """One connection of a `Server`; what comes while a request is being answered waits."""

    transport: ITCPTransport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._data = b""
        self._head: _Head | None = None
        self._answering = False
        self._proceeding = False
        self._keep = True
        self._over = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._server.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True
        self._server.lost(self)

    def dataReceived(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        if len(self._data) > MAX_HEAD + MAX_BODY:
            self.transport.abortConnection()
        elif not self._answering and not self._over:
            self._proceed()

    def end(self) -> None:
        """End the connection; an answer that was given is still sent."""
        if self._answering:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def respond(self, answer: bytes, close: bool) -> None:
        """Answer the request that is being handled; nothing if its sender is gone."""
        if self._over:
            return
        self._answering = False
        self.transport.write(answer)
        if close or not self._keep:
            self._over = True
            self.transport.loseConnection()
        elif self._data and not self._proceeding:
            self._proceed()

    def _proceed(self) -> None:
        self._proceeding = True
        while self._data and not self._answering and not self._over:
            try:
                request = self._take()
            except _RefusedError as error:
                self.respond(response(error.status), close=True)
                break
            if request is None:
                break
            self._answering = True
            self._server.handle(request)
        self._proceeding = False

    def _take(self) -> Request | None:
        """The next request if all of it has come."""
        head = self._head
        if head is None:
            head = _read_request_head(self._data)
            if head is None:
                return None
            self._head = head
            if len(self._data) < head.size + head.length and head.fields.get(b"expect") == b"100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        end = head.size + head.length
        if len(self._data) < end:
            return None
        body = self._data[head.size : end]
        self._data = self._data[end:]
        self._head = None
        self._keep = head.keep
        return Request(self, head.method, head.target, head.fields, body)
