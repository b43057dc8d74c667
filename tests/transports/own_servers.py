"""NATS and Redis servers of a test's own, which it may kill and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from tests.functional.harness import PATIENCE, ROOT, free_port

reactor: Any = installed


def listens(port: int) -> bool:
    """Whether something listens there now."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def skip_unless_listening(name: str, port: int) -> None:
    """Skip the test if the server that every developer's machine should have is not there."""
    if not listens(port):
        raise SkipTest(f"no {name} listens on 127.0.0.1:{port}")


def loop_threads() -> list[threading.Thread]:
    """The threads of asyncio's loop that there are."""
    return [each for each in threading.enumerate() if each.name == "cubehook-asyncio"]


class OwnServer:
    """A server's process on a free port; killed after the test."""

    def __init__(self, test: TestCase, program: str, folder: Path) -> None:
        found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if found is None:
            raise SkipTest(f"{program} is not installed")
        self._program = found
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        test.addCleanup(self.kill)

    async def _start(self, *arguments: str) -> None:
        self._process = self._spawn(arguments)
        await self._until_it_listens()

    def _spawn(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(
                [self._program, *arguments], stdout=output, stderr=output, cwd=self._folder
            )

    async def _until_it_listens(self) -> None:
        deadline = reactor.seconds() + PATIENCE
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.port)
        while reactor.seconds() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                probe = await connectProtocol(endpoint, _Probe())
            except ConnectError:
                await deferLater(reactor, 0.02)
                continue
            probe.transport.abortConnection()
            await probe.gone
            return
        raise AssertionError(f"it did not start:\n{(self._folder / 'output').read_text()}")

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """End it, if it runs, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            await deferToThread(process.wait)

    def pause(self) -> None:
        """It hangs from now on: connections are made by its system, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # On a busy machine it may still answer after that.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class NatsServer(OwnServer):
    """A NATS server, with JetStream unless told otherwise; `config` is of its own language."""

    def __init__(self, test: TestCase, folder: Path, config: str = "", jetstream: bool = True) -> None:
        super().__init__(test, "nats-server", folder)
        self._config = config
        self._jetstream = jetstream

    async def start(self) -> None:
        store = f'jetstream {{ store_dir: "{self._folder}/store" }}' if self._jetstream else ""
        file = self._folder / "nats.conf"
        file.write_text(f'listen: "127.0.0.1:{self.port}"\n{store}\n{self._config}\n')
        await self._start("-c", str(file))


class RedisServer(OwnServer):
    """A Redis server that keeps what it has over a restart."""

    def __init__(self, test: TestCase, folder: Path, *arguments: str) -> None:
        super().__init__(test, "redis-server", folder)
        self.arguments = arguments

    async def start(self) -> None:
        await self._start(
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *self.arguments,
        )


class _Probe(Protocol):
    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def connectionLost(self, reason: object = None) -> None:
        self.gone.callback(None)


def imported_by_a_service_without(*libraries: str) -> str:
    """Which of `libraries` a process imports that has a service's modules and asks every plugin who it is."""
    program = (
        "import sys, cubehook.service, cubehook.tap\n"
        "from cubehook.transports.registry import find_transports\n"
        "found, problems = find_transports()\n"
        "told = [(each.name, each.description, each.options) for each in found.values()]\n"
        "assert len(told) > 3 and not problems, (told, problems)\n"
        f"print([name for name in {libraries!r} if name in sys.modules])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()
