"""Deliveries: order, concurrency, retries, holds, and who is bothered by whom."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cubehook import config
from cubehook.delivery.breaker import State
from cubehook.delivery.lanes import TIMEOUT_MARGIN
from cubehook.delivery.means import TOLD_AFTER
from cubehook.delivery.window import RECORD_SECONDS
from cubehook.events import CallState, Event, Granularity, Notice, NoticeType, iso
from cubehook.ids import id_text
from cubehook.interfaces import IDeliveryStore, ITransport, Outbound, Sent
from cubehook.records import Attempt, DeliveryStatus, ErrorClass
from tests.delivery.fakes import (
    FAILED,
    GONE,
    OK,
    PERMANENT,
    Desk,
    MemoryStore,
    Scripted,
    held,
    webhook,
)

DELIVERED, PENDING, GIVEN_UP = DeliveryStatus.DELIVERED, DeliveryStatus.PENDING, DeliveryStatus.FAILED

PATIENT = config.Breaker(failures=1000, minimum=1000)


def always(answer: Any) -> Callable[..., Any]:
    return lambda *arguments: answer


def script(*answers: object) -> Callable[[Outbound], object]:
    """The answers one after the other, then success."""
    left = list(answers)
    return lambda outbound: left.pop(0) if left else OK


class FakesTests(SynchronousTestCase):
    def test_the_fakes_keep_the_interfaces(self) -> None:
        verifyObject(ITransport, Scripted())
        verifyObject(IDeliveryStore, MemoryStore(Desk().clock))


class MatchingTests(SynchronousTestCase):
    """Which webhook gets which event."""

    def wanted(self, *hooks: config.Webhook, **event: object) -> list[str]:
        desk = Desk(*[(hook, Scripted()) for hook in hooks])
        found = desk.dispatcher.deliveries_for(desk.event(desk.call(), **event))  # type: ignore[arg-type]
        return [delivery.webhook for delivery in found]

    def test_every_enabled_webhook_by_default(self) -> None:
        self.assertEqual(["a", "c"], self.wanted(webhook("a"), webhook("b", enabled=False), webhook("c")))

    def test_states(self) -> None:
        hooks = webhook("a", states=(CallState.CONNECTED,)), webhook("b", states=(CallState.ALERTING,))
        self.assertEqual(["b"], self.wanted(*hooks, state=CallState.ALERTING))
        self.assertEqual(["a"], self.wanted(*hooks, state=CallState.CONNECTED))
        self.assertEqual([], self.wanted(*hooks, state=CallState.DISCONNECTED))

    def test_cubes(self) -> None:
        hooks = webhook("a", cubes=("hq", "branch")), webhook("b", cubes=("branch",)), webhook("c")
        self.assertEqual(["a", "c"], self.wanted(*hooks, cube="hq"))
        self.assertEqual(["a", "b", "c"], self.wanted(*hooks, cube="branch"))
        self.assertEqual(["c"], self.wanted(*hooks, cube="lab"))

    def test_granularity(self) -> None:
        hooks = webhook("a"), webhook("b", granularity=Granularity.CONNECTION)
        self.assertEqual(["a"], self.wanted(*hooks))
        self.assertEqual(["b"], self.wanted(*hooks, granularity=Granularity.CONNECTION))

    def test_leg_events_are_wanted_only_by_an_enabled_webhook(self) -> None:
        desk = Desk((webhook("a"), Scripted()))
        self.assertFalse(desk.dispatcher.wants_leg_events)
        legs = webhook("b", granularity=Granularity.CONNECTION)
        desk.dispatcher.add(legs, Scripted())
        self.assertTrue(desk.dispatcher.wants_leg_events)
        _ = desk.dispatcher.replace(
            webhook("b", granularity=Granularity.CONNECTION, enabled=False), Scripted()
        )
        self.assertFalse(desk.dispatcher.wants_leg_events)

    def test_a_delivery_is_new_and_ids_ascend(self) -> None:
        desk = Desk((webhook("a"), Scripted()), (webhook("b"), Scripted()))
        call = desk.call()
        first, second = (desk.event(call, sequence) for sequence in (1, 2))
        made = desk.dispatcher.deliveries_for(first) + desk.dispatcher.deliveries_for(second)
        self.assertEqual(sorted(delivery.id for delivery in made), [delivery.id for delivery in made])
        self.assertEqual(4, len({delivery.id for delivery in made}))
        for delivery in made:
            self.assertEqual((PENDING, 0), (delivery.status, delivery.attempts))
            self.assertEqual(delivery.event.at, delivery.due_at)

    def test_two_webhooks_of_one_id_are_refused(self) -> None:
        desk = Desk((webhook("a"), Scripted()))
        self.assertRaises(ValueError, desk.dispatcher.add, webhook("a"), Scripted())


class SendingTests(SynchronousTestCase):
    def test_what_a_transport_is_given(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk((webhook(timeout=3.0), receiver)).start()
        call = desk.call()
        event = desk.event(call)
        desk.happens(event)
        (outbound,) = receiver.sent
        self.assertEqual(event.payload.event_id, outbound.id)
        self.assertIs(event, outbound.event)
        self.assertEqual((1, 3.0, desk.now()), (outbound.attempt, outbound.timeout, outbound.at))
        self.assertEqual("application/json", outbound.content_type)
        self.assertTrue(outbound.body.startswith(b'{"call_state":"ALERTING",'))

    def test_an_attempt_is_recorded_whole_and_told(self) -> None:
        sent = Sent(
            delivered=True,
            method="POST",
            url="http://192.0.2.9/",
            request_headers={"Authorization": "***"},
            status=204,
            response_headers={"Server": "x"},
            response_body="fine",
            remote_address="192.0.2.9",
        )
        receiver = Scripted()
        desk = Desk((webhook(), receiver)).start()
        (delivery,) = desk.calls(1)
        desk.advance(1.5)
        receiver.open[0].callback(sent)
        (attempt,) = desk.store.attempts
        for field in set(Sent.__struct_fields__) & set(Attempt.__struct_fields__):
            self.assertEqual(getattr(sent, field), getattr(attempt, field), field)
        self.assertEqual(receiver.sent[0].body.decode(), attempt.request_body)
        self.assertEqual((delivery.id, 1), (attempt.delivery, attempt.number))
        self.assertEqual((receiver.sent[0].at, 1_500_000), (attempt.started_at, attempt.duration))
        self.assertEqual(DELIVERED, desk.store.status(delivery))
        self.assertEqual([("crm", delivery, attempt)], desk.notes.attempts)

    def test_events_of_a_call_wait_for_each_other_and_calls_do_not(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(), receiver)).start()
        slow, quick = desk.call(), desk.call()
        for sequence in (1, 2, 3):
            desk.happens(desk.event(slow, sequence))
        desk.happens(desk.event(quick))
        self.assertEqual([1, 1], [outbound.event.call_event.sequence for outbound in receiver.sent])
        receiver.open[1].callback(OK)
        receiver.open[0].callback(OK)
        self.assertEqual([1, 1, 2], [outbound.event.call_event.sequence for outbound in receiver.sent])
        receiver.open[0].callback(OK)
        receiver.open[0].callback(OK)
        self.assertEqual(
            [1, 2, 3], [out.event.call_event.sequence for out in receiver.sent if out.event.call == slow]
        )

    def test_the_next_of_a_call_waits_for_the_commit(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(), receiver)).start()
        call = desk.call()
        (first,) = desk.happens(desk.event(call, 1))
        desk.happens(desk.event(call, 2))
        desk.store.latency = lambda: 0.5
        receiver.open[0].callback(OK)
        desk.advance(0.45)
        self.assertEqual((PENDING, 1), (desk.store.status(first), len(receiver.sent)))
        desk.advance(0.1)
        self.assertEqual((DELIVERED, 2), (desk.store.status(first), len(receiver.sent)))

    def test_a_store_that_is_away_stalls_no_call(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(), receiver)).start()
        call = desk.call()
        for sequence in (1, 2):
            desk.happens(desk.event(call, sequence))
        desk.store.away = True
        receiver.open[0].callback(OK)
        desk.advance(RECORD_SECONDS - 0.1)
        self.assertEqual(1, len(receiver.sent))
        desk.advance(0.2)
        self.assertEqual(2, len(receiver.sent))
        receiver.open[0].callback(OK)
        desk.store.back()
        desk.advance(10)
        self.assertEqual(2, len(receiver.sent))
        self.assertEqual({DELIVERED}, {row.status for row in desk.store.rows.values()})
        self.assertEqual(0, desk.dispatcher.status("crm").resident)

    def test_concurrency_is_kept_for_each_webhook(self) -> None:
        wide, narrow = Scripted(), Scripted()
        desk = Desk(
            (webhook("wide"), wide),
            (webhook("narrow", concurrency=2), narrow),
            defaults=config.Delivery(concurrency=5),
        ).start()
        desk.calls(9)
        self.assertEqual((5, 2), (len(wide.open), len(narrow.open)))
        narrow.open[0].callback(OK)
        self.assertEqual((5, 2), (len(wide.open), len(narrow.open)))
        self.assertEqual(2, desk.dispatcher.status("narrow").in_flight)
        self.assertEqual(3, len(narrow.sent))

    def test_calls_take_turns(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=1), receiver)).start()
        a, b = desk.call(), desk.call()
        for sequence in (1, 2, 3):
            desk.happens(desk.event(a, sequence))
        desk.happens(desk.event(b))
        receiver.open[0].callback(OK)
        self.assertEqual([a, b], [outbound.event.call for outbound in receiver.sent])

    def test_a_dead_receiver_delays_nobody(self) -> None:
        dead, alive = Scripted(), Scripted(always(OK))
        desk = Desk((webhook("dead"), dead), (webhook("alive"), alive)).start()
        desk.calls(50)
        self.assertEqual(50, len(alive.sent))

    def test_a_transport_that_never_waits_lets_the_reactor_breathe(self) -> None:
        busy = Scripted(always(OK))
        desk = Desk((webhook(), busy))
        desk.calls(1000)
        desk.start()
        self.assertLess(len(busy.sent), 500)
        desk.advance(0.2, step=0.001)
        self.assertEqual(1000, len(busy.sent))


class RetryTests(SynchronousTestCase):
    SCHEDULE = config.Delivery(retry=(2.0, 10.0), jitter=0.0)

    def test_the_schedule_then_given_up_then_the_next(self) -> None:
        receiver = Scripted(script(FAILED, FAILED, FAILED))
        desk = Desk((webhook(), receiver), defaults=self.SCHEDULE).start()
        call = desk.call()
        (first,) = desk.happens(desk.event(call, 1))
        (second,) = desk.happens(desk.event(call, 2))
        desk.advance(1.95)
        self.assertEqual(1, len(receiver.sent))
        desk.advance(0.1)
        self.assertEqual(2, len(receiver.sent))
        desk.advance(9.85)
        self.assertEqual(2, len(receiver.sent))
        desk.advance(0.2)
        self.assertEqual([1, 1, 1, 2], [outbound.event.call_event.sequence for outbound in receiver.sent])
        self.assertEqual([1, 2, 3, 1], [outbound.attempt for outbound in receiver.sent])
        self.assertEqual(1, len(set(receiver.ids[:3])))
        self.assertEqual((GIVEN_UP, DELIVERED), (desk.store.status(first), desk.store.status(second)))
        self.assertEqual([1, 2, 3, 1], [attempt.number for attempt in desk.store.attempts])

    def test_jitter(self) -> None:
        for chance, wait in ((0.0, 1.0), (0.999999, 3.0)):
            receiver = Scripted(always(FAILED))
            hook = webhook(jitter=0.5)
            desk = Desk((hook, receiver), defaults=self.SCHEDULE, chance=always(chance)).start()
            desk.calls(1)
            desk.advance(wait - 0.1)
            self.assertEqual(1, len(receiver.sent))
            desk.advance(0.2)
            self.assertEqual(2, len(receiver.sent))

    def test_a_webhooks_own_schedule(self) -> None:
        receiver = Scripted(always(FAILED))
        desk = Desk((webhook(retry=(1.0,)), receiver), defaults=self.SCHEDULE).start()
        (delivery,) = desk.calls(1)
        desk.advance(60)
        self.assertEqual(2, len(receiver.sent))
        self.assertEqual(GIVEN_UP, desk.store.status(delivery))

    def test_a_call_that_waits_for_its_retry_holds_no_place(self) -> None:
        receiver = Scripted(script(FAILED))
        desk = Desk((webhook(concurrency=1), receiver), defaults=self.SCHEDULE).start()
        desk.calls(3)
        self.assertEqual(3, len(receiver.sent))

    def test_permanent_is_given_up_at_once(self) -> None:
        receiver = Scripted(script(PERMANENT))
        desk = Desk((webhook(), receiver)).start()
        call = desk.call()
        (first,) = desk.happens(desk.event(call, 1))
        (second,) = desk.happens(desk.event(call, 2))
        self.assertEqual((GIVEN_UP, DELIVERED), (desk.store.status(first), desk.store.status(second)))
        self.assertEqual(2, len(receiver.sent))

    def test_a_transport_that_raises_has_a_bug_and_the_event_is_tried_again(self) -> None:
        receiver = Scripted(script(ZeroDivisionError("oops")))
        desk = Desk((webhook(), receiver), defaults=self.SCHEDULE).start()
        (delivery,) = desk.calls(1)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        (attempt,) = desk.store.attempts
        self.assertEqual(ErrorClass.OTHER, attempt.error_class)
        self.assertIn("ZeroDivisionError: oops", attempt.error or "")
        desk.advance(3)
        self.assertEqual(DELIVERED, desk.store.status(delivery))

    def test_a_transport_that_returns_nonsense_has_a_bug_and_the_event_is_tried_again(self) -> None:
        for nonsense in ("yes", Sent(delivered=False, hold="5"), Sent(delivered=True, error="\ud800")):  # type: ignore[arg-type]
            desk = Desk((webhook(), Scripted(script(nonsense))), defaults=self.SCHEDULE).start()
            (delivery,) = desk.calls(1)
            self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))
            self.assertEqual(ErrorClass.OTHER, desk.store.attempts[0].error_class)
            desk.advance(3)
            self.assertEqual(DELIVERED, desk.store.status(delivery))

    def test_a_transport_that_outlives_its_timeout_is_cancelled(self) -> None:
        cancelled: list[object] = []
        receiver = Scripted(lambda outbound: Deferred(cancelled.append))
        desk = Desk((webhook(timeout=3.0), receiver), defaults=self.SCHEDULE).start()
        desk.calls(1)
        desk.advance(3.0 + TIMEOUT_MARGIN - 0.1)
        self.assertEqual([], cancelled)
        desk.advance(0.2)
        self.assertEqual(1, len(cancelled))
        (attempt,) = desk.store.attempts
        self.assertEqual((ErrorClass.TIMEOUT, False), (attempt.error_class, attempt.delivered))
        desk.advance(2.1)
        self.assertEqual(2, len(receiver.sent))

    def test_a_transport_that_ignores_being_cancelled_is_given_up_on(self) -> None:
        late: Deferred[Sent] = Deferred()

        async def stubborn() -> Sent:
            with contextlib.suppress(CancelledError):
                await Deferred()
            return await late

        receiver = Scripted(script(Deferred.fromCoroutine(stubborn())))
        desk = Desk((webhook(timeout=1.0, concurrency=1), receiver), defaults=self.SCHEDULE).start()
        (delivery,) = desk.calls(1)
        desk.advance(1.0 + TIMEOUT_MARGIN + 0.1)
        self.assertEqual(0, desk.dispatcher.status("crm").in_flight)
        desk.advance(2.1)
        self.assertEqual(DELIVERED, desk.store.status(delivery))
        late.callback(FAILED)
        self.assertEqual(DELIVERED, desk.store.status(delivery))
        self.assertEqual([1, 2], [attempt.number for attempt in desk.store.attempts])


class HoldTests(SynchronousTestCase):
    QUICK = config.Delivery(retry=(2.0, 2.0, 2.0, 2.0), jitter=0.0)

    def test_the_whole_webhook_is_held_and_resumes_with_one_trial(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=3), receiver), defaults=self.QUICK).start()
        desk.calls(8)
        start = desk.now()
        receiver.open[0].callback(held(30))
        receiver.open[0].callback(OK)
        receiver.open[0].callback(OK)
        self.assertEqual([("crm", start + 30_000_000, "answered 503")], desk.notes.holds)
        self.assertEqual(start + 30_000_000, desk.dispatcher.status("crm").held_until)
        desk.calls(1)
        desk.advance(29.9)
        self.assertEqual(3, len(receiver.sent))
        desk.advance(0.2)
        self.assertEqual(1, len(receiver.open))
        desk.advance(1.0)
        self.assertEqual(4, len(receiver.sent))
        self.assertEqual([], desk.notes.releases)
        receiver.open[0].callback(OK)
        self.assertEqual(3, len(receiver.open))
        self.assertEqual(["crm"], desk.notes.releases)
        self.assertIsNone(desk.dispatcher.status("crm").held_until)

    def test_what_was_turned_away_together_is_not_tried_again_together(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=3), receiver), defaults=self.QUICK).start()
        desk.calls(3)
        for _number in range(3):
            receiver.open[0].callback(held(30))
        desk.advance(31)
        self.assertEqual((1, []), (len(receiver.open), desk.notes.releases))
        receiver.open[0].callback(OK)
        self.assertEqual((2, ["crm"]), (len(receiver.open), desk.notes.releases))

    def test_a_trial_that_is_turned_away_holds_again(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(), receiver), defaults=self.QUICK).start()
        desk.calls(1)
        receiver.open[0].callback(held(5))
        desk.calls(20)
        desk.advance(5.1)
        self.assertEqual(2, len(receiver.sent))
        receiver.open[0].callback(held(5))
        desk.advance(4.9)
        self.assertEqual(2, len(receiver.sent))
        desk.advance(0.2)
        self.assertEqual(3, len(receiver.sent))

    def test_a_failed_trial_that_asks_for_nothing_opens_the_breaker(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=4), receiver), defaults=self.QUICK).start()
        desk.calls(1)
        receiver.open[0].callback(held(5))
        desk.calls(20)
        desk.advance(5.1)
        receiver.open[0].callback(FAILED)
        self.assertEqual((0, State.OPEN), (len(receiver.open), desk.dispatcher.status("crm").state))
        desk.advance(2.1)
        self.assertEqual((1, State.HALF_OPEN), (len(receiver.open), desk.dispatcher.status("crm").state))

    def test_one_of_a_kind_that_cannot_be_sent_is_no_trial(self) -> None:
        receiver = Scripted(script(held(5), PERMANENT))
        desk = Desk((webhook(), receiver), defaults=self.QUICK).start()
        desk.calls(4)
        desk.advance(5.1)
        self.assertEqual(
            [GIVEN_UP] + 3 * [DELIVERED], sorted(row.status for row in desk.store.rows.values())[::-1]
        )
        self.assertEqual(5, len(receiver.sent))

    def test_the_first_time_it_is_told_to_come_later_spends_nothing(self) -> None:
        receiver = Scripted(script(held(5)))
        desk = Desk((webhook(retry=()), receiver)).start()
        (delivery,) = desk.calls(1)
        desk.advance(5.1)
        self.assertEqual((DELIVERED, 2), (desk.store.status(delivery), delivery.attempts))

    def test_an_event_that_makes_a_healthy_receiver_unavailable_is_given_up(self) -> None:
        poison: list[int] = []
        receiver = Scripted(lambda outbound: held(0) if outbound.event.call in poison else OK)
        desk = Desk((webhook(), receiver), defaults=self.QUICK).start()
        poison.append(desk.call())
        (delivery,) = desk.happens(desk.event(poison[0]))
        for _ in range(100):
            desk.calls(1)
            desk.advance(1.0)
        self.assertEqual(GIVEN_UP, desk.store.status(delivery))
        self.assertEqual(1 + len(self.QUICK.retry) + 1, delivery.attempts, "the first spent nothing")
        self.assertEqual(100, sum(row.status is DELIVERED for row in desk.store.rows.values()))

    def test_being_held_back_costs_other_deliveries_no_attempt(self) -> None:
        receiver = Scripted(always(held(7)))
        desk = Desk((webhook(), receiver), defaults=self.QUICK).start()
        deliveries = desk.calls(5)
        desk.advance(20)
        self.assertEqual(3, sum(delivery.attempts for delivery in deliveries))

    def test_no_time_named_opens_the_breaker(self) -> None:
        receiver = Scripted(script(held(0)))
        desk = Desk((webhook(), receiver), defaults=self.QUICK).start()
        desk.calls(3)
        self.assertEqual([desk.now() + 2_000_000], [until for _, until, _ in desk.notes.holds])
        desk.advance(1.9)
        self.assertEqual(1, len(receiver.sent))
        desk.advance(0.2)
        self.assertEqual(4, len(receiver.sent))

    def test_absurd_holds_are_bounded(self) -> None:
        for seconds, longest in ((float("inf"), 86400), (1e300, 86400), (float("nan"), 2), (-5.0, 2)):
            desk = Desk((webhook(), Scripted(script(held(seconds)))), defaults=self.QUICK).start()
            desk.calls(1)
            self.assertEqual(desk.now() + longest * 1_000_000, desk.notes.holds[0][1])

    def test_the_held_back_delivery_waits_as_long(self) -> None:
        receiver = Scripted(script(held(3600)))
        desk = Desk((webhook(), receiver), defaults=self.QUICK).start()
        (delivery,) = desk.calls(1)
        self.assertEqual(desk.now() + 3600_000_000, desk.store.rows[delivery.id].due_at)

    def test_a_hold_with_nothing_left_to_try_ends_by_itself(self) -> None:
        receiver = Scripted(script(Sent(delivered=False, status=429, permanent=True, hold=5.0)))
        desk = Desk((webhook(), receiver), defaults=self.QUICK).start()
        desk.calls(1)
        self.assertEqual(1, len(desk.notes.holds))
        desk.advance(5.1)
        self.assertEqual(["crm"], desk.notes.releases)

    def test_others_are_not_held(self) -> None:
        other = Scripted(always(OK))
        desk = Desk((webhook("a"), Scripted(always(held(9)))), (webhook("b"), other)).start()
        desk.calls(5)
        self.assertEqual(5, len(other.sent))


class GoneTests(SynchronousTestCase):
    def test_a_receiver_that_is_gone_is_disabled_and_its_deliveries_stay(self) -> None:
        receiver = Scripted(script(OK, GONE))
        desk = Desk((webhook(), receiver))
        deliveries = desk.calls(4)
        desk.start()
        self.assertEqual(2, len(receiver.sent))
        self.assertEqual(
            [DELIVERED, PENDING, PENDING, PENDING], [desk.store.status(each) for each in deliveries]
        )
        self.assertEqual([("crm", "its receiver answered 410: it wants no more events")], desk.notes.disables)
        self.assertEqual(["crm"], list(desk.store.disabled))
        self.assertEqual([True, False], [attempt.delivered for attempt in desk.store.attempts])
        self.assertEqual([], desk.calls(1))
        desk.advance(3600, step=60)
        self.assertEqual(2, len(receiver.sent))
        status = desk.dispatcher.status("crm")
        self.assertEqual((0, 3), (status.resident, status.pending))
        self.assertIn("answered 410", status.problem or "")

    def test_gone_at_the_first_delivery_that_a_read_brings(self) -> None:
        receiver = Scripted(always(GONE))
        desk = Desk((webhook(), receiver))
        desk.calls(3)
        desk.store.answering = Deferred()
        desk.start()
        desk.store.answering.callback(None)
        desk.advance(3600, step=60)
        self.assertEqual(1, len(receiver.sent))
        status = desk.dispatcher.status("crm")
        self.assertEqual((0, 3), (status.resident, status.pending))
        self.assertEqual([], desk.clock.getDelayedCalls())

    def test_gone_during_a_read(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(), receiver))
        desk.calls(2)
        desk.store.answering = answering = Deferred[None]()
        desk.start()
        desk.advance(RECORD_SECONDS + 0.1)
        desk.calls(1)
        receiver.open[0].callback(GONE)
        answering.callback(None)
        desk.advance(100)
        status = desk.dispatcher.status("crm")
        self.assertEqual((1, 0, 3), (len(receiver.sent), status.resident, status.pending))

    def test_enabled_again_it_gets_what_was_kept_in_order(self) -> None:
        desk = Desk((webhook(), Scripted(always(GONE)))).start()
        call = desk.call()
        events = [desk.event(call, sequence) for sequence in (1, 2)]
        made = [delivery for event in events for delivery in desk.dispatcher.deliveries_for(event)]
        _ = desk.store.accept(made)
        desk.dispatcher.enqueue(made)
        receiver = Scripted(always(OK))
        _ = desk.dispatcher.replace(webhook(), receiver)
        self.assertEqual([1, 2], [outbound.event.call_event.sequence for outbound in receiver.sent])

    def test_what_is_under_way_is_still_counted(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(), receiver)).start()
        first, second = desk.calls(2)
        receiver.open[0].callback(GONE)
        receiver.open[0].callback(OK)
        self.assertEqual((PENDING, DELIVERED), (desk.store.status(first), desk.store.status(second)))


class BreakerTests(SynchronousTestCase):
    """A receiver that fails is held back, and what is held back spends nothing."""

    SETTINGS = config.Delivery(
        retry=(1.0,) * 10,
        jitter=0.0,
        breaker=config.Breaker(failures=5, first=2.0, longest=8.0),
        concurrency=1,
    )

    def down(self, answer: object = FAILED, **changes: Any) -> tuple[Desk, Scripted, list[object]]:
        answers = [answer]
        receiver = Scripted(lambda outbound: answers[0])
        return Desk((webhook(**changes), receiver), defaults=self.SETTINGS).start(), receiver, answers

    def test_after_failures_in_a_row_it_is_left_in_peace_but_for_trials(self) -> None:
        desk, receiver, _ = self.down()
        desk.calls(50)
        self.assertEqual((5, State.OPEN), (len(receiver.sent), desk.dispatcher.status("crm").state))
        tried = []
        for _ in range(30):
            before = len(receiver.sent)
            desk.advance(1.0)
            tried.append(len(receiver.sent) - before)
        self.assertEqual(1, max(tried))
        self.assertEqual([2, 6, 14, 22], [number for number, trials in enumerate(tried) if trials])

    def test_it_closes_on_the_first_success_and_sends_the_rest(self) -> None:
        desk, _, answers = self.down()
        deliveries = desk.calls(50)
        answers[0] = OK
        desk.advance(2.5)
        self.assertEqual(["crm"], desk.notes.releases)
        desk.advance(2.0)
        self.assertEqual({DELIVERED}, {desk.store.status(each) for each in deliveries})
        status = desk.dispatcher.status("crm")
        self.assertEqual((State.CLOSED, 0, None), (status.state, status.failures, status.failing_since))

    def test_down_for_a_weekend_nothing_is_given_up(self) -> None:
        desk, _, answers = self.down()
        deliveries = desk.calls(3)
        desk.advance(60 * 3600, step=2.0)
        self.assertEqual({PENDING}, {desk.store.status(each) for each in deliveries})
        self.assertLessEqual(max(each.spent for each in deliveries), 5)
        answers[0] = OK
        desk.advance(30)
        self.assertEqual({DELIVERED}, {desk.store.status(each) for each in deliveries})

    def test_each_trial_is_of_another_call(self) -> None:
        desk, receiver, _ = self.down()
        desk.calls(5)
        desk.advance(2.1)
        desk.advance(4.1)
        desk.advance(8.1)
        self.assertEqual(3, len({outbound.event.call for outbound in receiver.sent[5:]}))

    def test_a_poisoned_event_keeps_the_webhook_from_nothing(self) -> None:
        poison: list[int] = []
        receiver = Scripted(lambda outbound: FAILED if outbound.event.call in poison else OK)
        desk = Desk((webhook(retry=(3.0,) * 10), receiver), defaults=self.SETTINGS).start()
        poison.append(desk.call())
        (delivery,) = desk.happens(desk.event(poison[0]))
        for _ in range(60):
            desk.calls(1)
            desk.advance(1.0)
        self.assertEqual((GIVEN_UP, 11), (desk.store.status(delivery), delivery.attempts))
        self.assertEqual([], desk.notes.holds)

    def test_a_share_of_failures_opens_it(self) -> None:
        turns = [0]

        def half(outbound: Outbound) -> Sent:
            turns[0] += 1
            return FAILED if turns[0] % 2 else OK

        desk = Desk((webhook(), Scripted(half)), defaults=self.SETTINGS).start()
        desk.calls(19)
        self.assertEqual(State.CLOSED, desk.dispatcher.status("crm").state)
        desk.calls(2)
        self.assertEqual(State.OPEN, desk.dispatcher.status("crm").state)

    def test_what_hangs_when_it_opens_decides_nothing(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=8), receiver), defaults=self.SETTINGS).start()
        desk.calls(20)
        for _ in range(5):
            receiver.open[0].callback(FAILED)
        self.assertEqual(State.OPEN, desk.dispatcher.status("crm").state)
        receiver.open[0].callback(OK)
        self.assertEqual((State.OPEN, []), (desk.dispatcher.status("crm").state, desk.notes.releases))

    def test_what_began_before_it_opened_is_not_taken_for_the_trial(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=8), receiver), defaults=self.SETTINGS).start()
        desk.calls(7)
        for _ in range(5):
            receiver.open[0].callback(FAILED)
        receiver.open[0].callback(FAILED)
        desk.advance(2.1)
        self.assertEqual((7, State.HALF_OPEN), (len(receiver.sent), desk.dispatcher.status("crm").state))
        receiver.open[0].callback(OK)
        self.assertEqual((8, State.HALF_OPEN), (len(receiver.sent), desk.dispatcher.status("crm").state))
        self.assertEqual([], desk.notes.releases)
        receiver.open[0].callback(OK)
        self.assertEqual(["crm"], desk.notes.releases)

    def test_its_state_outlives_the_service(self) -> None:
        desk, _, _ = self.down(held(3600))
        desk.calls(2)
        self.successResultOf(Deferred.fromCoroutine(desk.dispatcher.stop(1.0)))
        again = Scripted(always(OK))
        life = Desk(clock=desk.clock, store=desk.store, ids=desk.ids)
        life.dispatcher.add(webhook(), again, 2, desk.store.troubles["crm"])
        life.start()
        life.advance(3599, step=10)
        self.assertEqual(([], State.HELD), (again.sent, life.dispatcher.status("crm").state))
        life.advance(20)
        self.assertEqual(2, len(again.sent))
        self.assertEqual({}, life.store.troubles)

    def test_short_troubles_are_not_written_down(self) -> None:
        desk, _, answers = self.down()
        desk.calls(6)
        self.assertEqual({}, desk.store.troubles)
        answers[0] = OK
        desk.advance(10)
        self.assertEqual({}, desk.store.troubles)

    def test_replaced_it_stays_as_it_was_unless_it_leads_elsewhere(self) -> None:
        desk, _, _ = self.down()
        desk.calls(6)
        _ = desk.dispatcher.replace(webhook(description="the same"), Scripted(always(OK)))
        self.assertEqual(State.OPEN, desk.dispatcher.status("crm").state)
        _ = desk.dispatcher.replace(
            webhook(url="https://elsewhere.example/"), elsewhere := Scripted(always(OK))
        )
        self.assertEqual(State.CLOSED, desk.dispatcher.status("crm").state)
        desk.advance(3.0)
        self.assertEqual((State.CLOSED, 6), (desk.dispatcher.status("crm").state, len(set(elsewhere.ids))))

    def test_an_outage_is_told_once_it_lasts_and_so_is_its_end(self) -> None:
        desk, _, answers = self.down()
        start = desk.now()
        desk.calls(6)
        desk.advance(TOLD_AFTER - 1)
        self.assertEqual([], desk.notes.failures)
        desk.advance(10)
        self.assertEqual([("crm", start, "answered 500")], desk.notes.failures)
        desk.advance(60)
        self.assertEqual(1, len(desk.notes.failures))
        answers[0] = OK
        desk.advance(10)
        self.assertEqual([("crm", start)], desk.notes.recoveries)
        answers[0] = FAILED
        desk.calls(6)
        answers[0] = OK
        desk.advance(100)
        self.assertEqual(2, len(desk.notes.releases))
        self.assertEqual((1, 1), (len(desk.notes.failures), len(desk.notes.recoveries)))

    def test_a_blip_is_not_told(self) -> None:
        desk, _, answers = self.down()
        desk.calls(6)
        answers[0] = OK
        desk.advance(10)
        self.assertEqual(["crm"], desk.notes.releases)
        self.assertEqual(([], []), (desk.notes.failures, desk.notes.recoveries))


class PatienceTests(SynchronousTestCase):
    def test_after_days_of_failure_it_is_disabled_and_what_is_pending_stays(self) -> None:
        receiver = Scripted(always(FAILED))
        desk = Desk((webhook(disable_after=3 * 86400), receiver)).start()
        start = desk.now()
        (delivery,) = desk.calls(1)
        desk.advance(3 * 86400 - 600, step=5.0)
        self.assertEqual([], desk.notes.disables)
        desk.advance(1200, step=5.0)
        ((hook, reason),) = desk.notes.disables
        self.assertEqual("crm", hook)
        self.assertIn("has failed since 2024-11-23T16:03:36", reason)
        self.assertIn("answered 500", reason)
        self.assertEqual({"crm": reason}, desk.store.disabled)
        self.assertEqual(PENDING, desk.store.status(delivery))
        self.assertEqual([], desk.calls(1))
        self.assertEqual(
            (start, True), (desk.store.troubles["crm"].failing_since, desk.store.troubles["crm"].told)
        )

    def test_enabled_again_it_is_tried_once_before_the_rest_and_its_recovery_is_told(self) -> None:
        desk = Desk((webhook(), Scripted(script(OK, GONE))))
        desk.calls(5)
        desk.start()
        receiver = Scripted()
        _ = desk.dispatcher.replace(webhook(), receiver, trouble=desk.store.troubles["crm"])
        desk.advance(0.1)
        self.assertEqual(1, len(receiver.open))
        receiver.open[0].callback(OK)
        self.assertEqual(3, len(receiver.open))
        self.assertEqual(["crm"], [hook for hook, _ in desk.notes.recoveries])
        self.assertEqual({}, desk.store.troubles)

    def test_one_success_in_time_begins_the_count_anew(self) -> None:
        answers = [FAILED]
        receiver = Scripted(lambda outbound: answers[0])
        desk = Desk((webhook(disable_after=3600), receiver)).start()
        desk.calls(12)
        for _ in range(4):
            desk.advance(1800, step=5.0)
            answers[0] = OK
            desk.advance(600, step=5.0)
            answers[0] = FAILED
            desk.calls(12)
        self.assertEqual([], desk.notes.disables)

    def test_never(self) -> None:
        desk = Desk((webhook(disable_after=0), Scripted(always(FAILED)))).start()
        desk.calls(1)
        desk.advance(20 * 86400, step=60.0)
        self.assertEqual([], desk.notes.disables)


class ExpiryTests(SynchronousTestCase):
    def hook(self, **changes: Any) -> config.Webhook:
        return webhook(expire={CallState.ALERTING: 60.0}, **changes)

    def test_what_comes_too_late_is_not_sent_and_the_rest_of_the_call_goes_on(self) -> None:
        receiver = Scripted(script(held(100)))
        desk = Desk((self.hook(), receiver)).start()
        call = desk.call()
        (ringing,) = desk.happens(desk.event(call, 1))
        desk.advance(5)
        (answered,) = desk.happens(desk.event(call, 2))
        self.assertEqual(
            DeliveryStatus.EXPIRED, desk.store.status(ringing), "it cannot be tried before it is worthless"
        )
        desk.advance(100)
        self.assertEqual([1, 2], [outbound.event.call_event.sequence for outbound in receiver.sent])
        self.assertEqual(DELIVERED, desk.store.status(answered))
        self.assertEqual([("crm", ringing)], desk.notes.expiries)
        self.assertEqual(0, desk.dispatcher.status("crm").pending)

    def test_what_waited_too_long_is_over_without_an_attempt(self) -> None:
        desk = Desk((self.hook(), receiver := Scripted(always(OK))))
        late = desk.calls(3)
        desk.advance(61)
        (fresh,) = desk.calls(1)
        desk.start()
        self.assertEqual({DeliveryStatus.EXPIRED}, {desk.store.status(each) for each in late})
        self.assertEqual([fresh.event.payload.event_id], receiver.ids)
        self.assertEqual(1, len(desk.store.attempts))
        self.assertEqual(3, len(desk.notes.expiries))

    def test_a_retry_in_time_is_made(self) -> None:
        desk = Desk((self.hook(retry=(50.0,), jitter=0.0), receiver := Scripted(script(FAILED)))).start()
        (delivery,) = desk.calls(1)
        desk.advance(50.1)
        self.assertEqual((DELIVERED, 2), (desk.store.status(delivery), len(receiver.sent)))

    def test_an_expired_one_is_no_trial(self) -> None:
        receiver = Scripted()
        desk = Desk((self.hook(), receiver)).start()
        desk.happens(desk.event(desk.call(), 2))
        receiver.open[0].callback(held(100))
        late = desk.calls(3)
        desk.advance(100.1)
        self.assertEqual({DeliveryStatus.EXPIRED}, {desk.store.status(each) for each in late})
        self.assertEqual((1, State.HALF_OPEN), (len(receiver.open), desk.dispatcher.status("crm").state))

    def test_states_without_a_lifetime_and_what_was_asked_for_again_do_not_expire(self) -> None:
        desk = Desk((self.hook(), receiver := Scripted(always(OK))))
        desk.happens(desk.event(desk.call(), 2))
        (again,) = desk.calls(1)
        desk.store.rows[again.id].redelivery = True
        desk.advance(1000)
        desk.start()
        self.assertEqual(2, len(receiver.sent))
        self.assertEqual([False, True], [outbound.redelivery for outbound in receiver.sent])


class NoticeTests(SynchronousTestCase):
    def notice(self, desk: Desk, type: NoticeType, **data: str) -> Event:
        id = desk.ids.next(desk.now())
        payload = Notice(type=type, timestamp=iso(desk.now()), event_id=id_text(id), data=dict(data))
        return Event(
            id=id, call=7, cube=data.get("cube", ""), granularity=None, at=desk.now(), payload=payload
        )

    def test_only_to_those_who_ask_and_not_to_whom_it_is_about(self) -> None:
        both = NoticeType.WEBHOOK_DISABLED, NoticeType.CUBE_LOST
        hooks = [
            webhook("asks", notices=both),
            webhook("silent"),
            webhook("other", notices=(NoticeType.CUBE_REGISTERED,)),
            webhook("branch", notices=both, cubes=("branch",)),
            webhook("off", notices=both, enabled=False),
        ]
        desk = Desk(*[(hook, Scripted()) for hook in hooks])

        def told(type: NoticeType, **data: str) -> list[str]:
            return [each.webhook for each in desk.dispatcher.deliveries_for(self.notice(desk, type, **data))]

        self.assertEqual(["asks", "branch"], told(NoticeType.WEBHOOK_DISABLED, webhook="silent"))
        self.assertEqual(["branch"], told(NoticeType.WEBHOOK_DISABLED, webhook="asks"))
        self.assertEqual(["asks"], told(NoticeType.CUBE_LOST, cube="hq"))
        self.assertEqual(["asks", "branch"], told(NoticeType.CUBE_LOST, cube="branch"))

    def test_what_is_sent(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk((webhook(notices=(NoticeType.CUBE_LOST,), payload="full"), receiver)).start()
        first, second = (self.notice(desk, NoticeType.CUBE_LOST, cube="hq") for _ in range(2))
        desk.happens(first)
        desk.happens(second)
        desk.advance(2)
        self.assertEqual([first.payload.event_id, second.payload.event_id], receiver.ids)
        self.assertEqual(
            {
                "type": "cube.lost",
                "timestamp": "2024-11-23T16:03:36.200940Z",
                "event_id": first.payload.event_id,
                "data": {"cube": "hq"},
            },
            json.loads(receiver.sent[0].body),
        )


class FaultTests(SynchronousTestCase):
    def test_an_observer_that_raises_harms_nobody(self) -> None:
        receiver = Scripted(script(held(1), GONE))
        desk = Desk((webhook(), receiver)).start()

        def broken(*arguments: object) -> None:
            raise KeyError("observer")

        for name in ("attempted", "held", "disabled"):
            setattr(desk.notes, name, broken)
        desk.calls(3)
        desk.advance(10)
        self.assertEqual(2, len(desk.store.attempts))
        self.assertEqual(["crm"], list(desk.store.disabled))
        self.assertEqual(4, len(self.flushLoggedErrors(KeyError)))

    def test_a_record_that_is_refused_is_settled_without_it(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk((webhook(), receiver)).start()
        desk.store.refuse_records = True
        call = desk.call()
        (first,) = desk.happens(desk.event(call, 1))
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
        self.assertEqual(DELIVERED, desk.store.status(first))
        desk.store.refuse_records = False
        (second,) = desk.happens(desk.event(call, 2))
        self.assertEqual(DELIVERED, desk.store.status(second))

    def test_a_failed_attempt_that_cannot_be_recorded_is_followed_by_the_next(self) -> None:
        receiver = Scripted(script(FAILED))
        desk = Desk((webhook(), receiver)).start()
        desk.store.refuse_records = True
        (delivery,) = desk.calls(1)
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
        self.assertEqual([], desk.store.settled)
        desk.store.refuse_records = False
        desk.advance(3)
        self.assertEqual(DELIVERED, desk.store.status(delivery))

    def test_a_read_never_brings_back_what_could_not_be_recorded(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk((webhook(), receiver), window=2).start()
        desk.store.refuse_records = desk.store.refuse_settling = True
        desk.calls(5)
        desk.store.refuse_records = False
        self.assertEqual(10, len(self.flushLoggedErrors(ValueError)))
        desk.store.latency = lambda: 0.01
        desk.calls(20)
        desk.advance(30)
        self.assertEqual(25, len(receiver.sent))
        self.assertEqual(25, len(set(receiver.ids)))

    def test_a_disk_that_cannot_be_read_is_read_again(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk((webhook(), receiver))
        desk.store.broken_reads = 1
        desk.calls(3)
        desk.start()
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))
        self.assertEqual(0, len(receiver.sent))
        desk.advance(5.1)
        self.assertEqual(3, len(receiver.sent))

    def test_a_transport_that_does_not_start_bothers_only_its_own_webhook(self) -> None:
        async def never() -> None:
            raise ValueError("no such folder")

        broken, fine = Scripted(always(OK)), Scripted(always(OK))
        broken.starting = never
        desk = Desk((webhook("broken"), broken), (webhook("fine"), fine)).start()
        deliveries = desk.calls(2)
        self.assertEqual((0, 2), (len(broken.sent), len(fine.sent)))
        self.assertEqual(PENDING, desk.store.status(deliveries[0]))
        self.assertIn("no such folder", desk.dispatcher.status("broken").problem or "")

    def test_a_transport_that_cannot_start_yet_is_started_again(self) -> None:
        left = [OSError("the bus is down"), OSError("the bus is down")]

        async def in_the_end() -> None:
            if left:
                raise left.pop()

        receiver = Scripted(always(OK))
        receiver.starting = in_the_end
        desk = Desk((webhook(), receiver)).start()
        desk.calls(1)
        self.assertIn("the bus is down", desk.dispatcher.status("crm").problem or "")
        desk.advance(2.9)
        self.assertEqual((2, []), (receiver.started, receiver.sent))
        desk.advance(0.2)
        self.assertEqual((3, 1), (receiver.started, len(receiver.sent)))
        self.assertIsNone(desk.dispatcher.status("crm").problem)
        self.assertEqual(2, len(self.flushLoggedErrors(OSError)))

    def test_waiting_to_start_again_it_stops_at_once(self) -> None:
        async def never() -> None:
            raise OSError("the bus is down")

        receiver = Scripted(always(OK))
        receiver.starting = never
        desk = Desk((webhook(), receiver)).start()
        self.successResultOf(Deferred.fromCoroutine(desk.dispatcher.stop(1.0)))
        self.assertEqual([], desk.clock.getDelayedCalls())
        self.flushLoggedErrors(OSError)

    def test_a_transport_that_starts_slowly_bothers_only_its_own_webhook(self) -> None:
        ready: Deferred[None] = Deferred()

        async def slowly() -> None:
            await ready

        slow, fine = Scripted(always(OK)), Scripted(always(OK))
        slow.starting = slowly
        desk = Desk((webhook("slow"), slow), (webhook("fine"), fine)).start()
        desk.calls(2)
        self.assertEqual((0, 2), (len(slow.sent), len(fine.sent)))
        ready.callback(None)
        self.assertEqual(2, len(slow.sent))


class StopTests(SynchronousTestCase):
    def stop(self, desk: Desk, grace: float) -> Deferred[None]:
        return Deferred.fromCoroutine(desk.dispatcher.stop(grace))

    def test_a_transport_that_will_not_be_kept_from_starting_is_sent_nothing(self) -> None:
        async def stubbornly() -> None:
            with contextlib.suppress(CancelledError):
                await Deferred()

        receiver = Scripted(always(OK))
        receiver.starting = stubbornly
        desk = Desk((webhook(), receiver)).start()
        desk.calls(1)
        self.successResultOf(self.stop(desk, 1.0))
        desk.advance(100)
        self.assertEqual(([], 1), (receiver.sent, receiver.stopped))

    def test_what_is_under_way_may_finish_and_nothing_new_starts(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=1), receiver)).start()
        deliveries = desk.calls(2)
        stopping = self.stop(desk, 10.0)
        desk.advance(5)
        self.assertNoResult(stopping)
        self.assertEqual(0, receiver.stopped)
        receiver.open[0].callback(OK)
        self.successResultOf(stopping)
        self.assertEqual([DELIVERED, PENDING], [desk.store.status(each) for each in deliveries])
        self.assertEqual((1, 1), (len(receiver.sent), receiver.stopped))
        self.assertEqual([], desk.clock.getDelayedCalls())

    def test_past_the_grace_attempts_are_cancelled_and_stay_pending(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(), receiver)).start()
        (delivery,) = desk.calls(1)
        stopping = self.stop(desk, 3.0)
        desk.advance(3.1)
        self.successResultOf(stopping)
        self.assertEqual([], receiver.open)
        self.assertEqual((PENDING, 0), (desk.store.status(delivery), desk.store.rows[delivery.id].attempts))
        self.assertEqual([], desk.store.attempts)
        self.assertEqual(1, receiver.stopped)
        self.assertEqual([], desk.clock.getDelayedCalls())

    def test_a_record_under_way_is_waited_for(self) -> None:
        desk = Desk((webhook(), Scripted(always(OK)))).start()
        desk.calls(1)
        desk.store.latency = lambda: 1.0
        desk.calls(1)
        desk.advance(1.0)
        stopping = self.stop(desk, 10.0)
        self.assertNoResult(stopping)
        desk.advance(1.1)
        self.successResultOf(stopping)

    def test_a_transport_that_does_not_stop_is_left(self) -> None:
        receiver = Scripted(always(OK))
        receiver.stop = always(Deferred())  # type: ignore[method-assign]
        desk = Desk((webhook(), receiver)).start()
        stopping = self.stop(desk, 1.0)
        desk.advance(6)
        self.successResultOf(stopping)
        self.assertEqual(1, len(self.flushLoggedErrors()))

    def test_while_resting_held_paced_or_reading_it_stops_at_once(self) -> None:
        for answer in (always(FAILED), always(held(60))):
            receiver = Scripted(answer)
            desk = Desk((webhook(), receiver)).start()
            desk.calls(50)
            self.successResultOf(self.stop(desk, 10.0))
            self.assertEqual([], desk.clock.getDelayedCalls())
        desk = Desk((webhook(), Scripted(always(OK))))
        desk.store.away = True
        desk.start()
        self.successResultOf(self.stop(desk, 10.0))
        self.assertEqual([], desk.clock.getDelayedCalls())

    def test_a_read_that_ends_or_fails_after_the_stop_is_nobodys_business(self) -> None:
        for end in (
            lambda answering: answering.callback(None),
            lambda answering: answering.errback(OSError()),
        ):
            desk = Desk((webhook(), receiver := Scripted(always(OK))))
            desk.calls(2)
            desk.store.answering = answering = Deferred[None]()
            desk.start()
            self.successResultOf(self.stop(desk, 10.0))
            end(answering)
            desk.advance(100)
            self.assertEqual(([], 0), (receiver.sent, desk.dispatcher.status("crm").resident))
            self.assertEqual([], desk.clock.getDelayedCalls())

    def test_what_happens_after_the_stop_stays_pending(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk((webhook(), receiver)).start()
        self.successResultOf(self.stop(desk, 1.0))
        (delivery,) = desk.calls(1)
        self.assertEqual(PENDING, desk.store.status(delivery))

    def test_a_new_life_takes_up_what_the_old_one_left(self) -> None:
        receiver = Scripted(script(FAILED, FAILED))
        desk = Desk((webhook(concurrency=1, retry=(60.0,), jitter=0.0), receiver)).start()
        call = desk.call()
        desk.happens(desk.event(call, 1))
        desk.happens(desk.event(call, 2))
        self.successResultOf(self.stop(desk, 1.0))
        again = Scripted(always(OK))
        life = Desk((webhook(concurrency=1), again), clock=desk.clock, store=desk.store, ids=desk.ids).start()
        life.advance(59)
        self.assertEqual([], again.sent)
        life.advance(3)
        self.assertEqual(
            [(1, 2), (2, 1)], [(out.event.call_event.sequence, out.attempt) for out in again.sent]
        )

    def test_what_an_old_life_left_is_counted_before_it_is_read(self) -> None:
        old = Desk((webhook(), Scripted()), window=10).start()
        old.calls(100)
        old.store.crash()
        receiver = Scripted(script(GONE))
        life = Desk((webhook(), receiver), window=10, clock=old.clock, store=old.store, ids=old.ids)
        self.assertEqual(100, life.dispatcher.status("crm").pending)
        life.start()
        self.assertEqual(100, life.dispatcher.status("crm").pending)
        life.calls(1)
        self.assertEqual(100, life.dispatcher.status("crm").pending, "it is disabled, and wants no new ones")
        _ = life.dispatcher.replace(webhook(), receiver)
        life.calls(1)
        life.advance(5)
        self.assertEqual(101, len({out.id for out in receiver.sent}))
        self.assertEqual(0, life.dispatcher.status("crm").pending)

    def test_the_start_reads_only_what_is_pending(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk((webhook(), receiver)).start()
        desk.calls(5)
        self.assertEqual([("crm", 2000)], desk.store.reads)


class LiveTests(SynchronousTestCase):
    def test_added_while_running(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk().start()
        desk.dispatcher.add(webhook(), receiver)
        desk.calls(1)
        self.assertEqual((1, 1), (receiver.started, len(receiver.sent)))

    def test_removed_while_sending(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=1), receiver)).start()
        first, second = desk.calls(2)
        removed = desk.dispatcher.remove("crm")
        self.assertEqual([], desk.calls(1))
        desk.dispatcher.enqueue([second])
        self.assertNoResult(removed)
        receiver.open[0].callback(OK)
        self.successResultOf(removed)
        self.assertEqual((DELIVERED, PENDING), (desk.store.status(first), desk.store.status(second)))
        self.assertEqual((1, 1), (len(receiver.sent), receiver.stopped))
        self.assertRaises(KeyError, desk.dispatcher.status, "crm")

    def test_replaced_while_sending_keeps_order_and_loses_nothing(self) -> None:
        old, new = Scripted(), Scripted()
        desk = Desk((webhook(), old)).start()
        call = desk.call()
        desk.happens(desk.event(call, 1))
        replaced = desk.dispatcher.replace(webhook(states=(CallState.CONNECTED,)), new)
        desk.happens(desk.event(call, 2))
        self.assertEqual([], desk.happens(desk.event(call, 3)))
        self.assertEqual((0, 0), (len(new.sent), new.started))
        old.open[0].callback(OK)
        self.successResultOf(replaced)
        self.assertEqual([2], [outbound.event.call_event.sequence for outbound in new.sent])
        self.assertEqual((1, 1), (old.stopped, new.started))

    def test_what_comes_after_a_replacement_waits_for_the_first_ones_attempts_too(self) -> None:
        for removed in (False, True):
            first, second, third = Scripted(), Scripted(), Scripted()
            desk = Desk((webhook(), first)).start()
            call = desk.call()
            desk.happens(desk.event(call, 1))
            _ = desk.dispatcher.replace(webhook(), second)
            desk.happens(desk.event(call, 2))
            if removed:
                _ = desk.dispatcher.remove("crm")
                desk.dispatcher.add(webhook(), third)
            else:
                _ = desk.dispatcher.replace(webhook(), third)
            desk.advance(1)
            self.assertEqual((0, 0), (second.started, third.started))
            first.open[0].callback(OK)
            self.assertEqual((1, 0, 1), (first.stopped, second.started, third.started))
            self.assertEqual([2], [outbound.event.call_event.sequence for outbound in third.sent])

    def test_whoever_stops_waiting_for_a_replacement_stops_nothing(self) -> None:
        old, new = Scripted(), Scripted(always(OK))
        desk = Desk((webhook(), old)).start()
        desk.calls(1)
        waiting = desk.dispatcher.replace(webhook(), new)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        old.open[0].callback(OK)
        self.assertEqual((1, 1), (old.stopped, new.started))

    def test_an_old_one_that_hangs_is_cancelled_after_the_grace(self) -> None:
        old, new = Scripted(), Scripted(always(OK))
        desk = Desk((webhook(), old)).start()
        (delivery,) = desk.calls(1)
        replaced = desk.dispatcher.replace(webhook(), new, grace=1.0)
        desk.advance(1.1)
        self.successResultOf(replaced)
        self.assertEqual(DELIVERED, desk.store.status(delivery))

    def test_stopping_cuts_a_replacement_short(self) -> None:
        old, new = Scripted(), Scripted()
        desk = Desk((webhook(), old)).start()
        desk.calls(1)
        _ = desk.dispatcher.replace(webhook(), new, grace=100.0)
        stopping = Deferred.fromCoroutine(desk.dispatcher.stop(2.0))
        self.assertNoResult(stopping)
        desk.advance(2.1)
        self.successResultOf(stopping)
        self.assertEqual((1, 0), (old.stopped, new.started))
        self.assertEqual([], desk.clock.getDelayedCalls())


class WindowTests(SynchronousTestCase):
    def test_the_rest_stays_on_disk_until_there_is_room(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=2), receiver), window=10).start()
        desk.calls(100)
        status = desk.dispatcher.status("crm")
        self.assertEqual((10, 100, 2), (status.resident, status.pending, status.in_flight))
        while receiver.open:
            receiver.open[0].callback(OK)
            self.assertLessEqual(desk.dispatcher.status("crm").resident, 20)
        self.assertEqual(100, len(set(receiver.ids)))
        self.assertEqual(100, len(receiver.ids))
        self.assertEqual(0, desk.dispatcher.status("crm").pending)

    def test_a_new_event_of_a_call_on_disk_waits_there_for_its_elders(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=1), receiver), window=2).start()
        desk.calls(2)
        late = desk.call()
        for sequence in (1, 2, 3):
            desk.happens(desk.event(late, sequence))
        while receiver.open:
            receiver.open[0].callback(OK)
        self.assertEqual(
            [1, 2, 3], [out.event.call_event.sequence for out in receiver.sent if out.event.call == late]
        )

    def left_during_a_read(self) -> tuple[Desk, Scripted, int, Deferred[None]]:
        """A call's first event has been read, its second is left on disk, and the read answers when told."""
        receiver = Scripted()
        desk = Desk((webhook(), receiver), window=2)
        call = desk.call()
        desk.happens(desk.event(call, 1))
        desk.store.answering = answering = Deferred[None]()
        desk.start()
        desk.happens(desk.event(call, 2))
        desk.store.answering = None
        return desk, receiver, call, answering

    def finish(self, receiver: Scripted) -> list[int]:
        """Let everything succeed; the sequence numbers in the order they were sent."""
        while receiver.open:
            receiver.open[0].callback(OK)
        return [outbound.event.call_event.sequence for outbound in receiver.sent]

    def test_an_event_left_on_disk_during_a_read_is_not_overlooked(self) -> None:
        _, receiver, _, answering = self.left_during_a_read()
        answering.callback(None)
        self.assertEqual([1, 2], self.finish(receiver))

    def test_an_event_left_on_disk_during_a_read_is_not_overtaken(self) -> None:
        desk, receiver, call, answering = self.left_during_a_read()
        answering.callback(None)
        desk.happens(desk.event(call, 3))
        self.assertEqual([1, 2, 3], self.finish(receiver))

    def seen_and_sent(self) -> tuple[Desk, Scripted, Deferred[None]]:
        """
        A call is under way, and a read that has seen it pending answers when told.

        The read looks for another call, whose retry has become due on disk.
        """
        receiver = Scripted(script(FAILED))
        desk = Desk((webhook(retry=(3600.0,), jitter=0.0), receiver), window=1).start()
        desk.calls(2)
        desk.advance(3599.9)
        event = desk.event(desk.call())
        desk.store.latency = lambda: 0.3
        desk.store.answering = answering = Deferred[None]()
        desk.advance(0.5)
        receiver.answer = None
        desk.store.latency = lambda: 0.0
        desk.happens(event)
        desk.advance(0.5)
        self.assertEqual((3, 1), (len(receiver.sent), len(receiver.open)))
        return desk, receiver, answering

    def test_a_call_done_during_a_read_is_not_sent_twice(self) -> None:
        desk, receiver, answering = self.seen_and_sent()
        receiver.open[0].callback(OK)
        self.assertEqual(0, desk.dispatcher.status("crm").in_flight)
        answering.callback(None)
        self.assertEqual(2, receiver.sent[-1].attempt)
        self.assertEqual((4, 1), (len(receiver.sent), len(receiver.open)))

    def test_a_call_under_way_during_a_read_is_not_sent_twice(self) -> None:
        desk, receiver, answering = self.seen_and_sent()
        answering.callback(None)
        while receiver.open:
            receiver.open[0].callback(OK)
            desk.advance(5)
        failed, done, seen = receiver.ids[:3]
        self.assertEqual([failed, done, seen, failed], receiver.ids)

    def test_new_calls_queue_up_behind_those_on_disk(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=1), receiver), window=2).start()
        before = desk.calls(4)
        desk.store.latency = lambda: 0.1
        receiver.open[0].callback(OK)
        desk.advance(0.15)
        after = desk.calls(2)
        for _ in range(6):
            desk.advance(1.0)
            if receiver.open:
                receiver.open[0].callback(OK)
        self.assertEqual([each.event.payload.event_id for each in before + after], receiver.ids)

    def test_an_old_call_waiting_on_disk_keeps_its_order_in_a_new_life(self) -> None:
        desk = Desk((webhook(retry=(60.0,), jitter=0.0), Scripted(always(FAILED)))).start()
        call = desk.call()
        desk.happens(desk.event(call, 1))
        self.successResultOf(Deferred.fromCoroutine(desk.dispatcher.stop(1.0)))
        receiver = Scripted(always(OK))
        life = Desk((webhook(), receiver), clock=desk.clock, store=desk.store, ids=desk.ids).start()
        life.happens(life.event(call, 2))
        self.assertEqual([], receiver.sent)
        life.advance(62)
        self.assertEqual([1, 2], [outbound.event.call_event.sequence for outbound in receiver.sent])

    def test_an_evicted_call_keeps_its_order(self) -> None:
        receiver = Scripted(script(*[FAILED] * 3))
        desk = Desk((webhook(retry=(60.0,), jitter=0.0), receiver), window=2).start()
        old = desk.call()
        desk.happens(desk.event(old, 1))
        life = Desk(
            (webhook(retry=(60.0,), jitter=0.0), receiver),
            window=2,
            clock=desk.clock,
            store=desk.store,
            ids=desk.ids,
        ).start()
        self.successResultOf(Deferred.fromCoroutine(desk.dispatcher.stop(0.0)))
        first, second = life.calls(2)
        life.happens(life.event(old, 2))
        self.assertEqual(1, life.dispatcher.status("crm").resident)
        for delivery in (second, first):
            life.happens(life.event(delivery.event.call, 2))
        life.advance(30)
        self.assertEqual([1, 1, 1], [out.event.call_event.sequence for out in receiver.sent])
        life.advance(35)
        for call in (old, first.event.call, second.event.call):
            self.assertEqual(
                [1, 1, 2], [out.event.call_event.sequence for out in receiver.sent if out.event.call == call]
            )

    def test_the_longest_waits_make_room_first(self) -> None:
        waits = [10.0, 20.0, 300.0, 30.0, 400.0, 500.0]
        # The breaker asks for a chance too, after each failure.
        chances = [chance for wait in waits for chance in (wait / 1000, 0.5)] + [0.0] * 99
        receiver = Scripted(script(*[FAILED] * 6))
        desk = Desk(
            (webhook(retry=(500.0,), jitter=1.0), receiver), window=6, chance=lambda: chances.pop(0)
        ).start()
        desk.calls(6)
        desk.calls(1)
        resident = desk.dispatcher._lanes["crm"]._window._resting
        self.assertEqual([10.0, 20.0, 30.0], sorted((due - desk.now()) / 1e6 for due, _, _ in resident))

    def test_what_was_read_before_it_was_announced_is_sent_once(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(), receiver)).start()
        made = desk.dispatcher.deliveries_for(desk.event(desk.call()))
        _ = desk.store.accept(made)
        _ = desk.dispatcher.replace(webhook(), receiver)
        self.assertEqual(1, len(receiver.sent))
        desk.dispatcher.enqueue(made)
        receiver.open[0].callback(OK)
        self.assertEqual(1, len(receiver.sent))

    def test_calls_that_wait_long_make_room(self) -> None:
        receiver = Scripted(script(*[FAILED] * 10))
        desk = Desk((webhook(retry=(3600.0,), jitter=0.0, breaker=PATIENT), receiver), window=10).start()
        failing = desk.calls(10)
        deliveries = desk.calls(30)
        desk.advance(2)
        self.assertEqual({DELIVERED}, {desk.store.status(each) for each in deliveries})
        self.assertEqual({PENDING}, {desk.store.status(each) for each in failing})
        desk.advance(3595)
        self.assertEqual(40, len(receiver.sent))
        desk.advance(10)
        self.assertEqual(50, len(receiver.sent))
        self.assertEqual({DELIVERED}, {row.status for row in desk.store.rows.values()})

    def test_an_empty_disk_is_not_read_for_each_call(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk((webhook(), receiver)).start()
        desk.calls(200)
        desk.advance(100)
        self.assertEqual(1, len(desk.store.reads))

    def test_calls_that_began_before_the_start_go_on_from_memory_once_the_disk_is_empty(self) -> None:
        receiver = Scripted(always(OK))
        desk = Desk((webhook(), receiver))
        call = desk.call()
        desk.start()
        desk.happens(desk.event(call, 1))
        self.assertEqual((1, 1), (len(receiver.sent), len(desk.store.reads)))

    def test_what_is_left_while_the_disk_is_found_empty_is_not_overtaken(self) -> None:
        """Nothing else is on disk, but one event is left there meanwhile; then the store goes away."""
        answering = Deferred[None]()
        receiver = Scripted()
        desk = Desk((webhook(), receiver))
        old = desk.call()
        desk.calls(1)

        def answer(_: Outbound) -> Sent:
            desk.store.answering = answering
            return OK

        receiver.answer = answer
        desk.start()
        receiver.answer = always(OK)
        desk.happens(desk.event(old, 1))
        desk.store.away = True
        desk.store.answering = None
        answering.callback(None)
        desk.advance(RECORD_SECONDS + 0.1)
        made = desk.dispatcher.deliveries_for(desk.event(old, 2))
        _ = desk.store.accept(made)
        desk.dispatcher.enqueue(made)
        desk.advance(1)
        desk.store.back()
        desk.advance(10)
        self.assertEqual(
            [1, 2], [out.event.call_event.sequence for out in receiver.sent if out.event.call == old]
        )

    def test_evicted_calls_do_not_send_new_calls_over_the_disk(self) -> None:
        receiver = Scripted(script(*[FAILED] * 11))
        desk = Desk((webhook(retry=(3600.0,), jitter=0.0, breaker=PATIENT), receiver), window=10).start()
        desk.calls(11)
        desk.advance(2)
        reads = len(desk.store.reads)
        desk.calls(100)
        self.assertEqual(111, len(receiver.sent))
        self.assertEqual(reads, len(desk.store.reads))

    def test_memory_is_bounded_however_much_is_pending(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(), receiver), window=50).start()
        for _ in range(20_000):
            desk.dispatcher.enqueue(desk.dispatcher.deliveries_for(desk.event(desk.call())))
        status = desk.dispatcher.status("crm")
        self.assertEqual((50, 20_000), (status.resident, status.pending))

    def test_new_calls_go_on_from_memory_while_the_disk_does_not_answer(self) -> None:
        """An old call's retry waits on disk and one more event of it came: others need not wait for that."""
        receiver = Scripted(script(FAILED))
        desk = Desk((webhook(retry=(3600.0,)), receiver)).start()
        call = desk.call()
        desk.happens(desk.event(call, 1))
        self.successResultOf(Deferred.fromCoroutine(desk.dispatcher.stop(0.0)))
        life = Desk((webhook(), receiver), clock=desk.clock, store=desk.store, ids=desk.ids).start()
        life.store.away = True
        made = life.dispatcher.deliveries_for(life.event(call, 2))
        _ = life.store.accept(made)
        life.dispatcher.enqueue(made)
        life.advance(RECORD_SECONDS - 0.1)
        for _number in range(3):
            made = life.dispatcher.deliveries_for(life.event(life.call()))
            _ = life.store.accept(made)
            life.dispatcher.enqueue(made)
            life.advance(0.15)
        self.assertEqual(1 + 2, len(receiver.sent))
        life.store.back()
        self.assertEqual(1 + 3, len(receiver.sent))
        life.advance(2 * 3600, step=10)
        self.assertEqual(
            [1, 1, 2], [out.event.call_event.sequence for out in receiver.sent if out.event.call == call]
        )
        self.assertEqual({DELIVERED}, {row.status for row in life.store.rows.values()})

    def test_handed_in_before_their_commit_they_are_read_once_it_came(self) -> None:
        receiver = Scripted()
        desk = Desk((webhook(concurrency=1), receiver), window=2).start()
        desk.store.away = True
        for _ in range(9):
            made = desk.dispatcher.deliveries_for(desk.event(desk.call()))
            _ = desk.store.accept(made)
            desk.dispatcher.enqueue(made)
        for _ in range(2):
            receiver.open[0].callback(OK)
            desk.advance(RECORD_SECONDS + 0.1)
        self.assertEqual(2, len(receiver.sent))
        desk.store.back()
        while receiver.open:
            receiver.open[0].callback(OK)
        self.assertEqual(9, len(set(receiver.ids)))
        self.assertEqual(9, len(receiver.ids))


class DeskTests(SynchronousTestCase):
    def test_the_fake_desk_waits_as_the_real_one(self) -> None:
        desk = Desk()
        receiver = Scripted(lambda outbound: deferLater(desk.clock, 1.0, lambda: OK))
        desk.dispatcher.add(webhook(), receiver)
        desk.start()
        (delivery,) = desk.calls(1)
        self.assertEqual(PENDING, desk.store.status(delivery))
        desk.advance(1.1)
        self.assertEqual(DELIVERED, desk.store.status(delivery))


class ClockTests(SynchronousTestCase):
    """Whoever sets the clock, by an hour or a day, back or forward: what waits waits no longer for that."""

    STEPS = (-86400.0, -3600.0, 3600.0, 86400.0)

    def test_a_retry_comes_when_it_would_have_come_or_sooner_if_the_clock_went_forward(self) -> None:
        for by in self.STEPS:
            receiver = Scripted(script(FAILED))
            desk = Desk((webhook(retry=(10,), jitter=0.0, breaker=PATIENT), receiver)).start()
            desk.calls(1)
            desk.advance(5)
            desk.set_clock(by)
            desk.advance(4.5)
            self.assertEqual(1 if by < 0 else 2, len(receiver.sent), by)
            desk.advance(1)
            self.assertEqual(2, len(receiver.sent), by)

    def test_a_hold_lasts_as_long_as_it_would_have_and_failing_is_no_older(self) -> None:
        for by in self.STEPS:
            receiver = Scripted(script(held(30)))
            desk = Desk((webhook(disable_after=7200), receiver)).start()
            desk.calls(3)
            desk.advance(10)
            desk.set_clock(by)
            desk.advance(15)
            self.assertEqual(3 if by < 0 else 0, desk.dispatcher.status("crm").pending, by)
            desk.advance(10)
            self.assertEqual(0, desk.dispatcher.status("crm").pending, by)
            self.assertTrue(desk.dispatcher.status("crm").enabled, by)

    def test_what_is_new_goes_at_once_also_behind_a_backlog(self) -> None:
        for by in self.STEPS:
            receiver = Scripted()
            receiver_down = [True]
            receiver.answer = lambda outbound, down=receiver_down: FAILED if down[0] else OK
            settings = webhook(retry=(30,) * 9, jitter=0.0, breaker=PATIENT)
            desk = Desk((settings, receiver), window=4).start()
            desk.calls(3)
            desk.advance(1)
            desk.set_clock(by)
            receiver_down[0] = False
            desk.calls(9)
            desk.advance(60)
            self.assertEqual(0, desk.dispatcher.status("crm").pending, by)

    def test_what_was_timed_between_the_step_and_its_being_noticed_waits_no_longer_either(self) -> None:
        for by in self.STEPS:
            receiver = Scripted(script(FAILED, FAILED, held(5)))
            desk = Desk((webhook(retry=(10,) * 9, jitter=0.0, breaker=PATIENT), receiver)).start()
            desk.ahead += by
            desk.calls(3)
            desk.advance(0.5)
            desk.dispatcher.clock_set(round(by * 1_000_000))
            desk.advance(20)
            self.assertEqual(0, desk.dispatcher.status("crm").pending, by)
