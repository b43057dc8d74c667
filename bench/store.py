"""
What the store costs beside a busy reactor, and how quick it stays when it is full.

`python -m bench.store load` feeds it as 250 calls a second would (2,125 notifications, 750 attempts)
while the reactor's thread also computes, and prints CPU time for each item and how long an answer
waits for its commit.  `python -m bench.store full` fills it and times a start and a page of pending
deliveries.  Each prints JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import defer, task
from twisted.internet.defer import Deferred, succeed

from bench.bare import NOTIFICATION
from cubehook.config import Cube, Webhook
from cubehook.events import (
    Call,
    CallEvent,
    CallState,
    Connection,
    Direction,
    Event,
    Granularity,
    Micros,
    Outcome,
)
from cubehook.ids import Ids
from cubehook.records import Attempt, Delivery, DeliveryStatus, Notification
from cubehook.store import Store
from cubehook.store.store import PACE

DETAIL = (
    b"<connected><connDetailData><connData><connID>132</connID><state>CONNECTED</state></connData>"
    b"<guid>694646BC1D2311E7A8D2826ACB31D85A</guid><callingAddrData><type>E164</type><addr>12517676234</addr>"
    b"</callingAddrData><calledAddrData><type>E164</type><addr>12512501663</addr></calledAddrData>"
    b"<connIntfType>CONN_SIP</connIntfType></connDetailData></connected>"
)
START: Micros = 1_732_377_816_000_000


class Work:
    """Makes values like those of real calls: one of 2,000 open calls changes with each notification."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self.ids = Ids(self._random.getrandbits)
        self._now = START
        self._calls = [self._call() for _ in range(2000)]

    def _tick(self) -> Micros:
        self._now += 470
        return self._now

    def _call(self) -> Call:
        now = self._tick()
        call = Call(
            id=self.ids.next(now),
            cube="hq",
            gateway_call_id="4711",
            started_at=now,
            last_heard_at=now,
            guid="694646BC1D2311E7A8D2826ACB31D85A",
            direction=Direction.INCOMING,
            calling_number="+12517676234",
            called_number="+12512501663",
        )
        call.connections = [
            Connection(name, direction, calling_number="+12517676234", called_number="+12512501663")
            for name, direction in (("131", Direction.INCOMING), ("132", Direction.OUTGOING))
        ]
        return call

    def accept(self, step: int) -> tuple[Notification, list[Call], list[Event], list[Delivery]]:
        """What one notification changes: 1 call, 0.35 events, 1.05 deliveries."""
        now = self._tick()
        place = step % len(self._calls)
        call = self._calls[place]
        if step // len(self._calls) % 8 == 7:
            call.disconnected_at = now
            call.outcome = Outcome.ANSWERED
            self._calls[place] = self._call()
        body = NOTIFICATION.replace(b"546CF8:25", b"%X:25" % (step & 0xFFFFFF)).replace(
            b"<alerting/>", DETAIL
        )
        events: list[Event] = []
        deliveries: list[Delivery] = []
        if step % 20 < 7:
            events.append(self.event(call, now))
            deliveries = [
                Delivery(id=self.ids.next(now), webhook=webhook, event=events[0], due_at=now)
                for webhook in ("crm", "wallboard", "audit")
            ]
        return (
            Notification(
                id=self.ids.next(now), cube="hq", call=call.id, at=now, message="connected", body=body
            ),
            [call],
            events,
            deliveries,
        )

    def event(self, call: Call, now: Micros) -> Event:
        return Event(
            id=self.ids.next(now),
            call=call.id,
            cube="hq",
            granularity=Granularity.CALL,
            at=now,
            payload=CallEvent(
                call_state=CallState.ALERTING,
                called_number=call.called_number,
                calling_number=call.calling_number,
                timestamp="2024-11-23T16:03:36.200940Z",
                event_id="0C8ZJ6Q3W0QG8-1",
                sequence=1,
                cube="hq",
                call_id="0C8ZJ6Q3W0QG8",
                guid=call.guid,
                direction=call.direction,
                original_called_number=None,
                redirected_to=None,
                calling_withheld=False,
                alerting_at="2024-11-23T16:03:36.200940Z",
                connected_at=None,
                disconnected_at=None,
                ring_seconds=None,
                talk_seconds=None,
                outcome=None,
                disconnect_cause=None,
                disconnect_text=None,
                route=None,
                codec=None,
                inferred=False,
                connections=[],
            ),
        )

    def attempt(self, delivery: Delivery) -> Attempt:
        delivery.status = DeliveryStatus.DELIVERED
        delivery.attempts = 1
        now = self._tick()
        return Attempt(
            id=self.ids.next(now),
            delivery=delivery.id,
            number=1,
            started_at=now,
            duration=5000,
            delivered=True,
            method="POST",
            url="https://api.yourcrm.example/calls",
            request_headers={
                "Content-Type": "application/json",
                "User-Agent": "cubehook/0.1.0",
                "webhook-id": "0C8ZJ6Q3W0QG8-1",
                "webhook-timestamp": "1732377816",
                "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
                "Authorization": "***",
            },
            request_body='{"call_state":"ALERTING","called_number":"+12512501663","calling_number":"+12517676234",'
            '"timestamp":"2024-11-23T16:03:36.200940Z"}',
            status=200,
            response_headers={"Content-Type": "application/json", "Content-Length": "2"},
            response_body="{}",
            remote_address="192.0.2.80:443",
        )


class Nothing:
    """A store that keeps nothing: what the load itself costs."""

    def accept(self, *_: object) -> Deferred[None]:
        return succeed(None)

    def record(self, *_: object) -> Deferred[None]:
        return succeed(None)


async def load(reactor: Any, store: Any, seconds: float, rate: int, burn: int) -> dict[str, Any]:
    """Feed `store`; CPU seconds spent and how long each Deferred took."""
    work = Work()
    waits: list[float] = []
    open_deliveries: list[Delivery] = []
    done = outstanding = records = 0
    idle: Deferred[None] = Deferred()
    clock = time.perf_counter
    started = clock()
    near, far = socket.socketpair()

    def committed(_: object, since: float, deliveries: list[Delivery]) -> None:
        nonlocal outstanding
        outstanding -= 1
        waits.append(clock() - since)
        open_deliveries.extend(deliveries)
        if done >= total and not outstanding:
            idle.callback(None)

    def step() -> None:
        nonlocal done, outstanding, records
        # At most a few at once, as a reactor takes what its sockets have.
        owed = min(total, done + 8, int((clock() - started) * rate))
        while done < owed:
            # Half before and half after a read and a write, where a real one lets other threads run.
            for _ in range(burn // 2):
                pass
            near.send(b"x")
            far.recv(1)
            for _ in range(burn // 2):
                pass
            notification, calls, events, deliveries = work.accept(done)
            done += 1
            outstanding += 1
            store.accept(notification, calls, events, deliveries).addCallback(committed, clock(), deliveries)
            if done * 750 // 2125 > records and open_deliveries:
                records += 1
                delivery = open_deliveries.pop()
                store.record(work.attempt(delivery), delivery)

    total = int(seconds * rate)
    ticks = task.LoopingCall(step)
    cpu = time.process_time()
    running = ticks.start(0.001)
    if isinstance(store, Nothing):
        await task.deferLater(reactor, seconds + 0.1, lambda: None)
    else:
        await idle
    cpu = time.process_time() - cpu
    ticks.stop()
    await running
    near.close()
    far.close()
    waits.sort()
    return {
        "cpu": cpu,
        "accepts": done,
        "records": records,
        "answer_ms": {str(q): round(waits[int(len(waits) * q)] * 1000, 2) for q in (0.5, 0.99, 0.999)},
    }


def _sizes(path: Path) -> tuple[int, int]:
    """Bytes of the write-ahead log, and of it and the database."""
    wal = path.with_name(f"{path.name}-wal").stat().st_size
    return wal, wal + path.stat().st_size


async def run_load(reactor: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    bare = await load(reactor, Nothing(), arguments.seconds, arguments.rate, arguments.burn)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        commits: list[float] = []
        path = Path(folder) / "cubehook.db"
        store = Store(path, reactor, on_commit=commits.append, pace=arguments.pace)
        await store.open()
        found = await load(reactor, store, arguments.seconds, arguments.rate, arguments.burn)
        wal, size = _sizes(path)
        await store.close()
    commits.sort()
    return {
        "busy": round(bare["cpu"] / arguments.seconds, 2),
        "accepts": found["accepts"],
        "records": found["records"],
        "cpu_us_per_accept_and_its_share_of_records": round(
            (found["cpu"] - bare["cpu"]) / found["accepts"] * 1e6, 1
        ),
        "commits_per_second": round(len(commits) / arguments.seconds),
        "commit_ms": {str(q): round(commits[int(len(commits) * q)] * 1000, 2) for q in (0.5, 0.99, 0.999)},
        "answer_ms": found["answer_ms"],
        "bytes_on_disk_per_accept": round(size / found["accepts"]),
        "wal_bytes": wal,
    }


def fill(path: Path, calls: int, attempts: int, pending: int) -> None:
    """Rows by the hundred thousand, put in beneath the store; the pending ones' heads wait for a retry."""
    work = Work()
    database = sqlite3.connect(path)
    begin = START << 12
    detail = json.dumps({"filler": "x" * 900})
    event = work.event(work.accept(0)[1][0], START)
    body = __import__("cubehook.events").events.full_body(event.payload).decode()
    with database:
        database.executemany(
            "INSERT INTO calls VALUES (?, 'hq', '1', NULL, '+1', '+2', NULL, 1, 1, 1, 1, 1, ?)",
            ((begin + n, detail) for n in range(calls)),
        )
        database.executemany(
            "INSERT INTO attempts VALUES (?, ?, ?)",
            ((begin + n, begin + n, detail[:700]) for n in range(attempts)),
        )
        database.executemany(
            "INSERT INTO events VALUES (?, ?, 'hq', 'call', 'ALERTING', ?, ?)",
            ((begin + n, begin + n // 3, START + n, body) for n in range(pending)),
        )
        # Every third call may be sent now; the others' heads wait while their followers are long due.
        database.executemany(
            "INSERT INTO deliveries VALUES (?, 'crm', ?, ?, 'pending', 0, ?, ?, 0, 0, NULL, NULL)",
            (
                (
                    begin + n,
                    begin + n // 3,
                    begin + n,
                    START + n,
                    None if n % 3 else START + n + (0 if n // 3 % 3 == 0 else 10**12),
                )
                for n in range(pending)
            ),
        )
    database.close()


async def run_full(reactor: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    cubes = [
        Cube(
            id="hq",
            provider_url="http://192.0.2.1:8090/cisco_xcc",
            application_url="http://192.0.2.20:8090/xcc",
        )
    ]
    webhooks = [Webhook(id="crm", url="https://api.yourcrm.example/calls")]
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        path = Path(folder) / "cubehook.db"
        store = Store(path, reactor)
        await store.open()
        await store.close()
        fill(path, arguments.calls, arguments.attempts, arguments.pending)
        store = Store(path, reactor)
        times: dict[str, float] = {}
        since = time.perf_counter()

        def lap(name: str) -> None:
            nonlocal since
            now = time.perf_counter()
            times[name] = round((now - since) * 1000, 1)
            since = now

        await store.open()
        lap("open")
        await store.provision(cubes, webhooks, at=START, overlap=0)
        lap("provision")
        await store.open_calls()
        lap("open_calls")
        await store.greatest_id()
        lap("greatest_id")
        now = START + 10**9
        page = await store.pending("crm", now, [], 500)
        lap("first_page")
        resident: dict[int, None] = {}
        for _ in range(4):
            for delivery in await store.pending("crm", now, list(resident), 500):
                resident[delivery.event.call] = None
        lap("four_pages")
        await store.pending("crm", now, list(resident), 500)
        lap("page_beside_2000_resident")
        await store.next_due("crm", now)
        lap("next_due")
        assert len(page) >= 500
        await store.close()
    return {
        "calls": arguments.calls,
        "attempts": arguments.attempts,
        "pending": arguments.pending,
        "ms": times,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--dir", help="folder for the database, on the disk to be measured")
    kinds = parser.add_subparsers(dest="kind", required=True)
    loaded = kinds.add_parser("load")
    loaded.add_argument("--seconds", type=float, default=10)
    loaded.add_argument("--rate", type=int, default=2125, help="notifications a second")
    loaded.add_argument("--burn", type=int, default=6000, help="loop turns of other work for each")
    loaded.add_argument("--pace", type=float, default=PACE)
    full = kinds.add_parser("full")
    full.add_argument("--calls", type=int, default=100_000)
    full.add_argument("--attempts", type=int, default=1_000_000)
    full.add_argument("--pending", type=int, default=1_000_000)
    arguments = parser.parse_args()
    run = run_load if arguments.kind == "load" else run_full

    def start(reactor: Any) -> Deferred[None]:
        async def go() -> None:
            print(json.dumps(await run(reactor, arguments)))

        return defer.ensureDeferred(go())

    task.react(start)


if __name__ == "__main__":
    main()
