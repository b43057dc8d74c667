"""
The agent that one webhook sends through: its own connections, egress checked, TLS verified.

Two guards stand before every connection: names are resolved through a filter, so a name that now resolves
to a denied address (rebinding) does not pass, and each literal address is checked again where the socket
is made.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import Request
from twisted.web.client import URI, HTTPConnectionPool
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from cubehook.net.egress import BlockedError, EgressPolicy
from cubehook.net.tls import Tls, verified

Origin: TypeAlias = tuple[bytes, bytes, int]
"""Scheme, host and port."""

IDLE_TIMEOUT = 4
"""Seconds an idle connection is kept: under the 5 s after which many servers close theirs, since a
request that meets the closing is lost."""

LOOKUP_SECONDS = 30.0
"""After this long without an answer, a host's addresses are asked for once more."""

HEADERS = 256 << 10
"""Bytes that a response's headers may take, interim responses included."""

CLOSE_TIMEOUT = 2.0
"""Seconds that `WebhookAgent.close` gives receivers to close their side before connections are cut."""


class Phase(enum.StrEnum):
    """How far an exchange has come, as words that follow "while"."""

    CONNECTING = "connecting"
    HANDSHAKE = "negotiating TLS"
    WAITING = "waiting for the answer"
    READING = "reading the answer's body"


class Target:
    """What a URL says: the origin, the endpoint it is reached by, and what a request's head has of it."""

    __slots__ = ("endpoint", "host", "origin", "path", "url")

    def __init__(self, url: bytes, origin: Origin, endpoint: IStreamClientEndpoint, uri: URI) -> None:
        self.url = url
        self.origin = origin
        self.endpoint = endpoint
        self.path = _origin_form(uri)
        self.host: bytes = uri.netloc.rpartition(b"@")[2]


def _origin_form(uri: URI) -> bytes:
    """`uri.originForm` of any Python: that of 3.13 doubles the slashes that a path begins with two of."""
    path: bytes = uri.path or b"/"
    if uri.params:
        path += b";" + uri.params
    return path + b"?" + uri.query if uri.query else path


class WebhookAgent:
    """
    An agent for one webhook.  Nothing of it is shared with another: no connection, no cookie.

    `timeout` bounds each attempt to connect, in seconds; `concurrency` is how many idle connections
    are kept.  `tls` says how TLS is spoken; `verified()` unless given.
    """

    def __init__(
        self,
        reactor: Any,
        policy: EgressPolicy,
        *,
        timeout: float,
        concurrency: int,
        tls: Tls | None = None,
    ) -> None:
        self.reactor = reactor
        self._policy = policy
        self._timeout = timeout
        self._tls = tls or verified()
        self._endpoints: dict[Origin, IStreamClientEndpoint] = {}
        self._target: Target | None = None
        self._meters: dict[Any, _Meter] = {}
        self._pool = pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = concurrency
        pool.cachedConnectionTimeout = IDLE_TIMEOUT
        pool.retryAutomatically = False

    def exchange(self) -> Exchange:
        """An agent for one request, which remembers how far it came and with whom."""
        return Exchange(self)

    def target(self, url: bytes) -> Target:
        """
        Where `url` leads; SchemeNotSupported if it is neither http nor https.

        The last answer is remembered, since a webhook has but one URL, and an endpoint for each origin.
        """
        target = self._target
        if target is None or target.url != url:
            uri = URI.fromBytes(url)
            origin = (uri.scheme, uri.host, uri.port)
            endpoint = self._endpoints.get(origin)
            if endpoint is None:
                endpoint = self._endpoints[origin] = self._make_endpoint(uri)
            target = self._target = Target(url, origin, endpoint, uri)
        return target

    def connection(self, target: Target) -> Deferred[Any]:
        """A connection to `target`, kept from before or new."""
        return self._pool.getConnection(target.origin, target.endpoint)

    def meter(self, connection: Any) -> _Meter:
        """What counts the bytes of a connection made here."""
        return self._meters[connection]

    async def close(self) -> None:
        """Close every idle connection; one whose receiver does not close its side is cut."""
        closed = self._pool.closeCachedConnections()
        cut = self.reactor.callLater(CLOSE_TIMEOUT, self._cut)
        try:
            await closed
        finally:
            if cut.active():
                cut.cancel()

    def _cut(self) -> None:
        for connection in list(self._meters):
            connection.transport.abortConnection()

    def _make_endpoint(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        endpoint: IStreamClientEndpoint = GuardedEndpoint(
            self.reactor, self._policy, host, uri.port, self._timeout
        )
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.creator(host), endpoint)
        elif uri.scheme != b"http":
            raise SchemeNotSupported(f"Unsupported scheme: {uri.scheme!r}")
        return _MeteredEndpoint(endpoint, self._meters)


@implementer(IAgent)
class Exchange:
    """
    One request and its response over a `WebhookAgent`.

    It is an IAgent, for treq to be put around.  `phase` tells how far it came, `peer` the address
    of the receiver once connected, `encoding` the response's Content-Encoding.

    The response's body comes as sent: treq would decompress gzip without a bound on what comes out
    of it, so `Content-Encoding` is taken off here, for `cubehook.net.body` to do it with one, and
    `Accept-Encoding` is not sent.
    """

    encoding = b""
    _connection: Any = None
    _answered = False

    def __init__(self, agent: WebhookAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        # What Twisted's Agent does, which would take the URL apart anew for each request.
        target = self._agent.target(uri)
        headers = Headers() if headers is None else headers
        headers.removeHeader(b"accept-encoding")
        if not headers.hasHeader(b"host"):
            headers.addRawHeader(b"host", target.host)
        request = Request(method, target.path, headers, bodyProducer, persistent=True)
        answered: Deferred[IResponse] = self._agent.connection(target).addCallback(self._connected, request)
        return answered.addCallback(self._headers_received)

    @property
    def phase(self) -> Phase:
        if self._connection is None:
            return Phase.CONNECTING
        if self._answered:
            return Phase.READING
        certificate = getattr(self._connection.transport, "getPeerCertificate", None)
        if certificate is not None and certificate() is None:
            return Phase.HANDSHAKE
        return Phase.WAITING

    @property
    def peer(self) -> str | None:
        """The receiver's address and port, or None if there was no connection."""
        if self._connection is None:
            return None
        peer = self._connection.transport.getPeer()
        return f"[{peer.host}]:{peer.port}" if ":" in peer.host else f"{peer.host}:{peer.port}"

    def abort(self) -> None:
        """Cut the connection at once, whatever is still on its way."""
        if self._connection is not None:
            self._connection.transport.abortConnection()

    def _connected(self, connection: Any, request: Request) -> Deferred[IResponse]:
        self._meter = self._agent.meter(connection)
        self._meter.expect_headers()
        self._connection = connection
        answered: Deferred[IResponse] = connection.request(request)
        return answered

    def _headers_received(self, response: IResponse) -> IResponse:
        self._answered = True
        self._meter.headers_received()
        if not 100 <= response.code <= 999:
            # Twisted takes any number, also one that would fit into no log.
            self.abort()
            raise BadStatusError
        headers: Headers = response.headers
        encoding = headers.getRawHeaders(b"content-encoding")
        if encoding is not None:
            self.encoding = b", ".join(encoding).strip().lower()
            headers.removeHeader(b"content-encoding")
        return response


@implementer(IStreamClientEndpoint)
class GuardedEndpoint:
    """Connects to `host` over TCP, if and where `policy` lets it; fails with BlockedError otherwise."""

    def __init__(self, reactor: Any, policy: EgressPolicy, host: str, port: int, timeout: float) -> None:
        self._reactor = reactor
        self._policy = policy
        self._host = host
        self._port = port
        self._timeout = timeout
        self._names = SharedLookup(reactor, host)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        guard = _Guard(self._reactor, self._policy, self._names)
        endpoint = HostnameEndpoint(guard, _ANY_NAME, self._port, self._timeout)

        def cancel(connected: Deferred[IProtocol]) -> None:
            # First, since HostnameEndpoint reports a name look-up that was cancelled as an unknown name.
            connected.errback(CancelledError())
            attempt.cancel()

        connected: Deferred[IProtocol] = Deferred(cancel)

        def failed(failure: Failure) -> None:
            if connected.called:
                return
            # Nothing was left to connect to: say why, rather than that the name is unknown.
            if guard.blocked is not None and failure.check(DNSLookupError):
                address = guard.blocked.address
                host = None if address == self._host else self._host
                failure = Failure(BlockedError(guard.blocked.rule, address, host))
            connected.errback(failure)

        attempt = endpoint.connect(protocolFactory).addCallbacks(connected.callback, failed)
        return connected


# HostnameEndpoint is told no other: it refuses names with a `_`, as containers have.  `_Guard` knows better.
_ANY_NAME = "receiver.invalid"


@implementer(IReactorTime, IReactorTCP, IReactorPluggableNameResolver, IHostnameResolver)
class _Guard:
    """
    The reactor as one attempt to connect may see it: time, and TCP to what the policy allows.

    Whatever name it is asked to resolve, it resolves that of `names`.  `blocked` is the last address
    that the policy denied.
    """

    blocked: BlockedError | None = None

    def __init__(self, reactor: Any, policy: EgressPolicy, names: SharedLookup) -> None:
        self._reactor = reactor
        self._policy = policy
        self._names = names

    @property
    def nameResolver(self) -> IHostnameResolver:
        return self

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise TypeError("a guarded reactor's name resolver cannot be replaced")

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        return self._names.ask(_Filter(resolutionReceiver, self._permits), portNumber)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        self._policy.check(host)
        return self._reactor.connectTCP(host, port, factory, timeout, bindAddress)

    def listenTCP(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a guarded reactor does not listen")

    def seconds(self) -> float:
        seconds: float = self._reactor.seconds()
        return seconds

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any) -> IDelayedCall:
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kw)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        calls: Sequence[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls

    def _permits(self, address: str) -> bool:
        try:
            self._policy.check(address)
        except BlockedError as blocked:
            self.blocked = blocked
            return False
        return True


class SharedLookup:
    """
    Resolves `host` for all who ask at about the same time with one question.

    The resolver's threads are few, all webhooks share them, and one is held for as long as a name server
    is silent, whether or not anyone still waits.  So a webhook may hold but one.
    """

    def __init__(self, reactor: Any, host: str) -> None:
        self._reactor = reactor
        self._host = host
        self._lookup: _Lookup | None = None
        self._asked_at = 0.0

    def ask(self, receiver: IResolutionReceiver, port: int) -> IHostResolution:
        """Tell `receiver` the addresses, with `port`, which is always the same."""
        now = self._reactor.seconds()
        lookup = self._lookup
        if lookup is not None and not lookup.over and now < self._asked_at + LOOKUP_SECONDS:
            lookup.wait(receiver)
        else:
            lookup = self._lookup = _Lookup(self._host)
            self._asked_at = now
            lookup.wait(receiver)
            self._reactor.nameResolver.resolveHostName(lookup, self._host, portNumber=port)
        return lookup


@implementer(IHostResolution, IResolutionReceiver)
class _Lookup:
    """One question for the addresses of `name`, and all who wait for the answer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.over = False
        self._addresses: list[IAddress] = []
        self._waiting: list[IResolutionReceiver] = []

    def wait(self, receiver: IResolutionReceiver) -> None:
        self._waiting.append(receiver)
        receiver.resolutionBegan(self)

    def cancel(self) -> None:
        raise NotImplementedError("a look-up cannot be cancelled")

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        self.over = True
        waiting, self._waiting = self._waiting, []
        for receiver in waiting:
            for address in self._addresses:
                receiver.addressResolved(address)
            receiver.resolutionComplete()


@implementer(IResolutionReceiver)
class _Filter:
    """Passes on the addresses that `permits` returns True for."""

    def __init__(self, receiver: IResolutionReceiver, permits: Callable[[str], bool]) -> None:
        self._receiver = receiver
        self._permits = permits

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: Any) -> None:
        if self._permits(address.host):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()


class BadStatusError(Exception):
    """The receiver's answer has a status that is not a number of three digits."""


class OverlongError(Exception):
    """The receiver sent headers without end."""


class _Meter(Protocol):
    """
    Stands before a connection and cuts it when a response's headers take more than `HEADERS` bytes.

    Twisted's client limits the length of a line, but not their number.  Only what is received passes
    through here; the connection has the real transport.
    """

    _left: int | None = None
    _overlong = False

    def __init__(self, connection: Any, open_meters: dict[Any, _Meter]) -> None:
        self.connection = connection
        self._open_meters = open_meters

    def makeConnection(self, transport: Any) -> None:
        self._abort = transport.abortConnection
        self._open_meters[self.connection] = self
        self.connection.makeConnection(transport)

    def expect_headers(self) -> None:
        self._left = HEADERS

    def headers_received(self) -> None:
        self._left = None

    def dataReceived(self, data: bytes) -> None:
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self._overlong = True
                self._abort()
                return
        self.connection.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        del self._open_meters[self.connection]
        self.connection.connectionLost(Failure(OverlongError()) if self._overlong else reason)


class _MeterFactory(Factory):
    noisy = False

    def __init__(self, factory: IProtocolFactory, open_meters: dict[Any, _Meter]) -> None:
        self._factory = factory
        self._open_meters = open_meters

    def buildProtocol(self, addr: Any) -> _Meter:
        return _Meter(self._factory.buildProtocol(addr), self._open_meters)


@implementer(IStreamClientEndpoint)
class _MeteredEndpoint:
    """Puts a meter before each connection that `endpoint` makes, and keeps the open ones in `open_meters`."""

    def __init__(self, endpoint: IStreamClientEndpoint, open_meters: dict[Any, _Meter]) -> None:
        self._endpoint = endpoint
        self._open_meters = open_meters

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        def unwrap(meter: Any) -> IProtocol:
            connection: IProtocol = meter.connection
            return connection

        factory = _MeterFactory(protocolFactory, self._open_meters)
        return self._endpoint.connect(factory).addCallback(unwrap)
