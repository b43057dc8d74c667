"""
One connection, made to see whether and how it can be made, with at most one GET over it.

Nothing is sent that could be taken for more than that: no registration, no event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook import __version__
from cubehook.net.agent import GuardedEndpoint, Route
from cubehook.net.egress import EgressPolicy
from cubehook.net.failures import explain_connection
from cubehook.net.journey import Journey, Phase, address_text
from cubehook.net.proxy import ProxyError
from cubehook.net.tls import Tls, TlsOptions
from cubehook.records import ErrorClass

SECONDS = 5.0
"""How long a visit may take, all in all."""

_HEAD = 32 << 10
_BODY = 2 << 10
_PORTS = {"http": 80, "https": 443}

_DOING = {
    Phase.RESOLVING: "its name was looked up",
    Phase.CONNECTING: "a connection was tried",
    Phase.PROXY: "the proxy was to connect",
    Phase.TLS: "TLS was negotiated",
    Phase.WAITING: "its answer was awaited",
    Phase.READING: "its answer was awaited",
}


class Visit(msgspec.Struct, frozen=True):
    """
    How it went.

    `address` is who was connected to, and `seconds` how long that took; `certificate` is what was shown
    over TLS.  The rest is what was answered to the GET, if one was sent: names of headers in small letters.
    """

    address: str
    seconds: float
    certificate: x509.Certificate | None = None
    status: int | None = None
    headers: Mapping[str, str] = {}
    body: bytes = b""

    @property
    def took(self) -> str:
        """The time that connecting took, for people."""
        return f"{self.seconds * 1000:.0f} ms"


class VisitError(Exception):
    """Why it came to nothing; the text follows the name of who was visited."""

    def __init__(self, words: str, error_class: ErrorClass) -> None:
        super().__init__(words)
        self.error_class = error_class

    def of(self, name: str) -> str:
        """`name`, an address and port perhaps, and what came of visiting it."""
        return f"{name} {str(self).replace(f' ({name})', '')}"


class _Anywhere(EgressPolicy):
    """Lets everything pass: for what is not a webhook's."""

    def check(self, address: str) -> None:
        return


anywhere = _Anywhere()


def way(reactor: Any, url: str, creator: IOpenSSLClientConnectionCreator | None = None) -> Route:
    """
    The way to the host of an http or https `url`, wherever that is.

    TLS as `creator` makes it; unless given, whatever certificate is shown is taken.
    """
    split = urlsplit(url)
    host, port = split.hostname or "", split.port or _PORTS[split.scheme]
    if split.scheme == "http":
        creator = None
    elif creator is None:
        creator = Tls(TlsOptions(insecure=True), Path(), "doctor").creator(host)
    return Route(GuardedEndpoint(reactor, anywhere, host, port, SECONDS), None, creator, None)


def question(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A GET of `url`."""
    split = urlsplit(url)
    path = split.path or "/"
    lines = [
        f"GET {path}?{split.query} HTTP/1.1" if split.query else f"GET {path} HTTP/1.1",
        f"Host: {split.netloc.rpartition('@')[2]}",
        f"User-Agent: cubehook/{__version__}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii", "replace")


async def visit(
    reactor: Any,
    where: Route | IStreamClientEndpoint,
    asked: bytes | None = None,
    *,
    tls: bool = False,
) -> Visit:
    """
    Connect to `where`, and send what is `asked` if anything is.

    An endpoint that speaks `tls` is waited for until that is agreed on.  Raises VisitError.
    """
    journey = Journey(reactor.seconds)
    is_tls = tls or (isinstance(where, Route) and where.is_tls)
    caller = _Caller(asked, is_tls, journey, reactor.seconds)
    began = reactor.seconds()
    going = Deferred.fromCoroutine(_go(where, caller, journey))
    try:
        await going.addTimeout(SECONDS, reactor, _too_late)
    except _LateError:
        words = f"did not answer: {SECONDS:g} s went by while {_DOING[journey.phase]}"
        raise VisitError(_with(words, journey), ErrorClass.TIMEOUT) from None
    except Exception:
        raise _explained(Failure(), journey) from None
    finally:
        caller.hang_up()
    return caller.seen(caller.connected_at - began)


class _LateError(Exception):
    """The time is over."""


class _NotHttpError(Exception):
    """What was answered is not HTTP."""


def _too_late(_: object, timeout: float) -> None:
    raise _LateError


async def _go(where: Route | IStreamClientEndpoint, caller: _Caller, journey: Journey) -> None:
    if isinstance(where, Route):
        await where.connect(_Only(caller), journey)
    else:
        await where.connect(_Only(caller))
    await caller.over


def _explained(failure: Failure, journey: Journey) -> VisitError:
    if failure.check(_NotHttpError):
        return VisitError(_with("answers, but not as a web server does", journey), ErrorClass.HTTP)
    if isinstance(failure.value, ProxyError):
        return VisitError(f"cannot be reached: the proxy {failure.value}", failure.value.error_class)
    found = explain_connection(failure, "it")
    if found is not None:
        error_class, words = found
        if error_class is ErrorClass.DNS:
            words = "its name does not resolve to an address"
        return VisitError(_with(f"cannot be reached: {words}", journey), error_class)
    if failure.check(ConnectionClosed):
        doing = _DOING[journey.phase]
        return VisitError(_with(f"closed the connection while {doing}", journey), ErrorClass.CONNECTION_LOST)
    return VisitError(_with(f"cannot be reached: {failure.getErrorMessage()}", journey), ErrorClass.OTHER)


def _with(words: str, journey: Journey) -> str:
    return f"{words} ({journey.address})" if journey.address is not None else words


class _Only(Factory):
    """Builds the one protocol there is."""

    noisy = False

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller

    def buildProtocol(self, addr: object) -> _Caller:
        return self._caller


@implementer(IHandshakeListener)
class _Caller(Protocol):
    """`over` fires when all that is wanted is known."""

    def __init__(self, asked: bytes | None, tls: bool, journey: Journey, clock: Callable[[], float]) -> None:
        self._asked = asked
        self._tls = tls
        self._journey = journey
        self._clock = clock
        self._received = b""
        self._certificate: x509.Certificate | None = None
        self.connected_at = 0.0
        self.over: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.connected_at = self._clock()
        peer = transport.getPeer()
        self._journey.connected_to = (
            address_text(peer.host, peer.port) if hasattr(peer, "port") else str(getattr(peer, "name", "it"))
        )
        if self._tls:
            self._journey.enter(Phase.TLS)
        else:
            self._begin()

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        shown = transport.getPeerCertificate()
        self._certificate = None if shown is None else shown.to_cryptography()
        self._begin()

    def _begin(self) -> None:
        self._journey.enter(Phase.WAITING)
        if self._asked is None:
            self._end(None)
        else:
            self.transport.write(self._asked)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        if self._asked is None or self.over.called:
            return
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not self._received.startswith(b"HTTP/1."[: len(self._received)]) or len(head) > _HEAD:
            self._end(Failure(_NotHttpError()))
        elif end and len(body) >= min(_BODY, self._length(head)):
            self._end(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end(None if b"\r\n\r\n" in self._received else reason)

    def _end(self, failure: Failure | None) -> None:
        if self.over.called:
            return
        if failure is None:
            self.over.callback(None)
        else:
            self.over.errback(failure)

    def hang_up(self) -> None:
        """Let go of the connection, if there is one."""
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def seen(self, seconds: float) -> Visit:
        """What there is to tell."""
        address = self._journey.connected_to or ""
        if self._asked is None:
            return Visit(address, seconds, self._certificate)
        head, _, body = self._received.partition(b"\r\n\r\n")
        words = head.split(b"\r\n")[0].split(None, 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() and len(words[1]) == 3 else None
        return Visit(address, seconds, self._certificate, status, _headers(head), body[:_BODY])

    def _length(self, head: bytes) -> int:
        length = _headers(head).get("content-length", "0")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 10 else 0


def _headers(head: bytes) -> dict[str, str]:
    found = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip().lower()] = value.strip()
    return found
