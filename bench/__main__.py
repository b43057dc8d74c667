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
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet import task
from twisted.internet.defer import Deferred

from bench import bare
from bench.running import SECRET, Service, processors
from cubehook.delivery.signing import decode_secret
from cubehook.simulator.gateway import Notification, Observer, Settings
from cubehook.simulator.latencies import Percentiles
from cubehook.simulator.load import Load, LoadResult, run_load
from cubehook.simulator.provider import Registration
from cubehook.simulator.scenarios import Traffic

STEP = 1.2
MIX = {"answered": 1.0}
HOLD_SECONDS = 4.0
SPEED = 4.0
"""Calls are four times as short as in life, so that a run of some seconds sees whole ones."""
WARM_UP = 6.0
"""Seconds until as many calls end as begin."""
CONNECTIONS = 128
"""Kept-open connections of the gateway."""


class Measured(msgspec.Struct, kw_only=True):
    """One run at one rate."""

    offered: float
    result: LoadResult
    webhook: Percentiles
    """From the notification to the webhook's arrival."""
    notifications_per_call: float
    webhooks_per_call: float
    notifications_per_second: float
    cpu_share: float
    """Of one processor, once as many calls end as begin."""
    cpu_ms_per_call: float
    resident_mb: float
    load_cpu: float
    """Share of a processor that the load itself took."""
    sustained: bool


class Window(Observer):
    """Counts the notifications answered, and reads the service's CPU, from `begin` seconds of calls on."""

    def __init__(self, reactor: Any, service: Service, begin: float, length: float) -> None:
        self._reactor = reactor
        self._service = service
        self._begin_after = begin
        self._answered = 0
        self.notifications = 0
        self.cpu = 0.0
        self.length = length
        self._moments: list[Deferred[None]] = []

    def registered(self, registration: Registration) -> None:
        # Calls begin here.  It may come late: the service is in no hurry for a gateway that often vanishes.
        if not self._moments:
            self._moments = [
                task.deferLater(self._reactor, self._begin_after, self._begin),
                task.deferLater(self._reactor, self._begin_after + self.length, self._end),
            ]

    def notified(self, notification: Notification, status: int | None, error: str, at: float) -> None:
        if status == 200:
            self._answered += 1

    def _begin(self) -> None:
        self.cpu = -self._service.cpu()
        self.notifications = -self._answered

    def _end(self) -> None:
        self.cpu += self._service.cpu()
        self.notifications += self._answered

    async def over(self) -> None:
        """Wait for the second moment."""
        for moment in self._moments:
            await moment


async def run(
    reactor: Any, service: Service, rate: float, seconds: float, *, seed: int | None = None
) -> Measured:
    """
    Put `rate` calls a second on the service; measure for some seconds once as many end as begin.

    A `seed` makes the same calls, which a service that knows of them takes for what they are: the same.
    """
    window = Window(reactor, service, WARM_UP, seconds)
    began, own = time.monotonic(), time.process_time()
    result = await run_load(
        reactor,
        Load(
            gateway=Settings(
                remote_url=service.application_url,
                listen=f"tcp:{service.gateway}:interface=127.0.0.1",
                connections=CONNECTIONS,
                speed=SPEED,
            ),
            traffic=Traffic(
                mix=MIX, rate=rate, hold_seconds=HOLD_SECONDS, seed=int(rate) if seed is None else seed
            ),
            warm_up=WARM_UP,
            duration=seconds,
            sink=f"tcp:{service.sink}:interface=127.0.0.1",
            secrets=(decode_secret(SECRET),),
            finish=30.0,
            quiet=1.0,
            patience=120.0,
        ),
        [window],
    )
    await window.over()
    webhooks, latency = result.webhooks, result.webhook
    if webhooks is None or latency is None:
        raise RuntimeError("the load ran without a sink")
    notifications = result.counters.notifications / result.counters.calls
    return Measured(
        offered=rate,
        result=result,
        webhook=latency,
        notifications_per_call=notifications,
        webhooks_per_call=result.expected_webhooks / result.counters.calls,
        notifications_per_second=window.notifications / seconds,
        cpu_share=window.cpu / seconds,
        cpu_ms_per_call=window.cpu / window.notifications * notifications * 1000,
        resident_mb=service.resident(),
        load_cpu=(time.process_time() - own) / (time.monotonic() - began),
        sustained=(
            result.failures == 0
            and result.unfinished_calls == 0
            and webhooks.unique == result.expected_webhooks
            and webhooks.bad_signatures == 0
            and window.notifications / seconds > 0.9 * rate * notifications
            and (result.event_to_answer.p99_ms or 0) < 500
            and (latency.p99_ms or 0) < 1000
        ),
    )


HEAD = (
    "              notif./s   answer       ms  webhook       ms    CPU      CPU    MB\n"
    "                            p50      p99      p50      p99  share  ms/call"
)


def line(name: str, measured: Measured) -> str:
    """A run as a line of the table."""
    answer, webhook = measured.result.answer, measured.webhook
    return (
        f"{name:<12} {measured.notifications_per_second:9.0f}"
        f" {answer.p50_ms or 0:8.1f} {answer.p99_ms or 0:8.1f}"
        f" {webhook.p50_ms or 0:8.1f} {webhook.p99_ms or 0:8.1f}"
        f" {measured.cpu_share:6.0%} {measured.cpu_ms_per_call:8.2f} {measured.resident_mb:5.0f}"
        f" load {measured.load_cpu:.0%}"
        f"  {'sustained' if measured.sustained else 'not sustained'}"
    )


async def climb(
    reactor: Any, service: Service, rate: float, seconds: float, say: Callable[[str], None]
) -> Measured:
    """The run at the greatest rate that was sustained; each rate has two tries, for the machine is shared."""
    best = None
    while True:
        for _ in range(2):
            found = await run(reactor, service, rate, seconds)
            say(line(f"{rate:.0f} calls/s", found))
            if found.sustained:
                break
        else:
            if best is None:
                raise SystemExit("Not even the first rate was sustained: try a lower --from.")
            return best
        best = found
        rate *= STEP


async def measure(reactor: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain values."""

    def say(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    _, load_on = processors()
    os.sched_setaffinity(0, load_on)
    with Service() as service:
        service.wait_for("is running")
        say(HEAD)
        best = await climb(reactor, service, options.start, options.seconds, say)
        at_70 = await run(reactor, service, best.offered * 0.7, options.seconds * 2)
        say(line("at 70%", at_70))
    say(
        f"\na call: {best.notifications_per_call:.1f} notifications, {best.webhooks_per_call:.1f} webhooks; "
        "bare costs, CPU us each:"
    )
    paced = bare_costs(best, best.notifications_per_second, best.offered * best.webhooks_per_call)
    full = bare_costs(best, FULL_SPEED, FULL_SPEED)
    for name, costs in (("at the rates of that run", paced), ("as fast as they go", full)):
        say(
            f"  {name:<25} klein {costs.klein_us:.0f}, lxml {costs.lxml_us:.0f}, treq {costs.treq_us:.0f}; "
            f"a call's {costs.call_ms:.2f} ms, the service takes {costs.ratio:.2f} times that"
        )
    say(f"sustained {best.offered:.0f} calls/s; CPU {best.cpu_ms_per_call:.2f} ms a call")
    say(f"at 70%: answer p99 {at_70.result.answer.p99_ms} ms, webhook p99 {at_70.webhook.p99_ms} ms")
    return {"best": best, "at_70": at_70, "bare_at_the_rates": paced, "bare_at_full_speed": full}


FULL_SPEED = 1e6
"""Operations a second: more than any can do, so that they never pause."""


class BareCosts(msgspec.Struct, frozen=True, kw_only=True):
    """CPU microseconds of each bare operation, a call's share of them, and the service's cost beside that."""

    klein_us: float
    lxml_us: float
    treq_us: float
    call_ms: float
    ratio: float


def bare_costs(measured: Measured, notifications: float, webhooks: float) -> BareCosts:
    """What `measured` did, bare, at so many notifications and webhooks a second."""
    cpu, _ = processors()
    klein, lxml, treq = (
        bare.measure(what, rate, cpu)
        for what, rate in (("klein", notifications), ("lxml", notifications), ("treq", webhooks))
    )
    call = measured.notifications_per_call * (klein + lxml) + measured.webhooks_per_call * treq
    return BareCosts(
        klein_us=klein * 1e6,
        lxml_us=lxml * 1e6,
        treq_us=treq * 1e6,
        call_ms=call * 1000,
        ratio=measured.cpu_ms_per_call / (call * 1000),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each run (default 8)")
    parser.add_argument("--from", dest="start", type=float, default=100.0, help="first rate, calls a second")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()

    async def work(reactor: Any) -> None:
        found = await measure(reactor, options)
        if options.json:
            json.dump(json.loads(msgspec.json.encode(found)), sys.stdout, indent=2)

    task.react(lambda reactor: Deferred.fromCoroutine(work(reactor)))


if __name__ == "__main__":
    main()
