"""
What our HTTP transport costs beside a bare `treq.post`: CPU microseconds a request.

`python -m bench.post [COUNT]`.  Both send the same body, eight at once, to the same receiver, a process
of plain sockets; they take turns, and the best turn of each counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import treq
from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.web.client import Agent, HTTPConnectionPool

from bench.bare import PAYLOAD, RECEIVER
from cubehook.config import Egress, Webhook
from cubehook.interfaces import Outbound
from cubehook.net.egress import policy_from
from cubehook.transports.context import TransportContext
from cubehook.transports.http import HttpOptions, HttpTransport

CONCURRENCY = 8
TURNS = 5
SECRET = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


async def timed(post: Callable[[], Awaitable[object]], count: int) -> float:
    """CPU microseconds of one `post`."""

    async def in_turn() -> None:
        for _ in range(count // CONCURRENCY):
            await post()

    started = time.process_time()
    await gatherResults([Deferred.fromCoroutine(in_turn()) for _ in range(CONCURRENCY)])
    return (time.process_time() - started) / count * 1e6


async def compare(reactor: Any, url: str, count: int) -> dict[str, float]:
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = CONCURRENCY
    agent = Agent(reactor, pool=pool)

    plain: dict[bytes | str, bytes | str] = {"Content-Type": "application/json"}

    async def bare() -> None:
        response = await treq.post(url, data=PAYLOAD, headers=plain, agent=agent, reactor=reactor)
        await response.content()

    webhook = Webhook(id="bench", url=url, headers={"Authorization": "Bearer secret"})
    context = TransportContext(
        reactor=reactor,
        webhook=webhook,
        egress=policy_from(Egress(allow=("127.0.0.0/8",))),
        state_dir=Path(),
        secrets=[SECRET],
        version="bench",
        timeout=15,
        concurrency=CONCURRENCY,
    )
    transport = HttpTransport(webhook, HttpOptions(), context)
    await transport.start()
    event: Any = None

    async def ours() -> None:
        outbound = Outbound(
            id="0123456789ABC",
            event=event,
            body=PAYLOAD,
            content_type="application/json",
            attempt=1,
            at=int(time.time() * 1e6),
            timeout=15,
        )
        sent = await transport.deliver(outbound)
        assert sent.delivered, sent

    best = {"bare": float("inf"), "ours": float("inf")}
    for turn in range(TURNS + 1):
        for name, post in (("bare", bare), ("ours", ours)):
            spent = await timed(post, count)
            if turn:  # the first warms up
                best[name] = min(best[name], spent)
    await transport.stop()
    await pool.closeCachedConnections()
    return {
        "bare_us": round(best["bare"], 1),
        "ours_us": round(best["ours"], 1),
        "ratio": round(best["ours"] / best["bare"], 3),
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None
    url = f"http://127.0.0.1:{int(receiver.stdout.readline())}/calls"

    async def run(reactor: Any) -> None:
        print(json.dumps(await compare(reactor, url, count)))

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    finally:
        receiver.kill()
        receiver.wait()


if __name__ == "__main__":
    main()
