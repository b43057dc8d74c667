"""Gateways over TLS: pins, authorities, our own certificate, old versions, and the words for failures."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from twisted.internet.interfaces import IListeningPort
from twisted.internet.ssl import CertificateOptions
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.config import Cube
from cubehook.net.certificates import Identity, certificate_pin, pins_of
from cubehook.simulator.tls import Secure, over_tls, own_identity, pem_of
from cubehook.xcc.client import GatewayClient, GatewayError, GatewayTrust, TlsError, gateway_agent
from tests.transports.support import Authority
from tests.xcc.test_client import GRANT, Gateway, answer, http

ROUTER = own_identity(1024)
"""What a router of some age has: its key is weaker than OpenSSL lets pass, its dates are over."""


class SecureCase(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def serve(self, identity: Identity = ROUTER, version: str | None = None) -> None:
        self.listen(over_tls(Secure(identity=identity, version=version), self._gateway()))

    def serve_with(self, options: CertificateOptions) -> None:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        self.listen(TLSMemoryBIOFactory(options, False, self._gateway()))

    def _gateway(self) -> Gateway:
        self.gateway = Gateway(answer(http(GRANT)))
        return self.gateway

    def listen(self, factory: Any) -> None:
        factory.noisy = False
        port: IListeningPort = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        host: Any = port.getHost()
        self.url = f"https://127.0.0.1:{host.port}/cisco_xcc"

        async def over() -> None:
            await port.stopListening()  # type: ignore[misc]
            await self.gateway.closed()

        from twisted.internet.defer import Deferred

        self.addCleanup(lambda: Deferred.fromCoroutine(over()))

    def client(self, **settings: Any) -> GatewayClient:
        cube = Cube(
            id="hq", provider_url=self.url, application_url="https://192.0.2.20:8443/xcc/hq", **settings
        )
        self.trust = GatewayTrust(cube, self.folder)
        return GatewayClient(cube, gateway_agent(self.reactor, self.trust), self.reactor, 30.0)

    async def works(self, client: GatewayClient) -> None:
        answered = await client.register()
        self.assertEqual(answered.provider_status, "IN_SERVICE")

    async def refused(self, client: GatewayClient, *words: str) -> str:
        heard = len(self.gateway.requests)
        with self.assertRaises(GatewayError) as caught:
            await client.register()
        told = str(caught.exception)
        self.assertIsInstance(caught.exception, TlsError, told)
        for word in words:
            self.assertIn(word, told)
        self.assertEqual(len(self.gateway.requests), heard, "it was sent something all the same")
        return told


class PinTests(SecureCase):
    async def test_a_pinned_certificate_is_taken_whatever_it_says(self) -> None:
        self.serve()
        for pin in pins_of(ROUTER.certificate):
            await self.works(self.client(pins=(pin,)))
        # Its dates are over, and so they are nobody's worry.
        self.assertIsNone(self.trust.ends)

    async def test_one_of_several(self) -> None:
        self.serve()
        await self.works(self.client(pins=(certificate_pin(b"the next"), pins_of(ROUTER.certificate)[0])))

    async def test_another_is_refused_and_both_fingerprints_are_told(self) -> None:
        self.serve()
        other = own_identity(1024)
        told = await self.refused(
            self.client(pins=(pins_of(other.certificate)[0],)),
            *pins_of(ROUTER.certificate),
            pins_of(other.certificate)[0],
            "`cubehook pin hq`",
        )
        self.assertNotIn("...", told)

    async def test_a_pin_decides_alone(self) -> None:
        authority = Authority()
        authority.write(self.folder / "ca.pem")
        self.serve_with(authority.server("127.0.0.1"))
        await self.works(self.client(ca_file="ca.pem"))
        # With a good chain, but another key.
        await self.refused(self.client(pins=pins_of(ROUTER.certificate)), "not pinned")

    async def test_a_pinned_authority_is_no_pinned_certificate(self) -> None:
        authority = Authority()
        options = authority.server("127.0.0.1")
        context = options.getContext()
        from OpenSSL.crypto import X509

        context.add_extra_chain_cert(X509.from_cryptography(authority.certificate))
        self.serve_with(options)
        await self.refused(self.client(pins=pins_of(authority.certificate)), "not pinned")

    async def test_without_a_pin_it_is_refused_and_the_way_out_told(self) -> None:
        self.serve()
        await self.refused(self.client(), "`cubehook pin hq`", "ca_file")


class AuthorityTests(SecureCase):
    async def test_names_and_dates_count(self) -> None:
        authority = Authority()
        authority.write(self.folder / "ca.pem")
        self.serve_with(authority.server("127.0.0.1"))
        await self.works(self.client(ca_file="ca.pem"))
        assert self.trust.ends is not None
        self.assertGreater(self.trust.ends, datetime.datetime.now(datetime.UTC))
        for name, expired, words in (
            ("router.test", False, "the gateway's certificate is not for 127.0.0.1"),
            ("127.0.0.1", True, "it has expired"),
        ):
            self.serve_with(authority.server(name, expired=expired))
            await self.refused(self.client(ca_file="ca.pem"), words)
            await self.gateway.closed()

    async def test_a_file_that_is_of_no_use_and_mended(self) -> None:
        authority = Authority()
        self.serve_with(authority.server("127.0.0.1"))
        client = self.client(ca_file="ca.pem")
        await self.refused(client, f"cubes.hq.ca_file: {self.folder / 'ca.pem'} cannot be read")
        authority.write(self.folder / "ca.pem")
        await self.works(client)
        Authority().write(self.folder / "ca.pem")
        os.utime(self.folder / "ca.pem", ns=(1, 1))
        await self.refused(client, "not trusted")

    async def test_when_it_is_asked_for(self) -> None:
        authority = Authority()
        self.serve_with(authority.server("127.0.0.1"))
        client = self.client(ca_file="ca.pem")
        # Nobody has needed it yet.
        self.assertIsNone(self.trust.reload())
        authority.write(self.folder / "ca.pem")
        await self.works(client)
        ends = self.trust.ends
        (self.folder / "ca.pem").write_bytes(b"nonsense")
        told = self.trust.reload() or ""
        self.assertIn("cubes.hq.ca_file", told)
        self.assertIn("holds no certificates in PEM; what was read before stays in use", told)
        await self.works(client)
        authority.write(self.folder / "ca.pem")
        self.assertIsNone(self.trust.reload())
        self.assertEqual(self.trust.ends, ends)
        await self.works(client)


class ClientCertificateTests(SecureCase):
    async def test_it_is_shown(self) -> None:
        authority = Authority()
        for name, part in zip(("us.pem", "us.key"), authority.issue("cubehook"), strict=True):
            (self.folder / name).write_bytes(part)
        seen: list[str] = []

        def verify(_: Connection, certificate: Any, __: int, ___: int, ____: int) -> bool:
            seen.append(certificate.get_subject().CN)
            return True

        router = own_identity()
        shown = router.options()
        options = CertificateOptions(privateKey=shown["privateKey"], certificate=shown["certificate"])
        options.getContext().set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        self.serve_with(options)
        pins = pins_of(router.certificate)
        await self.refused(self.client(pins=pins), "client_certificate of this cube")
        await self.works(self.client(pins=pins, client_certificate="us.pem", client_key="us.key"))
        self.assertEqual(set(seen), {"cubehook"})


class OldRouterTests(SecureCase):
    async def test_tls_1_1_takes_a_decision(self) -> None:
        self.serve(version="1.1")
        pins = pins_of(ROUTER.certificate)
        await self.refused(self.client(pins=pins), "no TLS of version 1.2 or later", "tls_minimum")
        await self.works(self.client(pins=pins, tls_minimum="1.1"))
        await self.works(self.client(pins=pins, tls_minimum="1.0"))
        # Who may speak old versions is no less careful for it.
        await self.refused(self.client(pins=(certificate_pin(b""),), tls_minimum="1.1"), "not pinned")

    async def test_tls_1_0(self) -> None:
        self.serve(version="1.0")
        pins = pins_of(ROUTER.certificate)
        await self.refused(self.client(pins=pins, tls_minimum="1.1"), "no TLS of version 1.1 or later")
        await self.works(self.client(pins=pins, tls_minimum="1.0"))

    async def test_1_3_at_least(self) -> None:
        self.serve(version="1.2")
        await self.refused(self.client(pins=pins_of(ROUTER.certificate), tls_minimum="1.3"), "1.3 or later")


class WarningTests(SynchronousTestCase):
    def test_old_versions_are_warned_of(self) -> None:
        def said(**settings: Any) -> list[str]:
            cube = Cube(id="hq", provider_url="https://r/", application_url="https://a/", **settings)
            with capturedLogs() as events:
                GatewayTrust(cube, Path()).warn()
            self.assertEqual({event["log_level"] for event in events} - {LogLevel.warn}, set())
            return [event["log_format"].format(**event) for event in events]

        for minimum in ("1.0", "1.1"):
            [told] = said(tls_minimum=minimum)
            self.assertIn(f"Cube hq: TLS {minimum} and its weak ciphers are allowed", told)
        self.assertEqual(said() + said(tls_minimum="1.3") + said(tls_minimum="1.1", enabled=False), [])


class IdentityTests(SynchronousTestCase):
    def test_what_pem_says_is_what_was_made(self) -> None:
        certificate, key = pem_of(ROUTER)
        self.assertTrue(certificate.startswith(b"-----BEGIN CERTIFICATE-----"))
        self.assertTrue(key.startswith(b"-----BEGIN PRIVATE KEY-----"))
