"""
CPU microseconds of the dispatcher's own for a delivery that succeeds at once.

`python -m bench.dispatch [EVENTS]`: the best of several runs.  The transport answers in the next turn of a
fake reactor and the store commits each turn's records together, both at next to no cost of their own.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from cubehook import config
from cubehook.delivery.dispatcher import Dispatcher
from cubehook.events import CallEvent, CallState, Event, Granularity, Micros
from cubehook.ids import Ids, id_text
from cubehook.interfaces import IDeliveryStore, ITransport, Outbound, Sent
from cubehook.records import Attempt, Delivery, Trouble

EVENTS = 3000
RUNS = 7
WEBHOOKS = 3
PER_TURN = 5
"""Events between two turns of the reactor."""

_SENT = Sent(delivered=True, method="POST", url="http://192.0.2.9/calls", status=204)


@implementer(IDeliveryStore)
class _Store:
    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def record(self, attempt: Attempt | None, delivery: Delivery) -> Deferred[None]:
        committed: Deferred[None] = Deferred()
        self.waiting.append(committed)
        return committed

    async def pending(self, webhook: str, now: Micros, exclude: Sequence[int], limit: int) -> list[Delivery]:
        return []

    async def next_due(self, webhook: str, after: Micros) -> Micros | None:
        return None

    async def disable_webhook(self, webhook: str, reason: str, at: Micros) -> None:
        raise RuntimeError("no receiver is gone here")

    async def save_trouble(self, webhook: str, trouble: Trouble | None) -> None:
        raise RuntimeError("no receiver fails here")

    async def settle(self, delivery: int, status: str) -> None:
        raise RuntimeError("every record is kept here")


@implementer(ITransport)
class _Transport:
    def __init__(self, waiting: list[Deferred[Sent]]) -> None:
        self.waiting = waiting

    async def start(self) -> None:
        pass

    async def deliver(self, outbound: Outbound) -> Sent:
        answered: Deferred[Sent] = Deferred()
        self.waiting.append(answered)
        return await answered

    async def stop(self) -> None:
        pass


class _Observer:
    def attempted(self, webhook: config.Webhook, delivery: Delivery, attempt: Attempt) -> None:
        pass

    def expired(self, webhook: config.Webhook, delivery: Delivery) -> None:
        pass

    def held(self, webhook: config.Webhook, until: Micros, why: str) -> None:
        pass

    def released(self, webhook: config.Webhook) -> None:
        pass

    def failing(self, webhook: config.Webhook, since: Micros, why: str) -> None:
        pass

    def recovered(self, webhook: config.Webhook, since: Micros) -> None:
        pass

    def disabled(self, webhook: config.Webhook, reason: str) -> None:
        pass


def _event(ids: Ids, number: int, at: Micros) -> Event:
    fields: dict[str, Any] = dict.fromkeys(CallEvent.__struct_fields__)
    call = ids.next(at)
    fields |= {
        "call_state": CallState.ALERTING,
        "called_number": "+12512501663",
        "calling_number": "+12517676234",
        "timestamp": "2024-11-23T16:03:36.200940Z",
        "event_id": f"{id_text(call)}-1",
        "sequence": 1,
        "cube": "hq",
        "call_id": id_text(call),
        "connections": [],
    }
    return Event(
        id=ids.next(at),
        call=call,
        cube="hq",
        granularity=Granularity.CALL,
        at=at,
        payload=CallEvent(**fields),
    )


def measure(events: int) -> float:
    """CPU microseconds for each delivery of `events` events to all webhooks."""
    clock = Clock()
    store = _Store()
    exchanges: list[Deferred[Sent]] = []

    def now() -> Micros:
        return time.time_ns() // 1000

    ids = Ids(random.getrandbits)
    dispatcher = Dispatcher(store, ids, now, random.random, clock, config.Delivery(), _Observer())
    for number in range(WEBHOOKS):
        dispatcher.add(config.Webhook(id=f"hook{number}"), _Transport(exchanges))
    started = Deferred.fromCoroutine(dispatcher.start())
    made = [_event(ids, number, now()) for number in range(events)]
    succeeded = 0
    gc.collect()
    began = time.process_time()
    for first in range(0, events, PER_TURN):
        for event in made[first : first + PER_TURN]:
            dispatcher.enqueue(dispatcher.deliveries_for(event))
        while exchanges:
            answered, exchanges[:] = exchanges[:], []
            for exchange in answered:
                exchange.callback(_SENT)
            committed, store.waiting = store.waiting, []
            succeeded += len(committed)
            for record in committed:
                record.callback(None)
    spent = time.process_time() - began
    if not started.called or succeeded != events * WEBHOOKS:
        raise RuntimeError(f"{succeeded} of {events * WEBHOOKS} deliveries were made")
    return spent / succeeded * 1e6


def _bare(count: int) -> float:
    """What the measuring itself costs for each delivery: two Deferreds, a coroutine."""
    transport = _Transport([])
    outbound: Any = None
    began = time.process_time()
    for _ in range(count):
        done = Deferred.fromCoroutine(transport.deliver(outbound))
        transport.waiting.pop().callback(_SENT)
        if done.result is not _SENT:
            raise RuntimeError("the transport did not answer")
    return (time.process_time() - began) / count * 1e6


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    whole = min(measure(events) for _ in range(RUNS))
    bare = min(_bare(events) for _ in range(RUNS))
    print(f"{whole:.1f} us a delivery, of which {bare:.1f} us the stand-ins for transport and store")


if __name__ == "__main__":
    main()
