"""Receivers that behave in every way, names that resolve as told, and transports to try on them."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, TLSVersion
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from cubehook.config import Egress, Webhook
from cubehook.events import CallEvent, CallState, Event, Granularity
from cubehook.interfaces import Outbound, Sent
from cubehook.net.agent import IDLE_TIMEOUT
from cubehook.net.egress import policy_from
from cubehook.testing.names import NamedReactor as NamedReactor
from cubehook.testing.names import Names as Names
from cubehook.transports.context import TransportContext
from cubehook.transports.http import HttpOptions, HttpTransport

reactor: Any = installed

SECRET = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
OTHER_SECRET = "whsec_" + "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
BODY = b'{"call_state":"ALERTING","called_number":null,"calling_number":null,"timestamp":"x"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
AT = 1_732_377_816_200_940
LOOPBACK = Egress(allow=("127.0.0.0/8",))


def event() -> Event:
    payload = CallEvent(
        call_state=CallState.ALERTING,
        called_number=None,
        calling_number=None,
        timestamp="x",
        event_id="0123456789ABC",
        sequence=1,
        cube="hq",
        call_id="0123456789ABC",
        guid=None,
        direction=None,
        original_called_number=None,
        redirected_to=None,
        calling_withheld=False,
        alerting_at=None,
        connected_at=None,
        disconnected_at=None,
        ring_seconds=None,
        talk_seconds=None,
        outcome=None,
        disconnect_cause=None,
        disconnect_text=None,
        route=None,
        codec=None,
        inferred=False,
        connections=[],
    )
    return Event(id=1, call=1, cube="hq", granularity=Granularity.CALL, at=AT, payload=payload)


def outbound(
    body: bytes = BODY, timeout: float = 5.0, id: str = "0123456789ABC", redelivery: bool = False
) -> Outbound:
    return Outbound(
        id=id,
        event=event(),
        body=body,
        content_type="application/json",
        attempt=1,
        at=AT,
        timeout=timeout,
        redelivery=redelivery,
    )


class Conversation(Protocol):
    """The receiver's end of one connection; `script` is called with each whole request."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = b""
        self.lost: Deferred[None] = Deferred()
        self.is_lost = False

    def connectionMade(self) -> None:
        self._receiver.made(self)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n"):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._receiver.asked(self, Request(head, rest[:length]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self.lost.callback(None)

    async def gone(self) -> None:
        """Wait for the end of the connection; it must come before an idle one would be closed."""
        await self.lost.addTimeout(IDLE_TIMEOUT / 4, reactor)

    def send(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]

    def finish(self) -> None:
        """Say that no more will be sent; `lost` fires when the other side has closed its own."""
        self.transport.loseWriteConnection()  # type: ignore[union-attr]

    def close(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]

    def pause(self) -> None:
        """Take nothing more from the connection, not even its end."""
        transport: Any = self.transport
        while hasattr(transport, "wrappedProtocol"):
            transport = transport.transport
        transport.pauseProducing()

    def abort(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]


class Request:
    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.line = first
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.names = [line.partition(":")[0].lower() for line in lines]
        self.body = body


Script = Callable[[Conversation, Request], None]


def answering(answer: bytes) -> Script:
    return lambda conversation, _: conversation.send(answer)


class Receiver(Factory):
    """Listens on a free loopback port, unless it is given; with `tls`, over TLS."""

    noisy = False

    def __init__(
        self,
        test: TestCase,
        script: Script | None = None,
        tls: CertificateOptions | None = None,
        greet: Callable[[Conversation], None] | None = None,
        port: int = 0,
    ) -> None:
        self.script = script or answering(OK)
        self.requests: list[Request] = []
        self.conversations: list[Conversation] = []
        self._greet = greet
        self._waiting: list[Deferred[Conversation]] = []
        factory: Any = self if tls is None else TLSMemoryBIOFactory(tls, False, self)
        factory.noisy = False
        self._port = reactor.listenTCP(port, factory, interface="127.0.0.1")
        self.port: int = self._port.getHost().port
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/calls?from=hq"
        test.addCleanup(lambda: Deferred.fromCoroutine(self._stop()))

    def buildProtocol(self, addr: object) -> Conversation:
        return Conversation(self)

    def made(self, conversation: Conversation) -> None:
        self.conversations.append(conversation)
        if self._greet is not None:
            self._greet(conversation)

    def asked(self, conversation: Conversation, request: Request) -> None:
        self.requests.append(request)
        self.script(conversation, request)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(conversation)

    def next_request(self) -> Deferred[Conversation]:
        """Fires when the next request has come and was answered as scripted."""
        waiter: Deferred[Conversation] = Deferred()
        self._waiting.append(waiter)
        return waiter

    async def _stop(self) -> None:
        await self._port.stopListening()
        for conversation in self.conversations:
            if not conversation.is_lost:
                conversation.abort()
                await conversation.gone()


def context_for(
    webhook: Webhook,
    state_dir: Path = Path(),
    egress: Egress = LOOPBACK,
    names: Names | None = None,
    secrets: tuple[str, ...] = (SECRET,),
    concurrency: int = 4,
    timeout: float = 5.0,
    proxy: str = "",
    no_proxy: tuple[str, ...] = (),
) -> TransportContext:
    return TransportContext(
        reactor=reactor if names is None else NamedReactor(names),
        webhook=webhook,
        egress=policy_from(egress),
        state_dir=state_dir,
        secrets=secrets,
        version="1.2.3",
        timeout=timeout,
        concurrency=concurrency,
        proxy=proxy,
        no_proxy=no_proxy,
    )


async def http_transport(
    test: TestCase,
    url: str,
    *,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    options: HttpOptions | None = None,
    ca_file: str | None = None,
    **context: Any,
) -> HttpTransport:
    """A transport that was started, and is stopped with the test."""
    webhook = Webhook(id="crm", url=url, method=method, headers=headers or {})
    options = options or HttpOptions(ca_file=ca_file)
    transport = HttpTransport(webhook, options, context_for(webhook, **context))
    await transport.start()
    test.addCleanup(lambda: Deferred.fromCoroutine(transport.stop()))
    return transport


async def deliver(test: TestCase, url: str, *, within: float = 5.0, **settings: Any) -> Sent:
    """One delivery by a new transport."""
    transport = await http_transport(test, url, **settings)
    return await transport.deliver(outbound(timeout=within))


_numbers = itertools.count()


class Authority:
    """A certificate authority for one test, which `parent` vouches for, or only itself."""

    def __init__(self, parent: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = f"cubehook test authority {next(_numbers)}"
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (parent or self)._sign(self._name, self._key, [], is_authority=True)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def server(
        self,
        *names: str,
        highest: Any = None,
        ask_client: bool = False,
        **validity: Any,
    ) -> CertificateOptions:
        """How a server with a certificate for `names` speaks TLS."""
        certificate, key = self.issue("receiver", *names, **validity)
        private = PrivateCertificate.loadPEM(certificate + key)
        settings: dict[str, Any] = {}
        if highest is not None:
            settings.update(insecurelyLowerMinimumTo=TLSVersion.TLSv1_0, lowerMaximumSecurityTo=highest)
        if ask_client:
            authority = self.certificate.public_bytes(serialization.Encoding.PEM)
            settings.update(trustRoot=Certificate.loadPEM(authority))
        return private.options() if not settings else _options(private, settings)

    def pem(self, *names: str, expired: bool = False) -> bytes:
        """A server's certificate for `names`, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
        certificate = self._sign(subject, key, names, expired=expired)
        return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def issue(
        self, owner: str, *names: str, passphrase: bytes | None = None, **settings: Any
    ) -> tuple[bytes, bytes]:
        """A certificate and its key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner)])
        certificate = self._sign(subject, key, names, **settings)
        lock: Any = serialization.NoEncryption()
        if passphrase is not None:
            lock = serialization.BestAvailableEncryption(passphrase)
        return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock
        )

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: Iterable[str],
        expired: bool = False,
        early: bool = False,
        self_signed: bool = False,
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + day / 2 if early else now - 3 * day)
            .not_valid_after(now - day if expired else now + day)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        return builder.sign(key if self_signed else self._key, hashes.SHA256())


def _options(private: PrivateCertificate, settings: dict[str, Any]) -> CertificateOptions:
    return CertificateOptions(
        privateKey=private.privateKey.original, certificate=private.original, **settings
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
