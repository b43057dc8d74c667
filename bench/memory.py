"""
Resident memory: with many calls in progress, or over time under load.

    python -m bench.memory calls [--calls 20000]
    python -m bench.memory soak [--minutes 10] [--rate 60]
"""

from __future__ import annotations

import argparse
import os
import re
import time
from random import Random
from typing import Any

import treq
from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred

from bench.running import SECRET, Service, processors
from cubehook.delivery.signing import decode_secret
from cubehook.simulator.gateway import Settings, SimulatedGateway
from cubehook.simulator.scenarios import DEFAULT_MIX, Traffic
from cubehook.simulator.sink import Sink

RATE = 80.0
"""Calls a second until all are in progress."""

PATIENCE = 120.0
"""Seconds for which a service that lags behind is waited for."""


async def calls(reactor: Any, service: Service, gateway: SimulatedGateway, count: int) -> None:
    """Place calls that do not end, and tell the memory on the way; the service says how many it has."""
    print(f"{0:>8} calls in progress: {service.resident():.0f} MB", flush=True)
    steps = 4
    for step in range(1, steps + 1):
        traffic = Traffic(mix={"answered": 1.0}, rate=RATE, hold_seconds=1e9, count=count // steps, seed=step)
        await gateway.make_calls(traffic)
        deadline = time.monotonic() + PATIENCE
        while (active := await calls_active(service)) < count // steps * step and time.monotonic() < deadline:
            await task.deferLater(reactor, 1.0)
        await task.deferLater(reactor, 8.0)
        print(f"{active:>8} calls in progress: {service.resident():.0f} MB", flush=True)


async def calls_active(service: Service) -> int:
    """How many calls are in progress, as the service counts them."""
    response = await treq.get(f"http://127.0.0.1:{service.console}/metrics", persistent=False)
    found = re.search(r'cubehook_calls_active\{cube="hq"\} (\S+)', await response.text())
    return int(float(found[1])) if found else 0


async def soak(
    reactor: Any, service: Service, gateway: SimulatedGateway, minutes: float, rate: float
) -> None:
    """Calls of all kinds for some minutes; the memory every half minute."""
    traffic = Traffic(mix=DEFAULT_MIX, rate=rate, hold_seconds=5.0, duplicates=0.01, swaps=0.01)
    making = Deferred.fromCoroutine(gateway.make_calls(traffic))
    _ = making.addErrback(lambda failure: failure.trap(CancelledError))
    began = time.monotonic()
    while time.monotonic() < began + minutes * 60:
        await task.deferLater(reactor, 30.0)
        print(
            f"{time.monotonic() - began:6.0f} s: {gateway.counters.calls} calls, "
            f"{gateway.counters.failed} notifications failed, {service.resident():.1f} MB",
            flush=True,
        )
    making.cancel()


async def work(reactor: Any) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["calls", "soak"])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=60.0)
    options = parser.parse_args()
    os.sched_setaffinity(0, processors()[1])
    with Service() as service:
        service.wait_for("is running")
        sink = Sink(reactor, lambda: time.time_ns() // 1000, secrets=[decode_secret(SECRET)])
        await sink.start(f"tcp:{service.sink}:interface=127.0.0.1")
        gateway = SimulatedGateway(
            reactor,
            Settings(
                remote_url=service.application_url,
                listen=f"tcp:{service.gateway}:interface=127.0.0.1",
                connections=64,
                speed=2.0,
            ),
            Random(1),
        )
        await gateway.start()
        await gateway.when_registered()
        if options.what == "calls":
            await calls(reactor, service, gateway, options.calls)
        else:
            await soak(reactor, service, gateway, options.minutes, options.rate)
        await gateway.stop()
        await sink.stop()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(work(reactor)))
