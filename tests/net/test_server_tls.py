"""Listeners with TLS: files read again, old versions, certificates of clients, and words for failures."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from cubehook.config import Listen
from cubehook.listeners import ListenError, Listeners
from cubehook.net import server_tls
from tests.functional.harness import PATIENCE, free_port
from tests.test_listeners import Page
from tests.transports.support import Authority

reactor: Any = installed


class ServerTlsCase(TestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.authority.write(self.folder / "ca.pem")
        self.write("cubehook")
        self.port = free_port()
        files = f"privateKey={self.folder}/us.key:certKey={self.folder}/us.pem"
        self.endpoint = f"ssl:{self.port}:interface=127.0.0.1:{files}"
        self.counted = 0
        self.known = True
        self.said: list[tuple[str, str]] = []

        @implementer(ILogObserver)
        def hear(event: Any) -> None:
            if event.get("log_namespace", "").startswith("cubehook."):
                self.said.append((event["log_level"].name, event["log_format"].format(**event)))

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)

    ticks = 0

    def write(self, owner: str, authority: Authority | None = None, **settings: Any) -> None:
        """Our certificate; a file that is written twice within one tick of the clock keeps its time."""
        for name, part in zip(
            ("us.pem", "us.key"),
            (authority or self.authority).issue(owner, "127.0.0.1", **settings),
            strict=True,
        ):
            (self.folder / name).write_bytes(part)
            ServerTlsCase.ticks += 1
            os.utime(self.folder / name, ns=(self.ticks, self.ticks))

    def open(self, *endpoints: str, **listen: Any) -> Listeners:
        settings = Listen(cubes=endpoints or (self.endpoint,), console=(), **listen)
        listeners = Listeners(reactor, settings, lambda: 0, lambda request: None, lambda: None, self.count)
        self.addCleanup(listeners.close_connections)
        self.addCleanup(listeners.close)
        listeners.open(Page(b"cubes"), Page(b"console"), lambda address: self.known)
        return listeners

    def count(self) -> None:
        self.counted += 1

    def context(self, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if version is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = context.maximum_version = version
        return context

    def get(self, context: ssl.SSLContext | None = None, port: int | None = None) -> Deferred[str]:
        """Who showed its certificate, having answered a request."""

        def ask() -> str:
            with (
                socket.create_connection(("127.0.0.1", port or self.port), PATIENCE) as plain,
                (context or self.context()).wrap_socket(plain, server_hostname="127.0.0.1") as tls,
            ):
                tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b""
                while data := tls.recv(4096):
                    answer += data
                assert answer.endswith((b"cubes", b"console")), answer
                shown = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
                return shown.subject.rfc4514_string()

        return deferToThread(ask)

    async def refused(self, context: ssl.SSLContext | None = None) -> None:
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            await self.get(context)

    async def told(self, level: str, *words: str) -> str:
        """Wait for a line of the log."""
        for _ in range(int(PATIENCE * 100)):
            for said_level, text in self.said:
                if said_level == level and all(word in text for word in words):
                    return text
            await deferLater(reactor, 0.01, lambda: None)
        raise AssertionError(f"{words} was not said at level {level}: {self.said}")

    @contextlib.contextmanager
    def every_connection_looks(self) -> Iterator[None]:
        self.patch(server_tls, "LOOK_SECONDS", 0.0)
        yield


class RenewalTests(ServerTlsCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(server_tls, "LOOK_SECONDS", 0.0)

    async def test_a_renewed_certificate_is_shown_and_open_connections_go_on(self) -> None:
        self.open()

        def begin() -> ssl.SSLSocket:
            plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
            return self.context().wrap_socket(plain, server_hostname="127.0.0.1")

        def end(connection: ssl.SSLSocket) -> bytes:
            with connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b""
                while data := connection.recv(4096):
                    answer += data
                return answer

        kept = await deferToThread(begin)
        self.assertEqual(await self.get(), "CN=cubehook")
        self.write("renewed")
        self.assertEqual(await self.get(), "CN=renewed")
        self.assertIn(b"cubes", await deferToThread(end, kept))
        self.assertIn(("info", self.said[-1][1]), self.said)
        self.assertIn("was read again; it ends on", self.said[-1][1])

    async def test_one_that_is_of_no_use_changes_nothing_and_is_told_once(self) -> None:
        listeners = self.open()
        (self.folder / "us.key").write_bytes(self.authority.issue("other")[1])
        self.assertEqual(await self.get(), "CN=cubehook")
        # The other file may be about to be written.
        self.assertEqual([text for level, text in self.said if level != "info"], [])
        for _ in range(2):
            self.assertEqual(await self.get(), "CN=cubehook")
        [told] = [text for level, text in self.said if level == "error"]
        self.assertIn(f"listen.cubes[0]: privateKey: {self.folder}/us.key is not the key of", told)
        self.assertIn("the certificate from before, which ends on", told)
        # Who asks is told each time.
        [words] = listeners.reload_certificates()
        self.assertIn("is not the key", words)
        (self.folder / "us.pem").unlink()
        self.assertEqual(await self.get(), "CN=cubehook")
        self.write("mended")
        self.assertEqual(await self.get(), "CN=mended")
        self.assertEqual(listeners.reload_certificates(), [])

    async def test_when_asked_even_if_they_look_the_same(self) -> None:
        listeners = self.open()
        stamp = (self.folder / "us.pem").stat()
        for name in ("us.pem", "us.key"):
            (self.folder / name).unlink()
        self.patch(server_tls, "stamp", lambda path: None)
        self.write("new")
        del stamp
        self.assertEqual(listeners.reload_certificates(), [])
        self.assertEqual(await self.get(), "CN=new")


class FilesTests(ServerTlsCase):
    async def test_the_chain_behind_the_certificate_or_in_a_file_of_its_own(self) -> None:
        middle = Authority(self.authority)
        middle.write(self.folder / "middle.pem")
        self.write("leaf", authority=middle)
        self.open(f"{self.endpoint}:extraCertChain={self.folder}/middle.pem")
        self.assertEqual(await self.get(), "CN=leaf")

        shown = (self.folder / "us.pem").read_bytes() + (self.folder / "middle.pem").read_bytes()
        (self.folder / "us.pem").write_bytes(shown)
        port = free_port()
        self.open(self.endpoint.replace(f":{self.port}:", f":{port}:"))
        self.assertEqual(await self.get(port=port), "CN=leaf")

    def test_what_cannot_be_used(self) -> None:
        (self.folder / "us.key").write_bytes(b"nonsense")
        error = self.assertRaises(ListenError, self.open)
        self.assertIn(f"privateKey: {self.folder}/us.key holds no private key in PEM", str(error))
        self.assertNotIn("another program", str(error))
        self.write("cubehook", passphrase=b"secret")
        error = self.assertRaises(ListenError, self.open)
        self.assertIn("is encrypted", str(error))


class VersionTests(ServerTlsCase):
    async def test_1_2_at_least(self) -> None:
        self.open()
        await self.refused(self.context(ssl.TLSVersion.TLSv1_1))
        await self.told("warn", "listen.cubes[0]: no TLS with 127.0.0.1: it speaks only older", "1.2")
        self.assertEqual(self.counted, 1)
        self.assertEqual(await self.get(self.context(ssl.TLSVersion.TLSv1_2)), "CN=cubehook")
        self.assertEqual(await self.get(self.context(ssl.TLSVersion.TLSv1_3)), "CN=cubehook")

    async def test_older_ones_take_a_decision_that_is_warned_of(self) -> None:
        self.open(tls_minimum="1.1")
        await self.told("warn", "listen.cubes[0]: TLS 1.1 and its weak ciphers are allowed")
        self.assertEqual(await self.get(self.context(ssl.TLSVersion.TLSv1_1)), "CN=cubehook")
        await self.refused(self.context(ssl.TLSVersion.TLSv1))

    async def test_the_console_is_never_that_old(self) -> None:
        listeners = Listeners(
            reactor,
            Listen(
                cubes=(f"tcp:{free_port()}:interface=127.0.0.1",), console=(self.endpoint,), tls_minimum="1.0"
            ),
            lambda: 0,
            lambda request: None,
            lambda: None,
        )
        self.addCleanup(listeners.close)
        listeners.open(Page(b"cubes"), Page(b"console"), lambda address: True)
        self.assertEqual(listeners.console_urls(), [f"https://127.0.0.1:{self.port}"])
        await self.refused(self.context(ssl.TLSVersion.TLSv1_1))
        self.assertEqual(await self.get(), "CN=cubehook")


class ClientCertificateTests(ServerTlsCase):
    def client(self, authority: Authority, **settings: Any) -> ssl.SSLContext:
        certificate, key = authority.issue("gateway", **settings)
        (self.folder / "gateway.pem").write_bytes(certificate + key)
        context = self.context(ssl.TLSVersion.TLSv1_2)
        context.load_cert_chain(self.folder / "gateway.pem")
        return context

    async def test_only_those_that_an_authority_vouches_for(self) -> None:
        gateways = Authority()
        gateways.write(self.folder / "gateways.pem")
        listeners = self.open(client_ca=self.folder / "gateways.pem")
        self.assertEqual(await self.get(self.client(gateways)), "CN=cubehook")
        await self.refused(self.context(ssl.TLSVersion.TLSv1_2))
        await self.told("warn", "it showed no certificate, and listen.client_ca wants one")
        self.known = False
        await self.refused(self.client(self.authority))
        await self.told("info", "its certificate is not trusted: its authority is not known")
        self.assertEqual(self.counted, 2)

        # Demands change while it listens.
        await listeners.change(Listen(cubes=(self.endpoint,), console=()))
        self.assertEqual(await self.get(), "CN=cubehook")
        with self.assertRaises(ListenError):
            await listeners.change(
                Listen(cubes=(self.endpoint,), console=(), client_ca=self.folder / "absent.pem")
            )
        self.assertEqual(await self.get(), "CN=cubehook")

    async def test_who_came_before_it_was_demanded_is_not_kept(self) -> None:
        listeners = self.open()
        before = [await deferToThread(self.ask_and_stay) for _ in range(2)]
        await listeners.change(Listen(cubes=(self.endpoint,), console=(), tls_minimum="1.3"))
        self.assertIn(b"close", await deferToThread(self.ask_again, before[0]))
        Authority().write(self.folder / "gateways.pem")
        await listeners.change(
            Listen(cubes=(self.endpoint,), console=(), client_ca=self.folder / "gateways.pem")
        )
        self.assertIn(b"close", await deferToThread(self.ask_again, before[1]))

    async def test_nor_who_an_authority_vouched_for_that_is_trusted_no_more(self) -> None:
        self.patch(server_tls, "LOOK_SECONDS", 0.0)
        gateways, others = Authority(), Authority()
        gateways.write(self.folder / "gateways.pem")
        listeners = self.open(client_ca=self.folder / "gateways.pem")
        context = self.client(gateways)
        kept = await deferToThread(self.ask_and_stay, context)
        # Another certificate of ours is no reason to part.
        self.write("renewed")
        self.assertEqual(listeners.reload_certificates(), [])
        self.assertNotIn(b"close", await deferToThread(self.ask_again, kept, end=False))
        others.write(self.folder / "gateways.pem")
        self.assertEqual(await self.get(self.client(others)), "CN=renewed")
        self.assertIn(b"close", await deferToThread(self.ask_again, kept))

    def ask_and_stay(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection on which a request was answered."""
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        connection = (context or self.context()).wrap_socket(plain, server_hostname="127.0.0.1")
        self.addCleanup(connection.close)
        assert b"close" not in self.ask_again(connection, end=False)
        return connection

    def ask_again(self, connection: ssl.SSLSocket, end: bool = True) -> bytes:
        """What is answered to one request more, and whether that was the last as `end` says."""
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"cubes"):
            data = connection.recv(4096)
            assert data, answer
            answer += data
        if end:
            assert b"close" in answer.lower(), answer
            assert connection.recv(4096) == b""
        return answer.lower()

    async def test_one_that_a_router_has_signed_itself(self) -> None:
        certificate, key = self.authority.issue("router", self_signed=True)
        (self.folder / "router.pem").write_bytes(certificate)
        (self.folder / "both.pem").write_bytes(certificate + key)
        self.open(client_ca=self.folder / "router.pem")
        context = self.context(ssl.TLSVersion.TLSv1_2)
        context.load_cert_chain(self.folder / "both.pem")
        self.assertEqual(await self.get(context), "CN=cubehook")
        await self.refused(self.client(self.authority))

    async def test_one_that_has_expired(self) -> None:
        gateways = Authority()
        gateways.write(self.folder / "gateways.pem")
        self.open(client_ca=self.folder / "gateways.pem")
        await self.refused(self.client(gateways, expired=True))
        await self.told("warn", "its certificate is not trusted: it expired on")


class WordsTests(ServerTlsCase):
    async def test_plain_http(self) -> None:
        self.open()

        def ask() -> bytes:
            with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain:
                plain.sendall(b"POST /xcc/hq HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                return plain.recv(4096)

        with contextlib.suppress(ConnectionError):
            await deferToThread(ask)
        await self.told("warn", "plain HTTP was spoken: the router's remote-url must begin with https")

    async def test_who_does_not_trust_us(self) -> None:
        self.open()
        context = ssl.create_default_context()
        await self.refused(context)
        await self.told("warn", "it does not trust our certificate in", str(self.folder / "us.pem"))

    async def test_who_just_leaves_is_not_told(self) -> None:
        self.open()

        def leave() -> None:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()

        await deferToThread(leave)
        self.assertEqual(await self.get(), "CN=cubehook")
        self.assertEqual((self.counted, [level for level, _ in self.said if level == "warn"]), (0, []))

    async def test_not_more_than_once_in_a_while(self) -> None:
        self.open()
        for _ in range(3):
            await self.refused(ssl.create_default_context())
        while self.counted < 3:
            await deferLater(reactor, 0.01, lambda: None)
        self.assertEqual(len([text for level, text in self.said if level == "warn"]), 1)
