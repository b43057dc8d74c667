"""Secure mode of the real service: TLS both ways, a renewed certificate, a wrong pin, an old router."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from cubehook.net.certificates import Identity, certificate_pin, pins_of
from cubehook.net.presented import look
from cubehook.simulator.gateway import Settings, SimulatedGateway
from cubehook.simulator.provider import Probing
from cubehook.simulator.scenarios import Traffic
from cubehook.simulator.tls import Secure, own_identity
from tests.functional.control import ask
from tests.functional.harness import PATIENCE, Service, free_port
from tests.functional.test_commands import cubehook
from tests.functional.test_main_job import SECRET, STATES, MainJobCase, reactor
from tests.transports.support import Authority

ROUTER = own_identity()


class SecureModeCase(MainJobCase):
    async def begin_secure(self, cube: str, listen: str = "", handed_over: bool = False) -> None:
        """
        The service with TLS on the cubes' listener, and a sink; no gateway yet.

        `handed_over`: on a socket that is opened here, as systemd would do it.
        """
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        self.received, self._watchers = [], []
        self.sink_port, self.gateway_port = free_port(), free_port()
        self.authority = Authority()
        self.folder = folder
        self.write("cubehook")
        self.service = service = Service(self, folder)
        # Relative to the configuration file.
        endpoint = f"ssl:{service.cubes_port}:interface=127.0.0.1"
        if handed_over:
            listener = socket.create_server(("127.0.0.1", service.cubes_port), backlog=100)
            self.addCleanup(listener.close)
            service.sockets["cubes"] = listener
            endpoint = "systemd:domain=INET:name=cubes"
        service.scheme = "https"
        service.listen = (
            f'cubes = ["{endpoint}:privateKey=us.key:certKey=us.pem"]\n'
            f'console = ["tcp:{service.console_port}:interface=127.0.0.1"]\n{listen}\n'
        )
        self.url = f"https://127.0.0.1:{self.gateway_port}/cisco_xcc"
        service.cubes = (
            f'[cubes.hq]\nprovider_url = "{self.url}"\n'
            f'application_url = "{service.application_url("hq")}"\n{cube}\n'
            if cube
            else ""
        )
        service.webhooks = (
            f'[webhooks.crm]\nurl = "http://127.0.0.1:{self.sink_port}/crm"\nsecret = "{SECRET}"\n'
        )
        self.sink = None
        await self.start_sink()
        self.process = await service.start()

    def write(self, owner: str) -> None:
        for name, part in zip(("us.pem", "us.key"), self.authority.issue(owner, "127.0.0.1"), strict=True):
            (self.folder / name).write_bytes(part)

    async def router(self, identity: Identity = ROUTER, **secure: Any) -> SimulatedGateway:
        """A router that trusts our authority and nobody else."""
        self.gateway = SimulatedGateway(
            reactor,
            Settings(
                remote_url=self.service.application_url("hq"),
                listen=f"tcp:{self.gateway_port}:interface=127.0.0.1",
                speed=40.0,
                # So that every message needs a handshake.
                persistent=False,
                probing=Probing(response_timeout=PATIENCE, keepalive=1.0, negative=0.5),
                secure=Secure(identity=identity, authorities=(self.authority.certificate,), **secure),
            ),
            Random(1),
        )
        self.addCleanup(self._stop_gateway)
        await self.gateway.start()
        return self.gateway

    async def registered(self) -> None:
        await self.gateway.when_registered().addTimeout(PATIENCE, reactor)

    async def shown(self) -> str:
        """Who the certificate says we are."""
        port = self.service.cubes_port
        found = await deferToThread(look, "127.0.0.1", port, PATIENCE)
        return found.certificate.subject.rfc4514_string()

    async def last_error(self, *words: str) -> str:
        """Wait until the cube's last error has all these words."""

        async def found() -> str:
            answer = await ask(self.service, "GET", "/cubes/hq")
            error = answer.body["registration"]["last_error"] or ""
            return error if all(word in error for word in words) else ""

        return str(await self.poll(found))


class SecureModeTests(SecureModeCase):
    async def test_tls_both_ways_with_a_pin_and_a_certificate_renewed_under_calls(self) -> None:
        await self.begin_secure(f'pins = ["{pins_of(ROUTER.certificate)[0]}"]')
        gateway = await self.router()
        await self.registered()
        # It is probed over TLS, and answers over TLS.
        while not gateway.counters.probes:
            await deferLater(reactor, 0.05, lambda: None)
        self.assertEqual(await self.shown(), "CN=cubehook")

        calls = 45
        traffic = Traffic(mix={"answered": 1.0}, seed=1, rate=20.0, count=calls, hold_seconds=20.0)
        made = Deferred.fromCoroutine(gateway.make_calls(traffic))
        await self.until(lambda: len(self.received) >= 10)
        self.write("renewed")
        began = time.monotonic()
        while await self.shown() != "CN=renewed":
            self.assertLess(time.monotonic() - began, PATIENCE)
            await deferLater(reactor, 0.1, lambda: None)
        self.assertLess(len(self.received), 3 * calls, "the calls were over before the certificate changed")
        await made
        await self.until(lambda: len(self.received) == 3 * calls)
        await gateway.when_idle()
        counters = gateway.counters
        self.assertEqual((counters.failed, counters.lost_negative, counters.lost_unregistered), (0, 0, 0))
        self.assertEqual(sorted(set(self.states())), sorted(STATES))

        _, metrics = await self.service.get("/metrics")
        found = [
            line
            for line in metrics.splitlines()
            if line.startswith("cubehook_certificate_expiry_timestamp_seconds{")
        ]
        [line] = found
        self.assertRegex(line, r'^\S+\{certificate="listen.cubes\[0\]"\} 1\.\d+e\+09$')

        # Ours ends tomorrow; the router's ended in 2020, which is nobody's worry.
        self.assertIn("The certificate of a listener (listen.cubes[0]) ends in 1 day", self.process.text)
        self.assertEqual(self.process.text.count("renew it"), 1)
        status, told, _ = await cubehook("pin", "hq", "--config", str(self.service.config))
        self.assertEqual((status, told.splitlines()[-1]), (0, "It is pinned by cube hq."))
        self.authority.write(self.folder / "ca.pem")
        ca = str(self.folder / "ca.pem")
        arguments = ("--authority", ca, "--config", str(self.service.config))
        status, told, errors = await cubehook("ios", "hq", *arguments)
        self.assertEqual(status, 0, errors)
        self.assertIn((self.folder / "ca.pem").read_text(), told)
        self.assertIn("ip http secure-server", told)
        arguments = ("--authority", str(self.folder / "us.key"), "--config", str(self.service.config))
        status, _, errors = await cubehook("ios", "hq", *arguments)
        self.assertEqual(status, 1)
        self.assertIn("holds no certificates in PEM", errors)
        await self.process.stop()

    async def test_a_wrong_pin_and_an_old_router(self) -> None:
        await self.begin_secure("", listen='tls_minimum = "1.1"', handed_over=True)
        await self.process.wait_for(r"listen.cubes\[0\]: TLS 1.1 and its weak ciphers are allowed")
        wrong = certificate_pin(b"another")
        await self.router()
        made = await ask(
            self.service,
            "POST",
            "/cubes",
            {
                "id": "hq",
                "provider_url": self.url,
                "application_url": self.service.application_url("hq"),
                "pins": [wrong],
            },
        )
        self.assertEqual((made.status, made.body["pins"]), (201, [wrong]), made.body)
        own = pins_of(ROUTER.certificate)[0]
        await self.last_error("not pinned", own, wrong, "`cubehook pin hq`")
        self.assertIsNone(self.gateway.registration)
        status, told, _ = await cubehook("pin", "hq", "--config", str(self.service.config))
        self.assertEqual(status, 0)
        self.assertIn(f'pins = ["{own}", "{wrong}"]', told)

        changed = await ask(self.service, "PATCH", "/cubes/hq", {"pins": [own, wrong]})
        self.assertEqual(changed.status, 200, changed.body)
        await self.registered()

        # The same router, now with nothing later than TLS 1.1.
        await self.gateway.stop()
        await self.router(version="1.1")
        await ask(self.service, "POST", "/cubes/hq/register")
        await self.last_error("no TLS of version 1.2 or later", "tls_minimum")
        changed = await ask(self.service, "PATCH", "/cubes/hq", {"tls_minimum": "1.1"})
        self.assertEqual(changed.status, 200, changed.body)
        await self.process.wait_for("Cube hq: TLS 1.1 and its weak ciphers are allowed")
        await self.registered()
        self.call()
        await self.until(lambda: len(self.received) == 3)
        self.assertEqual(self.states(), STATES)
        self.assertEqual(self.gateway.counters.failed, 0)
