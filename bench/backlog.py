"""
A million deliveries pending for a dead receiver: what they cost the others, the start, and how they drain.

    python -m bench.backlog [--pending 1000000] [--rate 200] [--drain-seconds 60]

First the service with the dead webhook and nothing pending for it, then with the backlog: resident memory,
seconds to the first registration, and the webhooks a second of a healthy receiver under the same load.  Then
the dead receiver comes back, answering each request after a while, and what arrives is counted and its
order within each call is checked.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from bench.__main__ import HEAD, Measured, line, run
from bench.running import SECRET, Service, free_ports, processors
from bench.store import Work
from cubehook.delivery.signing import decode_secret
from cubehook.events import Micros, full_body
from cubehook.simulator.sink import Behaviour, Received, Sink

DEAD = "dead"
PER_CALL = 3
CONCURRENCY = 8
STALL = 0.01
"""Seconds that the receiver takes for an answer once it is back."""
SPREAD: Micros = 86_400_000_000
"""The backlog's events are spread over a day."""


def fill(path: Path, webhook: str, pending: int, now: Micros) -> None:
    """Put pending deliveries in beneath the store, of calls with three events each; all are due."""
    work = Work()
    call, event = work.accept(0)[1][0], None
    event = work.event(call, now)
    body = full_body(event.call_event).decode()
    begin = now - SPREAD
    step = SPREAD // pending
    with sqlite3.connect(path) as database:
        columns = {
            table: [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            for table in ("events", "deliveries")
        }

        def rows(table: str) -> Iterator[dict[str, object]]:
            for n in range(pending):
                at = begin + n * step
                first = begin + n // PER_CALL * PER_CALL * step
                id, of_call = at << 12, (first << 12) + 1
                sequence = n % PER_CALL + 1
                if table == "events":
                    told = body.replace('"sequence":1', f'"sequence":{sequence}', 1)
                    told = told.replace(event.call_event.event_id, f"{of_call:013d}-{sequence}", 1)
                    yield {
                        "id": id,
                        "call": of_call,
                        "cube": "hq",
                        "granularity": "call",
                        "state": "ALERTING",
                        "at": at,
                        "body": told,
                    }
                else:
                    yield {
                        "id": id + 2,
                        "webhook": webhook,
                        "call": of_call,
                        "event": id,
                        "status": "pending",
                        "attempts": 1,
                        "due_at": at,
                        "ready_at": at if sequence == 1 else None,
                        "spent": 1,
                        "redelivery": 0,
                        "error_class": "connection_refused",
                        "answered": None,
                    }

        for table, names in columns.items():
            marks = ", ".join(f":{name}" for name in names)
            database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows(table))
    database.close()


def service(folder: Path, port: int) -> Service:
    (folder / "twistd.log").unlink(missing_ok=True)
    return Service(
        folder,
        webhook=f'concurrency = 32\n[webhooks.{DEAD}]\nurl = "http://127.0.0.1:{port}/calls"\n'
        f'secret = "{SECRET}"\nconcurrency = {CONCURRENCY}\nbreaker = {{ longest = 1.0 }}\n',
    )


async def loaded(reactor: Any, folder: Path, port: int, options: argparse.Namespace, name: str) -> Measured:
    """One life of the service under load."""
    with service(folder, port) as running:
        start = await deferToThread(running.wait_for, "is running")
        found = await run(reactor, running, options.rate, options.seconds, seed=sum(name.encode()))
    print(f"{line(name, found)}  running after {start:.2f} s", flush=True)
    return found


def mean_duration(path: Path) -> float:
    """Seconds that the last attempts took."""
    with sqlite3.connect(path) as database:
        (mean,) = database.execute(
            "SELECT avg(json_extract(detail, '$.duration')) FROM "
            "(SELECT detail FROM attempts ORDER BY id DESC LIMIT 5000)"
        ).fetchone()
    database.close()
    return float(mean) / 1e6


async def drain(reactor: Any, folder: Path, port: int, seconds: float) -> None:
    """Let the receiver come back, and watch what arrives for a while."""
    last: dict[str, int] = {}
    wrong = arrived = 0

    def received(one: Received) -> None:
        nonlocal wrong, arrived
        arrived += 1
        call, _, sequence = one.id.rpartition("-")
        if int(sequence) != last.get(call, 0) + 1:
            wrong += 1
        last[call] = int(sequence)

    sink = Sink(
        reactor,
        lambda: time.time_ns() // 1000,
        secrets=[decode_secret(SECRET)],
        behaviour=Behaviour(stall=STALL),
        received=received,
    )
    with service(folder, port) as running:
        await deferToThread(running.wait_for, "is running")
        await task.deferLater(reactor, 3.0)
        await sink.start(f"tcp:{port}:interface=127.0.0.1")
        await task.deferLater(reactor, 10.0)
        before, cpu, began = arrived, running.cpu(), time.monotonic()
        await task.deferLater(reactor, seconds)
        took = time.monotonic() - began
        rate, busy = (arrived - before) / took, (running.cpu() - cpu) / took
        memory = running.resident()
    await sink.stop()
    took_each = mean_duration(folder / "state" / "cubehook.db")
    print(
        f"drains {rate:.0f} a second ({busy:.0%} of a processor, {memory:.0f} MB); an attempt takes "
        f"{took_each * 1000:.1f} ms, so that {rate * took_each:.2f} of {CONCURRENCY} are under way; "
        f"{arrived} came, {wrong} out of order within their call",
        flush=True,
    )


async def measure(reactor: Any, options: argparse.Namespace) -> None:
    os.sched_setaffinity(0, processors()[1])
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="cubehook-bench-") as name:
        folder = Path(name)
        print(HEAD, flush=True)
        without = await loaded(reactor, folder, port, options, "nothing")
        database = folder / "state" / "cubehook.db"
        await deferToThread(fill, database, DEAD, options.pending, time.time_ns() // 1000)
        with_it = await loaded(reactor, folder, port, options, "backlog")
        print(
            f"memory {with_it.resident_mb - without.resident_mb:+.0f} MB; notifications a second "
            f"{with_it.notifications_per_second / without.notifications_per_second:.3f} times, "
            f"CPU a call {with_it.cpu_ms_per_call / without.cpu_ms_per_call:.3f} times"
        )
        await drain(reactor, folder, port, options.drain_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description=__doc__.split("\n\n")[0])
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second (default 200)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run (default 20)")
    parser.add_argument("--drain-seconds", type=float, default=60.0)
    options = parser.parse_args()
    task.react(lambda reactor: Deferred.fromCoroutine(measure(reactor, options)))


if __name__ == "__main__":
    main()
