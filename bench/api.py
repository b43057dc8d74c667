"""
How long users of the REST API wait beside a long history: 300,000 calls and 1,000,000 deliveries.

    python -m bench.api [--calls 300000] [--rounds 80] [--rate 20] [--folder DIR]

The real service runs on such a database.  Every kind of list, with filters and deep, one call, one delivery
and the statistics are asked for over HTTP, one after the other on a kept-open connection, with a token: first
while nothing else happens, then while a gateway makes `--rate` calls a second.  The service has one
processor, who asks and the gateway have another.  Prints a table in Markdown: p50, p95 and the longest in
milliseconds, how many times as long the p50 is as that of a request that looks nothing up, how many items
came, and the service's own CPU time, which other work of the machine changes less.  `--folder` keeps the
database for another time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import quote

import msgspec

from bench.history import DAYS, History, prepared, questions, sizes
from bench.running import SECRET, Service, processors
from cubehook.events import iso
from cubehook.ids import id_text

TRIVIAL = "cubes"
GOAL_MS = 50.0
WARM_UP_SECONDS = 10.0
DAY = 86_400_000_000

OTHERS = """concurrency = 32
[webhooks.wallboard]
url = "http://127.0.0.1:9/wallboard"
enabled = false
[webhooks.seldom]
url = "http://127.0.0.1:9/seldom"
enabled = false
"""
"""The webhooks of the history that are sent nothing now: what is pending for them stays."""


class Found(msgspec.Struct):
    """Times of one kind of request, in milliseconds, and how much the last answer had."""

    times: list[float] = []
    cpu: list[float] = []
    items: str = ""
    size: int = 0

    def at(self, share: float) -> float:
        """The time within which that share was answered."""
        times = sorted(self.times)
        return times[min(len(times) - 1, int(len(times) * share))]


class Client:
    """Asks over one connection; what is not answered 200 ends the measurement."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, path: str, method: str = "GET") -> tuple[float, bytes]:
        """Milliseconds from the request to the end of its answer, and that."""
        since = time.perf_counter()
        self._connection.request(method, f"/api/v1{path}", headers=self._headers)
        response = self._connection.getresponse()
        body = response.read()
        took = (time.perf_counter() - since) * 1000
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body.decode()}")
        return took, body

    def close(self) -> None:
        self._connection.close()


def requests(history: History) -> dict[str, str]:
    """Paths of everything that is asked for, by its name."""
    end = history.end
    week, month, all_of_it = (
        f"since={quote(iso(end - days * DAY))}&until={quote(iso(end))}" for days in (7, 30, DAYS)
    )
    asked = {TRIVIAL: "/cubes"} | {each.name: each.path for each in questions(history)}
    answered = next(call for call in reversed(history.last) if call.connected_at)
    return asked | {
        "one call, with its timeline": f"/calls/{id_text(answered.id)}",
        "one delivery, with its attempts": f"/deliveries/{id_text(history.last_deliveries[-1].id)}",
        "statistics of the last day": "/stats",
        "statistics of a week": f"/stats?{week}",
        "statistics of 90 days": f"/stats?{all_of_it}",
        "statistics of 90 days, one cube": f"/stats?{all_of_it}&cube=branch",
        "deliveries on each day of a month": f"/deliveries/days?{month}",
        "webhooks": "/webhooks",
        "one webhook": "/webhooks/crm",
        "jobs": "/jobs",
        "tokens": "/tokens",
        "audit": "/audit",
        "registrations": "/cubes/hq/registrations",
        "the state of the service": "/status",
    }


def measure(service: Service, client: Client, asked: dict[str, str], rounds: int) -> dict[str, Found]:
    """Times of each request, all of them in turn so that none has the caches to itself."""
    found = {name: Found() for name in asked}
    for _ in range(rounds):
        for name, path in asked.items():
            since = service.cpu()
            took, body = client.ask(path)
            kind = found[name]
            kind.cpu.append((service.cpu() - since) * 1000)
            kind.times.append(took)
            kind.size = len(body)
            answer = json.loads(body)
            if "items" in answer:
                kind.items = f"{len(answer['items'])}{'' if answer.get('next') is None else '+'}"
    return found


def register(client: Client) -> None:
    """Have the service register with the gateway, once that listens."""
    for _ in range(60):
        if json.loads(client.ask("/cubes/hq/register", "POST")[1])["state"] == "registered":
            return
        time.sleep(0.5)
    raise RuntimeError("the gateway did not come up")


@contextmanager
def load(service: Service, rate: float) -> Iterator[Path]:
    """A gateway that makes calls and a receiver of their webhooks, in a process; what it says at its end."""
    report = service.folder / "load.json"
    with report.open("wb") as output:
        process = subprocess.Popen(
            [
                *(
                    str(Path(sys.executable).with_name("cubehook")),
                    "simulate",
                    "--load",
                    "--json",
                    "--regular",
                ),
                *("--rate", str(rate), "--speed", "4", "--hold-seconds", "4", "--duration", "3600"),
                *("--warm-up", "0", "--remote-url", service.application_url, "--connections", "64"),
                *("--listen", f"tcp:{service.gateway}:interface=127.0.0.1"),
                *("--with-sink", f"tcp:{service.sink}:interface=127.0.0.1", "--secret", SECRET),
            ],
            stdout=output,
        )
        try:
            yield report
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def table(quiet: dict[str, Found], busy: dict[str, Found], rate: float) -> Iterator[str]:
    """The lines of a table for docs/performance.md."""
    yield f"| | items | CPU | p50, p95, longest | times `/cubes` | at {rate:g} calls/s | times `/cubes` |"
    yield "|---|---|---|---|---|---|---|"
    for name, found in quiet.items():
        columns = [name, found.items or f"{found.size / 1000:.1f} kB", f"{median(found.cpu):.1f} ms"]
        for side in (quiet, busy):
            kind = side[name]
            p50, p95 = kind.at(0.5), kind.at(0.95)
            columns += [
                f"{p50:.1f}, {p95:.1f}, {max(kind.times):.1f} ms",
                f"{p50 / side[TRIVIAL].at(0.5):.1f}",
            ]
        yield f"| {' | '.join(columns)} |"


def verdict(side: dict[str, Found], when: str) -> str:
    """Whether the goal is met."""
    worst = max(side, key=lambda name: side[name].at(0.95))
    over = [name for name, found in side.items() if found.at(0.95) >= GOAL_MS]
    met = f"{len(side) - len(over)} of {len(side)} kinds are within {GOAL_MS:g} ms"
    but = f", but for {', '.join(over[:10])}{' and others' if len(over) > 10 else ''}" if over else ""
    return f"{when}: the longest p95 is {side[worst].at(0.95):.1f} ms ({worst}); {met}{but}"


def run(folder: Path, options: argparse.Namespace) -> None:
    """Everything, printed."""
    began = time.monotonic()
    database = folder / "state" / "cubehook.db"
    history = prepared(database, options.calls)
    held = sizes(database)
    print(
        f"{held['calls']:,} calls, {held['deliveries']:,} deliveries, {held['bytes'] / 1e6:,.0f} MB; "
        f"ready after {time.monotonic() - began:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    (folder / "twistd.log").unlink(missing_ok=True)
    with Service(folder, OTHERS) as service:
        service.wait_for("is running", 120)
        client = Client(service.console, (folder / "state" / "admin-token").read_text().strip())
        asked = requests(history)
        if options.only is not None:
            asked = {
                name: path for name, path in asked.items() if name == TRIVIAL or re.search(options.only, name)
            }
        measure(service, client, asked, 3)
        quiet = measure(service, client, asked, options.rounds)
        with load(service, options.rate) as report:
            register(client)
            time.sleep(WARM_UP_SECONDS)
            cpu, since = service.cpu(), time.monotonic()
            busy = measure(service, client, asked, options.rounds)
            share = (service.cpu() - cpu) / (time.monotonic() - since)
        client.close()
    print("\n".join(table(quiet, busy, options.rate)))
    print(f"\n{verdict(quiet, 'While nothing else happens')}.")
    print(f"{verdict(busy, f'At {options.rate:g} calls/s')}; the service took {share:.0%} of its processor.")
    told = json.loads(report.read_bytes() or b"{}")
    print(f"The load: {json.dumps(told)[:600]}", file=sys.stderr)
    print(f"Took {time.monotonic() - began:.0f} s", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", help="keeps the database, and uses it again if it is there")
    parser.add_argument("--calls", type=int, default=300_000, help="in the history (%(default)s)")
    parser.add_argument("--rounds", type=int, default=80, help="of all requests (%(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="calls a second (%(default)s)")
    parser.add_argument("--only", metavar="PATTERN", help="ask only for the kinds whose names match")
    options = parser.parse_args()
    os.sched_setaffinity(0, processors()[1])
    with tempfile.TemporaryDirectory(prefix="cubehook-bench-") as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run(folder, options)


if __name__ == "__main__":
    main()
