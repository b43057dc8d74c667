"""Ten restarts under load, with sockets that stay open: gateways notice nothing, webhooks miss nothing."""

from __future__ import annotations

from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from cubehook.simulator.scenarios import Traffic
from tests.functional.test_main_job import reactor
from tests.functional.test_systemd import RestartCase

RESTARTS = 10


class RestartTests(RestartCase):
    timeout = 900

    async def test_ten_restarts_under_load(self) -> None:
        random = Random(2026)
        await self.begin(payload="full")
        calls = Deferred.fromCoroutine(
            self.gateway.make_calls(Traffic(mix={"answered": 1.0}, rate=30.0, hold_seconds=3.0))
        )
        for _ in range(RESTARTS):
            # The moment is what is tried, so nothing is waited for but time.
            await deferLater(reactor, random.uniform(0.5, 3.0), lambda: None)
            process = self.service.process
            assert process is not None
            await process.stop()
            await self.service.start()
        _ = calls.addErrback(lambda _: None)
        calls.cancel()
        await self.gateway.when_idle()
        await self.check_that_nothing_was_lost()
        self.assertEqual(self.gateway.counters.registrations, RESTARTS + 1)
        print(f"{self.gateway.counters.calls} calls, {self.gateway.counters.notifications} notifications")
