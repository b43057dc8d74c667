"""
What a delivery costs by itself: CPU of the service for deliveries that are stored, beside a bare POST.

    python -m bench.delivery [--pending 60000] [--seconds 15]

The receiver answers at once, a process of plain sockets on another processor.  The service reads the
deliveries from its database, sends them signed, records each attempt, and does nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench import bare
from bench.backlog import fill
from bench.running import SECRET, Service, processors

WEBHOOK = "fast"


def delivered(service: Service) -> int:
    """How many deliveries the service has counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{service.console}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(rf'cubehook_deliveries_total{{outcome="delivered",webhook="{WEBHOOK}"}} (\S+)', text)
    return int(float(found[1])) if found else 0


def measure(folder: Path, port: int, pending: int, seconds: float) -> tuple[float, float]:
    """Deliveries a second, and CPU seconds of the service for each."""
    settings = (
        f'enabled = false\n[webhooks.{WEBHOOK}]\nurl = "http://127.0.0.1:{port}/calls"\nsecret = "{SECRET}"\n'
    )
    with Service(folder, webhook=settings) as service:
        service.wait_for("is running")
    fill(folder / "state" / "cubehook.db", WEBHOOK, pending, time.time_ns() // 1000)
    service.log.unlink()
    with Service(folder, webhook=settings) as service:
        service.wait_for("is running")
        time.sleep(1.0)
        count, cpu, began = delivered(service), service.cpu(), time.monotonic()
        time.sleep(seconds)
        count, cpu = delivered(service) - count, service.cpu() - cpu
        took = time.monotonic() - began
    if count >= pending * 0.9:
        raise SystemExit(f"{pending} are too few for {seconds} s: give more --pending")
    return count / took, cpu / count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.delivery", description=__doc__.split("\n\n")[0])
    parser.add_argument("--pending", type=int, default=60_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    service_on, load_on = processors()
    os.sched_setaffinity(0, load_on)
    receiver = subprocess.Popen([sys.executable, "-c", bare.RECEIVER], stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None
    port = int(receiver.stdout.readline())
    try:
        with tempfile.TemporaryDirectory(prefix="cubehook-bench-") as name:
            rate, cpu = measure(Path(name), port, options.pending, options.seconds)
    finally:
        receiver.kill()
        receiver.wait()
    print(f"{rate:.0f} deliveries a second, CPU {cpu * 1e6:.0f} us each")
    for words, at in (("at that rate", rate), ("as fast as it goes", 1e6)):
        treq = bare.measure("treq", at, service_on)
        print(f"a bare treq POST {words}: {treq * 1e6:.0f} us; a delivery takes {cpu / treq:.2f} times that")


if __name__ == "__main__":
    main()
