"""
From starting the process to the first registration, with nothing and with a long history in the database.

    python -m bench.start [--calls 100000] [--attempts 1000000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from bench.running import Service, processors
from bench.store import fill
from cubehook.simulator.gateway import Settings, SimulatedGateway

TIMES = 3


async def started(reactor: Any, folder: Path) -> float:
    """Seconds from the start of the process until the service says that it is registered."""
    service = Service(folder)
    (folder / "twistd.log").unlink(missing_ok=True)
    gateway = SimulatedGateway(
        reactor,
        Settings(remote_url=service.application_url, listen=f"tcp:{service.gateway}:interface=127.0.0.1"),
        Random(1),
    )
    await gateway.start()
    try:
        with service:
            return await deferToThread(service.wait_for, "Cube hq is registered")
    finally:
        await gateway.stop()


async def work(reactor: Any) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__.split("\n\n")[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    options = parser.parse_args()
    os.sched_setaffinity(0, processors()[1])
    with tempfile.TemporaryDirectory(prefix="cubehook-bench-") as name:
        folder = Path(name)
        for history in (False, True):
            if history:
                await deferToThread(
                    fill, folder / "state" / "cubehook.db", options.calls, options.attempts, 0
                )
            seconds = sorted([await started(reactor, folder) for _ in range(TIMES)])
            with_what = f"{options.calls} calls, {options.attempts} attempts" if history else "no history"
            print(f"{with_what}: {seconds[0]:.2f} {seconds[1]:.2f} {seconds[2]:.2f} s", flush=True)


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(work(reactor)))
