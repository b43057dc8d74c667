"""Load on an application: a gateway and, if wanted, a sink in one process, and what they measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from cubehook.simulator.gateway import Counters, Observer, Settings, SimulatedGateway
from cubehook.simulator.latencies import Latencies, Percentiles
from cubehook.simulator.observers import Meter, Second
from cubehook.simulator.scenarios import Traffic
from cubehook.simulator.sink import GOOD, Behaviour, Received, Sink, Summary

_LOOK_SECONDS = 0.1

HAPPENINGS: dict[str, Callable[[SimulatedGateway], Any]] = {
    "reload": SimulatedGateway.reload,
    "shutdown": lambda gateway: Deferred.fromCoroutine(gateway.shut_down_provider()),
    "no-shutdown": SimulatedGateway.start_provider,
    "forget": SimulatedGateway.forget_registration,
}
"""What may happen to a gateway under load; `forget` drops the registration, which only a probe tells."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to put on the application, and for how long."""

    gateway: Settings
    traffic: Traffic
    warm_up: float = 5.0
    """Seconds of calls before the measurement."""
    duration: float | None = None
    """Seconds of calls that are measured; None until `traffic.count` calls were made."""
    finish: float | None = 120.0
    """Seconds that calls in progress at the end may still take; None for as long as they take."""
    sink: str | None = None
    """An endpoint string to receive webhooks at."""
    secrets: tuple[bytes, ...] = ()
    behaviour: Behaviour = GOOD
    happenings: tuple[tuple[float, str], ...] = ()
    """What happens to the gateway, by name (`HAPPENINGS`), so many seconds after the first registration."""
    quiet: float = 2.0
    """The sink has all it will get when so many seconds brought nothing."""
    patience: float | None = 60.0
    """Seconds within which the application must register; None to wait for ever."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a load showed.

    `counters` and `webhooks` tell of the whole run, everything else of what came after the warm-up.
    """

    seconds: float
    """How long calls were made."""
    calls: int
    calls_per_second: float
    answers: int
    answers_per_second: float
    failures: int
    """Notifications without a 2xx answer."""
    statuses: dict[str, int]
    """Answers by HTTP status; `none` are those that never came."""
    answer: Percentiles
    """From sending a notification to its answer."""
    event_to_answer: Percentiles
    """The same with the wait for a free connection."""
    greatest_backlog: int
    """Messages that waited for a connection at once."""
    unfinished_calls: int
    """Calls still in progress when waiting for them ended."""
    counters: Counters
    expected_webhooks: int
    """Events of all calls of the run: what one webhook for every state should have received."""
    webhooks: Summary | None
    webhook: Percentiles | None
    """From the payload's timestamp to arrival, without the warm-up."""
    series: list[Second]


class NotRegisteredError(Exception):
    """The application did not register in time."""


async def run_load(
    reactor: Any,
    load: Load,
    observers: Sequence[Observer] = (),
    received: Callable[[Received], None] | None = None,
    stop: Deferred[None] | None = None,
) -> LoadResult:
    """
    Start the gateway (and the sink), wait for the registration, make the calls, measure.

    `observers` watch the gateway, `received` is called for each webhook.  When `stop` fires no more
    calls are made, nothing is waited for, and the result is of what was measured.
    CannotListenError for a busy port, NotRegisteredError if nobody registers.
    """
    meter = Meter(reactor.seconds)
    traffic = load.traffic
    gateway = SimulatedGateway(
        reactor,
        load.gateway,
        Random(f"{traffic.seed} gateway"),  # noqa: S311 - for play
        [meter, *observers],
    )
    sink = Sink(
        reactor,
        lambda: time.time_ns() // 1000,
        secrets=load.secrets,
        behaviour=load.behaviour,
        random=Random(f"{traffic.seed} sink"),  # noqa: S311 - for play
        received=received,
    )
    try:
        if load.sink is not None:
            await sink.start(load.sink)
        await gateway.start()
        run = _Run(reactor, load, gateway, meter, sink, stop or Deferred())
        return await run.result()
    finally:
        await gateway.stop()
        await sink.stop()


class _Run:
    """One load under way."""

    def __init__(
        self,
        reactor: Any,
        load: Load,
        gateway: SimulatedGateway,
        meter: Meter,
        sink: Sink,
        stop: Deferred[None],
    ) -> None:
        self._reactor = reactor
        self._load = load
        self._gateway = gateway
        self._meter = meter
        self._sink = sink
        self._stop = stop
        self._backlog = 0
        self._webhooks_seen = 0
        self._last_webhook = 0.0
        self._ceased: Deferred[None] | None = None

    async def result(self) -> LoadResult:
        load, gateway, meter, sink = self._load, self._gateway, self._meter, self._sink
        registered = gateway.when_registered()
        await self._until(registered, load.patience)
        if gateway.registration is None and not self._stop.called:
            raise NotRegisteredError(
                f"nobody registered at {gateway.url} within {load.patience} s: the application must know "
                f"it as provider URL and have {load.gateway.remote_url} as its own, to the letter"
            )
        happenings = [
            self._reactor.callLater(seconds, HAPPENINGS[name], gateway) for seconds, name in load.happenings
        ]
        looking = LoopingCall(self._look)
        looking.clock = self._reactor
        looked = looking.start(_LOOK_SECONDS, now=False)
        making = Deferred.fromCoroutine(gateway.make_calls(load.traffic))
        try:
            await self._until(making, load.warm_up)
            meter.begin()
            sink.latencies = Latencies()
            calls, began = gateway.counters.calls, self._reactor.seconds()
            await self._until(making, load.duration)
            seconds = self._reactor.seconds() - began
            calls = gateway.counters.calls - calls
            answered = meter.answers.count
            making.cancel()
            with suppress(CancelledError):
                await making
            await self._until(gateway.when_idle(), load.finish)
            if load.sink is not None:
                self._last_webhook = self._reactor.seconds()
                self._ceased = Deferred()
                await self._until(self._ceased, load.finish)
        finally:
            for happening in happenings:
                if happening.active():
                    happening.cancel()
            looking.stop()
            await looked
        self._look()
        answer, event_to_answer = meter.percentiles()
        return LoadResult(
            seconds=round(seconds, 3),
            calls=calls,
            calls_per_second=_rate(calls, seconds),
            answers=meter.answers.count,
            answers_per_second=_rate(answered, seconds),
            failures=meter.failures,
            statuses=meter.statuses,
            answer=answer,
            event_to_answer=event_to_answer,
            greatest_backlog=self._backlog,
            unfinished_calls=gateway.in_progress,
            counters=gateway.counters,
            expected_webhooks=meter.expected,
            webhooks=sink.summary() if load.sink is not None else None,
            webhook=sink.latencies.percentiles() if load.sink is not None else None,
            series=meter.series,
        )

    async def _until(self, event: Deferred[Any], seconds: float | None) -> None:
        """Wait for `event`, but no longer than `seconds`, nor than until we are stopped."""
        over: Deferred[None] = Deferred()

        def fire(result: Any) -> Any:
            if not over.called:
                over.callback(None)
            return result

        for deferred in (event, self._stop):
            _ = deferred.addBoth(fire)
        timer = None if seconds is None else self._reactor.callLater(seconds, fire, None)
        await over
        if timer is not None and timer.active():
            timer.cancel()

    def _look(self) -> None:
        now = self._reactor.seconds()
        self._backlog = max(self._backlog, self._gateway.backlog)
        new = self._sink.accepted - self._webhooks_seen
        if new:
            self._webhooks_seen += new
            self._last_webhook = now
            second = self._meter.second(now)
            if second is not None:
                second.webhooks += new
        elif self._ceased is not None and now - self._last_webhook >= self._load.quiet:
            ceased, self._ceased = self._ceased, None
            ceased.callback(None)


def _rate(number: int, seconds: float) -> float:
    return round(number / seconds, 1) if seconds > 0 else 0.0
