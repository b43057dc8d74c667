"""
What transports over one lasting connection have in common, whichever protocol is spoken over it.

The connection is made when the first delivery needs it, shared by all, and made anew by the next delivery
once it is lost.  A broker that is away is told as a failed delivery: nothing here tries again by itself.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook.events import Micros
from cubehook.interfaces import ITransport, ITransportContext, Outbound, Sent
from cubehook.net.failures import explain_connection
from cubehook.net.journey import address_text
from cubehook.net.tls import UNVERIFIED, TlsOptions
from cubehook.net.urls import masked_url
from cubehook.records import ErrorClass
from cubehook.text import printable
from cubehook.transports.broker_url import BrokerUrl

_OURS = ("webhook-", "cubehook-")

GOODBYE_SECONDS: Final = 2.0
"""How long a broker may take to hear that we leave, before its connection is cut."""

LONGEST_HEADER_NAME: Final = 255
"""Of AMQP, which takes the least."""

LARGEST_FRAME: Final = 1 << 20
"""Bytes of one frame of a broker, which has little to say to those who only send."""

M = TypeVar("M")

Answer: TypeAlias = str | None
"""What is to be known, if anything is, of a message that the broker took: `Sent.note`."""


def check_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is wrong with a webhook's own headers, which are added to those of `messages.labels`."""
    problems = []
    for name in headers:
        if name.lower().startswith(_OURS):
            problems.append((f"headers.{name}", "a name that does not begin with webhook- or cubehook-"))
        elif len(name) > LONGEST_HEADER_NAME:
            problems.append(("headers", f"names of at most {LONGEST_HEADER_NAME} characters"))
    return problems


def check_tls_is_used(url: str, scheme: str, options: TlsOptions) -> list[tuple[str, str]]:
    """Options of TLS stand beside a `url` that does not begin with `scheme`, which alone speaks it."""
    given = any(getattr(options, field.name) != field.default for field in msgspec.structs.fields(TlsOptions))
    if not given or url.partition("://")[0].lower() == scheme:
        return []
    return [("url", f"a URL with {scheme}://, since options of TLS are given")]


class Phase(enum.StrEnum):
    """How far a delivery has come, as words that follow "while"."""

    CONNECTING = "connecting"
    LOGGING_IN = "logging in"
    CONFIRMING = "waiting for the broker"


class BrokerError(Exception):
    """Why a message was not taken, or a connection is of no use; `hold` and `permanent` as in `Sent`."""

    def __init__(
        self, error_class: ErrorClass, words: str, *, hold: float | None = None, permanent: bool = False
    ) -> None:
        super().__init__(words)
        self.error_class = error_class
        self.words = words
        self.hold = hold
        self.permanent = permanent


def _we_left() -> BrokerError:
    # Made anew each time: an exception keeps the frames of all who ever raised it.
    return BrokerError(ErrorClass.CONNECTION_LOST, "cubehook left")


class Session(Protocol, Generic[M]):
    """
    One connection to a broker, for a subclass that speaks its protocol.

    `ready` fires once messages may be sent; it, and all that waits for an answer, fails with `over` once
    the connection is of no use any more.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.over: BrokerError | None = None
        """Why nothing more can be sent."""
        self.peer: str | None = None
        """Address and port of the broker."""
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        """Fires when the connection is closed."""
        self._waiting: set[Deferred[Answer]] = set()
        self._buffer = bytearray()

    # For a subclass

    def began(self) -> None:
        """The connection is there: say hello."""
        raise NotImplementedError

    def length(self, buffer: bytearray) -> int | None:
        """How long the frame is, in bytes, that `buffer` begins with; None if too little of it is there."""
        raise NotImplementedError

    def received(self, frame: bytes) -> None:
        """
        A whole frame has come.

        What this raises, as what `length` does, is taken for the broker's not speaking the protocol.
        """
        raise NotImplementedError

    def ended(self) -> None:
        """The connection is closed: stop timers."""
        raise NotImplementedError

    def send(self, message: M) -> Deferred[Answer]:
        """Send a message; fires when the broker has confirmed it.  Only while it is ready and not `over`."""
        raise NotImplementedError

    def goodbye(self) -> None:
        """Tell the broker that we leave and close the connection; only while it is ready and not `over`."""
        raise NotImplementedError

    def reason_for_wait(self) -> BrokerError | None:
        """Why a confirmation may be long in coming, if the broker told."""
        return None

    def waiter(self) -> Deferred[Answer]:
        """A Deferred for `settle` to fire, that fails once this is `over`."""
        waiter: Deferred[Answer] = Deferred(self._waiting.discard)
        self._waiting.add(waiter)
        return waiter

    def waits(self, waiter: Deferred[Answer]) -> bool:
        """Whether it is neither fired nor cancelled."""
        return waiter in self._waiting

    def settle(self, waiter: Deferred[Answer], outcome: Answer | BrokerError) -> None:
        """Fire a `waiter`, unless it is cancelled."""
        if waiter not in self._waiting:
            return
        self._waiting.discard(waiter)
        if isinstance(outcome, BrokerError):
            waiter.errback(outcome)
        else:
            waiter.callback(outcome)

    def is_ready(self) -> None:
        """Say that messages may be sent."""
        if not self.ready.called:
            self.ready.callback(None)

    def fail(self, error: BrokerError) -> None:
        """Nothing more can be sent: cut the connection, and fail whatever waits.  The first reason stays."""
        self._finish(error)
        if not self.gone.called and self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def close(self, error: BrokerError) -> None:
        """As `fail`, but what is written is sent first, if that does not take long."""
        self._finish(error)
        self.transport.loseConnection()  # type: ignore[union-attr]
        self.leave_within(GOODBYE_SECONDS)

    def leave_within(self, seconds: float) -> None:
        """Cut the connection if it is not closed by then."""
        cut = self.reactor.callLater(seconds, self.fail, _we_left())
        _ = self.gone.addCallback(lambda _: cut.cancel() if cut.active() else None)

    def write(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]

    # IProtocol

    def connectionMade(self) -> None:
        transport: Any = self.transport
        peer = transport.getPeer()
        self.peer = address_text(peer.host, peer.port)
        transport.setTcpNoDelay(True)
        self.began()

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        try:
            while self._buffer and self.over is None:
                length = self.length(self._buffer)
                if length is not None and length > LARGEST_FRAME:
                    raise ValueError(f"a frame of {length} bytes")
                if length is None or length > len(self._buffer):
                    break
                frame = bytes(self._buffer[:length])
                del self._buffer[:length]
                self.received(frame)
        except Exception as error:
            self.fail(
                BrokerError(
                    ErrorClass.OTHER,
                    "what answers there does not speak the broker's protocol as it should "
                    f"({printable(f'{type(error).__name__}: {error}')})",
                )
            )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.over is None:
            self._finish(self._lost(reason))
        self.ended()
        self.gone.callback(None)

    def _lost(self, reason: Failure) -> BrokerError:
        explained = explain_connection(reason, "the broker")
        if explained is not None:
            return BrokerError(*explained)
        certificate = getattr(self.transport, "getPeerCertificate", None)
        if certificate is not None and certificate() is None:
            return BrokerError(ErrorClass.TLS, "the broker closed the connection while negotiating TLS")
        if not self.ready.called:
            return BrokerError(ErrorClass.CONNECTION_LOST, "the connection was lost while logging in")
        return BrokerError(
            ErrorClass.CONNECTION_LOST, "the connection was lost before the broker confirmed the message"
        )

    def _finish(self, error: BrokerError) -> None:
        if self.over is not None:
            return
        self.over = error
        if not self.ready.called:
            self.ready.errback(error)
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            waiter.errback(error)


class Message(msgspec.Struct, Generic[M], frozen=True):
    """What is sent for one event, and how the log of attempts shows it beside the body."""

    content: M
    shown: dict[str, str]


class Speaker(typing.Protocol[M]):
    """What a transport knows of its protocol."""

    def session(self) -> Session[M]:
        """A session for a new connection."""

    def message(self, outbound: Outbound) -> Message[M]:
        """The message for an event."""


class _Opening(Generic[M]):
    """A connection in the making, and the deliveries that wait for it."""

    def __init__(self) -> None:
        self.attempt: Deferred[Session[M]] | None = None
        self.session: Session[M] | None = None
        self.connected_at: float | None = None
        self.waiters: list[Deferred[Session[M]]] = []


class _Flight(Generic[M]):
    """How far one delivery has come."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._sent_at: float | None = None
        self.opening: _Opening[M] | None = None
        self.session: Session[M] | None = None

    def sending(self, session: Session[M]) -> None:
        self.session = session
        self._sent_at = self._clock()

    def _marks(self) -> list[tuple[Phase, float]]:
        marks = []
        if self.opening is not None:
            marks.append((Phase.CONNECTING, self._began))
            if self.opening.connected_at is not None:
                marks.append((Phase.LOGGING_IN, max(self._began, self.opening.connected_at)))
        if self._sent_at is not None:
            marks.append((Phase.CONFIRMING, self._sent_at))
        return marks

    @property
    def phase(self) -> Phase:
        return self._marks()[-1][0]

    def phases(self) -> dict[str, Micros]:
        """How long each took, the last until now."""
        marks = self._marks()
        ends = [at for _, at in marks[1:]] + [self._clock()]
        return {str(phase): int((end - at) * 1_000_000) for (phase, at), end in zip(marks, ends, strict=True)}

    @property
    def peer(self) -> str | None:
        session = self.session or (self.opening.session if self.opening is not None else None)
        return session.peer if session is not None else None


@implementer(ITransport)
class BrokerTransport(Generic[M]):
    """
    Delivers through a `Speaker`'s sessions.

    All deliveries share one connection.  One that is not confirmed in time gives the connection up, since
    nothing tells a slow broker from one that will never answer; what else waits on it fails with it, and
    is tried again on the next.
    """

    def __init__(
        self, context: ITransportContext, url: BrokerUrl, tls: TlsOptions | None, speaker: Speaker[M]
    ) -> None:
        self._context = context
        self._reactor = context.reactor
        self._url = url
        self._shown_url = masked_url(context.webhook.url)
        self._tls = tls
        self._speaker = speaker
        self._endpoint: IStreamClientEndpoint | None = None
        self._note: str | None = None
        self._opening: _Opening[M] | None = None
        self._session: Session[M] | None = None
        self._connected: set[Session[M]] = set()
        """Those whose connection is not closed yet."""

    async def start(self) -> None:
        tls = None if self._tls is None else self._context.tls(self._tls)
        self._note = UNVERIFIED if tls is not None and tls.insecure else None
        self._endpoint = self._context.endpoint(self._url.host, self._url.port, tls)

    async def stop(self) -> None:
        if self._opening is not None and self._opening.attempt is not None:
            self._opening.attempt.cancel()
        session, self._session = self._session, None
        if session is not None and session.over is None:
            session.goodbye()
            session.leave_within(GOODBYE_SECONDS)
        for each in list(self._connected):
            await each.gone

    async def deliver(self, outbound: Outbound) -> Sent:
        message = self._speaker.message(outbound)
        flight: _Flight[M] = _Flight(self._reactor.seconds)
        note: Answer = None
        error: BrokerError | None = None
        sending = Deferred.fromCoroutine(self._send(flight, message.content, outbound.timeout))
        try:
            note = await sending.addTimeout(outbound.timeout, self._reactor)
        except BrokerError as failed:
            error = failed
        except DeferredTimeoutError:
            error = self._timed_out(flight, outbound.timeout)
        return Sent(
            delivered=error is None,
            permanent=error is not None and error.permanent,
            hold=None if error is None else error.hold,
            phases=flight.phases(),
            url=self._shown_url,
            request_headers=message.shown,
            remote_address=flight.peer,
            error_class=None if error is None else error.error_class,
            error=None if error is None else f"{self._url.address}: {error.words}",
            note="; ".join(filter(None, (self._note, note))) or None,
        )

    async def _send(self, flight: _Flight[M], content: M, seconds: float) -> Answer:
        session = self._session
        if session is None or session.over is not None:
            opening = flight.opening = self._opening or _Opening()
            waiter: Deferred[Session[M]] = Deferred(lambda waiter: self._left(opening, waiter))
            opening.waiters.append(waiter)
            if self._opening is None:
                self._opening = opening
                self._open(opening, seconds)
            session = await waiter
            if session.over is not None:
                raise session.over
        flight.sending(session)
        return await session.send(content)

    def _timed_out(self, flight: _Flight[M], timeout: float) -> BrokerError:
        words = f"timed out after {timeout:g} s while {flight.phase}"
        session = flight.session
        if session is None:
            return BrokerError(ErrorClass.TIMEOUT, words)
        told = session.reason_for_wait()
        session.fail(
            BrokerError(
                ErrorClass.CONNECTION_LOST,
                "the connection was given up, since the broker did not confirm a message in time",
            )
        )
        if told is None:
            return BrokerError(ErrorClass.TIMEOUT, words)
        return BrokerError(ErrorClass.TIMEOUT, f"{words}: {told.words}", hold=told.hold)

    # Connecting

    def _open(self, opening: _Opening[M], seconds: float) -> None:
        # It may be over at once.
        opening.attempt = Deferred.fromCoroutine(self._connect(opening))
        # Whoever comes later would keep an attempt alive for ever that is not answered.
        _ = opening.attempt.addTimeout(seconds, self._reactor)
        _ = opening.attempt.addBoth(self._opened, opening, seconds)

    async def _connect(self, opening: _Opening[M]) -> Session[M]:
        if self._endpoint is None:
            raise RuntimeError("the transport was not started")
        session = opening.session = self._speaker.session()
        try:
            await self._endpoint.connect(_One(session))
        except Exception:
            explained = explain_connection(Failure(), "the broker")
            if explained is None:
                raise
            raise BrokerError(*explained) from None
        opening.connected_at = self._reactor.seconds()
        self._connected.add(session)
        _ = session.gone.addCallback(lambda _: self._connected.discard(session))
        try:
            await session.ready
        except BaseException:
            session.fail(_we_left())
            raise
        return session

    def _opened(self, result: Session[M] | Failure, opening: _Opening[M], seconds: float) -> None:
        if self._opening is opening:
            self._opening = None
        waiters, opening.waiters = opening.waiters, []
        if not isinstance(result, Failure):
            self._session = result
            for waiter in waiters:
                waiter.callback(result)
            return
        error: BaseException | None = result.value
        if result.check(DeferredTimeoutError):
            phase = Phase.CONNECTING if opening.connected_at is None else Phase.LOGGING_IN
            error = BrokerError(ErrorClass.TIMEOUT, f"timed out after {seconds:g} s while {phase}")
        assert error is not None
        for waiter in waiters:
            waiter.errback(error)

    def _left(self, opening: _Opening[M], waiter: Deferred[Session[M]]) -> None:
        """A delivery waits no more; nobody connects for nobody."""
        if waiter in opening.waiters:
            opening.waiters.remove(waiter)
            if not opening.waiters and opening.attempt is not None:
                opening.attempt.cancel()


class _One(Factory):
    """Makes the one protocol it was given."""

    noisy = False

    def __init__(self, session: Session[Any]) -> None:
        self._session = session

    def buildProtocol(self, addr: object) -> Session[Any]:
        return self._session
