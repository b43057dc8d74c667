"""A flood on the cubes' port of a running service while its gateway places calls."""

from __future__ import annotations

import json
from typing import Any

from tests.functional.harness import Process, spawn
from tests.functional.test_main_job import STATES, MainJobCase


class FloodCase(MainJobCase):
    def flood(self, *options: str) -> Process:
        return spawn(self, "-m", "bench.flooder", str(self.service.cubes_port), *options)

    def counts(self, flood: Process) -> dict[str, int]:
        """What the flood said last."""
        whole = [line for line in flood.text.splitlines(keepends=True) if line.endswith("\n")]
        found: dict[str, int] = json.loads(whole[-1])
        return found

    async def flooded(self, flood: Process, opened: int) -> None:
        """Wait until the flood has opened so many connections."""

        async def enough() -> bool:
            return "\n" in flood.text and self.counts(flood)["opened"] >= opened

        await self.poll(enough)

    async def calls_come_through(self, count: int) -> None:
        """Place calls, and see that every webhook arrives and every notification is answered 200."""
        before = len(self.received)
        for _ in range(count):
            self.call()
        await self.until(lambda: len(self.received) == before + count * len(STATES))
        self.assertEqual(self.gateway.counters.failed, 0)

    async def metric(self, name: str) -> float:
        _, text = await self.service.get("/metrics")
        found: Any = [line for line in text.splitlines() if line.startswith(name)]
        return float(found[0].rpartition(" ")[2]) if found else 0.0
