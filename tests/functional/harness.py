"""Runs the real `twistd cubehook` as a process of its own and talks to it over loopback."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import treq
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

reactor: Any = installed
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds after which a test stops waiting for something that should long have happened."""


_ports = itertools.cycle(range(10_000, 30_000))
_ = next(itertools.islice(_ports, os.getpid() * 997 % 20_000, None))


def free_port() -> int:
    """
    A TCP port of 127.0.0.1 that nothing listens on, and that is given to nobody else for a while.

    Not one that the system chooses: until it is used, it would choose it again, for another process of
    tests or for a connection that goes out.
    """
    while True:
        port = next(_ports)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Process(ProcessProtocol):
    """A child process whose output can be waited for."""

    def __init__(self) -> None:
        self.text = ""
        self.exit_code: int | None = None
        self.signal: int | None = None
        self._waiting: list[tuple[re.Pattern[str], int, Deferred[re.Match[str]]]] = []
        self._over: list[Deferred[None]] = []
        self._ended = False

    def outReceived(self, data: bytes) -> None:
        self.text += data.decode("utf-8", "replace")
        for entry in list(self._waiting):
            pattern, start, waiting = entry
            found = pattern.search(self.text, start)
            if found:
                self._waiting.remove(entry)
                waiting.callback(found)

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self._ended = True
        if reason.check(ProcessDone):
            self.exit_code = 0
        else:
            self.exit_code = reason.value.exitCode  # type: ignore[union-attr]
            self.signal = reason.value.signal  # type: ignore[union-attr]
        for _, _, waiting in self._waiting:
            waiting.errback(AssertionError(f"the process ended ({self.exit_code}) having said:\n{self.text}"))
        self._waiting.clear()
        for over in self._over:
            over.callback(None)

    def wait_for(self, pattern: str, start: int = 0, patience: float = PATIENCE) -> Deferred[re.Match[str]]:
        """Fires with the first match of `pattern` in the output; fails if the process ends."""
        compiled = re.compile(pattern)
        found = compiled.search(self.text, start)
        waiting: Deferred[re.Match[str]] = Deferred()
        if found:
            waiting.callback(found)
        elif self._ended:
            waiting.errback(AssertionError(f"the process ended ({self.exit_code}) having said:\n{self.text}"))
        else:
            entry = (compiled, start, waiting)
            self._waiting.append(entry)
            _ = waiting.addTimeout(patience, reactor)

            def give_up(failure: Failure) -> Failure:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                    raise AssertionError(f"{pattern!r} was not seen in {patience} s in:\n{self.text}")
                return failure

            _ = waiting.addErrback(give_up)
        return waiting

    def ended(self) -> Deferred[None]:
        """Fires when the process is gone."""
        over: Deferred[None] = Deferred()
        if self._ended:
            over.callback(None)
        else:
            self._over.append(over)
            _ = over.addTimeout(PATIENCE, reactor)
        return over

    def send(self, number: int) -> None:
        """Send a signal, if the process still lives."""
        if not self._ended:
            self.transport.signalProcess(number)  # type: ignore[union-attr]

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal, and see that it stopped in an orderly way (twistd then ends by that signal)."""
        self.send(number)
        await self.ended()
        if self.signal != number or "cubehook has stopped" not in self.text:
            raise AssertionError(f"it did not stop as it should (status {self.exit_code}):\n{self.text}")

    async def kill(self) -> None:
        """SIGKILL it, and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.ended()


def spawn(
    test: TestCase,
    *arguments: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    sockets: Sequence[int] = (),
) -> Process:
    """
    Start `python ARGUMENTS`; it is killed at the end of the test if it still lives.

    `sockets` are descriptors that it finds from 3 on.
    """
    process = Process()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
    reactor.spawnProcess(
        process,
        sys.executable,
        [sys.executable, *arguments],
        env=environment,
        path=str(cwd or ROOT),
        childFDs={0: "w", 1: "r", 2: "r"} | dict(enumerate(sockets, 3)),
    )
    test.addCleanup(lambda: Deferred.fromCoroutine(process.kill()))
    return process


def twistd(
    test: TestCase,
    folder: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    sockets: Mapping[str, socket.socket] = MappingProxyType({}),
    before: str = "",
) -> Process:
    """
    Start `twistd -n cubehook ARGUMENTS` with `folder` as its place for a pid file.

    It is handed `sockets` as systemd would do it, under these names; `before` is Python to run before it.
    """
    run = f"{before}\nfrom twisted.scripts.twistd import run; run()"
    if sockets:
        run = f"import os; os.environ['LISTEN_PID'] = str(os.getpid()); {run}"
        env = {**(env or {}), "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(sockets)}
    descriptors = [each.fileno() for each in sockets.values()]
    pidfile = f"--pidfile={folder / 'twistd.pid'}"
    return spawn(test, "-c", run, "-n", pidfile, "cubehook", *arguments, env=env, sockets=descriptors)


class Service:
    """A running cubehook: its configuration, process and addresses."""

    def __init__(
        self, test: TestCase, folder: Path, *, cubes: str = "", webhooks: str = "", extra: str = ""
    ) -> None:
        self.test = test
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cubes_port = free_port()
        self.console_port = free_port()
        self.scheme = "http"
        """What gateways speak to it."""
        self.config = self.folder / "cubehook.toml"
        self.cubes, self.webhooks, self.extra = cubes, webhooks, extra
        self.env: dict[str, str] = {}
        self.sockets: dict[str, socket.socket] = {}
        """Handed over by name, as systemd does it."""
        self.state_dir = "state"
        self.before = ""
        """Python that is run in the process before the service."""
        self.listen = (
            f'cubes = ["tcp:{self.cubes_port}:interface=127.0.0.1"]\n'
            f'console = ["tcp:{self.console_port}:interface=127.0.0.1"]\n'
        )
        self.process: Process | None = None

    def application_url(self, cube: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.cubes_port}/xcc/{cube}"

    def write_config(self) -> None:
        self.config.write_text(
            f'state_dir = "{self.state_dir}"\n{self.extra}\n'
            f"[listen]\n{self.listen}"
            '[egress]\nallow = ["127.0.0.0/8"]\n'
            f"{self.cubes}\n{self.webhooks}\n"
        )

    async def start(self) -> Process:
        """Start it and wait until it serves."""
        self.write_config()
        self.process = self.spawn()
        await self.process.wait_for(r"cubehook \S+ is running")
        return self.process

    def spawn(self) -> Process:
        """Start it as it is configured."""
        return twistd(
            self.test,
            self.folder,
            "--config",
            str(self.config),
            env=self.env,
            sockets=self.sockets,
            before=self.before,
        )

    async def get(self, path: str) -> tuple[int, str]:
        """GET a path of the console's listener."""
        response = await treq.get(f"http://127.0.0.1:{self.console_port}{path}", persistent=False)
        return response.code, await response.text()
