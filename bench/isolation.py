"""
What bad receivers cost good ones: a healthy webhook alone, then with a dead and a hanging one beside it.

    python -m bench.isolation [--rate 100] [--seconds 20] [--turns 3]

The two take turns at the same rate of calls, on the same service started anew.  The dead receiver's port is
closed; the hanging one accepts connections and never answers.  Each gets the same events as the healthy one.
"""

from __future__ import annotations

import argparse
import os
import statistics
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from bench.__main__ import HEAD, Measured, line, run
from bench.running import Service, free_ports, processors


class _Silent(Protocol):
    """Takes everything and answers nothing."""


async def once(reactor: Any, rate: float, seconds: float, *, beside: bool) -> Measured:
    """One run of a service of its own."""
    dead, hanging = free_ports(2)
    settings = "concurrency = 32\n"
    if beside:
        for name, port in (("dead", dead), ("hanging", hanging)):
            settings += f'[webhooks.{name}]\nurl = "http://127.0.0.1:{port}/calls"\n'
    listener = reactor.listenTCP(hanging, Factory.forProtocol(_Silent), interface="127.0.0.1")
    try:
        with Service(webhook=settings) as service:
            await deferToThread(service.wait_for, "is running")
            return await run(reactor, service, rate, seconds)
    finally:
        await listener.stopListening()


async def compare(reactor: Any, options: argparse.Namespace) -> None:
    os.sched_setaffinity(0, processors()[1])
    print(HEAD, flush=True)
    webhook: dict[bool, list[float]] = {False: [], True: []}
    answer: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.turns):
        for beside in (False, True):
            found = await once(reactor, options.rate, options.seconds, beside=beside)
            print(line("beside two" if beside else "alone", found), flush=True)
            webhook[beside].append(found.webhook.p99_ms or 0)
            answer[beside].append(found.result.answer.p99_ms or 0)
    for name, found_ms in (("webhook", webhook), ("answer", answer)):
        alone, beside_two = statistics.median(found_ms[False]), statistics.median(found_ms[True])
        print(
            f"{name} p99, median of {options.turns}: alone {alone:.1f} ms, beside two {beside_two:.1f} ms: "
            f"{beside_two / alone:.2f} times"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.isolation", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second (default 100)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run (default 20)")
    parser.add_argument("--turns", type=int, default=3, help="runs of each kind (default 3)")
    options = parser.parse_args()
    task.react(lambda reactor: Deferred.fromCoroutine(compare(reactor, options)))


if __name__ == "__main__":
    main()
