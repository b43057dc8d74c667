"""
The listeners' side of HTTP: heads and bodies capped, requests in time, every request in the access log.

Twisted's `Request` takes a body of any size (to a temporary file); here nothing past the limit is kept.
Twisted's own timeout begins again with each byte, so that a client may take for ever over a request;
here a request as a whole has its time.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any, AnyStr

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from cubehook.events import Micros
from cubehook.net.admission import Admission, Place
from cubehook.net.ration import Ration

if TYPE_CHECKING:
    from cubehook.net.server_tls import ServerTls

MAX_BODY = 1 << 20
"""Bytes of a request's body that are accepted (contract, section 6)."""

FREE_BODY = 1 << 14
"""Bytes of a body that are held without asking whether there is room; messages of gateways are smaller."""

MAX_DISCARDED = 16 << 20
"""Bytes over the limit that are read and dropped, so that the sender gets to see its 413."""

MAX_HEAD = 1 << 14
"""Bytes of a request's first line and headers."""

MAX_HEADERS = 100
"""Headers of a request."""

REQUEST_SECONDS = 60
"""From the first byte of a request, or the opening of a connection (TLS included), to its last byte."""

IDLE_SECONDS = 660
"""For which a kept-open connection may be silent: longer than routers keep it, so that they close it."""

CLOSING_SECONDS = 15
"""For which a connection that is being closed may take what was written to it."""

TICK_SECONDS = 5
"""How often connections are looked at, and so how exact these times are."""

CLIENT_LEFT = 499
"""Stands in the access log, as nginx has it, for the status of an answer that nobody waited for."""

_NEVER = 1 << 62
_NO_URI = Request.uri


class TimedChannel(HTTPChannel):
    """
    A connection with a time by which its client must have done what is awaited of it.

    That is to complete a request, to begin the next or, once all is over, to take the answer;
    while a request is being handled it is nothing.
    """

    totalHeadersSize = MAX_LENGTH = MAX_HEAD
    maxHeaders = MAX_HEADERS
    site: AccessSite
    due = 0
    """The site's tick at which the connection ends."""
    place: Place | None = None
    last = False
    """Whether it ends with the next answer."""
    _idle = False
    _closing = False

    def connectionMade(self) -> None:
        if self.place is not None:
            self.place.close = self.transport.abortConnection  # type: ignore[union-attr]
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._await(REQUEST_SECONDS)
        self.site.opened(self)

    def _await(self, seconds: int) -> None:
        self.due = self.site.tick + seconds // TICK_SECONDS + 1

    def dataReceived(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._await(REQUEST_SECONDS)
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def allContentReceived(self) -> None:
        self.due = _NEVER
        if self.place is not None:
            self.place.prove()
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Request) -> None:
        # First, for what was sent ahead begins the next request before `super` returns.
        self._idle = bool(self.persistent)
        self._closing = not self._idle
        self._await(IDLE_SECONDS if self._idle else CLOSING_SECONDS)
        super().requestDone(request)  # type: ignore[no-untyped-call]

    def overdue(self) -> None:
        """End the connection: in peace first, at the next call by force."""
        if self._closing:
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        if not self._idle:
            self.site.log_overdue(self)
        self.close()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        if self.last or self.site.winding_down:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return False
        return bool(super().checkPersistence(request, version))  # type: ignore[no-untyped-call]

    @property
    def busy(self) -> bool:
        """Whether a request is being handled."""
        return bool(self._handlingRequest and self.requests)

    def close(self) -> None:
        """Close once the answer that is being made is written; at once if there is none."""
        self.persistent = False
        # After the last request of a connection there is none, though Twisted still says that it handles one.
        if self.busy:
            request = self.requests[0]
            if not request.startedWriting:
                request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return
        self._closing = True
        self._await(CLOSING_SECONDS)
        self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # There is no request yet that the access log could tell of.
        self.site.log_nonsense(self)
        super()._respondToBadRequestAndDisconnect()  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.place is not None:
            self.place.leave()
        self.site.closed(self)
        if self.site.tls is not None:
            address = getattr(self.getPeer(), "host", "-")
            self.site.tls.lost(address, self.place is None or self.place.known, reason)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class _Refused(Protocol):
    """A connection for which there is no room."""

    def connectionMade(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]


class LimitedRequest(Request):
    """
    A request whose body is held in memory up to `MAX_BODY` bytes and never beyond.

    One for whose body there is no room, since others hold so much, is answered 503 here.

    `too_large` tells a resource that the body was over the limit and is gone; `received_at` is
    when the headers were complete.  `cube` is set by what knows which cube's gateway sent it.
    """

    defaultContentType = None
    cube: str | None = None
    too_large = False
    received_at: Micros = 0
    _no_room = False
    _discarded = 0

    def gotLength(self, length: int | None) -> None:
        self.received_at = self.channel.site.now()  # type: ignore[attr-defined]
        self._held = self.content = BytesIO()
        self.too_large = length is not None and length > MAX_BODY

    def handleContentChunk(self, data: bytes) -> None:
        if not (self.too_large or self._no_room):
            size = self._held.tell() + len(data)
            if size <= FREE_BODY or (size <= MAX_BODY and self._may_hold(size)):
                self._held.write(data)
                return
            self.too_large = size > MAX_BODY
            self._held = self.content = BytesIO()
            self._let_go()
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED:
            self.channel.transport.abortConnection()  # type: ignore[union-attr]

    def _may_hold(self, size: int) -> bool:
        place = self.channel.place  # type: ignore[attr-defined]
        self._no_room = place is not None and not place.hold(size)
        return not self._no_room

    def _let_go(self) -> None:
        # A client that has gone takes its channel away; its place holds nothing any more.
        place = getattr(self.channel, "place", None)
        if place is not None and place.held:
            place.hold(0)

    def process(self) -> None:
        if not self._no_room:
            super().process()  # type: ignore[no-untyped-call]
            return
        self.setResponseCode(503)
        self.setHeader(b"Retry-After", b"10")
        self.finish()

    def getHeader(self, key: AnyStr) -> AnyStr | None:
        """
        The last value of a header; asked for as a text, whatever its bytes are.

        Twisted raises UnicodeDecodeError where they are not UTF-8.
        """
        if isinstance(key, bytes):
            return super().getHeader(key)
        lines = self.requestHeaders.getRawHeaders(key.encode("ascii"))
        return lines[-1].decode("utf-8", "replace") if lines else None

    def connectionLost(self, reason: Failure) -> None:
        channel = self.channel
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        if self.uri is not _NO_URI:
            self.code = CLIENT_LEFT
            channel.site.log(self)  # type: ignore[attr-defined]

    def finish(self) -> None:
        if not self.startedWriting:
            # Otherwise an empty answer, which most of ours are, would go out as a body in no chunks.
            if self.method != b"HEAD" and self.code not in NO_BODY_CODES:
                self.responseHeaders.setRawHeaders(b"Content-Length", [b"0"])
            super().write(b"")  # type: ignore[no-untyped-call]
        self._let_go()
        super().finish()  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        # Klein writes an empty answer before it finishes the request; there is nothing to write.
        if data or self.startedWriting:
            super().write(data)  # type: ignore[no-untyped-call]


class AccessSite(Site):
    """
    A site that hands each finished request to `access`, keeps no sessions and speaks HTTP/1 only.

    `access` is called after the answer was written, or when the client has left without it; it must
    be quick.  Connections end when their
    client is too slow, by one timer for all of them, which runs while there are any.  Those that
    `admission` does not let in are closed at once.
    """

    _log = Logger()
    # The default protocol passes every call through proxies to be able to switch to HTTP/2.
    protocol = TimedChannel  # type: ignore[assignment]
    displayTracebacks = False
    tick = 0
    winding_down = False
    plain = False
    """Whether there is nothing, such as TLS, between this and its port: then who is refused costs less."""
    tls: ServerTls | None = None
    """The TLS that this is spoken over."""

    def __init__(
        self,
        resource: IResource,
        access: Callable[[LimitedRequest], None],
        now: Callable[[], Micros],
        reactor: IReactorTime,
        admission: Admission | None = None,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource,
            requestFactory=LimitedRequest,
            timeout=None,
            parsePOSTFormSubmission=False,
            reactor=reactor,
        )
        self._access = access
        self.now = now
        self._admission = admission
        self._ration = Ration("clients that speak no HTTP, or too slowly", reactor.seconds)
        self._channels: set[TimedChannel] = set()
        self._timer: IDelayedCall | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        place = None
        if self._admission is not None:
            place = self._admission.let_in(addr)
            if place is None:
                return None if self.plain else _Refused()
        channel: TimedChannel = super().buildProtocol(addr)  # type: ignore[no-untyped-call]
        channel.place = place
        return channel

    def log(self, request: LimitedRequest) -> None:  # type: ignore[override]
        self._access(request)

    def log_overdue(self, channel: TimedChannel) -> None:
        """Say that a client did not complete its request."""
        if not self._ration.take():
            return
        self._log.info(
            "{address} took more than {seconds} s over a request, and is cut off",
            address=getattr(channel.getPeer(), "host", "-"),
            seconds=REQUEST_SECONDS,
        )

    def log_nonsense(self, channel: TimedChannel) -> None:
        """Say that a client does not speak HTTP/1."""
        if not self._ration.take():
            return
        self._log.info(
            "{address} sent what is no HTTP/1 request, and is answered 400",
            address=getattr(channel.getPeer(), "host", "-"),
        )

    @property
    def in_use(self) -> bool:
        """Whether a port brings it connections, or any are open."""
        return bool(self.numPorts or self._channels)

    def wind_down(self) -> None:
        """From now on, close each connection with its next answer, which says so; idle ones stay open."""
        self.winding_down = True
        self.let_come_again()

    def let_come_again(self) -> None:
        """
        Close each connection that is open with its next answer, which says so; idle ones stay open.

        Who has just asked over a connection that is closed without one would not know whether that arrived.
        """
        for channel in list(self._channels):
            channel.last = True
            if channel.busy:
                channel.close()

    def close_connections(self) -> None:
        """Close what is open: a connection that waits for its answer after that, others at once."""
        for channel in list(self._channels):
            channel.close()

    def opened(self, channel: TimedChannel) -> None:
        """Watch over a connection."""
        self._channels.add(channel)
        if self._timer is None:
            self._timer = self.reactor.callLater(TICK_SECONDS, self._look)

    def closed(self, channel: TimedChannel) -> None:
        """Forget a connection."""
        self._channels.discard(channel)
        if not self._channels and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self.tick = tick = self.tick + 1
        self._timer = self.reactor.callLater(TICK_SECONDS, self._look)
        for channel in [channel for channel in self._channels if channel.due <= tick]:
            channel.overdue()
