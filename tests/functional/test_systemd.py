"""What systemd is told, and the sockets that it hands over; this process plays systemd."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from cubehook.simulator.scenarios import Traffic
from tests.functional.harness import PATIENCE, Process, Service
from tests.functional.test_main_job import STATES, MainJobCase

reactor: Any = installed


class Ear(DatagramProtocol):
    """Hears what a service tells systemd."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.told += datagram.decode().splitlines()
        for entry in list(self._waiting):
            if entry[0] in self.told:
                self._waiting.remove(entry)
                entry[1].callback(None)

    def hear(self, line: str) -> Deferred[None]:
        """Fires once `line` was heard since the last `forget`."""
        waiting: Deferred[None] = Deferred()
        if line in self.told:
            waiting.callback(None)
        else:
            self._waiting.append((line, waiting))
            _ = waiting.addTimeout(PATIENCE, reactor)
        return waiting


class SystemdCase(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.service = Service(self, Path(self.mktemp()))

    def short_folder(self) -> Path:
        """One whose path a unix socket's may begin with."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        return folder

    def listener(self, family: int, address: Any) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind(address)
        listener.listen(200)
        return listener

    async def refused(self, process: Process) -> str:
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertNotIn("Traceback", process.text)
        return process.text


class NotifyTests(SystemdCase):
    async def test_from_start_to_stop(self) -> None:
        ear = Ear()
        address = f"\0cubehook-test-{os.getpid()}"
        port = reactor.listenUNIXDatagram(address, ear)
        self.addCleanup(port.stopListening)
        self.service.env |= {"NOTIFY_SOCKET": f"@{address[1:]}", "WATCHDOG_USEC": "400000"}
        process = await self.service.start()
        await ear.hear("READY=1")
        before = ear.told[: ear.told.index("READY=1")]
        self.assertEqual(before[:1], ["EXTEND_TIMEOUT_USEC=60000000"])
        self.assertNotIn("WATCHDOG=1", before)
        self.assertIn("STATUS=no cube is configured; 0 calls in progress", ear.told)
        await ear.hear("WATCHDOG=1")

        ear.told.clear()
        process.send(signal.SIGHUP)
        await ear.hear("READY=1")
        lines = [line.partition("=")[0] for line in ear.told if "WATCHDOG" not in line]
        self.assertEqual(lines, ["RELOADING", "MONOTONIC_USEC", "READY", "STATUS"])

        await process.stop()
        self.assertIn("STOPPING=1", ear.told)
        self.assertNotIn("WATCHDOG=1", ear.told[ear.told.index("STOPPING=1") :])

    async def test_a_start_that_fails(self) -> None:
        ear = Ear()
        address = str(self.short_folder() / "notify")
        with_path = reactor.listenUNIXDatagram(address, ear)
        self.addCleanup(with_path.stopListening)
        self.service.env["NOTIFY_SOCKET"] = address
        (self.service.folder / "state").mkdir()
        (self.service.folder / "state" / "cubehook.db").write_bytes(b"certainly not a database " * 500)
        self.service.write_config()
        await self.refused(self.service.spawn())
        self.assertNotIn("READY=1", ear.told)
        self.assertRegex("\n".join(ear.told), r"STATUS=cannot start: .*cubehook\.db cannot be opened")


class RestartCase(MainJobCase):
    """A gateway that goes on while the service is restarted, and whose port stays open."""

    # The service's start on a busy machine must not decide.
    response_timeout = 60.0

    def configure(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.service.cubes_port), backlog=1000)
        self.addCleanup(listener.close)
        self.service.sockets["cubes"] = listener
        self.service.listen = re.sub(
            r"tcp:.*", 'systemd:domain=INET:name=cubes"]', self.service.listen, count=1
        )

    async def check_that_nothing_was_lost(self) -> None:
        """Every exchange of the gateway succeeded, and its calls, all answered ones, were told whole."""
        counters = self.gateway.counters
        self.assertEqual((counters.failed, counters.lost_negative, counters.lost_unregistered), (0, 0, 0))
        await self.until(lambda: len(self.received) >= 3 * counters.calls)
        by_call: dict[str, list[str]] = {}
        for body in self.accepted():
            self.assertFalse(body["inferred"])
            by_call.setdefault(body["call_id"], []).append(body["call_state"])
        self.assertEqual(list(by_call.values()), [STATES] * counters.calls)
        _, metrics = await self.service.get("/metrics")
        self.assertIn('cubehook_loss_windows_total{cube="hq"} 0.0', metrics)


class RestartTests(RestartCase):
    async def test_under_load_nothing_is_lost(self) -> None:
        await self.begin(payload="full")
        calls = Deferred.fromCoroutine(
            self.gateway.make_calls(Traffic(mix={"answered": 1.0}, rate=20.0, hold_seconds=1.0))
        )
        await self.until(lambda: len(self.received) > 20)
        process = self.service.process
        assert process is not None
        await process.stop()
        self.assertIsNotNone(self.gateway.registration)
        await self.service.start()
        _ = calls.addErrback(lambda _: None)
        calls.cancel()
        await self.gateway.when_idle()
        await self.check_that_nothing_was_lost()


class SocketTests(SystemdCase):
    async def test_what_connects_during_a_restart_is_answered_after_it(self) -> None:
        path = self.short_folder() / "console.sock"
        cubes = self.listener(socket.AF_INET, ("127.0.0.1", self.service.cubes_port))
        console = self.listener(socket.AF_UNIX, str(path))
        path.chmod(0o600)
        self.service.sockets = {"cubes": cubes, "console": console}
        self.service.listen = (
            'cubes = ["systemd:domain=INET:name=cubes"]\nconsole = ["systemd:domain=UNIX:name=console"]\n'
        )
        for _ in range(2):
            waiting = [self.ask(("127.0.0.1", self.service.cubes_port)), self.ask(str(path))]
            process = await self.service.start()
            answers = [await each for each in waiting]
            self.assertEqual([answer.split(b" ")[1] for answer in answers], [b"404", b"200"])
            await process.stop()
            # It is systemd's, and stays as it was.
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertNotIn("no endpoint is configured", process.text)

    def ask(self, address: Any) -> Deferred[bytes]:
        """Connect now, ask for /healthz, and wait for the whole answer."""
        client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        client.settimeout(PATIENCE)
        client.connect(address)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

        def answer() -> bytes:
            with client:
                return b"".join(iter(lambda: client.recv(65536), b""))

        answered: Deferred[bytes] = deferToThread(answer)
        return answered

    async def test_a_socket_that_is_not_there(self) -> None:
        self.service.listen = self.service.listen.replace("[", '["systemd:domain=INET:name=cubes", ', 1)
        self.service.write_config()
        text = await self.refused(self.service.spawn())
        self.assertRegex(text, r"cannot listen on systemd:\S+ \(listen.cubes\): systemd handed over no such")

    async def test_a_socket_of_another_kind(self) -> None:
        self.service.sockets = {"cubes": self.listener(socket.AF_INET6, ("::1", 0))}
        self.service.listen = 'cubes = ["systemd:domain=INET:name=cubes"]\nconsole = []\n'
        self.service.write_config()
        self.assertIn("is of another kind: domain=INET6", await self.refused(self.service.spawn()))

    async def test_a_socket_that_nobody_takes(self) -> None:
        self.service.sockets = {"more": self.listener(socket.AF_INET, ("127.0.0.1", 0))}
        process = await self.service.start()
        self.assertIn("a socket called more for cubehook, and no endpoint", process.text)
