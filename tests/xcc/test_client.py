"""The client against real servers on loopback, most of them misbehaving."""

from __future__ import annotations

import datetime
import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.config import Cube
from cubehook.xcc import client as client_module
from cubehook.xcc import codec, soap
from cubehook.xcc import messages as xcc
from cubehook.xcc.client import (
    CONNECTION_EVENTS,
    AnswerTimeoutError,
    ClosedError,
    FaultError,
    GatewayClient,
    GatewayError,
    GatewayTrust,
    NotXccError,
    StatusError,
    TlsError,
    UnreachableError,
    gateway_agent,
)
from cubehook.xcc.tracing import Tap
from tests.xcc.tap import FakeTap

GRANT = codec.write(
    xcc.ResponseXccRegister(
        msg_header=xcc.MsgHeader("D388222:1", "4CA5E4:XCC:cubehook:4"), provider_status="IN_SERVICE"
    )
)


def http(
    body: bytes,
    status: str = "200 OK",
    kind: str = "application/soap+xml",
    headers: str = "",
    length: bool = True,
) -> bytes:
    """An answer as a router writes it."""
    text = f"HTTP/1.1 {status}\r\nServer: cisco-IOS\r\nConnection: close\r\n{headers}"
    if length:
        text += f"Content-Length: {len(body)}\r\n"
    return f"{text}Content-Type: {kind}\r\n\r\n".encode() + body


class Server(Protocol):
    """Collects a request and lets the factory's behaviour act on it."""

    factory: Gateway

    def connectionMade(self) -> None:
        self.data = b""
        self.done = False
        self.factory.open += 1
        self.factory.most_open = max(self.factory.most_open, self.factory.open)
        self.factory.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if found and len(body) >= length and not self.done:
            self.done = True
            self.factory.requests.append(self.data)
            self.factory.behaviours[min(len(self.factory.requests), len(self.factory.behaviours)) - 1](self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.open -= 1
        if not self.factory.open and self.factory.all_closed is not None:
            self.factory.all_closed.callback(None)
            self.factory.all_closed = None


Behaviour = Callable[[Server], None]


class Gateway(Factory):
    """Listens; the n-th request meets the n-th behaviour, later ones the last."""

    noisy = False

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = behaviours
        self.requests: list[bytes] = []
        self.connections: list[Server] = []
        self.open = self.most_open = 0
        self.all_closed: Deferred[None] | None = None

    def buildProtocol(self, addr: object) -> Server:  # type: ignore[override]
        server = Server()
        server.factory = self
        return server

    async def closed(self) -> None:
        if self.open:
            self.all_closed = Deferred()
            await self.all_closed


def answer(data: bytes) -> Behaviour:
    def act(server: Server) -> None:
        assert server.transport is not None
        server.transport.write(data)
        server.transport.loseConnection()

    return act


def close(server: Server) -> None:
    assert server.transport is not None
    server.transport.loseConnection()


def reset(server: Server) -> None:
    server.transport.abortConnection()  # type: ignore[union-attr]


def hang(server: Server) -> None:
    pass


class ClientTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.taps: dict[str, Tap] = {}

    def serve(self, *behaviours: Behaviour, timeout: float = 5.0, tls: Any = None) -> GatewayClient:
        self.gateway = Gateway(*behaviours)
        if tls is None:
            port: IListeningPort = self.reactor.listenTCP(0, self.gateway, interface="127.0.0.1")
        else:
            port = self.reactor.listenSSL(0, self.gateway, tls, interface="127.0.0.1")
        self.addCleanup(self.over, port)
        scheme = "http" if tls is None else "https"
        host: Any = port.getHost()
        return self.client(f"{scheme}://127.0.0.1:{host.port}/cisco_xcc", timeout)

    async def over(self, port: IListeningPort) -> None:
        await port.stopListening()  # type: ignore[misc]
        for connection in self.gateway.connections:
            if connection.transport is not None:
                connection.transport.loseConnection()
        await self.gateway.closed()

    def client(self, url: str, timeout: float = 5.0) -> GatewayClient:
        self.cube = Cube(id="hq", provider_url=url, application_url="http://192.0.2.20:8090/xcc/hq")
        agent = gateway_agent(self.reactor, GatewayTrust(self.cube, Path()))
        return GatewayClient(self.cube, agent, self.reactor, timeout, self.taps)

    async def fails(
        self, client: GatewayClient, kind: type[GatewayError], result: str, *words: str
    ) -> GatewayError:
        try:
            await client.register()
        except GatewayError as error:
            self.assertIs(type(error), kind, error)
            self.assertEqual(error.result, result)
            for word in words:
                self.assertIn(word, str(error))
            return error
        raise self.failureException("no error was raised")

    async def test_register(self) -> None:
        client = self.serve(answer(http(GRANT)))
        granted = await client.register()
        self.assertEqual(granted.msg_header.registration_id, "4CA5E4:XCC:cubehook:4")
        self.assertEqual(granted.provider_status, "IN_SERVICE")
        head, _, body = self.gateway.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"POST /cisco_xcc HTTP/1.1")
        self.assertIn(b"Content-Type: application/soap+xml", lines)
        self.assertIn(b"Connection: close", lines)
        request = codec.read(body)
        assert isinstance(request, xcc.RequestXccRegister)
        self.assertEqual(request.application_data, xcc.ApplicationData(self.cube.application_url, "cubehook"))
        self.assertEqual(request.provider_data, xcc.ProviderData(self.cube.provider_url))
        self.assertEqual(request.connection_events_filter, CONNECTION_EVENTS)
        self.assertIsNone(request.media_events_filter)
        self.assertEqual(request.blocking_timeout_handle, "CONTINUE_PROCESSING")
        self.assertIsNotNone(request.msg_header.transaction_id)
        self.assertIsNone(request.msg_header.registration_id)

    def test_never_subscribes_to_what_makes_calls_wait(self) -> None:
        self.assertNotIn("AUTHORIZE_CALL", CONNECTION_EVENTS)
        self.assertNotIn("ADDRESS_ANALYZE", CONNECTION_EVENTS)
        self.assertEqual(len(set(CONNECTION_EVENTS)), 9)

    async def test_unregister(self) -> None:
        answered = codec.write(xcc.ResponseXccUnRegister(xcc.MsgHeader("1:1", "4CA5E4:XCC:cubehook:4")))
        client = self.serve(answer(http(answered)))
        await client.unregister("4CA5E4:XCC:cubehook:4")
        request = codec.read(self.gateway.requests[0].partition(b"\r\n\r\n")[2])
        assert isinstance(request, xcc.RequestXccUnRegister)
        self.assertEqual(request.msg_header.registration_id, "4CA5E4:XCC:cubehook:4")

    async def test_trace(self) -> None:
        client = self.serve(answer(http(GRANT, headers="X-Router: 1\r\n")))
        self.taps["hq"] = tap = FakeTap()
        await client.register()
        request = self.gateway.requests[0]
        (way, peer, head, body), (answered, exchange, _, heard_head, heard) = tap.told
        self.assertEqual((way, answered, exchange, heard), ("sent", "heard", 7, GRANT))
        self.assertEqual(f"http://{peer}/cisco_xcc", self.cube.provider_url)
        # What is told is what went over the wire, but for the order of the headers.
        sent_head, _, sent_body = request.partition(b"\r\n\r\n")
        first, *headers = sent_head.decode().split("\r\n")
        self.assertEqual((head[0], body), (first, sent_body))
        self.assertEqual(set(head[1:]), set(headers))
        self.assertEqual(heard_head[0], "HTTP/1.1 200 OK")
        self.assertIn("X-Router: 1", heard_head)
        del self.taps["hq"]
        await client.register()
        self.assertEqual(len(tap.told), 2)

    async def test_trace_of_no_answer(self) -> None:
        client = self.serve(close)
        self.taps["hq"] = tap = FakeTap()
        await self.fails(client, ClosedError, "connection_lost")
        # It is sent once more.
        self.assertEqual([each[0] for each in tap.told], ["sent", "failed", "sent", "failed"])
        self.assertIn("closed", str(tap.told[1][2]))

    async def test_trace_of_what_is_too_late(self) -> None:
        client = self.serve(hang, timeout=0.1)
        self.taps["hq"] = tap = FakeTap()
        await self.fails(client, AnswerTimeoutError, "timeout")
        self.assertEqual(tap.told[1:], [("failed", 7, "it was no longer waited for")])

    async def test_transaction_ids_differ(self) -> None:
        client = self.serve(answer(http(GRANT)))
        await client.register()
        await client.register()
        read = [codec.read(request.partition(b"\r\n\r\n")[2]) for request in self.gateway.requests]
        self.assertEqual(len({message.msg_header.transaction_id for message in read}), 2)  # type: ignore[union-attr]

    async def test_one_connection_at_a_time(self) -> None:
        client = self.serve(answer(http(GRANT)))
        asked = [Deferred.fromCoroutine(client.register()) for _ in range(4)]
        for one in asked:
            await one
        self.assertEqual((len(self.gateway.connections), self.gateway.most_open), (4, 1))

    async def test_no_cookies(self) -> None:
        client = self.serve(answer(http(GRANT, headers="Set-Cookie: login=1; Path=/\r\n")))
        await client.register()
        await client.register()
        self.assertNotIn(b"cookie", self.gateway.requests[1].lower())

    async def test_end_of_body_told_by_closing(self) -> None:
        client = self.serve(answer(http(GRANT, length=False)))
        self.assertEqual((await client.register()).provider_status, "IN_SERVICE")

    async def test_closed_once_is_retried(self) -> None:
        for rude in (close, reset):
            client = self.serve(rude, answer(http(GRANT)))
            await client.register()
            self.assertEqual(len(self.gateway.requests), 2)

    async def test_closed_twice(self) -> None:
        for rude in (close, reset, answer(b"HTTP/1.1 200 OK\r\nContent-Le")):
            client = self.serve(rude)
            await self.fails(client, ClosedError, "connection_lost", "closed", "ip http max-connections")
            self.assertEqual(len(self.gateway.requests), 2)

    async def test_closed_within_the_body(self) -> None:
        client = self.serve(answer(http(GRANT)[:-40]))
        await self.fails(client, ClosedError, "connection_lost")

    async def test_nothing_listens(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            client = self.client(f"http://127.0.0.1:{taken.getsockname()[1]}/cisco_xcc")
            await self.fails(client, UnreachableError, "connection_refused", "ip http server", "uc wsapi")

    async def test_unknown_name(self) -> None:
        client = self.client("http://gateway.invalid:8090/cisco_xcc")
        await self.fails(client, UnreachableError, "dns", "gateway.invalid")

    async def test_hangs_before_the_answer(self) -> None:
        client = self.serve(hang, timeout=0.2)
        await self.fails(client, AnswerTimeoutError, "timeout", "0.2 s")
        await self.gateway.closed()

    async def test_hangs_within_the_body(self) -> None:
        client = self.serve(lambda server: server.transport.write(http(GRANT)[:-40]), timeout=0.2)  # type: ignore[union-attr]
        await self.fails(client, AnswerTimeoutError, "timeout")
        await self.gateway.closed()

    async def test_the_next_request_follows_one_that_hung(self) -> None:
        client = self.serve(hang, answer(http(GRANT)), timeout=0.2)
        first = Deferred.fromCoroutine(client.register())
        second = Deferred.fromCoroutine(client.register())
        await self.assertFailure(first, AnswerTimeoutError)
        await second

    async def test_cancelled(self) -> None:
        for reply in (hang, lambda server: server.transport.write(http(GRANT)[:-40])):
            started: Deferred[None] = Deferred()

            def behave(server: Server, reply: Behaviour = reply, started: Deferred[None] = started) -> None:
                reply(server)
                started.callback(None)

            client = self.serve(behave)
            asked = Deferred.fromCoroutine(client.register())
            await started
            asked.cancel()
            await self.assertFailure(asked, CancelledError)
            await self.gateway.closed()
            self.assertEqual(len(self.gateway.requests), 1)

    async def test_redirect_is_named_and_not_followed(self) -> None:
        for status in ("302 Found", "301 Moved Permanently", "307 Temporary Redirect"):
            client = self.serve(
                answer(http(b"", status, headers="Location: https://192.0.2.1/login\x1b[2J\r\n")),
                answer(http(GRANT)),
            )
            error = await self.fails(client, StatusError, "http", "redirect", "https://192.0.2.1/login")
            self.assertNotIn("\x1b", str(error))
            self.assertEqual(len(self.gateway.requests), 1)

    async def test_statuses(self) -> None:
        for status, word in (
            ("404 Not Found", "ip http active-session-modules"),
            ("401 Unauthorized", "login"),
            ("403 Forbidden", "ip http access-class"),
            ("503 Service Unavailable", "503"),
        ):
            client = self.serve(answer(http(b"<html>no</html>", status, "text/html")))
            await self.fails(client, StatusError, "http", word)

    async def test_a_grant_with_a_bad_status_is_none(self) -> None:
        client = self.serve(answer(http(GRANT, "404 Not Found")))
        await self.fails(client, StatusError, "http")

    async def test_web_page(self) -> None:
        for page in (b"<!DOCTYPE html><html><body>Log in</body></html>", b"\n <HTML><BODY>x</BODY></HTML>"):
            client = self.serve(answer(http(page, kind="text/html")))
            await self.fails(client, NotXccError, "not_soap", "web page", "login")

    async def test_empty(self) -> None:
        client = self.serve(answer(http(b"")))
        await self.fails(client, NotXccError, "not_soap", "nothing")

    async def test_garbage(self) -> None:
        for body in (b"\x00\xff\x1b[2J garbage", b"<a><b></a>", b"{}", GRANT[:-5]):
            client = self.serve(answer(http(body)))
            error = await self.fails(client, NotXccError, "not_soap")
            self.assertNotIn("\x1b", str(error))

    async def test_not_http(self) -> None:
        for line in (b"SSH-2.0-Cisco-1.25\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"):
            client = self.serve(answer(line))
            await self.fails(client, NotXccError, "not_soap", "provider_url")

    async def test_too_large(self) -> None:
        client = self.serve(answer(http(b" " * ((1 << 20) + 1))))
        await self.fails(client, NotXccError, "not_soap", "1 MiB")
        await self.gateway.closed()

    async def test_another_message(self) -> None:
        answered = codec.write(xcc.ResponseXccUnRegister(xcc.MsgHeader("1:1", "x")))
        client = self.serve(answer(http(answered)))
        await self.fails(client, NotXccError, "not_soap", "ResponseXccUnRegister")

    async def test_a_grant_without_an_id(self) -> None:
        answered = codec.write(xcc.ResponseXccRegister(msg_header=xcc.MsgHeader("1:1")))
        client = self.serve(answer(http(answered)))
        await self.fails(client, NotXccError, "not_soap", "registrationID")

    async def test_fault(self) -> None:
        refusal = codec.write(soap.service_exception("The URL is\u2028not configured"))
        for status in ("200 OK", "500 Internal Server Error", "400 Bad Request"):
            client = self.serve(answer(http(refusal, status)))
            error = await self.fails(
                client,
                FaultError,
                "rejected",
                "\\x2028not configured",
                "http://192.0.2.20:8090/xcc/hq",
                "remote-url",
                "trailing slash",
                "no shutdown",
            )
            assert isinstance(error, FaultError)
            self.assertIn("not configured", error.fault.reason)
            self.assertEqual(len(self.gateway.requests), 1)

    async def test_fault_to_unregister(self) -> None:
        client = self.serve(answer(http(codec.write(soap.service_exception("Unknown registration")))))
        await self.assertFailure(Deferred.fromCoroutine(client.unregister("x")), FaultError)

    async def test_untrusted_certificate(self) -> None:
        client = self.serve(answer(http(GRANT)), tls=self_signed())
        await self.fails(client, TlsError, "tls", "self-signed", "cubehook pin hq")
        self.assertEqual(self.gateway.requests, [])

    async def test_plain_where_tls_is_expected(self) -> None:
        port: IListeningPort = self.reactor.listenTCP(
            0, Factory.forProtocol(PlainGreeter), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        host: Any = port.getHost()
        client = self.client(f"https://127.0.0.1:{host.port}/cisco_xcc")
        await self.fails(client, TlsError, "tls")


class PlainGreeter(Protocol):
    """Speaks plain HTTP at once, whatever is said to it."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(http(b"", "400 Bad Request"))
        self.transport.loseConnection()


class ConnectTimeoutTests(SynchronousTestCase):
    def test_named(self) -> None:
        reactor = MemoryReactorClock()
        cube = Cube(
            id="hq", provider_url="http://192.0.2.1:8090/cisco_xcc", application_url="http://192.0.2.20/x"
        )
        client = GatewayClient(cube, gateway_agent(reactor, GatewayTrust(cube, Path())), reactor)
        asked = Deferred.fromCoroutine(client.register())
        # MemoryReactor connects to nobody, so nobody takes the connection.
        _host, port, _factory, timeout, _ = reactor.tcpClients[0]
        self.assertEqual((port, timeout), (8090, client_module.CONNECT_SECONDS))
        reactor.advance(client_module.ANSWER_SECONDS)
        self.failureResultOf(asked, AnswerTimeoutError)
        self.assertEqual(reactor.getDelayedCalls(), [])


class ExplainTests(SynchronousTestCase):
    def explain(self, error: BaseException) -> Exception:
        cube = Cube(
            id="hq", provider_url="http://user:secret@192.0.2.1:8090/cisco_xcc", application_url="http://x/y"
        )
        return GatewayClient(cube, None, Clock())._explain(error)  # type: ignore[arg-type]

    def test_every_word_names_the_gateway_and_no_secret(self) -> None:
        from twisted.internet import error

        for cause, result in (
            (error.TimeoutError(), "timeout"),
            (error.TCPTimedOutError(), "timeout"),
            (error.NoRouteError(), "unreachable"),
            (error.ConnectError(), "unreachable"),
            (ConnectionDone(), "connection_lost"),
            (ValueError("\x1b[2J"), "not_soap"),
        ):
            explained = self.explain(cause)
            assert isinstance(explained, GatewayError)
            self.assertEqual(explained.result, result)
            self.assertIn("192.0.2.1:8090", str(explained))
            self.assertNotIn("secret", str(explained))
            self.assertNotIn("\x1b", str(explained))


def self_signed() -> Any:
    """A context for a server whose certificate nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    return ssl.PrivateCertificate.loadPEM(pem).options()
