"""The simulated gateway in secure mode: whom it trusts, and what it speaks."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from cubehook.net.certificates import Identity, pins_of
from cubehook.net.presented import look
from cubehook.simulator.gateway import Settings, SimulatedGateway
from cubehook.simulator.http import Request, Server, response
from cubehook.simulator.tls import Secure, own_identity, pem_of, read_secure
from tests.functional.harness import PATIENCE
from tests.transports.support import Authority

reactor: Any = installed
ROUTER = own_identity(1024)


class SecureTests(TestCase):
    async def application(self, identity: Identity, version: str | None = None) -> str:
        """Somebody who answers 200 to everything, over TLS."""
        self.heard: list[bytes] = []

        def handle(request: Request) -> None:
            self.heard.append(request.body)
            request.respond(response(200))

        server = Server(handle)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.close()))
        secure = Secure(identity=identity, version=version)
        return await server.listen(reactor, "tcp:0:interface=127.0.0.1", secure) + "/xcc/hq"

    async def gateway(self, remote_url: str, **secure: Any) -> SimulatedGateway:
        """Started, which has it say that it is in service."""
        settings = Settings(remote_url=remote_url, secure=Secure(identity=ROUTER, **secure))
        gateway = SimulatedGateway(reactor, settings, Random(1))
        self.addCleanup(lambda: Deferred.fromCoroutine(gateway.stop()))
        await gateway.start()
        while not self.heard and not gateway.counters.failures:
            await deferLater(reactor, 0.005, lambda: None)
        return gateway

    async def test_it_trusts_whom_it_is_told_to(self) -> None:
        authority = Authority()
        certificate, key = authority.issue("application")
        identity = Identity(x509.load_pem_x509_certificate(certificate), load_pem_private_key(key, None), ())
        url = await self.application(identity)
        for trusted, heard in (((), 1), ((authority.certificate,), 1), ((Authority().certificate,), 0)):
            self.heard.clear()
            gateway = await self.gateway(url, authorities=trusted)
            self.assertEqual(len(self.heard), heard, trusted)
            self.assertEqual(sum(gateway.counters.failures.values()), 1 - heard)

    async def test_one_version_both_ways(self) -> None:
        url = await self.application(own_identity(1024), version="1.1")
        gateway = await self.gateway(url, version="1.1")
        self.assertEqual(len(self.heard), 1)
        port = int(gateway.url.split(":")[2].split("/")[0])
        shown = await deferToThread(look, "127.0.0.1", port, PATIENCE)
        self.assertEqual((shown.version, pins_of(shown.certificate)), ("1.1", pins_of(ROUTER.certificate)))
        self.heard.clear()
        await self.gateway(url, version="1.2")
        self.assertEqual(self.heard, [])

    async def test_with_a_certificate_of_a_file(self) -> None:
        certificate, key = pem_of(ROUTER)
        file = Path(self.mktemp())
        file.write_bytes(certificate + key)
        secure = read_secure(file, None, file, "1.2")
        self.assertEqual(secure.pin, pins_of(ROUTER.certificate)[0])
        self.assertEqual([pins_of(each) for each in secure.authorities], [pins_of(ROUTER.certificate)])
