"""
The agent that one webhook sends through: its own connections, egress checked, TLS verified.

Two guards stand before every connection: names are resolved through a filter, so a name that now resolves
to a denied address (rebinding) does not pass, and each literal address is checked again where the socket
is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IHostnameResolver,
    IHostResolution,
    IOpenSSLClientConnectionCreator,
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
from cubehook.net.journey import Journey, Phase, address_text, literal
from cubehook.net.proxy import NoProxy, Proxy, TunnelEndpoint
from cubehook.net.tls import UNVERIFIED, Tls, verified

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


class Target:
    """What a URL says: the way to its origin, and what a request's head has of it."""

    __slots__ = ("host", "origin", "path", "route", "url")

    def __init__(self, url: bytes, origin: Origin, route: Route, uri: URI) -> None:
        self.url = url
        self.origin = origin
        self.route = route
        self.path = _origin_form(uri)
        self.host: bytes = uri.netloc.rpartition(b"@")[2]


class Route:
    """
    The way to one origin: directly or through `proxy`, and over TLS if `creator` makes its connections.

    `note` is what the log of attempts says of all that goes this way.
    """

    def __init__(
        self,
        tcp: GuardedEndpoint | TunnelEndpoint,
        proxy: Proxy | None,
        creator: IOpenSSLClientConnectionCreator | None,
        note: str | None,
    ) -> None:
        self._tcp = tcp
        self._creator = creator
        self.proxy = proxy
        self.note = note

    @property
    def is_tls(self) -> bool:
        return self._creator is not None

    def connect(self, factory: IProtocolFactory, journey: Journey) -> Deferred[IProtocol]:
        """A new connection; what it goes through is told to `journey`."""
        endpoint: IStreamClientEndpoint = _Watched(self._tcp, journey)
        if self._creator is not None:
            endpoint = wrapClientTLS(self._creator, endpoint)
        return endpoint.connect(factory)


@implementer(IStreamClientEndpoint)
class _Watched:
    """`tcp`, for one connection that `journey` is told of."""

    def __init__(self, tcp: GuardedEndpoint | TunnelEndpoint, journey: Journey) -> None:
        self._tcp = tcp
        self._journey = journey

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._tcp.connect(protocolFactory, self._journey)


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
    are kept.  `tls` says how TLS is spoken; `verified()` unless given.  `proxy` is asked to connect to
    every host that `no_proxy` does not name.
    """

    def __init__(
        self,
        reactor: Any,
        policy: EgressPolicy,
        *,
        timeout: float,
        concurrency: int,
        tls: Tls | None = None,
        proxy: str = "",
        no_proxy: Iterable[str] = (),
    ) -> None:
        self.reactor = reactor
        self._policy = policy
        self._timeout = timeout
        self._tls = tls or verified()
        self._no_proxy = NoProxy(no_proxy)
        self._proxy: Proxy | None = None
        if proxy:
            self._proxy = Proxy(proxy)
            self._to_proxy = GuardedEndpoint(reactor, policy, self._proxy.host, self._proxy.port, timeout)
        self._routes: dict[Origin, Route] = {}
        self._target: Target | None = None
        self._meters: dict[Any, _Meter] = {}
        self._pool = pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = concurrency
        pool.cachedConnectionTimeout = IDLE_TIMEOUT
        pool.retryAutomatically = False

    @property
    def shows_certificate(self) -> bool:
        """It has a client certificate to show."""
        return self._tls.shows_certificate

    def exchange(self) -> Exchange:
        """An agent for one request, which remembers how far it came and with whom."""
        return Exchange(self)

    def target(self, url: bytes) -> Target:
        """
        Where `url` leads; SchemeNotSupported if it is neither http nor https.

        The last answer is remembered, since a webhook has but one URL, and a route for each origin.
        """
        target = self._target
        if target is None or target.url != url:
            uri = URI.fromBytes(url)
            origin = (uri.scheme, uri.host, uri.port)
            route = self._routes.get(origin)
            if route is None:
                route = self._routes[origin] = self._make_route(uri)
            target = self._target = Target(url, origin, route, uri)
        return target

    def connection(self, target: Target, exchange: Exchange) -> Deferred[Any]:
        """A connection to `target` for `exchange`: kept from before, or one that it makes."""
        return self._pool.getConnection(target.origin, exchange)

    def connect(
        self, route: Route, protocolFactory: IProtocolFactory, journey: Journey
    ) -> Deferred[IProtocol]:
        """A new connection, with a meter before it."""

        def unwrap(meter: Any) -> IProtocol:
            connection: IProtocol = meter.connection
            return connection

        factory = _MeterFactory(protocolFactory, self._meters, journey, route.is_tls)
        return route.connect(factory, journey).addCallback(unwrap)

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

    def _make_route(self, uri: URI) -> Route:
        host = uri.host.decode("ascii")
        if uri.scheme not in (b"http", b"https"):
            raise SchemeNotSupported(f"Unsupported scheme: {uri.scheme!r}")
        creator = self._tls.creator(host) if uri.scheme == b"https" else None
        notes = [UNVERIFIED] if creator is not None and self._tls.insecure else []
        proxy = self._proxy
        tcp: GuardedEndpoint | TunnelEndpoint
        if proxy is None or self._no_proxy.names(host, uri.port):
            proxy = None
            tcp = GuardedEndpoint(self.reactor, self._policy, host, uri.port, self._timeout)
        else:
            tcp = TunnelEndpoint(
                self.reactor, self._policy, proxy, self._to_proxy, host, uri.port, self._timeout
            )
            notes.insert(0, f"through the proxy {proxy}")
        return Route(tcp, proxy, creator, "; ".join(notes) or None)


@implementer(IAgent, IStreamClientEndpoint)
class Exchange:
    """
    One request and its response over a `WebhookAgent`.

    It is an IAgent, for treq to be put around.  `journey` tells how far it came and whom it talked to,
    `encoding` the response's Content-Encoding.

    The response's body comes as sent: treq would decompress gzip without a bound on what comes out
    of it, so `Content-Encoding` is taken off here, for `cubehook.net.body` to do it with one, and
    `Accept-Encoding` is not sent.
    """

    encoding = b""
    _connection: Any = None
    _route: Route | None = None

    def __init__(self, agent: WebhookAgent) -> None:
        self._agent = agent
        self.journey = Journey(agent.reactor.seconds)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        # What Twisted's Agent does, which would take the URL apart anew for each request.
        target = self._agent.target(uri)
        self._route = target.route
        headers = Headers() if headers is None else headers
        headers.removeHeader(b"accept-encoding")
        if not headers.hasHeader(b"host"):
            headers.addRawHeader(b"host", target.host)
        request = Request(method, target.path, headers, bodyProducer, persistent=True)
        connected = self._agent.connection(target, self)
        answered: Deferred[IResponse] = connected.addCallback(self._connected, request)
        return answered.addCallback(self._headers_received)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """For the pool, which has no connection to use again: make one, and remember how it went."""
        assert self._route is not None
        return self._agent.connect(self._route, protocolFactory, self.journey)

    @property
    def proxy(self) -> Proxy | None:
        """The proxy it goes through."""
        return self._route.proxy if self._route is not None else None

    @property
    def note(self) -> str | None:
        """What is to be said of the way it goes."""
        return self._route.note if self._route is not None else None

    @property
    def asked_for_certificate(self) -> bool:
        """The receiver named authorities whose certificates it takes of clients, and we have none."""
        if self._connection is None or self._agent.shows_certificate:
            return False
        return self._route is not None and self._route.is_tls and self._meter.asked_for_certificate

    def abort(self) -> None:
        """Cut the connection at once, whatever is still on its way."""
        if self._connection is not None:
            self._connection.transport.abortConnection()

    def _connected(self, connection: Any, request: Request) -> Deferred[IResponse]:
        self._meter = meter = self._agent.meter(connection)
        meter.expect_headers()
        self._connection = connection
        journey = self.journey
        journey.connected_to = meter.peer
        if not meter.handshaking:
            journey.enter(Phase.WAITING)
        answered: Deferred[IResponse] = connection.request(request)
        return answered

    def _headers_received(self, response: IResponse) -> IResponse:
        self.journey.enter(Phase.READING)
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

    def connect(
        self, protocolFactory: IProtocolFactory, journey: Journey | None = None
    ) -> Deferred[IProtocol]:
        """As any endpoint; `journey` is told how it goes."""
        guard = _Guard(self._reactor, self._policy, self._names, journey)
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

    def __init__(
        self, reactor: Any, policy: EgressPolicy, names: SharedLookup, journey: Journey | None = None
    ) -> None:
        self._reactor = reactor
        self._policy = policy
        self._names = names
        self._journey = journey

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
        if self._journey is not None and literal(self._names.host) is None:
            self._journey.enter(Phase.RESOLVING)
        return self._names.ask(_Filter(resolutionReceiver, self._permits), portNumber)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        self._policy.check(host)
        if self._journey is not None:
            self._journey.tries(host, port)
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
    Resolves `host` for all who ask at about the same time with one question; an address is its own answer.

    The resolver's threads are few, all webhooks share them, and one is held for as long as a name server
    is silent, whether or not anyone still waits.  So a webhook may hold but one.
    """

    def __init__(self, reactor: Any, host: str) -> None:
        self._reactor = reactor
        self.host = host
        self._lookup: _Lookup | None = None
        self._asked_at = 0.0

    def ask(self, receiver: IResolutionReceiver, port: int) -> IHostResolution:
        """Tell `receiver` the addresses, with `port`, which is always the same."""
        address = literal(self.host)
        if address is not None:
            kind = IPv6Address if ":" in address else IPv4Address
            answer = _Lookup(address)
            answer.wait(receiver)
            answer.addressResolved(kind("TCP", address, port))
            answer.resolutionComplete()
            return answer
        now = self._reactor.seconds()
        lookup = self._lookup
        if lookup is not None and not lookup.over and now < self._asked_at + LOOKUP_SECONDS:
            lookup.wait(receiver)
        else:
            lookup = self._lookup = _Lookup(self.host)
            self._asked_at = now
            lookup.wait(receiver)
            self._reactor.nameResolver.resolveHostName(lookup, self.host, portNumber=port)
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


@implementer(IHandshakeListener)
class _Meter(Protocol):
    """
    Stands before a connection and cuts it when a response's headers take more than `HEADERS` bytes.

    Twisted's client limits the length of a line, but not their number.  Only what is received passes
    through here; the connection has the real transport.  `journey`, that of the exchange which the
    connection is made for, is told of the TLS handshake.
    """

    peer: str | None = None
    """Address and port of the other end."""
    _left: int | None = None
    _overlong = False

    def __init__(
        self, connection: Any, open_meters: dict[Any, _Meter], journey: Journey, is_tls: bool
    ) -> None:
        self.connection = connection
        self.handshaking = is_tls
        self._open_meters = open_meters
        self._journey = journey if is_tls else None

    @property
    def asked_for_certificate(self) -> bool:
        """The other end named authorities whose certificates it takes of clients; only over TLS."""
        return bool(self._transport.getHandle().get_client_ca_list())

    def makeConnection(self, transport: Any) -> None:
        self._transport = transport
        self._abort = transport.abortConnection
        peer = transport.getPeer()
        self.peer = address_text(peer.host, peer.port)
        self._open_meters[self.connection] = self
        if self._journey is not None:
            self._journey.enter(Phase.TLS)
        self.connection.makeConnection(transport)

    def handshakeCompleted(self) -> None:
        self.handshaking = False
        if self._journey is not None:
            self._journey.enter(Phase.WAITING)
            self._journey = None

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

    def __init__(
        self,
        factory: IProtocolFactory,
        open_meters: dict[Any, _Meter],
        journey: Journey,
        is_tls: bool,
    ) -> None:
        self._factory = factory
        self._open_meters = open_meters
        self._journey = journey
        self._is_tls = is_tls

    def buildProtocol(self, addr: Any) -> _Meter:
        connection = self._factory.buildProtocol(addr)
        return _Meter(connection, self._open_meters, self._journey, self._is_tls)
