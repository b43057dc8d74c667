"""Sending again: one delivery, and many as a job."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from cubehook.delivery import redelivery
from cubehook.delivery.redelivery import Redelivery
from cubehook.ids import id_text
from cubehook.interfaces import (
    BadRangeError,
    DeliveryPendingError,
    EventNotKeptError,
    IJobStore,
    IRedelivery,
    NotFoundError,
    Outbound,
    RedeliveryError,
    WebhookDisabledError,
)
from cubehook.records import Delivery, DeliveryStatus, Job, JobState, Wants
from cubehook.store.errors import StoreError
from tests.delivery.fakes import BASE, FAILED, GONE, OK, PERMANENT, Desk, Scripted, held, webhook
from tests.delivery.memory_jobs import MemoryJobs

DELIVERED, GIVEN_UP, PENDING = DeliveryStatus.DELIVERED, DeliveryStatus.FAILED, DeliveryStatus.PENDING
LATER = BASE + 3600 * 1_000_000

T = TypeVar("T")


class Case(SynchronousTestCase):
    """A desk with the webhooks `crm` and `audit`; their receivers say `answer` and `audit_answer`."""

    def setUp(self) -> None:
        self.answer: object = OK
        self.audit_answer: object = OK
        self.receiver = Scripted(lambda outbound: self.answer)
        self.audit = Scripted(lambda outbound: self.audit_answer)
        self.desk = Desk(
            (webhook("crm", retry=(1.0,), jitter=0.0), self.receiver),
            (webhook("audit", retry=(1.0,), jitter=0.0), self.audit),
        ).start()
        self.jobs = MemoryJobs(self.desk.store)
        self.jobs.webhooks = {"crm", "audit"}
        self.redelivery = self.new()
        self.said: list[str] = []

        @implementer(ILogObserver)
        def note(event: LogEvent) -> None:
            if event.get("log_namespace") == "cubehook.delivery.redelivery.Redelivery":
                self.said.append(formatEvent(event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)

    def new(self) -> Redelivery:
        desk = self.desk
        return Redelivery(self.jobs, desk.dispatcher, desk.ids, desk.now, desk.clock, lambda: 30 * 86_400)

    def over(self, calls: int, hook: str = "crm", each: int = 1) -> list[Delivery]:
        """New deliveries of `hook` that were given up; what was sent and handed over by then is forgotten."""
        before = self.answer, self.audit_answer
        self.answer = self.audit_answer = PERMANENT
        ids = [self.desk.call() for _ in range(calls)]
        made = [
            delivery
            for sequence in range(1, each + 1)
            for call in ids
            for delivery in self.desk.happens(self.desk.event(call, sequence))
        ]
        self.desk.advance(5.0)
        self.answer, self.audit_answer = before
        self.receiver.sent.clear()
        self.audit.sent.clear()
        mine = [delivery for delivery in made if delivery.webhook == hook]
        self.assertEqual({self.desk.store.status(delivery) for delivery in mine}, {GIVEN_UP})
        return sorted(mine, key=lambda delivery: delivery.id)

    def ask(self, asked: Coroutine[Any, Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(asked)

    def start(self, *statuses: DeliveryStatus, hook: str = "crm", pace: float = 50.0) -> Job:
        return self.successResultOf(
            self.ask(self.redelivery.start(hook, BASE, LATER, statuses or (GIVEN_UP,), "an operator", pace))
        )

    def job(self, job: Job) -> Job:
        return self.successResultOf(self.ask(self.redelivery.job(job.id)))

    def handed(self) -> list[int]:
        return [delivery for _, delivery in self.jobs.handed]

    def refused(self, kind: type[RedeliveryError], asked: Coroutine[Any, Any, Any]) -> str:
        return str(self.failureResultOf(self.ask(asked), kind).value)


class OneTests(Case):
    def test_it_keeps_its_promise(self) -> None:
        verifyObject(IRedelivery, self.redelivery)
        verifyObject(IJobStore, self.jobs)

    def test_it_goes_at_once_marked_with_its_id_and_a_number_of_its_own(self) -> None:
        [delivery] = self.over(1)
        again = self.successResultOf(self.ask(self.redelivery.one(delivery.id, "kim\n(console)")))
        self.assertEqual(
            (again.id, again.status, again.redelivery, again.attempts), (delivery.id, PENDING, True, 1)
        )
        self.desk.advance(0.1)
        [sent] = self.receiver.sent
        self.assertEqual((sent.id, sent.attempt, sent.redelivery), (delivery.event.payload.event_id, 2, True))
        self.assertEqual(self.desk.store.status(delivery), DELIVERED)
        self.assertEqual(self.desk.dispatcher.status("crm").pending, 0)
        self.assertEqual(
            self.said,
            [f"Delivery {id_text(delivery.id)} of webhook crm is sent again; asked for by kim\\x0a(console)"],
        )

    def test_it_has_the_whole_schedule_again(self) -> None:
        [delivery] = self.over(1)
        self.answer = FAILED
        self.successResultOf(self.ask(self.redelivery.one(delivery.id, "kim")))
        self.desk.advance(0.5)
        self.assertEqual(self.desk.store.status(delivery), PENDING)
        self.desk.advance(2.0)
        self.assertEqual([sent.attempt for sent in self.receiver.sent], [2, 3])
        self.assertEqual(self.desk.store.status(delivery), GIVEN_UP)

    def test_what_cannot_be_is_refused_in_words(self) -> None:
        [delivery] = self.over(1)
        self.assertIn("no delivery 77", self.refused(NotFoundError, self.redelivery.one(77, "kim")))
        self.jobs.unreadable.add(delivery.id)
        self.assertIn(
            "no longer kept", self.refused(EventNotKeptError, self.redelivery.one(delivery.id, "kim"))
        )
        self.jobs.unreadable.clear()
        self.receiver.answer = None
        self.successResultOf(self.ask(self.redelivery.one(delivery.id, "kim")))
        self.assertIn("pending", self.refused(DeliveryPendingError, self.redelivery.one(delivery.id, "kim")))
        self.assertEqual(self.handed(), [delivery.id])

    def test_a_webhook_that_is_sent_nothing(self) -> None:
        first, second = self.over(2)
        self.answer = GONE
        self.successResultOf(self.ask(self.redelivery.one(first.id, "kim")))
        self.desk.advance(1.0)
        for asked in (
            self.redelivery.one(second.id, "kim"),
            self.redelivery.start("crm", BASE, LATER, (GIVEN_UP,), "kim"),
        ):
            words = self.refused(WebhookDisabledError, asked)
            self.assertIn("webhook crm is sent nothing (its receiver answered 410", words)
            self.assertIn("enable it first", words)
        self.assertEqual(
            self.successResultOf(self.ask(self.redelivery.preview("crm", BASE, LATER, (GIVEN_UP,)))), 1
        )
        _ = self.desk.dispatcher.remove("audit")
        [audit] = [row.id for row in self.desk.store.rows.values() if row.webhook == "audit"][:1]
        # Known, but its settings could not be used.
        self.assertIn("mend", self.refused(WebhookDisabledError, self.redelivery.one(audit, "kim")))
        self.jobs.webhooks.discard("audit")
        self.assertIn("no webhook audit", self.refused(NotFoundError, self.redelivery.one(audit, "kim")))

    def test_it_is_done_although_the_asker_goes_away(self) -> None:
        [delivery] = self.over(1)
        self.desk.store.away = True
        asked = self.ask(self.redelivery.one(delivery.id, "kim"))
        asked.cancel()
        self.failureResultOf(asked)
        self.desk.store.back()
        self.desk.advance(0.1)
        self.assertEqual(self.desk.store.status(delivery), DELIVERED)
        self.assertEqual(len(self.receiver.sent), 1)


class AskedTests(Case):
    def test_preview_counts_what_would_go(self) -> None:
        deliveries = self.over(5)
        self.jobs.unreadable.add(deliveries[1].id)
        for since, until, statuses, expected in (
            (BASE, LATER, (GIVEN_UP,), 4),
            (BASE, LATER, (DELIVERED,), 0),
            (BASE, BASE + 1, (GIVEN_UP, DELIVERED), 4),
            (BASE + 1, LATER, (GIVEN_UP,), 0),
        ):
            asked = self.ask(self.redelivery.preview("crm", since, until, statuses))
            self.assertEqual(self.successResultOf(asked), expected)
        self.assertEqual(self.handed(), [])

    def test_what_was_missed_is_what_the_webhook_wants_now_as_far_back_as_is_known(self) -> None:
        asked = self.ask(self.redelivery.start("crm", BASE, LATER, (), "kim", missed=True))
        job = self.jobs.kept[self.successResultOf(asked).id]
        webhook = self.desk.dispatcher.settings("crm")
        kept = 30 * 86_400_000_000
        wants = Wants(granularity=webhook.granularity, states=webhook.states, cubes=webhook.cubes, kept=kept)
        self.assertEqual((job.statuses, job.missed), ((), wants))
        for asked_with in (
            self.redelivery.preview("crm", self.desk.now() - kept - 1, LATER, (), missed=True),
            self.redelivery.start("crm", self.desk.now() - kept - 1, LATER, (), "kim", missed=True),
        ):
            problems = self.failureResultOf(self.ask(asked_with), BadRangeError).value.problems
            self.assertEqual(list(problems), ["since"])
            self.assertIn("retention.deliveries", problems["since"])
        unknown = self.redelivery.preview("hr", BASE, LATER, (), missed=True)
        self.assertIn("no webhook hr", self.refused(NotFoundError, unknown))

    def test_everything_that_is_wrong_is_told_at_once(self) -> None:
        for asked in (
            self.redelivery.preview("crm", LATER, LATER, ()),
            self.redelivery.start("crm", LATER, LATER, (), "kim"),
        ):
            failure = self.failureResultOf(self.ask(asked), BadRangeError)
            self.assertEqual(sorted(failure.value.problems), ["statuses", "until"])
        for pace in (0.0, -1.0, 1e9, float("nan"), float("inf")):
            asked_with = self.redelivery.start("crm", BASE, LATER, (DELIVERED, PENDING), "kim", pace)
            failure = self.failureResultOf(self.ask(asked_with), BadRangeError)
            problems = failure.value.problems
            self.assertIn("from 0.01 to 1000", problems["per_second"])
            self.assertIn("pending", problems["statuses"])
        for unknown in (
            self.redelivery.preview("hr", BASE, LATER, (GIVEN_UP,)),
            self.redelivery.start("hr", BASE, LATER, (GIVEN_UP,), "kim"),
        ):
            self.assertIn("no webhook hr", self.refused(NotFoundError, unknown))
        for nowhere in (self.redelivery.job(5), self.redelivery.cancel(5)):
            self.refused(NotFoundError, nowhere)
        self.assertEqual(self.jobs.kept, {})

    def test_a_time_before_all_time_is_one(self) -> None:
        self.over(1)
        asked = self.ask(self.redelivery.start("crm", -(10**18), LATER, (GIVEN_UP,), "kim"))
        job = self.successResultOf(asked)
        self.assertEqual((job.total, job.since), (1, 0))

    def test_pages_newest_first(self) -> None:
        kept = [self.start(hook=hook) for hook in ("crm", "audit", "crm")]
        pages = self.redelivery.jobs
        self.assertEqual(
            [job.id for job in self.successResultOf(self.ask(pages()))], [job.id for job in kept[::-1]]
        )
        [only] = self.successResultOf(self.ask(pages("crm", kept[2].id, 5)))
        self.assertEqual(only.id, kept[0].id)


class JobTests(Case):
    def test_oldest_first_at_its_pace_until_it_is_done(self) -> None:
        deliveries = self.over(40)
        job = self.start(pace=10.0)
        self.assertEqual(
            (job.total, job.done, job.state, job.asked_by), (40, 0, JobState.RUNNING, "an operator")
        )
        for second in range(1, 4):
            self.desk.advance(1.0)
            self.assertIn(len(self.receiver.sent), range(10 * second - 2, 10 * second + 5))
        self.assertEqual(self.job(job).done, len(self.handed()))
        self.desk.advance(2.0)
        job = self.job(job)
        self.assertEqual((job.state, job.done, job.skipped), (JobState.DONE, 40, 0))
        self.assertEqual(self.handed(), [delivery.id for delivery in deliveries])
        self.assertEqual({self.desk.store.status(delivery) for delivery in deliveries}, {DELIVERED})
        self.assertEqual({sent.redelivery for sent in self.receiver.sent}, {True})
        self.assertEqual(len(self.audit.sent), 0)
        self.assertEqual(self.desk.dispatcher.status("crm").pending, 0)
        begin, end = self.said
        self.assertIn(f"Redelivery job {id_text(job.id)} begins: webhook crm, 40 deliveries of 2024-", begin)
        self.assertIn("that were failed, 10 a second; asked for by an operator", begin)
        self.assertIn("is done: 40 of 40 deliveries were handed over", end)

    def test_a_slow_pace_is_one_at_a_time(self) -> None:
        self.over(3)
        self.start(pace=0.5)
        counts = []
        for _ in range(5):
            self.desk.advance(1.0)
            counts.append(len(self.receiver.sent))
        self.assertEqual(counts, [1, 1, 2, 2, 3])

    def test_it_is_done_with_its_last(self) -> None:
        self.over(2)
        job = self.start(pace=0.1)
        self.desk.advance(5.0)
        self.assertEqual((self.job(job).done, self.job(job).state), (1, JobState.RUNNING))
        self.desk.advance(6.0)
        self.assertEqual((self.job(job).done, self.job(job).state), (2, JobState.DONE))

    def test_in_order_within_each_call(self) -> None:
        self.over(6, each=3)
        waiting: list[tuple[Outbound, Deferred[Any]]] = []

        def answer(outbound: Outbound) -> Deferred[Any]:
            waiting.append((outbound, Deferred()))
            return waiting[-1][1]

        self.receiver.answer = answer
        self.start(pace=1000.0)
        self.desk.advance(1.0)
        orders: dict[int, list[int]] = {}
        while waiting:
            # The youngest attempt first, so that order does not come by itself.
            outbound, answered = waiting.pop()
            orders.setdefault(outbound.event.call, []).append(outbound.event.call_event.sequence)
            self.assertNotIn(outbound.event.call, [each.event.call for each, _ in waiting])
            answered.callback(OK)
            self.desk.advance(0.2)
        self.assertEqual(list(orders.values()), [[1, 2, 3]] * 6)

    def test_only_what_is_so_when_its_turn_comes_and_nothing_twice(self) -> None:
        deliveries = self.over(6)
        job = self.start(pace=1.0)
        self.desk.advance(0.5)
        self.answer = PERMANENT
        self.desk.advance(1.0)
        self.answer = OK
        # Delivered meanwhile, as someone asked.
        self.successResultOf(self.ask(self.redelivery.one(deliveries[4].id, "kim")))
        self.desk.advance(10.0)
        self.assertEqual(
            [delivery for by, delivery in self.jobs.handed if by],
            [deliveries[number].id for number in (0, 1, 2, 3, 5)],
        )
        self.assertEqual(self.desk.store.status(deliveries[1]), GIVEN_UP)
        self.assertEqual((self.job(job).state, self.job(job).done), (JobState.DONE, 5))

    def test_what_happened_from_since_up_to_but_without_until(self) -> None:
        for _ in range(2):
            self.over(1)
        since = self.desk.now()
        wanted = [delivery.id for _ in range(2) for delivery in self.over(1)]
        until = self.desk.now()
        self.over(1)
        asked = self.ask(self.redelivery.start("crm", since, until, (GIVEN_UP,), "kim"))
        self.assertEqual(self.successResultOf(asked).total, 2)
        self.desk.advance(5.0)
        self.assertEqual(self.handed(), wanted)

    def test_not_what_was_made_after_it(self) -> None:
        deliveries = self.over(2)
        self.start(pace=0.1)
        self.desk.advance(1.0)
        self.over(3)
        self.desk.advance(60.0)
        self.assertEqual(self.handed(), [delivery.id for delivery in deliveries])

    def test_what_is_no_longer_kept_is_counted(self) -> None:
        deliveries = self.over(4)
        self.jobs.unreadable.add(deliveries[2].id)
        job = self.start()
        self.desk.advance(1.0)
        self.assertEqual((self.job(job).done, self.job(job).skipped), (3, 1))
        self.assertIn("3 of 3 deliveries were handed over, 1 could not be", self.said[-1])

    def test_long_stretches_with_nothing_are_passed(self) -> None:
        self.over(50, "audit")
        self.jobs.rows = 7
        for delivery in self.over(50, "audit")[1:]:
            self.desk.store.rows[delivery.id].status = DELIVERED
        job = self.start(hook="audit")
        self.desk.advance(3.0)
        self.assertEqual((self.job(job).done, self.job(job).state), (51, JobState.DONE))


class WaitTests(Case):
    def test_it_waits_for_a_receiver_that_is_held_back(self) -> None:
        self.over(5)
        self.answer = held(30.0)
        job = self.start(pace=1.0)
        self.desk.advance(20.0)
        self.assertEqual(len(self.handed()), 1)
        self.assertRegex(self.job(job).reason or "", "waits: the webhook is held back until 2024-")
        self.assertEqual(self.jobs.kept[job.id].reason, None)
        self.answer = OK
        self.desk.advance(40.0)
        self.assertEqual((self.job(job).state, self.job(job).reason), (JobState.DONE, None))

    def test_one_goes_to_try_a_receiver_for_which_nothing_else_is_pending(self) -> None:
        deliveries = self.over(4)
        dispatcher, original = self.desk.dispatcher, self.desk.dispatcher.status
        self.answer = held(0.0)
        self.successResultOf(self.ask(self.redelivery.one(deliveries[0].id, "kim")))
        self.desk.advance(0.2)
        self.assertNotEqual(original("crm").held_until, None)
        # What is tried is given up: nothing is pending, and the breaker is half open.
        self.answer = PERMANENT
        self.desk.advance(60.0)
        self.assertEqual((original("crm").pending, str(original("crm").state)), (0, "half-open"))
        self.receiver.answer = None
        self.receiver.sent.clear()
        job = self.start(pace=100.0)
        self.desk.advance(5.0)
        self.assertEqual(len(self.receiver.sent), 1)
        self.assertIn("tried whether the receiver is well", self.job(job).reason or "")
        self.receiver.answer = lambda outbound: OK
        self.receiver.open[0].callback(OK)
        self.desk.advance(5.0)
        self.assertEqual(self.job(job).state, JobState.DONE)
        self.assertEqual(dispatcher.status("crm").pending, 0)

    def test_it_waits_while_much_is_pending(self) -> None:
        self.patch(redelivery, "FULL", 6)
        self.over(20)
        self.receiver.answer = None
        job = self.start(pace=1000.0)
        self.desk.advance(5.0)
        self.assertEqual(self.desk.dispatcher.status("crm").pending, 6)
        self.assertEqual(self.job(job).reason, "waits: 6 deliveries of the webhook are pending")
        self.receiver.open[0].callback(OK)
        self.desk.advance(2.0)
        self.assertEqual((self.desk.dispatcher.status("crm").pending, self.job(job).done), (6, 7))

    def test_it_waits_for_a_webhook_that_is_disabled_and_goes_on_when_it_is_not_any_more(self) -> None:
        self.over(5)
        self.answer = GONE
        job = self.start(pace=1.0)
        self.desk.advance(5.0)
        self.assertEqual(len(self.handed()), 1)
        self.assertRegex(
            self.job(job).reason or "", "waits: the webhook is sent nothing: its receiver answered 410"
        )
        self.answer = OK
        _ = self.desk.dispatcher.replace(webhook("crm"), Scripted(lambda outbound: self.answer))
        self.desk.advance(10.0)
        self.assertEqual(self.job(job).state, JobState.DONE)

    def test_a_webhook_that_is_removed_ends_it(self) -> None:
        self.over(5)
        job = self.start(pace=1.0)
        self.desk.advance(1.5)
        _ = self.desk.dispatcher.remove("crm")
        self.desk.advance(3.0)
        # As long as it is only its settings that cannot be used, they may be mended.
        self.assertEqual(self.job(job).state, JobState.RUNNING)
        self.assertIn("settings cannot be used", self.job(job).reason or "")
        self.jobs.webhooks.discard("crm")
        self.desk.advance(3.0)
        ended = self.job(job)
        self.assertEqual((ended.state, ended.done), (JobState.FAILED, 2))
        self.assertEqual(ended.reason, "webhook crm was removed")
        self.assertIn("is failed: 2 of 5 deliveries were handed over; webhook crm was removed", self.said[-1])

    def test_of_one_webhook_the_jobs_go_one_after_the_other_and_webhooks_do_not_wait(self) -> None:
        self.over(4)
        first, second = self.start(pace=1.0), self.start(DELIVERED, pace=100.0)
        other = self.start(hook="audit", pace=1.0)
        self.desk.advance(2.5)
        self.assertEqual(
            self.job(second).reason, f"waits: job {id_text(first.id)} of the same webhook goes first"
        )
        self.assertEqual((self.job(first).done, self.job(second).done, self.job(other).done), (3, 0, 3))
        self.desk.advance(5.0)
        # Its turn came when the first had delivered all four.
        self.assertEqual((self.job(first).done, self.job(second).done, self.job(other).done), (4, 4, 4))


class CancelTests(Case):
    def test_nothing_more_is_handed_over_and_what_was_is_sent(self) -> None:
        self.over(10)
        self.receiver.answer = None
        job = self.start(pace=2.0)
        self.desk.advance(1.2)
        cancelled = self.successResultOf(self.ask(self.redelivery.cancel(job.id)))
        self.assertEqual((cancelled.state, cancelled.done), (JobState.CANCELLED, 3))
        self.assertNotEqual(cancelled.ended_at, None)
        self.desk.advance(5.0)
        self.assertEqual((len(self.handed()), len(self.receiver.open)), (3, 3))
        for open in list(self.receiver.open):
            open.callback(OK)
        self.desk.advance(1.0)
        self.assertEqual(self.desk.dispatcher.status("crm").pending, 0)
        self.assertIn("is cancelled: 3 of 10 deliveries were handed over", self.said[-1])
        # Once over, it stays as it is.
        self.assertEqual(self.successResultOf(self.ask(self.redelivery.cancel(job.id))), cancelled)
        self.assertEqual(len(self.said), 2)

    def test_one_that_waits_and_one_that_is_not_its_turn(self) -> None:
        self.over(5)
        self.answer = held(1000.0)
        first, second, third = (self.start(pace=1.0) for _ in range(3))
        self.desk.advance(3.0)
        for job in (second, first):
            self.successResultOf(self.ask(self.redelivery.cancel(job.id)))
        self.desk.advance(3.0)
        self.assertEqual([self.job(job).state for job in (first, second)], [JobState.CANCELLED] * 2)
        self.assertEqual(len(self.handed()), 1)
        self.assertIn("held back", self.job(third).reason or "")

    def test_between_what_was_found_and_its_handing_over(self) -> None:
        self.over(5)
        job = self.start(pace=1000.0)
        self.desk.store.latency = lambda: 1.0
        self.desk.advance(0.5)
        cancelled = self.ask(self.redelivery.cancel(job.id))
        self.desk.advance(20.0)
        self.assertEqual(self.successResultOf(cancelled).state, JobState.CANCELLED)
        self.assertEqual(self.job(job).done, len(self.handed()))
        self.assertEqual(self.handed(), [])


class LivesTests(Case):
    def test_it_goes_on_in_the_next_life(self) -> None:
        deliveries = self.over(10)
        first, second = self.start(pace=2.0), self.start(pace=50.0)
        self.desk.advance(1.2)
        self.redelivery.stop()
        self.desk.advance(10.0)
        self.assertEqual(len(self.handed()), 3)
        self.redelivery = self.new()
        self.said.clear()
        self.successResultOf(self.ask(self.redelivery.resume()))
        self.assertIn("asked for by an operator, goes on at 3 of 10 deliveries", self.said[0])
        self.desk.advance(10.0)
        self.assertEqual(
            [delivery for by, delivery in self.jobs.handed if by == first.id],
            [each.id for each in deliveries],
        )
        self.assertEqual([self.job(job).state for job in (first, second)], [JobState.DONE] * 2)

    def test_stopped_it_begins_nothing(self) -> None:
        self.over(3)
        self.redelivery.stop()
        job = self.start()
        self.desk.advance(5.0)
        self.assertEqual((self.handed(), self.job(job).state), ([], JobState.RUNNING))

    def test_a_job_is_kept_although_the_asker_goes_away(self) -> None:
        self.over(3)
        self.desk.store.away = True
        asked = self.ask(self.redelivery.start("crm", BASE, LATER, (GIVEN_UP,), "kim"))
        asked.cancel()
        self.failureResultOf(asked)
        self.desk.store.back()
        self.desk.advance(5.0)
        self.assertEqual(len(self.receiver.sent), 3)

    def test_a_database_that_cannot_be_read_is_tried_again(self) -> None:
        self.over(3)
        self.jobs.broken, self.jobs.error = 2, StoreError("the disk is away")
        job = self.start()
        self.desk.advance(1.0)
        self.assertEqual(self.job(job).reason, "waits: the disk is away")
        self.desk.advance(15.0)
        self.assertEqual((self.job(job).state, self.job(job).done), (JobState.DONE, 3))
        self.assertEqual(sum("cannot go on for now: the disk is away" in said for said in self.said), 2)

    def test_a_bug_ends_the_job_and_not_those_after_it(self) -> None:
        self.over(3)
        self.jobs.broken = 1
        first, second = self.start(), self.start()
        self.desk.advance(5.0)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(self.job(first).state, JobState.FAILED)
        self.assertIn("OSError: poison", self.job(first).reason or "")
        self.assertEqual((self.job(second).state, self.job(second).done), (JobState.DONE, 3))
