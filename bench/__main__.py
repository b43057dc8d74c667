"""
What the service sustains, how quickly it answers and delivers, and what a call costs, beside bare costs.

    python -m bench [--seconds N] [--from CALLS_PER_SECOND] [--json]

The service has one processor, the load (a simulated gateway and a receiver in one process) another.
A call is 8 to 9 notifications and 3 webhooks.  A rate is sustained when every notification is answered
200, the answers keep up with the calls, and every webhook arrives.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import msgspec
from twisted.internet import task
from twisted.internet.defer import Deferred

from bench import bare
from bench.running import SECRET, Service, processors
from cubehook.delivery.signing import decode_secret
from cubehook.simulator.gateway import Settings
from cubehook.simulator.latencies import Percentiles
from cubehook.simulator.load import Load, LoadResult, run_load
from cubehook.simulator.scenarios import Traffic

STEP = 1.15
MIX = {"answered": 1.0}
HOLD_SECONDS = 2.0
"""Mean talk: short, so that a run of some seconds sees whole calls."""
BARE_COUNT = 6000


class Measured(msgspec.Struct, kw_only=True):
    """One run at one rate."""

    offered: float
    result: LoadResult
    cpu_ms_per_call: float
    resident_mb: float
    load_cpu: float
    """Share of a processor that the load itself took."""
    sustained: bool
    webhook: Percentiles
    """From the notification to the webhook's arrival."""


async def run(reactor: Any, service: Service, rate: float, seconds: float, warm_up: float = 2.0) -> Measured:
    """Put `rate` calls a second on the service for some seconds."""
    began, before, own = time.monotonic(), service.cpu(), time.process_time()
    result = await run_load(
        reactor,
        Load(
            gateway=Settings(
                remote_url=service.application_url,
                listen=f"tcp:{service.gateway}:interface=127.0.0.1",
                connections=64,
            ),
            traffic=Traffic(mix=MIX, rate=rate, hold_seconds=HOLD_SECONDS, seed=int(rate)),
            warm_up=warm_up,
            duration=seconds,
            sink=f"tcp:{service.sink}:interface=127.0.0.1",
            secrets=(decode_secret(SECRET),),
            finish=30.0,
            quiet=1.0,
        ),
    )
    spent = service.cpu() - before
    webhooks, latency = result.webhooks, result.webhook
    if webhooks is None or latency is None:
        raise RuntimeError("the load ran without a sink")
    sustained = (
        result.failures == 0
        and result.unfinished_calls == 0
        and webhooks.unique == result.expected_webhooks
        and webhooks.bad_signatures == 0
        and (result.event_to_answer.p99_ms or 0) < 500
        and (latency.p99_ms or 0) < 1000
    )
    return Measured(
        offered=rate,
        result=result,
        cpu_ms_per_call=spent / result.counters.calls * 1000,
        resident_mb=service.resident(),
        load_cpu=(time.process_time() - own) / (time.monotonic() - began),
        sustained=sustained,
        webhook=latency,
    )


def line(name: str, measured: Measured) -> str:
    """A run as a line of the table."""
    result, webhook = measured.result, measured.webhook
    return (
        f"{name:<12} {result.calls_per_second:8.1f} {result.answers_per_second:9.0f}"
        f" {result.answer.p50_ms or 0:8.1f} {result.answer.p99_ms or 0:8.1f}"
        f" {webhook.p50_ms or 0:8.1f} {webhook.p99_ms or 0:8.1f}"
        f" {measured.cpu_ms_per_call:8.2f} {measured.resident_mb:6.0f} {measured.load_cpu:6.0%}"
        f"  {'sustained' if measured.sustained else 'not sustained'}"
    )


async def measure(reactor: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain values."""
    say = (lambda text: None) if options.json else print
    measured_on, load_on = processors()
    os.sched_setaffinity(0, load_on)
    costs = {what: bare.measure(what, BARE_COUNT, measured_on) * 1000 for what in ("klein", "lxml", "treq")}
    say("bare costs, ms of CPU: " + ", ".join(f"{what} {cost:.3f}" for what, cost in costs.items()))
    say(
        f"{'':<12} {'calls/s':>8} {'answers/s':>9} {'answer':>8} {'ms':>8} {'webhook':>8} {'ms':>8}"
        f" {'CPU':>8} {'MB':>6} {'load':>6}\n"
        f"{'':<12} {'':>8} {'':>9} {'p50':>8} {'p99':>8} {'p50':>8} {'p99':>8} {'ms/call':>8}"
    )
    with Service() as service:
        service.wait_for("is running")
        rate, best = options.start, None
        while True:
            found = await run(reactor, service, rate, options.seconds)
            say(line(f"at {rate:.0f}/s", found))
            if not found.sustained:
                break
            best = found
            rate *= STEP
        if best is None:
            raise SystemExit("Not even the first rate was sustained: try a lower --from.")
        at_70 = await run(reactor, service, best.offered * 0.7, options.seconds * 3)
        say(line("at 70%", at_70))
    notifications = at_70.result.counters.notifications / at_70.result.counters.calls
    webhooks = at_70.result.expected_webhooks / at_70.result.counters.calls
    sum_of_bare = notifications * (costs["klein"] + costs["lxml"]) + webhooks * costs["treq"]
    ratio = best.cpu_ms_per_call / sum_of_bare
    say(f"\na call: {notifications:.1f} notifications, {webhooks:.1f} webhooks; bare {sum_of_bare:.2f} ms")
    say(
        f"sustained {best.offered:.0f} calls/s; {best.cpu_ms_per_call:.2f} ms of CPU a call: {ratio:.2f} x bare"
    )
    say(f"at 70%: answer p99 {at_70.result.answer.p99_ms} ms, webhook p99 {at_70.webhook.p99_ms} ms")
    return {"bare_ms": costs, "sum_of_bare_ms": sum_of_bare, "ratio": ratio, "best": best, "at_70": at_70}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each run (default 8)")
    parser.add_argument("--from", dest="start", type=float, default=80.0, help="first rate, calls a second")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()

    async def work(reactor: Any) -> None:
        found = await measure(reactor, options)
        if options.json:
            json.dump(json.loads(msgspec.json.encode(found)), sys.stdout, indent=2)

    task.react(lambda reactor: Deferred.fromCoroutine(work(reactor)))


main()
