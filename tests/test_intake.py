"""The step between the wire and the disk: what waits for the commit, and for how long."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cubehook.calls.numbers import Numbers
from cubehook.calls.tracker import Changes, Tracker
from cubehook.events import CallState, Event
from cubehook.ids import Ids
from cubehook.intake import ANSWER_SECONDS, Intake
from cubehook.interfaces import IJournal, StoreFullError
from cubehook.records import Delivery
from cubehook.xcc import messages as xcc

NOW = 1_732_377_816_200_940
HEADER = xcc.MsgHeader("1:1", "2:XCC:cubehook:3")


@implementer(IJournal)
class Journal:
    """Commits when the test says so."""

    def __init__(self) -> None:
        self.degraded = False
        self.full = False
        self.work: list[tuple[Any, ...]] = []
        self.commits: list[Deferred[None]] = []

    def accept(self, *work: Any) -> Deferred[None]:
        self.work.append(work)
        done: Deferred[None] = Deferred()
        self.commits.append(done)
        return done

    def registration(self, registration: Any) -> Deferred[None]:
        raise AssertionError("not the intake's business")


class Dispatcher:
    """Every event goes to one webhook."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self.enqueued: list[Delivery] = []

    def deliveries_for(self, event: Event) -> list[Delivery]:
        return [Delivery(id=self._ids.next(event.at), webhook="crm", event=event, due_at=event.at)]

    def enqueue(self, deliveries: list[Delivery]) -> None:
        self.enqueued += deliveries


class BrokenTracker:
    """A bug in it must not stop the traffic."""

    def connection_data(self, message: object, at: int) -> Changes:
        raise RuntimeError("a bug")


class IntakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.journal = Journal()
        ids = Ids(random.getrandbits)
        self.dispatcher = Dispatcher(ids)
        self.events: list[Event] = []
        self.trackers: dict[str, Any] = {"hq": Tracker("hq", ids.next, Numbers())}
        self.intake = Intake(
            trackers=self.trackers,
            journal=self.journal,
            dispatcher=self.dispatcher,  # type: ignore[arg-type]
            ids=ids,
            reactor=self.clock,
            on_event=self.events.append,
        )

    def hear(self, event: xcc.ConnectionEvent, call: str = "25") -> Deferred[None]:
        message = xcc.NotifyXccConnectionData(
            msg_header=HEADER, call_data=xcc.CallData(call), conn_data=xcc.ConnData("1"), event=event
        )
        return self.intake.connection_data("hq", message, b"<raw/>", NOW)

    def states(self) -> list[CallState]:
        return [delivery.event.call_event.call_state for delivery in self.dispatcher.enqueued]

    def test_nothing_is_passed_on_before_the_commit(self) -> None:
        answer = self.hear(xcc.Alerting())
        self.assertNoResult(answer)
        self.assertEqual((self.events, self.dispatcher.enqueued), ([], []))
        self.journal.commits[0].callback(None)
        self.successResultOf(answer)
        self.assertEqual(self.states(), [CallState.ALERTING])
        self.assertEqual([event.call_event.call_state for event in self.events], [CallState.ALERTING])

    def test_one_transaction_holds_everything(self) -> None:
        _ = self.hear(xcc.Alerting())
        [(notification, calls, events, deliveries)] = self.journal.work
        self.assertEqual((notification.message, notification.body), ("alerting", b"<raw/>"))
        self.assertEqual(notification.call, calls[0].id)
        self.assertEqual([event.call for event in events], [calls[0].id])
        self.assertEqual([delivery.event for delivery in deliveries], events)

    def test_an_answer_waits_two_seconds_for_its_commit_and_no_longer(self) -> None:
        first = self.hear(xcc.Alerting(), "1")
        self.clock.advance(ANSWER_SECONDS / 2)
        second = self.hear(xcc.Alerting(), "2")
        self.clock.advance(ANSWER_SECONDS / 2)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.assertEqual(len(self.dispatcher.enqueued), 1)
        self.clock.advance(ANSWER_SECONDS / 2)
        self.successResultOf(second)
        self.assertEqual(len(self.dispatcher.enqueued), 2)

    def test_a_late_commit_passes_nothing_on_again(self) -> None:
        _ = self.hear(xcc.Alerting())
        self.clock.advance(ANSWER_SECONDS)
        self.journal.commits[0].callback(None)
        self.assertEqual((len(self.events), len(self.dispatcher.enqueued)), (1, 1))

    def test_while_the_store_is_away_nobody_waits_and_order_holds(self) -> None:
        first = self.hear(xcc.Alerting(), "1")
        self.journal.degraded = True
        second = self.hear(xcc.Alerting(), "2")
        self.successResultOf(first)
        self.successResultOf(second)
        calls = [delivery.event.call for delivery in self.dispatcher.enqueued]
        self.assertEqual(calls, [work[1][0].id for work in self.journal.work])

    def test_a_full_store_is_told_before_anything_is_understood(self) -> None:
        self.journal.full = True
        self.failureResultOf(self.hear(xcc.Alerting()), StoreFullError)
        self.journal.full = False
        self.assertEqual(self.journal.work, [])
        # Sent again, it is news.
        _ = self.hear(xcc.Alerting())
        self.journal.commits[0].callback(None)
        self.assertEqual(self.states(), [CallState.ALERTING])

    def test_a_gateway_that_hangs_up_takes_nothing_back(self) -> None:
        answer = self.hear(xcc.Alerting())
        _ = answer.addErrback(lambda _: None)
        answer.cancel()
        self.journal.commits[0].callback(None)
        self.assertEqual(self.states(), [CallState.ALERTING])

    def test_what_the_store_refuses_is_delivered_all_the_same(self) -> None:
        answer = self.hear(xcc.Alerting())
        self.journal.commits[0].errback(Failure(ValueError("poison")))
        self.successResultOf(answer)
        self.assertEqual(self.states(), [CallState.ALERTING])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_bug_in_the_tracker_keeps_the_notification(self) -> None:
        self.trackers["hq"] = BrokenTracker()
        answer = self.hear(xcc.Alerting())
        self.journal.commits[0].callback(None)
        self.successResultOf(answer)
        [(notification, calls, events, deliveries)] = self.journal.work
        self.assertEqual((notification.body, calls, events, deliveries), (b"<raw/>", [], [], []))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_listener_that_breaks_holds_up_no_answer(self) -> None:
        self.intake._on_event = lambda event: 1 / 0  # type: ignore[assignment]
        answer = self.hear(xcc.Alerting())
        self.journal.commits[0].callback(None)
        self.successResultOf(answer)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_settled_waits_for_what_was_handed_in(self) -> None:
        _ = self.hear(xcc.Alerting())
        settled = Deferred.fromCoroutine(self.intake.settled())
        self.assertNoResult(settled)
        self.journal.commits[0].callback(None)
        self.successResultOf(settled)
        self.intake.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_restart_of_the_gateway_is_kept_and_told(self) -> None:
        _ = self.hear(xcc.Alerting())
        self.journal.commits[0].callback(None)
        answer = self.intake.call_ends(self.trackers["hq"].reloaded(NOW + 1))
        self.journal.commits[1].callback(None)
        self.successResultOf(answer)
        self.assertEqual(self.states(), [CallState.ALERTING, CallState.DISCONNECTED])
        self.assertIsNone(self.journal.work[1][0])
