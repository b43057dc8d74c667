"""
How quick lists are beside a long history: 300,000 calls and 1,000,000 deliveries.

    python -m bench.lists [--calls 300000] [--rounds 200] [--database FILE]

The database is filled with the rows that the writer makes; then every kind of list is asked for through
`Store.read`, as the API does.  Prints p50, p95 and the longest in milliseconds, and how many items came.
`--database` keeps it for another time.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from cubehook.calls.payload import call_event
from cubehook.events import (
    Call,
    CallState,
    Connection,
    Direction,
    Event,
    Granularity,
    Micros,
    Outcome,
)
from cubehook.ids import Ids, first_id
from cubehook.records import Delivery, DeliveryStatus, ErrorClass
from cubehook.store import Store, lists, migrate, sqlite
from cubehook.store.rows import Accepted, Item, Recorded, Rows

START: Micros = 1_732_377_816_000_000
SECOND = 1_000_000
GROUP = 5_000
MAIN = "+12515550100"
"""Half of all calls go to it."""


class History:
    """Calls of 90 days, and what came of them."""

    def __init__(self, calls: int) -> None:
        self._random = random.Random(1)
        self.ids = Ids(self._random.getrandbits)
        self._calls = calls
        self.step = 90 * 86_400 * SECOND // calls
        self.last: list[Call] = []

    def items(self) -> Iterator[Item]:
        for place in range(self._calls):
            yield from self._call(place)

    def _call(self, place: int) -> Iterator[Item]:
        chance = self._random
        now = START + place * self.step
        # Its last calls came in the first tenth of the time.
        rare = place % 1000 == 7 and place < self._calls // 10
        call = Call(
            id=self.ids.next(now),
            cube="rare" if rare else chance.choices(("hq", "branch", "lab"), (70, 25, 5))[0],
            gateway_call_id=str(place),
            started_at=now,
            last_heard_at=now,
            direction=Direction.INCOMING,
            calling_number=f"+1{chance.randrange(2_000_000_000, 9_999_999_999)}",
            called_number=MAIN if chance.random() < 0.5 else f"+1251555{chance.randrange(200, 600):04}",
        )
        call.connections = [
            Connection(name, direction, calling_number=call.calling_number, called_number=call.called_number)
            for name, direction in (("131", Direction.INCOMING), ("132", Direction.OUTGOING))
        ]
        states = [CallState.ALERTING]
        call.outcome = chance.choices(tuple(Outcome), (7000, 2000, 500, 480, 18, 2))[0]
        open_ = place >= self._calls - 200
        if call.outcome is Outcome.ANSWERED:
            states.append(CallState.CONNECTED)
        if open_:
            call.outcome = None
        else:
            states.append(CallState.DISCONNECTED)
        outcome, call.outcome = call.outcome, None
        for state in states:
            at = now + 5 * SECOND * len(states)
            setattr(call, {"A": "alerting_at", "C": "connected_at", "D": "disconnected_at"}[state[0]], at)
            if state is CallState.DISCONNECTED:
                call.outcome = outcome
            call.sequence += 1
            event = Event(
                id=self.ids.next(at),
                call=call.id,
                cube=call.cube,
                granularity=Granularity.CALL,
                at=at,
                payload=call_event(call, state, at),
            )
            webhooks = ["crm"]
            if chance.random() < 0.2:
                webhooks.append("wallboard")
            if place % 2000 == 11 and place < self._calls // 5:
                webhooks.append("seldom")
            owed = [Delivery(id=self.ids.next(at), webhook=each, event=event, due_at=at) for each in webhooks]
            yield Accepted(None, [call], [event], owed)
            for delivery in owed:
                yield from self._tried(delivery, place)
        self.last = [*self.last[-999:], call]

    def _tried(self, delivery: Delivery, place: int) -> Iterator[Item]:
        chance = self._random.random()
        delivery.attempts = 1
        if delivery.webhook == "wallboard" and place > self._calls * 0.9:
            if chance < 0.5:
                return
            delivery.error_class = ErrorClass.CONNECTION_REFUSED
        elif chance < 0.002:
            delivery.status, delivery.error_class, delivery.answered = (
                DeliveryStatus.FAILED,
                ErrorClass.HTTP,
                500,
            )
        elif chance < 0.0022:
            delivery.status, delivery.error_class = DeliveryStatus.EXPIRED, ErrorClass.TLS
        else:
            delivery.status, delivery.answered = DeliveryStatus.DELIVERED, 200
        yield Recorded(None, delivery)


def fill(path: Path, history: History) -> None:
    """Put `history` in beneath the store, with its own rows and statements."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -200000")
    group: list[Item] = []
    for item in history.items():
        group.append(item)
        if len(group) >= GROUP:
            with database:
                Rows(group).write(database.executemany)
            group = []
    with database:
        Rows(group).write(database.executemany)
    database.close()


def questions(history: History) -> dict[str, Callable[..., Any]]:
    """Every kind of list that someone asks for."""
    calls = partial(partial, lists.list_calls)
    deliveries = partial(partial, lists.list_deliveries)
    end = START + 90 * 86_400 * SECOND
    middle = first_id(START + 45 * 86_400 * SECOND)
    week = {"since": end - 14 * 86_400 * SECOND, "until": end - 7 * 86_400 * SECOND}
    some = history.last[-500]
    number = some.calling_number
    assert number is not None
    failed, pending, expired, delivered = (
        DeliveryStatus.FAILED,
        DeliveryStatus.PENDING,
        DeliveryStatus.EXPIRED,
        DeliveryStatus.DELIVERED,
    )
    return {
        "calls": calls(),
        "calls, 200, deep": calls(limit=200, cursor=middle),
        "calls of a cube": calls(cube="hq"),
        "calls of a rare cube": calls(cube="rare"),
        "calls in a week": calls(**week),
        "calls of a rare outcome": calls(outcome=Outcome.FAILED),
        "calls of an outcome and a cube, deep": calls(outcome=Outcome.BUSY, cube="lab", cursor=middle),
        "calls in progress": calls(state=CallState.CONNECTED),
        "calls in progress of a rare cube": calls(state=CallState.CONNECTED, cube="rare"),
        "calls that ended": calls(state=CallState.DISCONNECTED, cube="branch"),
        "calls of a number": calls(number=number),
        "calls of the main number": calls(number=MAIN),
        "calls of the main number, failed": calls(number=MAIN, outcome=Outcome.FAILED),
        "calls of the main number, rare cube": calls(number=MAIN, cube="rare"),
        "calls of four last digits": calls(number=number[-4:]),
        "calls of two last digits": calls(number=number[-2:]),
        "calls of two last digits, rejected": calls(number=number[-2:], outcome=Outcome.REJECTED),
        "calls of one last digit": calls(number=number[-1:]),
        "deliveries": deliveries(),
        "deliveries, 200, deep": deliveries(limit=200, cursor=middle),
        "deliveries of a webhook": deliveries(webhook="crm"),
        "deliveries of a rare webhook": deliveries(webhook="seldom"),
        "deliveries of a call": deliveries(call=some.id),
        "deliveries pending": deliveries(status=pending),
        "deliveries failed": deliveries(status=failed),
        "deliveries expired, deep": deliveries(status=expired, cursor=middle),
        "deliveries delivered": deliveries(status=delivered),
        "deliveries delivered of a webhook that fails": deliveries(status=delivered, webhook="wallboard"),
        "deliveries failed with tls": deliveries(error_class=ErrorClass.TLS),
        "deliveries failed with dns": deliveries(error_class=ErrorClass.DNS),
        "deliveries failed with http in a week": deliveries(error_class=ErrorClass.HTTP, **week),
        "deliveries of a cube": deliveries(cube="hq"),
        "deliveries of a rare cube": deliveries(cube="rare"),
        "deliveries of a cube, failed": deliveries(cube="lab", status=failed),
        "deliveries of a rare cube, failed": deliveries(cube="rare", status=failed),
        "deliveries of a cube and a webhook": deliveries(cube="lab", webhook="wallboard"),
        "deliveries of a rare webhook and a cube": deliveries(cube="hq", webhook="seldom"),
        "deliveries of a number": deliveries(number=number),
        "deliveries of the main number": deliveries(number=MAIN),
        "deliveries of the main number, failed": deliveries(number=MAIN, status=failed),
        "deliveries of the main number, rare cube": deliveries(number=MAIN, cube="rare"),
        "deliveries of two last digits, a cube": deliveries(number=number[-2:], cube="branch"),
        "deliveries of two last digits, rare webhook": deliveries(number=number[-2:], webhook="seldom"),
        "registrations": lists.list_registration_changes,
        "audit": lists.list_audit,
    }


async def ask(reactor: Any, path: Path, history: History, rounds: int) -> dict[str, Any]:
    """Times of each question, all of them asked in turn so that none has the caches to itself."""
    store = Store(path, reactor)
    await store.open()
    asked = questions(history)
    took: dict[str, list[float]] = {name: [] for name in asked}
    items: dict[str, str] = {}
    for _ in range(rounds):
        for name, work in asked.items():
            since = time.perf_counter()
            page = await store.read(work)
            took[name].append((time.perf_counter() - since) * 1000)
            items[name] = f"{len(page.items)}{'' if page.next is None else '+'}"
    await store.close()
    result = {}
    for name, times in took.items():
        times.sort()
        found = [round(times[int(len(times) * q)], 1) for q in (0.5, 0.95)]
        result[name] = {"p50": found[0], "p95": found[1], "max": round(times[-1], 1), "items": items[name]}
    return result


def prepared(path: Path, history: History) -> dict[str, int]:
    """Fill the database at `path`, unless it is there; how much is in it."""
    if path.exists():
        for _ in history.items():
            pass
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        migrate.prepare(sqlite.writer_engine(path), path, time.time_ns() // 1000)
        since = time.perf_counter()
        fill(path, history)
        print(json.dumps({"filled_seconds": round(time.perf_counter() - since, 1)}), flush=True)
    database = sqlite3.connect(path)
    sizes = {
        table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("calls", "events", "deliveries", "numbers", "hourly")
    }
    database.close()
    return {**sizes, "bytes": path.stat().st_size}


async def run(reactor: Any, path: Path, arguments: argparse.Namespace) -> None:
    history = History(arguments.calls)
    print(json.dumps(prepared(path, history)), flush=True)
    for name, found in (await ask(reactor, path, history, arguments.rounds)).items():
        print(f"{name:46} {found['p50']:8} {found['p95']:8} {found['max']:8}  {found['items']}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.lists", description=__doc__)
    parser.add_argument("--dir", help="folder for the database, on the disk to be measured")
    parser.add_argument("--database", help="file that keeps it, and is used again if it is there")
    parser.add_argument("--calls", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        path = Path(arguments.database or Path(folder) / "cubehook.db")
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, path, arguments)))


if __name__ == "__main__":
    main()
