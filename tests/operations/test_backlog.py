"""How old what is pending is, whether it is in memory, on disk, or the disk cannot be read."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import Micros
from cubehook.operations.backlog import LOOK_SECONDS, Backlog
from cubehook.store.errors import StoreClosedError

SECOND = 1_000_000


class BacklogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now: Micros = 100 * SECOND
        self.clock = Clock()
        self.resident: dict[str, Micros | None] = {}
        self.kept: dict[str, Micros] = {}
        self.asked: list[list[str]] = []
        self.answer: Deferred[None] | None = None
        self.backlog = Backlog(self, lambda: self.resident, lambda: self.now, self.clock)

    async def oldest_pending(self, webhooks: Collection[str]) -> dict[str, Micros]:
        self.asked.append(list(webhooks))
        if self.answer is not None:
            await self.answer
        return {id: at for id, at in self.kept.items() if id in webhooks}

    def look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.backlog.look())

    def test_the_older_of_memory_and_disk_counts(self) -> None:
        self.resident = {"memory": 90 * SECOND, "disk": None, "both": 95 * SECOND}
        self.kept = {"memory": 99 * SECOND, "disk": 40 * SECOND, "both": 60 * SECOND}
        self.successResultOf(self.look())
        ages = self.backlog.ages(["memory", "disk", "both", "idle"])
        self.assertEqual(ages, [("memory", 10.0), ("disk", 60.0), ("both", 40.0), ("idle", 0.0)])

    def test_nothing_pending_asks_nothing_and_is_no_age(self) -> None:
        self.resident, self.kept = {"crm": None}, {"crm": SECOND}
        self.successResultOf(self.look())
        self.assertEqual(self.backlog.ages(["crm"]), [("crm", 99.0)])
        self.resident = {}
        self.assertEqual(self.backlog.ages(["crm"]), [("crm", 0.0)])
        self.successResultOf(self.look())
        self.assertEqual(self.asked, [["crm"]])

    def test_what_cannot_be_read_stays_as_it_was_and_grows_older(self) -> None:
        self.resident, self.kept = {"crm": None}, {"crm": 50 * SECOND}
        self.successResultOf(self.look())
        self.now += 10 * SECOND
        self.answer = Deferred()
        slow = self.look()
        self.assertNoResult(slow)
        self.clock.advance(LOOK_SECONDS)
        self.successResultOf(slow)
        self.assertEqual(self.backlog.ages(["crm"]), [("crm", 60.0)])
        # What goes on is not begun again.
        again = self.look()
        self.assertEqual(len(self.asked), 2)
        self.answer.callback(None)
        self.successResultOf(again)
        self.answer = Deferred()
        broken = self.look()
        self.assertEqual(len(self.asked), 3)
        self.answer.errback(StoreClosedError("away"))
        self.successResultOf(broken)
        self.assertEqual(self.backlog.ages(["crm"]), [("crm", 60.0)])

    def test_a_clock_that_was_set_back_makes_no_negative_age(self) -> None:
        self.resident = {"crm": 200 * SECOND}
        self.assertEqual(self.backlog.ages(["crm"]), [("crm", 0.0)])
