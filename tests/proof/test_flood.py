"""Ten thousand connections that ask for nothing, from as many addresses or from the gateway's own."""

from __future__ import annotations

from tests.functional.flood import FloodCase

CONNECTIONS = 10_000
MOST = 1000
"""What the configuration allows unless it says otherwise."""
MOST_OF_ADDRESS = 250


class FloodProof(FloodCase):
    async def test_from_as_many_addresses(self) -> None:
        await self.calls_beside("--sources", str(CONNECTIONS))
        self.assertLess(await self.open_files(), MOST + 200)

    async def test_from_the_gateways_own(self) -> None:
        await self.calls_beside("--sources", "1")
        self.assertLess(await self.open_files(), MOST_OF_ADDRESS + 200)

    async def calls_beside(self, *options: str) -> None:
        # A connection for each message is hardest on the gateway.
        await self.begin(persistent=False)
        flood = self.flood("--connections", str(CONNECTIONS), "--per-second", "1000", *options)
        await self.flooded(flood, 2 * MOST)
        for _ in range(10):
            await self.calls_come_through(20)
        await self.flooded(flood, CONNECTIONS)
        await self.calls_come_through(20)
        self.assertGreater(
            await self.metric('cubehook_rejected_total{reason="connections"}'), CONNECTIONS - 2 * MOST
        )

    async def open_files(self) -> float:
        return await self.metric("process_open_fds")
