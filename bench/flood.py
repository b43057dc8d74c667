"""
What a flood costs a gateway: its answers alone, and beside ten thousand connections that ask for nothing.

    python -m bench.flood [--rate 100] [--seconds 20] [--turns 3]

Half of the connections are silent, half send a byte of their headers a second; what the service closes is
opened again, as fast as 2,000 a second.  They come from the gateway's own address, then from 10,000 others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from bench.__main__ import HEAD, Measured, line, run
from bench.running import Service, processors

CONNECTIONS = 10_000
FLOODS = {"alone": 0, "from its own address": 1, "from 10,000": CONNECTIONS}
"""Addresses that a flood comes from, by what it is called."""


async def once(reactor: Any, rate: float, seconds: float, sources: int) -> tuple[Measured, dict[str, int]]:
    """One run of a service of its own, and what became of the flood."""
    with Service() as service:
        await deferToThread(service.wait_for, "is running")
        if not sources:
            return await run(reactor, service, rate, seconds), {}
        flood = _begin(service.cubes, sources)
        try:
            return await run(reactor, service, rate, seconds), await deferToThread(_last, flood)
        finally:
            flood.kill()
            flood.wait()


def _begin(port: int, sources: int) -> subprocess.Popen[str]:
    arguments = [str(port), "--sources", str(sources), "--connections", str(CONNECTIONS)]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.flooder", *arguments], stdout=subprocess.PIPE, text=True
    )


def _last(flood: subprocess.Popen[str]) -> dict[str, int]:
    """What the flood said last."""
    flood.terminate()
    output, _ = flood.communicate(timeout=10)
    counts: dict[str, int] = json.loads(output.splitlines()[-1])
    return counts


async def compare(reactor: Any, options: argparse.Namespace) -> None:
    os.sched_setaffinity(0, processors()[1])
    print(HEAD, flush=True)
    answers: dict[str, list[float]] = {name: [] for name in FLOODS}
    for _ in range(options.turns):
        for name, sources in FLOODS.items():
            found, flood = await once(reactor, options.rate, options.seconds, sources)
            became = "".join(f"  {count:,} {what}" for what, count in flood.items())
            print(line(name[:12], found) + became, flush=True)
            answers[name].append(found.result.answer.p99_ms or 0)
    for name, found_ms in answers.items():
        times = " ".join(f"{each:.1f}" for each in found_ms)
        print(f"answer p99, {name}: median {statistics.median(found_ms):.1f} ms of {times}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second (default 100)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run (default 20)")
    parser.add_argument("--turns", type=int, default=3, help="runs of each kind (default 3)")
    options = parser.parse_args()
    task.react(lambda reactor: Deferred.fromCoroutine(compare(reactor, options)))


if __name__ == "__main__":
    main()
