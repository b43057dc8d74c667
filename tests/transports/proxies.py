"""A small HTTP proxy that connects (CONNECT), and can be told to misbehave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from cubehook.net.agent import IDLE_TIMEOUT
from tests.transports.support import Request, reactor

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

Misbehave = Callable[["Client"], None]


class Client(Protocol):
    """The proxy's end of one client's connection."""

    def __init__(self, proxy: ConnectProxy) -> None:
        self._proxy = proxy
        self._buffer = b""
        self._far: Any = None
        self.lost: Deferred[None] = Deferred()
        self.is_lost = False

    def connectionMade(self) -> None:
        self._proxy.clients.append(self)

    def dataReceived(self, data: bytes) -> None:
        if self._far is not None:
            self._far.transport.write(data)
            return
        self._buffer += data
        head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if not end:
            self._buffer = head
            return
        request = Request(head, b"")
        self._proxy.requests.append(request)
        if self._proxy.misbehave is not None:
            self._proxy.misbehave(self)
        elif self._proxy.credentials is not None and (
            request.headers.get("proxy-authorization") != self._proxy.credentials
        ):
            self.answer(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        else:
            self._join(request.line.split(" ")[1])

    def _join(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        address = self._proxy.names.get(host, host)
        far = TCP4ClientEndpoint(reactor, address, int(port)).connect(_FarFactory(self))
        _ = far.addCallbacks(self._joined, lambda _: self.answer(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"))

    def _joined(self, far: Any) -> None:
        self._far = far
        self.answer(self._proxy.established)

    def answer(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def close(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        if self._far is not None:
            self._far.transport.loseConnection()
        self.lost.callback(None)

    async def gone(self) -> None:
        await self.lost.addTimeout(IDLE_TIMEOUT / 4, reactor)


class _Far(Protocol):
    """The proxy's connection to a receiver."""

    def __init__(self, near: Client) -> None:
        self._near = near

    def dataReceived(self, data: bytes) -> None:
        self._near.answer(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._near.close()


class _FarFactory(Factory):
    noisy = False

    def __init__(self, near: Client) -> None:
        self._near = near

    def buildProtocol(self, addr: object) -> _Far:
        return _Far(self._near)


class ConnectProxy(Factory):
    """
    Listens on a free port of `interface`.

    It resolves as `names` tells; asks for `credentials`, the value of Proxy-Authorization, if there are any.
    """

    noisy = False

    def __init__(
        self,
        test: TestCase,
        misbehave: Misbehave | None = None,
        credentials: str | None = None,
        interface: str = "127.0.0.1",
        names: dict[str, str] | None = None,
    ) -> None:
        self.misbehave = misbehave
        self.credentials = credentials
        self.names = names or {}
        self.established = ESTABLISHED
        self.requests: list[Request] = []
        self.clients: list[Client] = []
        self._port = reactor.listenTCP(0, self, interface=interface)
        self.address = f"{interface}:{self._port.getHost().port}"
        self.url = f"http://{self.address}"
        test.addCleanup(lambda: Deferred.fromCoroutine(self._stop()))

    def buildProtocol(self, addr: object) -> Client:
        return Client(self)

    @property
    def asked_for(self) -> list[str]:
        """What it was asked to connect to."""
        return [request.line for request in self.requests]

    async def _stop(self) -> None:
        await self._port.stopListening()
        for client in self.clients:
            if not client.is_lost:
                transport: Any = client.transport
                transport.abortConnection()
                await client.gone()
