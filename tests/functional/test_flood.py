"""Connections that ask for nothing, from the gateway's own address, beside its calls."""

from __future__ import annotations

from tests.functional.flood import FloodCase


class FloodTests(FloodCase):
    async def test_calls_come_through(self) -> None:
        await self.begin(persistent=False)
        flood = self.flood("--connections", "600", "--sources", "1", "--per-second", "400")
        await self.flooded(flood, 700)
        await self.calls_come_through(5)
        counts = self.counts(flood)
        self.assertLessEqual(counts["open"], 350, "those that were just closed are not counted off yet")
        self.assertGreater(await self.metric('cubehook_rejected_total{reason="connections"}'), 300)
        assert self.service.process is not None
        said = self.service.process.text.count("listen.cubes: too many connections")
        self.assertEqual(said, 1)
        self.assertIn("ok", (await self.service.get("/healthz"))[1])
