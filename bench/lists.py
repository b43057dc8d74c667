"""
How quick the store's lists are beside a long history: 300,000 calls and 1,000,000 deliveries.

    python -m bench.lists [--calls 300000] [--rounds 200] [--database FILE]

Every kind of list is asked for through `Store.read`, as the API does.  Prints p50, p95 and the longest in
milliseconds, and how many items came.  `--database` keeps the database for another time.  What users wait for
is measured by `bench.api`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from bench.history import History, prepared, questions, sizes
from cubehook.store import Store, lists

_LISTS: dict[str, Callable[..., Any]] = {"calls": lists.list_calls, "deliveries": lists.list_deliveries}


async def ask(reactor: Any, path: Path, history: History, rounds: int) -> dict[str, Any]:
    """Times of each question, all of them asked in turn so that none has the caches to itself."""
    store = Store(path, reactor)
    await store.open()
    asked: dict[str, Any] = {
        each.name: partial(_LISTS[each.of], **each.filters) for each in questions(history)
    }
    asked |= {"registrations": lists.list_registration_changes, "audit": lists.list_audit}
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


async def run(reactor: Any, path: Path, arguments: argparse.Namespace) -> None:
    history = prepared(path, arguments.calls)
    print(json.dumps(sizes(path)), flush=True)
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
