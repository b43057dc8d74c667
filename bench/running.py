"""The real service as a process of its own, and what the operating system knows of it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

SECRET = "whsec_" + "YmVuY2hiZW5jaGJlbmNoYmVuY2hiZW5jaA=="


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nothing listens."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


_USABLE = sorted(os.sched_getaffinity(0))
"""The processors there were before anything was tied to one of them."""


def processors() -> tuple[set[int], set[int]]:
    """One processor for what is measured and another for the load; the same if there is only one."""
    return {_USABLE[0]}, {_USABLE[-1]}


class Service:
    """
    `twistd cubehook` with one cube and one webhook for all states, its state in a folder of its own.

    Used as a context manager; `folder` may hold a database already.
    """

    def __init__(self, folder: Path | None = None, webhook: str = "concurrency = 32") -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="cubehook-bench-") if folder is None else None
        self.folder = folder or Path(self._temporary.name)  # type: ignore[union-attr]
        self.cubes, self.console, self.gateway, self.sink = free_ports(4)
        self.application_url = f"http://127.0.0.1:{self.cubes}/xcc/hq"
        (self.folder / "cubehook.toml").write_text(
            'state_dir = "state"\n'
            f'[listen]\ncubes = ["tcp:{self.cubes}:interface=127.0.0.1"]\n'
            f'console = ["tcp:{self.console}:interface=127.0.0.1"]\n'
            '[egress]\nallow = ["127.0.0.0/8"]\n'
            f'[cubes.hq]\nprovider_url = "http://127.0.0.1:{self.gateway}/cisco_xcc"\n'
            f'application_url = "{self.application_url}"\ndefault_region = "US"\n'
            f'[webhooks.crm]\nurl = "http://127.0.0.1:{self.sink}/crm"\nsecret = "{SECRET}"\n{webhook}\n'
        )
        self.log = self.folder / "twistd.log"
        self.started_at = 0.0

    def __enter__(self) -> Service:
        measured, _ = processors()
        self.started_at = time.time()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from twisted.scripts.twistd import run; run()",
                    "-n",
                    "--pidfile=",
                    "cubehook",
                    "--config",
                    str(self.folder / "cubehook.toml"),
                ],
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, measured),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._temporary is not None:
            self._temporary.cleanup()

    def wait_for(self, pattern: str, seconds: float = 60.0) -> float:
        """Seconds from the start of the process until its log matches `pattern`."""
        compiled = re.compile(pattern)
        while time.time() < self.started_at + seconds:
            if compiled.search(self.log.read_text("utf-8", "replace")):
                return time.time() - self.started_at
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError(f"{pattern!r} was not logged:\n{self.log.read_text('utf-8', 'replace')[-3000:]}")

    def cpu(self) -> float:
        """
        Seconds of CPU that the process has used, user and system, all threads that still run.

        From the scheduler's own count: the times in /proc/PID/stat are samples, and were seen to be off
        by half for a process that sleeps and wakes thousands of times a second.
        """
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident(self) -> float:
        """Megabytes (10^6 bytes) of resident memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) * 1024 / 1e6 if found else 0.0
