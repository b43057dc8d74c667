"""The HTTP transport's TLS options: client certificates, `insecure`, files that change or are of no use."""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_PEER, OP_NO_SSLv3, OP_NO_TLSv1, OP_NO_TLSv1_1
from twisted.internet.ssl import Certificate, TLSVersion
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import Sent
from cubehook.net.certificates import TlsFileError
from cubehook.net.tls import UNVERIFIED, Tls, TlsOptions, _platform_context
from cubehook.records import ErrorClass
from cubehook.transports.http import HttpOptions, HttpPlugin
from tests.transports.support import (
    OK,
    Authority,
    Conversation,
    Receiver,
    Request,
    answering,
    deliver,
    http_transport,
    outbound,
)


class FolderTests(TestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority.write(self.folder / "ca.pem")
        self.said: list[tuple[LogLevel, str]] = []

        @implementer(ILogObserver)
        def hear(event: Any) -> None:
            if event.get("log_namespace", "").startswith("cubehook."):
                self.said.append((event["log_level"], event["log_format"].format(**event)))

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)

    def write_client(self, name: str = "crm", authority: Authority | None = None, **settings: Any) -> None:
        certificate, key = (authority or self.authority).issue(name, **settings)
        (self.folder / "client.pem").write_bytes(certificate)
        (self.folder / "client.key").write_bytes(key)

    async def deliver(self, receiver: Receiver, **options: Any) -> Sent:
        return await deliver(
            self,
            receiver.url,
            state_dir=self.folder,
            options=HttpOptions(**{"ca_file": "ca.pem", **options}),
        )


CLIENT: dict[str, Any] = {"client_certificate": "client.pem", "client_key": "client.key"}


def shown_to(seen: list[str]) -> Callable[[Conversation, Request], None]:
    """Answers, and remembers whose certificate the client showed."""

    def script(conversation: Conversation, _: Request) -> None:
        transport: Any = conversation.transport
        seen.append(Certificate.peerFromTransport(transport).getSubject().commonName.decode())
        conversation.send(OK)

    return script


class ClientCertificateTests(FolderTests):
    def _receiver(self, seen: list[str] | None = None, **settings: Any) -> Receiver:
        script = answering(OK) if seen is None else shown_to(seen)
        tls = self.authority.server("127.0.0.1", ask_client=True, **settings)
        return Receiver(self, script, tls=tls)

    async def test_the_right_one(self) -> None:
        self.write_client()
        for highest in (None, TLSVersion.TLSv1_2):
            seen: list[str] = []
            sent = await self.deliver(self._receiver(seen, highest=highest), **CLIENT)
            self.assertTrue(sent.delivered, sent.error)
            self.assertEqual((seen, sent.note), (["crm"], None))

    async def test_certificate_and_key_in_one_file(self) -> None:
        certificate, key = self.authority.issue("crm")
        for content in (certificate + key, key + certificate):
            (self.folder / "both.pem").write_bytes(content)
            sent = await self.deliver(self._receiver(), client_certificate="both.pem")
            self.assertTrue(sent.delivered, sent.error)

    async def test_the_chain_is_shown_too(self) -> None:
        middle = Authority(self.authority)
        certificate, key = middle.issue("crm")
        (self.folder / "client.key").write_bytes(key)
        chain = (middle.write(self.folder / "middle.pem")).read_bytes()
        for content, delivered in ((certificate + chain, True), (certificate, False)):
            (self.folder / "client.pem").write_bytes(content)
            sent = await self.deliver(self._receiver(), **CLIENT)
            self.assertEqual(sent.delivered, delivered, sent.error)

    async def test_none_where_one_is_asked_for(self) -> None:
        for highest in (None, TLSVersion.TLSv1_2):
            receiver = self._receiver(highest=highest)
            sent = await self.deliver(receiver)
            self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TLS), sent.error)
            self.assertIn("client certificate", sent.error or "")
            self.assertEqual(receiver.requests, [])

    async def test_one_is_asked_for_and_the_connection_lost(self) -> None:
        # As with TLS 1.3 when the receiver's alert is lost with the connection.
        tls = self.authority.server("127.0.0.1")
        context = tls.getContext()
        context.set_verify(VERIFY_PEER, lambda *_: True)
        context.add_client_ca(X509.from_cryptography(self.authority.certificate))
        self.write_client()
        for options, expected in (
            (
                {},
                (
                    ErrorClass.TLS,
                    "the receiver asked for a client certificate, and closed the connection "
                    "(options.client_certificate)",
                ),
            ),
            (CLIENT, (ErrorClass.CONNECTION_LOST, "the receiver closed the connection before it answered")),
        ):
            receiver = Receiver(self, lambda conversation, _: conversation.close(), tls=tls)
            sent = await self.deliver(receiver, **options)
            self.assertEqual((sent.error_class, sent.error), expected)

    async def test_one_of_an_authority_that_the_receiver_does_not_know(self) -> None:
        self.write_client(authority=Authority())
        receiver = self._receiver()
        sent = await self.deliver(receiver, **CLIENT)
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TLS))
        self.assertIn("does not know the authority of our client certificate", sent.error or "")
        self.assertEqual(receiver.requests, [])

    async def test_a_relative_path_starts_at_the_state_folder_an_absolute_one_does_not(self) -> None:
        self.write_client()
        sent = await self.deliver(
            self._receiver(),
            client_certificate=str((self.folder / "client.pem").absolute()),
            client_key="client.key",
        )
        self.assertTrue(sent.delivered, sent.error)


class FileTests(FolderTests):
    async def _refusal(self, **options: Any) -> str:
        with self.assertRaises(TlsFileError) as caught:
            await http_transport(
                self, "https://hook.test/", state_dir=self.folder, options=HttpOptions(**options)
            )
        return str(caught.exception)

    async def test_files_that_are_absent_or_hold_something_else(self) -> None:
        self.write_client()
        (self.folder / "empty.pem").touch()
        (self.folder / "bad.pem").write_bytes(b"-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n")
        for name, words in (
            ("absent.pem", "cannot be read: No such file or directory"),
            (".", "cannot be read: Is a directory"),
            ("empty.pem", "holds no certificates in PEM"),
            ("bad.pem", "holds no certificates in PEM"),
        ):
            path = self.folder / name
            self.assertEqual(await self._refusal(ca_file=name), f"options.ca_file: {path} {words}")
            self.assertEqual(
                await self._refusal(client_certificate=name, client_key="client.key"),
                f"options.client_certificate: {path} {words}",
            )
            told = await self._refusal(client_certificate="client.pem", client_key=name)
            if "PEM" in words:
                words = "holds no private key in PEM"
            self.assertEqual(told, f"options.client_key: {path} {words}")

    async def test_a_certificate_without_its_key(self) -> None:
        self.write_client()
        told = await self._refusal(client_certificate="client.pem")
        self.assertEqual(
            told, f"options.client_key: {self.folder / 'client.pem'} holds no private key in PEM"
        )

    async def test_the_key_of_another_certificate(self) -> None:
        self.write_client()
        (self.folder / "other.key").write_bytes(self.authority.issue("other")[1])
        told = await self._refusal(client_certificate="client.pem", client_key="other.key")
        self.assertEqual(
            told,
            f"options.client_key: {self.folder / 'other.key'} is not the key of the certificate in "
            f"{self.folder / 'client.pem'}",
        )

    async def test_an_encrypted_key_asks_nobody(self) -> None:
        self.write_client(passphrase=b"hunter2")
        told = await self._refusal(**CLIENT)
        self.assertIn(f"options.client_key: {self.folder / 'client.key'} is encrypted", told)

    async def test_one_that_has_expired_or_is_not_valid_yet(self) -> None:
        self.write_client(expired=True)
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        self.assertEqual(
            await self._refusal(**CLIENT),
            f"options.client_certificate: {self.folder / 'client.pem'} expired on {yesterday:%Y-%m-%d}",
        )
        self.write_client(early=True)
        self.assertIn("is not valid before", await self._refusal(**CLIENT))

    async def test_no_key_is_ever_told(self) -> None:
        self.write_client()
        secret = (self.folder / "client.key").read_text().splitlines()[1]
        (self.folder / "broken.key").write_text(f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END")
        told = await self._refusal(client_certificate="client.pem", client_key="broken.key")
        self.assertNotIn(secret[:10], told)

    def test_what_check_finds_without_the_files(self) -> None:
        webhook = Webhook(id="crm", url="https://crm.example/")
        for options, keys in (
            (HttpOptions(client_key="a"), ["options.client_certificate"]),
            (HttpOptions(ca_file=""), ["options.ca_file"]),
            (HttpOptions(client_certificate="a", client_key="b", ca_file="c", insecure=True), []),
        ):
            self.assertEqual([key for key, _ in HttpPlugin().check(webhook, options)], keys)


class OwnMakingTests(FolderTests):
    async def test_a_self_signed_certificate_can_be_named_as_its_own_authority(self) -> None:
        tls = self.authority.server("127.0.0.1", self_signed=True)
        certificate = Certificate(tls.certificate)
        (self.folder / "own.pem").write_bytes(certificate.dumpPEM())
        sent = await self.deliver(Receiver(self, tls=tls), ca_file="own.pem")
        self.assertEqual((sent.delivered, sent.note), (True, None), sent.error)
        another = self.authority.server("127.0.0.1", self_signed=True)
        sent = await self.deliver(Receiver(self, tls=another), ca_file="own.pem")
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TLS))


class RenewalTests(FolderTests):
    def _touch(self, *names: str) -> None:
        # A file written twice within one tick of the clock keeps its time.
        for name in names:
            self.ticks = getattr(self, "ticks", 0) + 1
            os.utime(self.folder / name, ns=(self.ticks, self.ticks))

    async def test_new_connections_show_the_renewed_certificate(self) -> None:
        seen: list[str] = []

        def script(conversation: Conversation, request: Request) -> None:
            shown_to(seen)(conversation, request)
            conversation.close()

        receiver = Receiver(self, script, tls=self.authority.server("127.0.0.1", ask_client=True))
        self.write_client("old")
        options = HttpOptions(ca_file="ca.pem", **CLIENT)
        transport = await http_transport(self, receiver.url, state_dir=self.folder, options=options)

        async def once() -> None:
            sent = await transport.deliver(outbound())
            self.assertTrue(sent.delivered, sent.error)
            await receiver.conversations[-1].gone()

        await once()
        self.write_client("new")
        self._touch("client.pem", "client.key")
        await once()
        self.assertEqual(seen, ["old", "new"])
        self.assertEqual([level for level, _ in self.said], [LogLevel.info])

        # Half of a renewal: what was read before stays in use, and that is told once.
        (self.folder / "client.key").write_bytes(self.authority.issue("newest")[1])
        self._touch("client.key")
        await once()
        await once()
        [(level, told)] = self.said[1:]
        self.assertEqual(level, LogLevel.error)
        self.assertIn("webhook crm: options.client_key", told)
        self.assertIn("is not the key of the certificate", told)
        (self.folder / "client.key").unlink()
        await once()
        self.write_client("newest")
        await once()
        self.assertEqual(seen, ["old", "new", "new", "new", "new", "newest"])

    async def test_new_authorities_are_trusted_and_old_ones_are_not(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("127.0.0.1"))
        other = Authority()
        other.write(self.folder / "ca.pem")
        transport = await http_transport(self, receiver.url, state_dir=self.folder, ca_file="ca.pem")
        self.assertEqual((await transport.deliver(outbound())).error_class, ErrorClass.TLS)
        self.authority.write(self.folder / "ca.pem")
        self._touch("ca.pem")
        self.assertTrue((await transport.deliver(outbound())).delivered)
        receiver.conversations[-1].finish()
        await receiver.conversations[-1].gone()
        other.write(self.folder / "ca.pem")
        self._touch("ca.pem")
        self.assertEqual((await transport.deliver(outbound())).error_class, ErrorClass.TLS)


class InsecureTests(FolderTests):
    async def test_any_certificate_is_accepted_and_every_attempt_says_so(self) -> None:
        for settings in ({}, {"expired": True}, {"self_signed": True}):
            receiver = Receiver(self, tls=self.authority.server("other.test", **settings))
            sent = await self.deliver(receiver, ca_file=None, insecure=True)
            self.assertEqual((sent.delivered, sent.note), (True, UNVERIFIED), sent.error)
        failed = await self.deliver(
            Receiver(self, answering(b"HTTP/1.1 500 x\r\n\r\n"), tls=self.authority.server()), insecure=True
        )
        self.assertEqual(failed.note, UNVERIFIED)

    async def test_old_versions_of_tls_are_refused_all_the_same(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("127.0.0.1", highest=TLSVersion.TLSv1_1))
        sent = await self.deliver(receiver, insecure=True)
        self.assertEqual(sent.error_class, ErrorClass.TLS)
        self.assertIn("no TLS of version 1.2 or later", sent.error or "")

    def test_old_versions_are_off_whatever_the_system_thinks_of_them(self) -> None:
        # One that was used tells its settings to nobody.
        _platform_context.cache_clear()
        for options in (TlsOptions(), TlsOptions(ca_file="ca.pem", insecure=True)):
            context = Tls(options, self.folder, "webhook crm").context()
            for version in (OP_NO_SSLv3, OP_NO_TLSv1, OP_NO_TLSv1_1):
                self.assertTrue(context.set_options(0) & version)

    async def test_each_start_is_warned_of_by_name(self) -> None:
        for count in (1, 2):
            await http_transport(self, "https://hook.test/", options=HttpOptions(insecure=True))
            self.assertEqual([level for level, _ in self.said], [LogLevel.warn] * count)
        self.assertIn("webhook crm: options.insecure is set, so any certificate is accepted", self.said[0][1])

    async def test_it_is_not_the_default_and_not_said_of_others(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("127.0.0.1"))
        sent = await self.deliver(receiver)
        self.assertEqual((sent.delivered, sent.note, self.said), (True, None, []))
        sent = await self.deliver(receiver, ca_file=None)
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TLS))
        plain = await self.deliver(Receiver(self), insecure=True)
        self.assertEqual((plain.delivered, plain.note), (True, None))


class StandardContextTests(SynchronousTestCase):
    """The same options for libraries that use the standard library's TLS."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority()
        self.authority.write(self.folder / "ca.pem")

    def _handshake(self, options: TlsOptions, name: str, *names: str) -> None:
        certificate, key = self.authority.issue("queue", *names)
        (self.folder / "server.pem").write_bytes(certificate + key)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(self.folder / "server.pem")
        server.load_verify_locations(self.folder / "ca.pem")
        server.verify_mode = ssl.CERT_OPTIONAL
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = Tls(options, self.folder, "webhook queue").standard()
        self.assertGreaterEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        client = context.wrap_bio(to_client, to_server, server_hostname=name)
        self.far = server.wrap_bio(to_server, to_client, server_side=True)
        for side in (client, self.far) * 4:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()

    def test_verified_by_default(self) -> None:
        trusting = TlsOptions(ca_file="ca.pem")
        self._handshake(trusting, "queue.test", "queue.test")
        for options, name in ((trusting, "other.test"), (TlsOptions(), "queue.test")):
            with self.assertRaises(ssl.SSLCertVerificationError):
                self._handshake(options, name, "queue.test")

    def test_insecure(self) -> None:
        self._handshake(TlsOptions(insecure=True), "other.test", "queue.test")

    def test_a_client_certificate(self) -> None:
        certificate, key = self.authority.issue("crm")
        (self.folder / "client.pem").write_bytes(certificate + key)
        options = TlsOptions(ca_file="ca.pem", client_certificate="client.pem")
        self._handshake(options, "queue.test", "queue.test")
        shown: Any = self.far.getpeercert()
        self.assertIn((("commonName", "crm"),), shown["subject"])

    def test_files_of_no_use_are_told_in_the_same_words(self) -> None:
        tls = Tls(TlsOptions(ca_file="ca.pem"), self.folder, "webhook queue")
        (self.folder / "ca.pem").write_bytes(b"")
        with self.assertRaisesRegex(TlsFileError, "options.ca_file: .* holds no certificates in PEM"):
            tls.standard()
