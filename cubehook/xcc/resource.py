"""
What gateways call: a Klein resource that serves the path of every cube's application URL.

A cube is found by the path its gateway was given, then by registration id, and by source address
only to choose among cubes that share a path (protocol, section 2).  Every answer is quick: it waits
for the commit of what a notification changed, and for nothing after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Protocol
from urllib.parse import urlsplit

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from cubehook.config import Cube
from cubehook.events import Micros
from cubehook.interfaces import IIntake, StoreFullError
from cubehook.net.ration import Ration
from cubehook.net.routing import PlainResource
from cubehook.net.site import MAX_BODY, LimitedRequest, TimedChannel
from cubehook.text import printable
from cubehook.xcc import codec, soap
from cubehook.xcc import messages as xcc
from cubehook.xcc.knocks import HEADER, Knocks
from cubehook.xcc.tracing import NO_TAPS, Tap, Taps

SOAP_TYPE = b"application/soap+xml"


class CubeRegistrar(Protocol):
    """What the resource needs of a cube's registrar."""

    @property
    def registration_id(self) -> str | None:
        """The id of the current registration."""

    def heard(self, message: xcc.FromGateway, at: Micros) -> codec.Message | None:
        """Take note of a message; the answer to it, None for an empty one."""


class Traffic(Protocol):
    """What the resource tells of its traffic."""

    def answered(self, cube: str, message: str, received_at: Micros) -> None:
        """A message was taken and its answer is about to be written."""

    def rejected(self, reason: str) -> None:
        """A request was refused; `reason` is one of a closed set of words."""


class Gateway:
    """One cube as the listener knows it."""

    def __init__(self, cube: Cube, registrar: CubeRegistrar) -> None:
        self.id = cube.id
        self.registrar = registrar
        self.path = application_path(cube.application_url)
        self.host = urlsplit(cube.provider_url).hostname
        networks = [ip_network(network, strict=False) for network in cube.allow_from]

        @lru_cache(maxsize=1024)
        def allowed(address: str) -> bool:
            try:
                found = ip_address(address.partition("%")[0])
            except ValueError:
                return False
            mapped = getattr(found, "ipv4_mapped", None)
            return any((mapped or found) in network for network in networks)

        self.allows: Callable[[str], bool] = allowed if networks else lambda address: True
        own = _literal(self.host)
        self.knows: Callable[[str], bool] = allowed if networks else lambda address: address == own
        """Whether an address is this cube's as far as its settings tell."""


def _literal(host: str | None) -> str | None:
    """`host` as connections from it show it, None if it is a name."""
    try:
        return str(ip_address(host or ""))
    except ValueError:
        return None


def application_path(url: str) -> bytes:
    """The request path that a gateway uses for this application URL, as bytes on the wire."""
    parts = urlsplit(url)
    path = parts.path or "/"
    return (f"{path}?{parts.query}" if parts.query else path).encode("utf-8")


class XccResource:
    """
    Serves the cubes of `gateways`, which may be replaced at any time by `serve`.

    Requests wait until `release`: the service listens before it has read its state.  `taps` are told what
    the gateways of their cubes say and are answered, `knocks` which of those that are waited for came.
    """

    _log = Logger()

    def __init__(
        self,
        intake: IIntake,
        traffic: Traffic,
        now: Callable[[], Micros],
        taps: Taps = NO_TAPS,
        knocks: Knocks | None = None,
    ) -> None:
        self._intake = intake
        self._traffic = traffic
        self._now = now
        self._taps = taps
        self._knocks = knocks
        self._rations = {
            known: Ration(whom, lambda: now() / 1_000_000)
            for known, whom in ((True, "what gateways sent"), (False, "what strangers sent"))
        }
        self._by_path: dict[bytes, list[Gateway]] = {}
        self._held: list[Deferred[None]] | None = []
        self._app = app = Klein()
        # A path is served to the letter, double slashes and all.
        app.url_map.merge_slashes = False
        app.route("/", branch=True)(self.receive)

    def serve(self, gateways: Iterable[Gateway]) -> None:
        """Serve these cubes, and no others."""
        by_path: dict[bytes, list[Gateway]] = {}
        for gateway in gateways:
            by_path.setdefault(gateway.path, []).append(gateway)
        self._by_path = by_path

    def knows(self, address: str) -> bool:
        """Whether an address is one of a cube that is served, as far as settings tell."""
        return any(gateway.knows(address) for sharing in self._by_path.values() for gateway in sharing)

    def release(self) -> None:
        """Begin to answer, first those who wait."""
        held, self._held = self._held, None
        for waiting in held or ():
            waiting.callback(None)

    def resource(self) -> Resource:
        """The resource to put into a site."""
        return PlainResource(self._app)

    def receive(self, request: LimitedRequest) -> bytes | Deferred[bytes]:
        """Answer a request on whatever path it comes."""
        if self._held is not None:
            waiting: Deferred[None] = Deferred()
            self._held.append(waiting)
            return waiting.addCallback(lambda _: self._heard(request))
        return self._heard(request)

    def _heard(self, request: LimitedRequest) -> bytes | Deferred[bytes]:
        return self._traced(request) if self._taps else self._receive(request)

    def _traced(self, request: LimitedRequest) -> bytes | Deferred[bytes]:
        """Answer a request, and tell of it whoever listens in on its cube."""
        answer: bytes | Deferred[bytes] | None = None
        try:
            answer = self._receive(request)
        finally:
            # What nobody can tell to be of one cube concerns all that have its path.
            cubes = [request.cube] if request.cube else [each.id for each in self._sharing(request)]
            taps = [self._taps[cube] for cube in cubes if cube in self._taps]
            exchanges = [(tap, _tell_request(tap, request)) for tap in taps]
            if answer is None:
                for tap, exchange in exchanges:
                    tap.failed(exchange, "cubehook failed, see cubehook.log")
        if isinstance(answer, bytes):
            _tell_answer(exchanges, request, answer)
            return answer

        def failed(failure: Failure) -> Failure:
            for tap, exchange in exchanges:
                tap.failed(exchange, f"cubehook failed, see cubehook.log: {failure.getErrorMessage()}")
            return failure

        def answered(body: bytes) -> bytes:
            _tell_answer(exchanges, request, body)
            return body

        return answer.addCallbacks(answered, failed)

    def _sharing(self, request: LimitedRequest) -> list[Gateway]:
        return self._by_path.get(request.uri, [])

    def _receive(self, request: LimitedRequest) -> bytes | Deferred[bytes]:
        candidates = self._by_path.get(request.uri)
        if self._knocks and self._is_knock(request):
            return _post_only(request)
        if candidates is None:
            return self._no_such_path(request)
        address = getattr(request.client, "host", "")
        allowed = [gateway for gateway in candidates if gateway.allows(address)]
        if not allowed:
            self._traffic.rejected("address")
            if self._may_tell(request):
                self._log.warn(
                    "Refused {address} at the application URL of cube {cube}: it is not in the cube's "
                    "allow_from",
                    address=printable(address),
                    cube=candidates[0].id,
                )
            return _turned_away(request, 403, "This address may not speak as this cube (allow_from).\n")
        if request.method != b"POST":
            self._traffic.rejected("method")
            return _post_only(request)
        if request.too_large:
            error: soap.SoapError = soap.TooLargeError(MAX_BODY)
            return self._fault(request, allowed[0], error)
        raw = request.content.getvalue()  # type: ignore[union-attr]
        try:
            message = codec.read(raw)
        except soap.SoapError as caught:
            return self._fault(request, allowed[0], caught)
        if not isinstance(message, xcc.FromGateway):
            return self._fault(request, allowed[0], soap.UnsupportedError(codec.name(message)))
        gateway = allowed[0] if len(allowed) == 1 else _choose(allowed, message, address)
        return self._take(request, gateway, message, raw)

    def _is_knock(self, request: LimitedRequest) -> bool:
        if self._knocks is None or request.method != b"GET":
            return False
        nonce = request.getHeader(HEADER)
        if nonce is None:
            return False
        cubes = [gateway.id for gateway in self._sharing(request)]
        return self._knocks.heard(nonce, getattr(request.client, "host", ""), cubes)

    def _take(
        self, request: LimitedRequest, gateway: Gateway, message: xcc.FromGateway, raw: bytes
    ) -> bytes | Deferred[bytes]:
        at = self._now()
        request.cube = cube = gateway.id
        answer = gateway.registrar.heard(message, at)
        if type(message) is xcc.NotifyXccConnectionData:
            return self._intake.connection_data(cube, message, raw, at).addCallbacks(
                self._kept,
                self._not_kept,
                callbackArgs=(cube, request.received_at),
                errbackArgs=(request, cube),
            )
        if type(message) is xcc.SolicitXccConnectionAuthorize:
            self._intake.authorize(cube, message, raw, at)
        elif type(message) is xcc.UnknownMessage:
            self._log.debug(
                "Cube {cube} sent a message this version does not know: {name}",
                cube=cube,
                name=printable(message.name),
            )
            if not message.name.startswith("Notify"):
                return self._fault(request, gateway, soap.UnsupportedError(message.name))
        self._traffic.answered(cube, codec.name(message), request.received_at)
        if answer is None:
            return b""
        request.setHeader(b"Content-Type", SOAP_TYPE)
        return codec.write(answer)

    def _kept(self, _: None, cube: str, received_at: Micros) -> bytes:
        self._traffic.answered(cube, "NotifyXccConnectionData", received_at)
        return b""

    def _not_kept(self, failure: Failure, request: LimitedRequest, cube: str) -> bytes:
        failure.trap(StoreFullError)
        self._traffic.rejected("store_full")
        self._log.error(
            "Cube {cube} was told to try later: the store is away and memory holds all it may", cube=cube
        )
        request.setResponseCode(503)
        request.setHeader(b"Content-Type", SOAP_TYPE)
        return codec.write(soap.service_exception("The application cannot take more events at the moment"))

    def _fault(self, request: LimitedRequest, gateway: Gateway, error: soap.SoapError) -> bytes:
        self._traffic.rejected(error.word)
        if self._may_tell(request):
            self._log.warn(
                "Cube {cube}: refused what {address} sent: {error}",
                cube=gateway.id,
                address=printable(getattr(request.client, "host", "")),
                error=printable(str(error)),
            )
        request.setResponseCode(error.status)
        request.setHeader(b"Content-Type", SOAP_TYPE)
        return codec.write(error.fault())

    def _no_such_path(self, request: LimitedRequest) -> bytes:
        self._traffic.rejected("path")
        if self._may_tell(request):
            self._tell_path(request)
        return _turned_away(request, 404, "No cube has this path in its application_url.\n")

    def _may_tell(self, request: LimitedRequest) -> bool:
        """Whether the log may have another line about it: a stranger's flood hides no gateway's mistakes."""
        address = getattr(request.client, "host", "").removeprefix("::ffff:")
        return self._rations[self.knows(address)].take()

    def _tell_path(self, request: LimitedRequest) -> None:
        path = printable(request.uri.decode("latin-1"))
        near = [
            known for known in self._by_path if known.strip(b"/").lower() == request.uri.strip(b"/").lower()
        ]
        if near:
            self._log.warn(
                "{address} called {path}, which no cube has as application_url; the path of {cube} is "
                "{known}: the router's remote-url must equal it to the letter, trailing slash included",
                address=printable(getattr(request.client, "host", "")),
                path=path,
                cube=self._by_path[near[0]][0].id,
                known=near[0].decode("latin-1"),
            )
        else:
            self._log.info(
                "{address} called {path}, which no cube has as application_url",
                address=printable(getattr(request.client, "host", "")),
                path=path,
            )


def _choose(gateways: list[Gateway], message: xcc.FromGateway, address: str) -> Gateway:
    """The gateway among several with one path: by registration id, else by source address."""
    registration_id = message.msg_header.registration_id
    if registration_id is not None:
        for gateway in gateways:
            if gateway.registrar.registration_id == registration_id:
                return gateway
    for gateway in gateways:
        if gateway.host == address:
            return gateway
    return gateways[0]


def _peer(request: LimitedRequest) -> str:
    client = request.client
    return f"{getattr(client, 'host', '-')}:{getattr(client, 'port', '-')}"


def _tell_request(tap: Tap, request: LimitedRequest) -> int:
    head = [
        b"%b %b %b" % (request.method, request.uri, request.clientproto),
        *_header_lines(request.requestHeaders),
    ]
    body = None if request.too_large else request.content.getvalue()  # type: ignore[union-attr]
    return tap.received(_peer(request), [line.decode("latin-1") for line in head], body, request.received_at)


def _tell_answer(exchanges: list[tuple[Tap, int]], request: LimitedRequest, body: bytes) -> None:
    if request.channel is None:
        for tap, exchange in exchanges:
            tap.failed(exchange, "the gateway closed the connection before it was answered")
        return
    head = [
        b"HTTP/1.1 %d %b" % (request.code, request.code_message),
        *_header_lines(request.responseHeaders),
        b"Content-Length: %d" % len(body),
    ]
    for tap, exchange in exchanges:
        tap.answered(exchange, _peer(request), [line.decode("latin-1") for line in head], body)


def _header_lines(headers: Headers) -> list[bytes]:
    return [b"%b: %b" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]


def _turned_away(request: LimitedRequest, status: int, text: str) -> bytes:
    # Who has no business here keeps no connection either.
    if isinstance(request.channel, TimedChannel):
        request.channel.close()
    return _plain(request, status, text)


def _post_only(request: LimitedRequest) -> bytes:
    request.setHeader(b"Allow", b"POST")
    return _plain(request, 405, "cubehook listens here for a gateway's XCC messages (POST).\n")


def _plain(request: LimitedRequest, status: int, text: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    return text.encode()
