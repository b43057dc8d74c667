"""
Connections through an HTTP proxy, which is asked to connect (CONNECT, RFC 9110, section 9.3.6).

All of a receiver's traffic goes that way, http as https: the proxy sees addresses and, of https, nothing
else.  It also resolves the receivers' names, so what they resolve to is the proxy's to judge.
"""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook import __version__
from cubehook.net.egress import BlockedError, EgressPolicy, Network
from cubehook.net.journey import Journey, Phase, address_text
from cubehook.records import ErrorClass

HEAD = 16 << 10
"""Bytes that the head of a proxy's answer may have, interim answers included."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?")
_HOST = re.compile(r"[!-~]+")
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


class ProxyError(Exception):
    """The proxy did not connect; the text, which follows its name, says why."""

    def __init__(self, error_class: ErrorClass, words: str) -> None:
        super().__init__(words)
        self.error_class = error_class


class Proxy:
    """An HTTP proxy, of a URL that `config_rules.proxy_url` let pass; its text holds no user and password."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host = parts.hostname
        self.port = 80 if parts.port is None else parts.port
        self.credentials: bytes | None = None
        """The value of Proxy-Authorization."""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self.credentials = b"Basic " + base64.b64encode(pair.encode("utf-8"))

    def __str__(self) -> str:
        return f"http://{address_text(self.host, self.port)}"

    def __repr__(self) -> str:
        return f"<Proxy {self}>"

    def request(self, host: str, port: int) -> bytes:
        """What asks it to connect to `port` of `host`; ValueError for a host that would break out of that."""
        if not _HOST.fullmatch(host):
            raise ValueError("this is not the name or address of a host")
        to = address_text(host, port).encode("ascii")
        lines = [
            b"CONNECT %b HTTP/1.1" % to,
            b"Host: %b" % to,
            b"User-Agent: cubehook/%b" % __version__.encode("ascii"),
        ]
        if self.credentials is not None:
            lines.append(b"Proxy-Authorization: " + self.credentials)
        return b"\r\n".join([*lines, b"", b""])


class NoProxy:
    """
    Whom to reach without a proxy: the entries of `no_proxy`, which `config_rules.no_proxy` let pass.

    `*` is everyone; an address or a network is each host that is written as an address in it; `example.com`,
    `.example.com` and `*.example.com` are all the same: that host and those under it.  A `:port` limits an
    entry to that port.  Names are not resolved for this.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._everyone = False
        self._networks: list[tuple[Network, int | None]] = []
        self._names: list[tuple[str, int | None]] = []
        for entry in entries:
            self._add(entry.strip().lower())

    def _add(self, entry: str) -> None:
        if entry == "*":
            self._everyone = True
            return
        host, port = _port_of(entry)
        try:
            self._networks.append((ip_network(host), port))
        except ValueError:
            self._names.append((host.removeprefix("*").strip("."), port))

    def names(self, host: str, port: int) -> bool:
        """Whether `port` of `host` is to be reached without a proxy."""
        if self._everyone:
            return True
        address = written_address(host)
        if address is not None:
            return any(
                only in (None, port) and address.version == network.version and address in network
                for network, only in self._networks
            )
        name = host.lower().strip(".")
        return any(
            only in (None, port) and (name == domain or name.endswith("." + domain))
            for domain, only in self._names
        )


def _port_of(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, int(rest[1:]) if rest else None
    host, colon, port = entry.partition(":")
    if colon and ":" not in port:
        return host, int(port)
    return entry, None


def written_address(host: str) -> Any:
    """
    The address that `host` stands for without being resolved, None if it is a name.

    Also `127.1`, `0x7f000001` and `2130706433`, which resolvers take for addresses.
    """
    try:
        address = ip_address(host.removesuffix("."))
    except ValueError:
        try:
            return ip_address(socket.inet_aton(host.removesuffix(".")))
        except OSError:
            return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def check_target(policy: EgressPolicy, host: str) -> None:
    """
    Raise BlockedError if `policy` lets `host` not be asked of a proxy: a denied address, or a name for the
    proxy's own machine where loopback is denied.
    """
    address = written_address(host)
    if address is not None:
        policy.check(str(address))
        return
    name = host.lower().strip(".")
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        try:
            policy.check("127.0.0.1")
        except BlockedError as blocked:
            raise BlockedError(blocked.rule, blocked.address, host) from None


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """
    Connects to `port` of `host` through `proxy`, which `to_proxy` connects to.

    Fails with BlockedError for a target that `policy` denies, ProxyError if the proxy does not connect, also
    within `timeout` seconds, or with what `to_proxy` fails with.
    """

    def __init__(
        self,
        reactor: Any,
        policy: EgressPolicy,
        proxy: Proxy,
        to_proxy: Any,
        host: str,
        port: int,
        timeout: float,
    ) -> None:
        self._reactor = reactor
        self._policy = policy
        self._proxy = proxy
        self._to_proxy = to_proxy
        self._host = host
        self._port = port
        self._timeout = timeout

    def connect(
        self, protocolFactory: IProtocolFactory, journey: Journey | None = None
    ) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory, journey))

    async def _connect(self, factory: IProtocolFactory, journey: Journey | None) -> IProtocol:
        check_target(self._policy, self._host)
        tunnel: _Tunnel = await self._to_proxy.connect(_TunnelFactory(factory), journey)
        if journey is not None:
            journey.enter(Phase.PROXY)
            journey.connected_to = tunnel.peer
        asked = tunnel.ask(self._proxy.request(self._host, self._port))
        late = self._reactor.callLater(self._timeout, tunnel.give_up, self._timeout)
        try:
            await asked
        finally:
            if late.active():
                late.cancel()
        return tunnel.begin()


class _TunnelFactory(Factory):
    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory

    def buildProtocol(self, addr: IAddress | None) -> _Tunnel:
        return _Tunnel(self._factory)


class _Tunnel(Protocol):
    """
    A connection to a proxy; once that is connected to the receiver, the connection of a protocol that
    `factory` builds.
    """

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self._received = b""
        self._passed_over = 0
        self._asked: Deferred[None] | None = None
        self._inner: Any = None

    @property
    def peer(self) -> str:
        """Address and port of the proxy."""
        transport: Any = self.transport
        peer = transport.getPeer()
        return address_text(peer.host, peer.port)

    def ask(self, request: bytes) -> Deferred[None]:
        """Fires when the proxy has connected; cancelling it ends the connection."""
        self._asked = Deferred(lambda _: self._fail(CancelledError()))
        transport: Any = self.transport
        transport.write(request)
        return self._asked

    def begin(self) -> IProtocol:
        """The protocol whose connection this is from now on."""
        transport: Any = self.transport
        address: IAddress = transport.getPeer()
        inner = self._factory.buildProtocol(address)
        assert inner is not None
        self._inner = inner
        inner.makeConnection(transport)
        early, self._received = self._received, b""
        if early:
            self._inner.dataReceived(early)
        return inner

    def give_up(self, seconds: float) -> None:
        self._fail(ProxyError(ErrorClass.TIMEOUT, f"did not connect within {seconds:g} s"))

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._received += data
        while self._asked is not None:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if len(head) > HEAD:
                self._fail(ProxyError(ErrorClass.HTTP, "answered with headers without end"))
            elif end:
                self._answered(head, rest)
                continue
            elif not head.startswith(b"HTTP/1."[: len(head)]):
                self._fail(ProxyError(ErrorClass.HTTP, "answered what is not HTTP"))
            return

    def _answered(self, head: bytes, rest: bytes) -> None:
        found = _STATUS_LINE.fullmatch(head.partition(b"\r\n")[0])
        if found is None:
            self._fail(ProxyError(ErrorClass.HTTP, "answered what is not HTTP"))
            return
        status = int(found[1])
        if 100 <= status < 200:
            self._received = rest
            self._passed_over += len(head)
            if self._passed_over > HEAD:
                self._fail(ProxyError(ErrorClass.HTTP, "answered with headers without end"))
        elif 200 <= status < 300:
            self._received = rest
            asked, self._asked = self._asked, None
            assert asked is not None
            asked.callback(None)
        else:
            self._fail(_refusal(status))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        else:
            self._fail(ProxyError(ErrorClass.CONNECTION_LOST, "closed the connection instead of an answer"))

    def _fail(self, error: Exception) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            transport: Any = self.transport
            transport.abortConnection()
            asked.errback(error)


_WORDS = {
    401: "it asks for a user and password",
    403: "its rules forbid it",
    407: "it asks for a user and password, or does not accept those of its URL",
    502: "it could not connect to the receiver",
    503: "it could not connect to the receiver",
    504: "it could not connect to the receiver in time",
}


def _refusal(status: int) -> ProxyError:
    try:
        answered = f"answered {status} {HTTPStatus(status).phrase}"
    except ValueError:
        answered = f"answered {status}"
    words = _WORDS.get(status)
    error_class = ErrorClass.TIMEOUT if status == 504 else ErrorClass.CONNECTION_REFUSED
    return ProxyError(error_class, f"{answered}: {words}" if words is not None else answered)
