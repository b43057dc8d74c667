"""Calls of every shape, as a gateway tells them, and what is told of them."""

from __future__ import annotations

import itertools

from twisted.trial.unittest import SynchronousTestCase

from cubehook.calls import tracker
from cubehook.calls.numbers import Numbers
from cubehook.events import CallEvent, CallState, Direction, Granularity, Outcome, iso
from cubehook.ids import id_text
from cubehook.xcc import messages as xcc
from tests.calls.wire import (
    CALLED,
    CALLER,
    GUID,
    NOW,
    OTHER_GUID,
    RINGING,
    SECOND,
    TALKING,
    Gateway,
    alerting,
    connected,
    created,
    delivered,
    detail,
    disconnected,
    forking,
    joined,
    left,
    notification,
    redirected,
)

A, C, D = "ALERTING", "CONNECTED", "DISCONNECTED"
THIRD = "+12025550143"
KEPT, LATE, QUIET = (
    constant / SECOND for constant in (tracker.ENDED_KEPT, tracker.LATE_LEGS, tracker.LEGLESS_QUIET)
)


class TrackerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.gateway = Gateway()

    def ended(self, *steps: tuple[str, xcc.ConnectionEvent]) -> CallEvent:
        """Play a call to its end; its DISCONNECTED event, which must be its last and its only one."""
        self.gateway.play(*steps)
        payloads = [event.call_event for event in self.gateway.told()]
        self.assertEqual([p.call_state for p in payloads].count(CallState.DISCONNECTED), 1)
        self.assertIs(payloads[-1].call_state, CallState.DISCONNECTED)
        self.assertEqual(self.gateway.tracker.active, 0)
        return payloads[-1]

    def last(self) -> CallEvent:
        return self.gateway.events[-1].call_event


class AnsweredTests(TrackerTestCase):
    def test_each_state_once(self) -> None:
        self.assertEqual(self.gateway.play(*RINGING), [A])
        self.assertEqual(self.gateway.play(("o", connected("out")), ("i", connected("in"))), [C])
        self.assertEqual(self.gateway.play(("o", disconnected()), ("i", disconnected())), [D])
        self.assertEqual(self.gateway.tracker.active, 0)

    def test_both_numbers_on_every_event(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        self.assertEqual(
            [(e.call_event.calling_number, e.call_event.called_number) for e in self.gateway.events],
            [(CALLER, CALLED)] * 3,
        )

    def test_identity(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        call = self.gateway.call()
        self.assertEqual(
            [(e.call_event.event_id, e.call_event.sequence) for e in self.gateway.events],
            [(f"{id_text(call.id)}-{n}", n) for n in (1, 2, 3)],
        )
        self.assertEqual({e.call for e in self.gateway.events}, {call.id})
        ids = [e.id for e in self.gateway.events]
        self.assertEqual(ids, sorted(set(ids)))

    def test_times(self) -> None:
        """Ringing from the fourth second to the sixth, talk until the eighth, each stamped at receipt."""
        end = self.ended(*TALKING, ("o", disconnected()), ("i", disconnected()))
        self.assertEqual(end.alerting_at, iso(NOW + 4 * SECOND))
        self.assertEqual(end.connected_at, iso(NOW + 6 * SECOND))
        self.assertEqual(end.disconnected_at, iso(NOW + 9 * SECOND))
        self.assertEqual(end.timestamp, end.disconnected_at)
        self.assertEqual((end.ring_seconds, end.talk_seconds), (2.0, 3.0))

    def test_end(self) -> None:
        end = self.ended(*TALKING, ("i", disconnected(16)))
        self.assertIs(end.outcome, Outcome.ANSWERED)
        self.assertEqual((end.disconnect_cause, end.disconnect_text), (16, "Normal call clearing"))
        self.assertFalse(end.inferred)
        self.assertEqual(end.direction, Direction.INCOMING)
        self.assertEqual(end.guid, GUID)

    def test_cause_of_the_other_leg_when_the_last_has_none(self) -> None:
        end = self.ended(*TALKING, ("o", disconnected(31)), ("i", disconnected(None)))
        self.assertEqual(end.disconnect_cause, 31)

    def test_cause_of_the_leg_that_ended_last_when_the_last_has_none(self) -> None:
        more = (("p", created("out")), ("o", disconnected(31)), ("p", disconnected(16)))
        end = self.ended(*TALKING, *more, ("i", disconnected(None)))
        self.assertEqual(end.disconnect_cause, 16)

    def test_nothing_of_the_end_before_it(self) -> None:
        self.gateway.play(*TALKING)
        for event in self.gateway.events:
            payload = event.call_event
            self.assertIsNone(payload.outcome)
            self.assertIsNone(payload.disconnected_at)
            self.assertIsNone(payload.talk_seconds)

    def test_the_incoming_leg_decides(self) -> None:
        self.assertEqual(self.gateway.play(*TALKING, ("o", disconnected())), [A, C])
        self.assertEqual(self.gateway.hear("i", disconnected()), [D])

    def test_late_end_of_the_other_leg_is_kept(self) -> None:
        end = self.ended(*TALKING, ("i", disconnected(16)))
        self.assertEqual([c.state for c in end.connections], ["DISCONNECTED", "CONNECTED"])
        stats = {"callDuration": "PT1M3S", "TxPacketsCount": "3150"}
        self.assertEqual(self.gateway.hear("o", disconnected(31, stats_data=stats)), [])
        call = self.gateway.call()
        out = call.connections[1]
        self.assertEqual((out.disconnect_cause, out.state), (31, "DISCONNECTED"))
        assert out.media is not None
        self.assertEqual((out.media.duration_seconds, out.media.packets_sent), (63.0, 3150))
        self.assertEqual((call.disconnect_cause, call.outcome), (16, Outcome.ANSWERED))

    def test_the_first_word_of_an_end_counts(self) -> None:
        first = disconnected(
            17, stats_data={"TxPacketsCount": "1"}, media_data=xcc.MediaData("VOICE", "g729r8")
        )
        second = disconnected(
            16, stats_data={"TxPacketsCount": "2"}, media_data=xcc.MediaData("VOICE", "g711u")
        )
        self.gateway.play(("i", created("in")), ("o", created("out")), ("o", first), ("o", second))
        out = self.gateway.call().connections[1]
        assert out.media is not None
        self.assertEqual((out.disconnect_cause, out.media.packets_sent, out.codec), (17, 1, "g729r8"))

    def test_early_answer(self) -> None:
        """Nobody rang: no ALERTING is made up, nor told once the call is connected."""
        steps = (("i", created("in")), ("o", created("out")), ("o", connected("out")), ("o", alerting))
        self.assertEqual(self.gateway.play(*steps), [C])
        self.assertEqual(self.last().sequence, 1)
        self.assertEqual(self.gateway.hear("i", disconnected()), [D])
        end = self.last()
        self.assertEqual(end.sequence, 2)
        self.assertIsNone(end.alerting_at)
        self.assertIsNone(end.ring_seconds)
        self.assertEqual(end.talk_seconds, 2.0)

    def test_connections_in_order_of_appearance(self) -> None:
        out = detail("out", CALLER, "1001", conn_intf="Gi0/1", route_name="lab", conn_intf_type="CONN_SIP")
        end = self.ended(
            ("i", created("in", conn_intf_type="CONN_ISDN")),
            ("o", xcc.Created(out)),
            ("o", connected("out", media_data=xcc.MediaData("VOICE", "g729r8"))),
            ("o", disconnected(16)),
            ("i", disconnected(16)),
        )
        first, second = end.connections
        self.assertEqual(
            (first.connection_id, first.direction, first.interface), ("i", "INCOMING", "CONN_ISDN")
        )
        self.assertEqual(
            (second.connection_id, second.direction, second.interface), ("o", "OUTGOING", "Gi0/1")
        )
        self.assertEqual((second.called_number, second.disconnect_cause), ("1001", 16))
        self.assertEqual((end.called_number, end.route, end.codec), (CALLED, "lab", "g729r8"))

    def test_calls_beside_each_other(self) -> None:
        for conn, event in TALKING:
            self.gateway.hear(conn, event, call="25")
            self.gateway.hear(conn, event, call="26")
        self.assertEqual(self.gateway.tracker.active, 2)
        self.assertEqual(self.gateway.hear("i", disconnected(), call="26"), [D])
        self.assertEqual([call.gateway_call_id for call in self.gateway.tracker.open_calls()], ["25"])
        self.assertEqual(len(self.gateway.calls()), 2)


class UnansweredTests(TrackerTestCase):
    SETUP = (("i", created("in")), ("o", created("out")), ("o", delivered))

    def assert_end(self, end: CallEvent, outcome: Outcome, cause: int | None) -> None:
        self.assertEqual((end.outcome, end.disconnect_cause), (outcome, cause))
        self.assertIsNone(end.talk_seconds)

    def test_busy(self) -> None:
        end = self.ended(*self.SETUP, ("o", disconnected(17)), ("i", disconnected(17)))
        self.assert_end(end, Outcome.BUSY, 17)
        self.assertEqual(end.sequence, 1)
        self.assertIsNone(end.ring_seconds)

    def test_busy_although_the_caller_cleared_normally(self) -> None:
        end = self.ended(*self.SETUP, ("o", disconnected(17)), ("i", disconnected(16)))
        self.assert_end(end, Outcome.BUSY, 17)

    def test_rejected(self) -> None:
        end = self.ended(*RINGING, ("o", disconnected(21)), ("i", disconnected(21)))
        self.assert_end(end, Outcome.REJECTED, 21)

    def test_no_answer(self) -> None:
        for cause in (16, 19, 102):
            self.setUp()
            end = self.ended(*RINGING, ("o", disconnected(cause)), ("i", disconnected(16)))
            self.assert_end(end, Outcome.MISSED, cause)
            self.assertEqual(end.ring_seconds, 3.0)

    def test_abandoned_while_ringing(self) -> None:
        end = self.ended(*RINGING, ("i", disconnected(16)), ("o", disconnected(16)))
        self.assert_end(end, Outcome.ABANDONED, 16)

    def test_abandoned_before_it_went_anywhere(self) -> None:
        self.assert_end(self.ended(("i", created("in")), ("i", disconnected(16))), Outcome.ABANDONED, 16)

    def test_abandoned_without_a_cause(self) -> None:
        self.assert_end(self.ended(*RINGING, ("i", disconnected(None))), Outcome.ABANDONED, None)
        self.setUp()
        end = self.ended(("i", created("in")), ("i", disconnected(None)))
        self.assert_end(end, Outcome.ABANDONED, None)

    def test_abandoned_although_no_outgoing_leg_was_told(self) -> None:
        end = self.ended(("i", created("in")), ("i", alerting), ("i", disconnected(16)))
        self.assert_end(end, Outcome.ABANDONED, 16)

    def test_not_abandoned_when_the_caller_is_told_busy(self) -> None:
        end = self.ended(*self.SETUP, ("i", disconnected(17)), ("o", disconnected(17)))
        self.assert_end(end, Outcome.BUSY, 17)

    def test_no_route(self) -> None:
        self.assert_end(self.ended(("i", created("in")), ("i", disconnected(3))), Outcome.FAILED, 3)

    def test_failed_trunk(self) -> None:
        end = self.ended(*self.SETUP, ("o", disconnected(34)), ("i", disconnected(16)))
        self.assert_end(end, Outcome.FAILED, 34)
        self.assertEqual(end.disconnect_text, "No circuit/channel available")

    def test_missing_causes(self) -> None:
        end = self.ended(*RINGING, ("o", disconnected(None)), ("i", disconnected(19)))
        self.assert_end(end, Outcome.MISSED, 19)
        self.setUp()
        self.assert_end(
            self.ended(*RINGING, ("o", disconnected(None)), ("i", disconnected(None))), Outcome.MISSED, None
        )


class HuntTests(TrackerTestCase):
    def test_one_after_another(self) -> None:
        steps = (("i", created("in")), ("a", created("out")), ("a", alerting), ("a", disconnected(17)))
        self.assertEqual(self.gateway.play(*steps), [A])
        second = (("b", created("out")), ("b", alerting), ("b", connected("out")), ("b", disconnected(16)))
        self.assertEqual(self.gateway.play(*second), [C])
        self.assertEqual(self.gateway.hear("i", disconnected(16)), [D])
        end = self.last()
        self.assertEqual((end.outcome, end.disconnect_cause), (Outcome.ANSWERED, 16))
        self.assertEqual([c.disconnect_cause for c in end.connections], [16, 17, 16])

    def test_ringing_at_once(self) -> None:
        steps = (
            ("i", created("in")),
            ("a", created("out")),
            ("b", created("out")),
            ("a", alerting),
            ("b", alerting),
            ("b", connected("out")),
            ("a", disconnected(26)),
            ("i", connected("in")),
        )
        self.assertEqual(self.gateway.play(*steps), [A, C])
        self.assertEqual(self.gateway.play(("b", disconnected()), ("i", disconnected())), [D])

    def test_the_last_person_called_decides(self) -> None:
        end = self.ended(
            ("i", created("in")),
            ("a", created("out")),
            ("a", disconnected(21)),
            ("b", created("out")),
            ("b", disconnected(17)),
            ("c", created("out")),
            ("c", disconnected(34)),
            ("i", disconnected(34)),
        )
        self.assertEqual((end.outcome, end.disconnect_cause), (Outcome.BUSY, 17))

    def test_all_failed(self) -> None:
        end = self.ended(
            ("i", created("in")),
            ("a", created("out")),
            ("a", disconnected(34)),
            ("b", created("out")),
            ("b", disconnected(38)),
            ("i", disconnected(16)),
        )
        self.assertEqual((end.outcome, end.disconnect_cause), (Outcome.FAILED, 38))

    def test_abandoned_at_the_second(self) -> None:
        end = self.ended(
            ("i", created("in")),
            ("a", created("out")),
            ("a", disconnected(17)),
            ("b", created("out")),
            ("b", alerting),
            ("i", disconnected(16)),
        )
        self.assertEqual(end.outcome, Outcome.ABANDONED)


class NumberTests(TrackerTestCase):
    def numbers(self, *steps: tuple[str, xcc.ConnectionEvent]) -> tuple[str | None, str | None, bool]:
        self.gateway.play(*steps, ("i", alerting))
        event = self.last()
        return event.calling_number, event.called_number, event.calling_withheld

    def test_the_incoming_leg_before_the_outgoing(self) -> None:
        """What the caller dialled, not what it was translated to; in whatever order it is told."""
        incoming, outgoing = ("i", created("in", CALLER, CALLED)), ("o", created("out", "5000", "1001"))
        self.assertEqual(self.numbers(incoming, outgoing), (CALLER, CALLED, False))
        self.setUp()
        self.assertEqual(self.numbers(outgoing, incoming), (CALLER, CALLED, False))

    def test_another_region_is_for_calls_that_begin_then(self) -> None:
        self.gateway = Gateway("US")
        national = ("i", created("in", "2025550143", "2025550144", None))
        self.gateway.play(national)
        self.gateway.tracker.complete_with(Numbers(None))
        # Told again, it would be another call by its numbers if they were not completed as before.
        self.assertEqual(self.numbers(national), (THIRD, "+12025550144", False))
        self.assertEqual(self.gateway.tracker.active, 1)
        self.gateway.play(national, ("i", alerting), call="26")
        self.assertEqual(self.last().calling_number, "2025550143")
        self.gateway.play(("i", disconnected()))
        self.gateway.sweep(KEPT + 1)
        self.assertEqual(self.gateway.play(national, ("i", alerting)), [A])
        self.assertEqual(self.last().calling_number, "2025550143")

    def test_the_outgoing_leg_when_the_incoming_is_unknown(self) -> None:
        self.assertEqual(self.numbers(("o", created("out", CALLER, "1001"))), (CALLER, "1001", False))

    def test_the_outgoing_leg_fills_in(self) -> None:
        steps = (("i", created("in", CALLER, None)), ("o", created("out", CALLER, CALLED)))
        self.assertEqual(self.numbers(*steps), (CALLER, CALLED, False))

    def test_connected_brings_what_created_should_have(self) -> None:
        self.assertEqual(self.gateway.hear("i", alerting), [A])
        self.assertIsNone(self.last().calling_number)
        self.gateway.hear("i", connected("in"))
        self.assertEqual((self.last().calling_number, self.last().called_number), (CALLER, CALLED))

    def test_connected_does_not_change_them(self) -> None:
        self.gateway.play(*RINGING, ("i", connected("in", CALLER, "1001")))
        self.assertEqual(self.last().called_number, CALLED)

    def test_original_address_does_not_give_a_withheld_caller_away(self) -> None:
        original = xcc.AddrData(CALLER, "E164")
        steps = (("i", created("in", None, CALLED, orig_calling_addr_data=original)),)
        self.assertEqual(self.numbers(*steps), (None, CALLED, True))

    def test_withheld(self) -> None:
        for calling in (None, "", "anonymous", "sip:anonymous@anonymous.invalid"):
            self.setUp()
            steps = (("i", created("in", calling, CALLED)), ("o", created("out", CALLER, CALLED)))
            self.assertEqual(self.numbers(*steps), (None, CALLED, True), calling)
            self.assertEqual([c.calling_number for c in self.last().connections], [None, None])

    def test_withheld_also_when_another_leg_told_first(self) -> None:
        steps = (("o", created("out", CALLER, CALLED)), ("i", created("in", None, CALLED)))
        self.assertEqual(self.numbers(*steps), (None, CALLED, True))
        self.assertEqual([c.calling_number for c in self.last().connections], [None, None])

    def test_unknown_is_not_withheld(self) -> None:
        """Seen from the middle: `connected` without a caller says nothing, one with `anonymous` does."""
        self.gateway.hear("i", connected("in", None, CALLED))
        self.assertEqual((self.last().calling_number, self.last().calling_withheld), (None, False))
        self.setUp()
        self.gateway.hear("i", connected("in", "anonymous", CALLED))
        self.assertEqual((self.last().calling_number, self.last().calling_withheld), (None, True))

    def test_national_numbers(self) -> None:
        self.gateway = Gateway(region="US")
        steps = (("i", created("in", "2517676234", "sip:2512501663@192.0.2.10:5060")),)
        self.assertEqual(self.numbers(*steps), (CALLER, CALLED, False))

    def test_authorize(self) -> None:
        message = xcc.SolicitXccConnectionAuthorize(
            msg_header=xcc.MsgHeader(),
            call_data=xcc.CallData("25"),
            conn_detail_data=detail("in", conn_data=xcc.ConnData("i")),
        )
        changes = self.gateway.tracker.authorize(message, NOW)
        self.assertEqual((len(changes.calls), changes.events), (1, []))
        self.assertEqual(self.numbers(("i", created("in"))), (CALLER, CALLED, False))
        self.assertEqual(len(self.gateway.calls()), 1)

    def test_authorize_that_names_no_leg(self) -> None:
        message = xcc.SolicitXccConnectionAuthorize(
            msg_header=xcc.MsgHeader(), call_data=xcc.CallData("25"), conn_detail_data=detail("in")
        )
        self.assertEqual(self.gateway.tracker.authorize(message, NOW).calls, [])
        self.gateway.hear("i", created("in", CALLER, None))
        self.gateway.take(self.gateway.tracker.authorize(message, NOW))
        self.assertEqual(self.numbers(), (CALLER, CALLED, False))

    def test_guid_forms(self) -> None:
        for guid, expected in [
            ("9364550F D96211E2 8F0D9C9C 52CD806F", OTHER_GUID),
            ("0x9364550F-0xD96211E2-0x8F0D9C9C-0x52CD806F", OTHER_GUID),
            ("what", None),
            (None, None),
        ]:
            self.setUp()
            self.numbers(("i", created("in", CALLER, CALLED, guid)))
            self.assertEqual(self.last().guid, expected)


class RedirectionTests(TrackerTestCase):
    def test_forwarded(self) -> None:
        end = self.ended(
            ("i", created("in")),
            ("o", created("out")),
            ("o", redirected(THIRD)),
            ("p", created("out", CALLER, THIRD)),
            ("p", alerting),
            ("o", disconnected(16)),
            ("p", connected("out", CALLER, THIRD)),
            ("i", disconnected(16)),
        )
        self.assertEqual((end.called_number, end.original_called_number), (CALLED, CALLED))
        self.assertEqual(end.redirected_to, THIRD)
        self.assertEqual(end.outcome, Outcome.ANSWERED)

    def test_forwarded_twice(self) -> None:
        self.gateway.play(("i", created("in")), ("o", redirected("1001")), ("o", redirected(THIRD)))
        call = self.gateway.call()
        self.assertEqual((call.original_called_number, call.redirected_to), (CALLED, THIRD))

    def test_forwarded_before_it_came_here(self) -> None:
        first = xcc.AddrData("18005551212", "E164")
        self.gateway.play(("i", created("in", orig_called_addr_data=first)), ("o", redirected(THIRD)))
        call = self.gateway.call()
        self.assertEqual((call.original_called_number, call.redirected_to), ("+18005551212", THIRD))

    def test_redirection_in_the_details(self) -> None:
        target = xcc.AddrData(THIRD, "E164")
        self.gateway.play(("o", created("out", redirect_addr_data=target)))
        self.assertEqual(self.gateway.call().redirected_to, THIRD)

    def test_redirected_nowhere(self) -> None:
        self.gateway.play(("i", created("in")), ("i", redirected(None)))
        call = self.gateway.call()
        self.assertEqual((call.original_called_number, call.redirected_to), (None, None))


class TransferTests(TrackerTestCase):
    def test_blind_within_the_call(self) -> None:
        """The called person passes the caller on: one call, its legs change."""
        states = self.gateway.play(
            *TALKING,
            ("o", xcc.Transferred(xcc.AddrData(THIRD, "E164"))),
            ("p", created("out", CALLER, THIRD)),
            ("o", disconnected(16)),
            ("p", alerting),
            ("p", connected("out", CALLER, THIRD)),
            ("p", disconnected(16)),
            ("i", disconnected(16)),
        )
        self.assertEqual(states, [A, C, D])
        end = self.last()
        self.assertEqual((end.redirected_to, end.called_number), (THIRD, CALLED))
        self.assertEqual(end.talk_seconds, 8.0)

    def test_attended(self) -> None:
        """B talks to A, asks C, and joins the two: A's leg leaves the first call for the second."""
        gateway = self.gateway
        gateway.play(*TALKING)
        gateway.play(
            ("b", created("in", CALLED, THIRD, OTHER_GUID)),
            ("c", created("out", CALLED, THIRD, OTHER_GUID)),
            ("c", alerting),
            ("c", connected("out", CALLED, THIRD, OTHER_GUID)),
            call="26",
        )
        self.assertEqual(gateway.hear("i", left), [])
        self.assertEqual(gateway.hear("i", joined("in"), call="26", state="CONNECTED"), [])
        self.assertEqual(gateway.hear("o", disconnected()), [D])
        end = self.last()
        self.assertEqual((end.outcome, end.disconnect_cause), (Outcome.ANSWERED, 16))
        self.assertEqual([c.state for c in end.connections], ["LEFT", "DISCONNECTED"])
        # B hangs up; A and C talk on in B's call.
        self.assertEqual(gateway.hear("b", disconnected(), call="26"), [])
        self.assertEqual(gateway.hear("c", disconnected(), call="26"), [])
        self.assertEqual(gateway.hear("i", disconnected(), call="26"), [D])
        end = self.last()
        self.assertEqual((end.calling_number, end.called_number), (CALLED, THIRD))
        self.assertEqual(len(end.connections), 3)
        self.assertEqual(gateway.tracker.active, 0)

    def test_all_legs_leave(self) -> None:
        self.assertEqual(self.gateway.play(*TALKING, ("i", left), ("o", left)), [A, C, D])
        end = self.last()
        self.assertEqual((end.outcome, end.disconnect_cause, end.inferred), (Outcome.ANSWERED, None, False))

    def test_leaving_has_no_cause(self) -> None:
        end = self.ended(*TALKING, ("o", disconnected(31)), ("i", left))
        self.assertEqual((end.outcome, end.disconnect_cause), (Outcome.ANSWERED, None))

    def test_who_left_did_not_abandon(self) -> None:
        self.gateway.play(*RINGING, ("i", left), ("i", disconnected(16)))
        (event,) = self.gateway.reload()
        self.assertEqual((event.call_event.outcome, event.call_event.inferred), (Outcome.MISSED, True))

    def test_leg_that_left_does_not_end_the_call_it_left(self) -> None:
        self.gateway.play(*TALKING, ("i", left))
        self.assertEqual(self.gateway.hear("i", disconnected()), [])
        self.assertEqual(self.gateway.hear("o", disconnected()), [D])

    def test_join_of_an_unknown_call(self) -> None:
        """Its people were connected where they came from: answered, since nobody knows when."""
        gateway = self.gateway
        gateway.hear("i", joined("in"), call="30", state="CONNECTED")
        gateway.hear("c", joined("out", CALLER, THIRD), call="30", state="CONNECTED")
        self.assertEqual(gateway.hear("i", disconnected(16), call="30"), [D])
        end = self.last()
        self.assertEqual((end.outcome, end.sequence), (Outcome.ANSWERED, 1))
        self.assertEqual((end.calling_number, end.called_number), (CALLER, CALLED))
        self.assertEqual((end.connected_at, end.talk_seconds), (None, None))

    def test_caller_who_left_before_an_answer(self) -> None:
        """He goes on in another call; this one ends with its last leg."""
        steps = (("i", created("in")), ("o", created("out")), ("i", left), ("o", disconnected(17)))
        self.assertEqual(self.gateway.play(*steps), [D])
        self.assertEqual(self.last().outcome, Outcome.BUSY)

    def test_leg_that_comes_back(self) -> None:
        self.gateway.play(*TALKING, ("i", left), ("i", joined("in")), ("o", disconnected()))
        self.assertEqual(self.gateway.tracker.active, 1)
        self.assertEqual(self.gateway.hear("i", disconnected()), [D])


class MiddleTests(TrackerTestCase):
    def test_from_ringing(self) -> None:
        """Directions unknown: the call is over when no leg is left."""
        self.assertEqual(self.gateway.play(("o", alerting), ("i", alerting)), [A])
        self.assertEqual(self.gateway.play(("o", disconnected(19))), [])
        self.assertEqual(self.gateway.play(("i", disconnected(19))), [D])
        self.assertEqual(self.last().outcome, Outcome.MISSED)

    def test_the_only_leg_known(self) -> None:
        """It may be the caller's, or the first of a hunt: the next word tells."""
        self.assertEqual(self.gateway.play(("x", alerting), ("x", disconnected(16))), [A])
        self.assertEqual(self.gateway.play(("y", disconnected(16))), [D])
        self.assertFalse(self.last().inferred)
        self.assertEqual(self.gateway.play(("z", disconnected(16))), [])

    def test_a_clock_that_was_set_makes_no_call_old_nor_young(self) -> None:
        for by in (-25 * 3600, -3600, 3600, 25 * 3600):
            self.setUp()
            self.gateway.play(("x", alerting), ("x", disconnected(19)))
            self.gateway.now += by * SECOND
            self.gateway.tracker.clock_set(by * SECOND, self.gateway.now)
            self.assertEqual(self.gateway.sweep(QUIET - 1), [])
            self.assertEqual(len(self.gateway.sweep(3)), 1)

    def test_the_only_leg_known_and_no_further_word(self) -> None:
        self.gateway.play(("x", alerting), ("x", disconnected(19)))
        self.assertEqual(self.gateway.sweep(QUIET), [])
        (event,) = self.gateway.sweep(1)
        self.assertEqual((event.call_event.outcome, event.call_event.inferred), (Outcome.MISSED, True))
        self.assertEqual(self.gateway.play(("i", disconnected(16))), [])

    def test_hunt_from_the_ringing_of_its_first_leg(self) -> None:
        first = (("a", alerting), ("a", disconnected(17)))
        second = (("b", created("out")), ("b", delivered), ("b", disconnected(17)))
        third = (("c", created("out")), ("c", connected("out")), ("c", disconnected(16)))
        end = (("i", disconnected(16)),)
        for restarts in (False, True):
            self.setUp()
            states = []
            for steps in (first, second, third, end):
                states += self.gateway.play(*steps)
                if restarts:
                    self.gateway.restart()
            self.assertEqual(states, [A, C, D])
            self.assertEqual(len(self.gateway.calls()), 1)

    def test_hunt_from_the_end_of_its_first_leg(self) -> None:
        self.assertEqual(self.gateway.play(("a", disconnected(17))), [])
        self.assertEqual(self.gateway.play(("b", created("out")), ("b", disconnected(17))), [])
        self.assertEqual(self.gateway.play(("c", created("out")), ("c", connected("out"))), [C])
        self.assertEqual(self.gateway.play(("c", disconnected(16)), ("i", disconnected(16))), [D])

    def test_delivered_leg_is_not_the_callers(self) -> None:
        """Its `created` was lost, but only outgoing legs are delivered."""
        self.assertEqual(self.gateway.play(("a", delivered), ("a", disconnected(17))), [])
        self.assertEqual(self.gateway.play(("b", created("out")), ("b", alerting)), [A])
        self.assertEqual(self.gateway.play(("b", disconnected(19))), [])
        self.assertEqual(self.gateway.play(("i", disconnected(19))), [D])
        self.assertFalse(self.last().inferred)

    def test_busy_from_the_delivery(self) -> None:
        end = self.ended(("o", delivered), ("o", disconnected(17)), ("i", disconnected(17)))
        self.assertEqual((end.outcome, end.inferred), (Outcome.BUSY, False))

    def test_direction_told_goes_before_what_was_concluded(self) -> None:
        self.gateway.play(("i", delivered), ("o", alerting), ("i", connected("in")), ("o", connected("out")))
        self.assertEqual(self.gateway.hear("i", disconnected(16)), [D])
        self.assertEqual(len(self.gateway.calls()), 1)
        self.assertEqual(self.last().direction, Direction.INCOMING)

    def test_abandoned_from_the_ringing(self) -> None:
        self.assertEqual(self.gateway.play(("i", alerting), ("i", disconnected(16))), [A])
        self.assertEqual(self.gateway.hear("o", disconnected(16)), [D])

    def test_what_the_outgoing_leg_tells_of_the_call(self) -> None:
        """Its guid; but not the direction when another leg was there before it."""
        self.gateway.play(("x", alerting), ("o", created("out")), ("o", alerting))
        call = self.gateway.call()
        self.assertEqual((call.guid, call.direction, call.called_number), (GUID, None, CALLED))
        self.setUp()
        self.gateway.play(("o", created("out")), ("o", alerting))
        self.assertEqual(self.gateway.call().direction, Direction.OUTGOING)

    def test_from_the_answer(self) -> None:
        self.assertEqual(self.gateway.play(("o", connected("out")), ("i", connected("in"))), [C])
        self.assertEqual(self.last().sequence, 1)
        self.assertEqual(self.last().calling_number, CALLER)
        self.assertEqual(self.gateway.play(("i", disconnected())), [D])

    def test_only_the_end(self) -> None:
        """There is nothing to tell of a call that is only heard to end."""
        self.assertEqual(self.gateway.play(("i", disconnected()), ("o", disconnected())), [])
        self.assertEqual(self.gateway.play(("x", left), call="26"), [])
        self.assertEqual((self.gateway.calls(), self.gateway.tracker.active), ([], 0))

    def test_events_of_no_state_begin_no_call(self) -> None:
        self.assertEqual(self.gateway.play(("i", forking), ("i", xcc.UnknownEvent("crypto"))), [])
        self.assertEqual(self.gateway.calls(), [])

    def test_hunt_without_the_incoming_leg(self) -> None:
        """The caller's `created` was lost; he is there all the same while the gateway hunts."""
        steps = (("a", created("out")), ("a", alerting), ("a", disconnected(17)))
        self.assertEqual(self.gateway.play(*steps), [A])
        self.assertEqual(self.gateway.play(("b", created("out")), ("b", connected("out"))), [C])
        self.assertEqual(self.gateway.play(("b", disconnected(16)), ("i", disconnected(16))), [D])

    def test_hunt_without_any_word_of_the_caller(self) -> None:
        self.gateway.play(("a", created("out")), ("a", disconnected(17)))
        self.assertEqual(self.gateway.sweep(QUIET), [])
        (event,) = self.gateway.sweep(1)
        self.assertEqual((event.call_event.outcome, event.call_event.inferred), (Outcome.BUSY, True))

    def test_hunt_that_rings_for_long_unheard(self) -> None:
        """Only the answer of the second leg is told."""
        self.gateway.play(("a", created("out")), ("a", disconnected(17)))
        for _ in range(2):
            self.assertEqual(self.gateway.sweep(60), [])
        self.assertEqual(self.gateway.play(("b", connected("out")), ("i", connected("in"))), [C])
        self.assertEqual(self.gateway.hear("i", disconnected()), [D])


class DisorderTests(TrackerTestCase):
    def test_everything_twice(self) -> None:
        call = (*TALKING, ("o", disconnected()), ("i", disconnected()))
        steps = [step for step in call for _ in range(2)]
        self.assertEqual(self.gateway.play(*steps), [A, C, D])
        self.assertEqual(self.gateway.play(*call), [])
        self.assertEqual(len(self.gateway.calls()), 1)

    def test_late_alerting_is_not_told(self) -> None:
        self.assertEqual(
            self.gateway.play(("i", created("in")), ("o", connected("out")), ("o", alerting)), [C]
        )

    def test_alerting_of_a_leg_already_gone(self) -> None:
        steps = (("i", created("in")), ("o", created("out")), ("o", disconnected(19)), ("o", alerting))
        self.assertEqual(self.gateway.play(*steps, ("i", disconnected(19))), [A, D])
        self.assertEqual(self.last().connections[1].state, "DISCONNECTED")

    def test_end_before_the_beginning(self) -> None:
        """The end overtook `created`: told once the numbers are there."""
        self.assertEqual(self.gateway.play(("i", disconnected(3)), ("i", created("in"))), [D])
        end = self.last()
        self.assertEqual((end.calling_number, end.called_number), (CALLER, CALLED))
        self.assertEqual((end.outcome, end.disconnect_cause), (Outcome.FAILED, 3))

    def test_incoming_leg_known_last(self) -> None:
        steps = (("o", created("out")), ("o", alerting), ("i", disconnected(16)), ("i", created("in")))
        self.assertEqual(self.gateway.play(*steps), [A, D])
        self.assertEqual(self.last().outcome, Outcome.ABANDONED)

    def test_late_words_of_an_ended_call(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        for step in (*TALKING, ("z", alerting), ("o", redirected(THIRD)), ("o", left)):
            self.assertEqual(self.gateway.play(step), [], step)
        self.gateway.hear("z", created("out", THIRD, THIRD, OTHER_GUID))
        (call,) = self.gateway.calls()
        self.assertEqual((call.sequence, call.redirected_to), (3, None))
        self.assertEqual((call.calling_number, call.called_number, call.guid), (CALLER, CALLED, GUID))
        self.assertEqual(self.gateway.tracker.active, 0)

    def test_what_was_told_stays_told(self) -> None:
        """Numbers that come after the end do not change the record of what was told."""
        self.gateway.play(("i", alerting), ("i", connected(None, None, None)), ("i", disconnected()))
        self.gateway.hear("i", connected("in"))
        call = self.gateway.call()
        self.assertEqual((call.calling_number, call.called_number), (None, None))
        self.assertEqual(call.connections[0].called_number, CALLED)

    def test_word_long_after_the_end(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        self.gateway.wait(40)
        self.assertEqual(self.gateway.hear("o", disconnected()), [])
        self.assertEqual(len(self.gateway.calls()), 1)

    def test_callid_of_a_call_ended_long_ago(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        self.gateway.wait(KEPT + 1)
        self.assertEqual(self.gateway.play(("x", alerting), ("x", connected("in"))), [A, C])
        self.assertEqual(len(self.gateway.calls()), 2)

    def test_late_words_keep_the_end_in_mind(self) -> None:
        """A call whose end was told too soon goes on speaking; it is not told again."""
        self.gateway.play(*TALKING, ("i", disconnected()))
        for event in (created("out"), alerting, connected("out")):
            self.gateway.wait(KEPT - 1)
            self.gateway.sweep()
            self.assertEqual(self.gateway.hear("p", event), [])
        self.gateway.wait(KEPT - 1)
        self.gateway.restart()
        self.assertEqual(len(self.gateway.calls()), 1)

    def test_a_call_closed_for_its_silence_is_not_told_again(self) -> None:
        self.gateway.play(*RINGING)
        self.assertEqual(len(self.gateway.sweep(3601)), 1)
        for _ in range(3):
            self.gateway.sweep(3600)
        self.assertEqual(self.gateway.play(("o", connected("out")), ("i", connected("in"))), [])
        self.assertEqual(self.gateway.play(("o", disconnected()), ("i", disconnected())), [])
        self.assertEqual([call.inferred for call in self.gateway.calls()], [True])
        self.gateway.sweep(24 * 3600 + 1)
        self.assertEqual(self.gateway.play(*RINGING), [A])

    def test_every_order(self) -> None:
        """However the words of a call are shuffled, it is told once, in order, and closed without help."""
        words: tuple[tuple[str, xcc.ConnectionEvent], ...] = (
            ("i", created("in")),
            ("o", created("out")),
            ("o", alerting),
            ("o", connected("out")),
            ("o", disconnected()),
            ("i", disconnected()),
        )
        for order in itertools.permutations(words):
            self.setUp()
            states = self.gateway.play(*order)
            self.assertEqual(states, [state for state in (A, C, D) if state in states], order)
            self.assertEqual((states[-1:], self.gateway.tracker.active), ([D], 0), order)
            self.assertFalse(self.gateway.call().inferred)

    def test_memory_of_ended_calls_is_bounded(self) -> None:
        self.patch(tracker, "ENDED_KEPT_MOST", 3)
        for number in range(5):
            self.gateway.play(("i", created("in")), ("i", disconnected()), call=str(number))
        for number in (2, 3, 4):
            self.assertEqual(self.gateway.play(("o", alerting), call=str(number)), [])
        self.assertEqual(self.gateway.play(("o", alerting), call="1"), [A])


class ReuseTests(TrackerTestCase):
    """The gateway begins its callIDs again, and nobody told us that it restarted."""

    def assert_begins_anew(self, conn: str, event: xcc.ConnectionEvent, states: list[str]) -> None:
        before = self.gateway.call()
        self.assertEqual(self.gateway.hear(conn, event), states)
        old, new = self.gateway.calls()
        self.assertEqual(old.id, before.id)
        if states:
            self.assertTrue(old.inferred)
        self.assertEqual([call.id for call in self.gateway.tracker.open_calls()], [new.id])

    def test_incoming_leg_with_another_guid(self) -> None:
        self.gateway.play(*TALKING)
        self.assert_begins_anew("n", created("in", THIRD, CALLED, OTHER_GUID), [D])
        end = self.last()
        self.assertEqual((end.calling_number, end.outcome, end.inferred), (CALLER, Outcome.ANSWERED, True))
        self.assertEqual((end.talk_seconds, end.disconnect_cause), (None, None))
        self.assertEqual(self.gateway.play(("n", alerting), ("n", disconnected())), [A, D])
        self.assertEqual(self.last().calling_number, THIRD)

    def test_same_connection_with_another_guid(self) -> None:
        self.gateway.play(*RINGING)
        self.assert_begins_anew("i", created("in", CALLER, CALLED, OTHER_GUID), [D])

    def test_same_connection_without_a_guid(self) -> None:
        self.gateway.play(("i", created("in", CALLER, CALLED, None)))
        self.assert_begins_anew("i", created("in", THIRD, CALLED, None), [D])

    def test_second_incoming_leg_without_a_guid(self) -> None:
        self.gateway.play(("i", created("in", CALLER, CALLED, None)))
        self.assert_begins_anew("n", created("in", CALLER, CALLED, None), [D])

    def test_connection_in_another_direction(self) -> None:
        self.gateway.play(*TALKING)
        self.assert_begins_anew("o", created("in", CALLER, CALLED, None), [D])

    def test_late_incoming_leg_of_a_call_seen_from_the_middle(self) -> None:
        self.gateway.play(("o", connected("out", CALLER, CALLED, OTHER_GUID)))
        self.gateway.wait(60)
        self.assert_begins_anew("n", created("in"), [D])

    def test_late_incoming_leg_with_the_same_guid(self) -> None:
        self.gateway.play(("o", connected("out")))
        self.gateway.wait(60)
        self.assertEqual(self.gateway.play(("i", created("in"))), [])
        self.assertEqual(len(self.gateway.call().connections), 2)

    def test_incoming_leg_told_a_little_late(self) -> None:
        """Legs of one call may differ in guid."""
        self.gateway.play(("o", created("out", CALLER, CALLED, OTHER_GUID)), ("i", created("in")))
        self.assertEqual(self.gateway.call().guid, GUID)

    def test_outgoing_leg_with_another_guid_is_of_the_call(self) -> None:
        self.gateway.play(("i", created("in")), ("o", created("out", CALLER, CALLED, OTHER_GUID)))
        self.assertEqual(len(self.gateway.call().connections), 2)

    def test_connected_leg_with_another_guid_and_number(self) -> None:
        self.gateway.play(("i", created("in")))
        self.gateway.play(("i", connected("in", CALLER, CALLED, OTHER_GUID)))
        self.assertEqual(len(self.gateway.calls()), 1)
        self.setUp()
        self.gateway.play(("i", created("in")))
        self.assert_begins_anew("i", connected("in", THIRD, CALLED, OTHER_GUID), [D, C])

    def test_ended_call(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        self.assert_begins_anew("i", created("in", CALLER, CALLED, OTHER_GUID), [])
        self.assertEqual(self.gateway.play(("i", alerting), ("i", disconnected())), [A, D])

    def test_call_only_heard_to_end(self) -> None:
        self.gateway.play(("i", disconnected()))
        self.gateway.wait(10)
        self.assertEqual(
            self.gateway.play(("n", created("in")), ("n", alerting), ("n", disconnected())), [A, D]
        )
        self.assertEqual(len(self.gateway.call().connections), 1)

    def test_the_news_is_about_the_new_call(self) -> None:
        self.gateway.play(*TALKING)
        changes = self.gateway.tracker.connection_data(
            notification(created("in", THIRD, CALLED, OTHER_GUID), conn="n"), self.gateway.now
        )
        new, old = changes.calls
        self.assertIs(changes.about, new)
        self.assertTrue(old.ended)
        self.assertFalse(new.ended)


class ReloadTests(TrackerTestCase):
    def test_every_call_is_closed(self) -> None:
        self.gateway.play(*TALKING)
        self.gateway.play(*RINGING, call="26")
        self.gateway.play(("i", created("in")), call="27")
        payloads = [event.call_event for event in self.gateway.reload()]
        self.assertEqual(
            [(p.call_state, p.outcome, p.inferred, p.sequence) for p in payloads],
            [
                (D, Outcome.ANSWERED, True, 3),
                (D, Outcome.MISSED, True, 2),
                (D, Outcome.FAILED, True, 1),
            ],
        )
        for payload in payloads:
            self.assertIsNone(payload.talk_seconds)
            self.assertEqual(payload.disconnected_at, iso(self.gateway.now))
        self.assertEqual([p.ring_seconds for p in payloads], [2.0, None, None])
        self.assertEqual(self.gateway.tracker.active, 0)
        self.assertTrue(all(call.ended for call in self.gateway.calls()))

    def test_callids_begin_again(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        self.gateway.reload()
        self.assertEqual(self.gateway.play(*TALKING, ("i", disconnected())), [A, C, D])
        self.assertEqual(len(self.gateway.calls()), 2)

    def test_late_end_after_a_reload(self) -> None:
        self.gateway.play(*TALKING)
        self.gateway.reload()
        self.assertEqual(self.gateway.play(("i", disconnected()), ("o", disconnected())), [])


class SweepTests(TrackerTestCase):
    def test_unanswered(self) -> None:
        self.gateway.play(*RINGING)
        self.assertEqual(self.gateway.sweep(3600), [])
        (event,) = self.gateway.sweep(1)
        self.assertEqual((event.call_event.outcome, event.call_event.inferred), (Outcome.MISSED, True))
        self.assertEqual(self.gateway.sweep(3600), [])

    def test_answered(self) -> None:
        self.gateway.play(*TALKING)
        self.assertEqual(self.gateway.sweep(24 * 3600), [])
        (event,) = self.gateway.sweep(1)
        self.assertEqual((event.call_event.outcome, event.call_event.inferred), (Outcome.ANSWERED, True))

    def test_any_word_is_a_sign_of_life(self) -> None:
        self.gateway.play(*RINGING)
        self.gateway.wait(3500)
        self.gateway.hear("o", forking)
        self.assertEqual(self.gateway.sweep(3500), [])

    def test_clock_set_back(self) -> None:
        self.gateway.play(*TALKING)
        self.assertEqual(self.gateway.sweep(-7 * 24 * 3600), [])
        self.assertEqual(self.gateway.hear("i", disconnected()), [D])
        self.assertEqual(self.last().talk_seconds, 0.0)


class RestartTests(TrackerTestCase):
    def test_at_every_moment(self) -> None:
        call = (*TALKING, ("o", disconnected()), ("i", disconnected()))
        for cut in range(len(call)):
            self.setUp()
            self.gateway.play(*call[:cut])
            self.gateway.restart()
            self.gateway.play(*call[cut:])
            payloads = [event.call_event for event in self.gateway.events]
            self.assertEqual([p.call_state for p in payloads], [A, C, D], cut)
            self.assertEqual([p.sequence for p in payloads], [1, 2, 3])
            self.assertEqual({(p.calling_number, p.called_number) for p in payloads}, {(CALLER, CALLED)}, cut)

    def test_everything_is_kept(self) -> None:
        self.gateway.play(*TALKING)
        before = self.gateway.calls()
        self.gateway.restart()
        self.assertEqual(list(self.gateway.tracker.open_calls()), before)

    def test_word_of_an_ended_call_that_comes_after_a_restart(self) -> None:
        """Whatever is sent again, or comes late, is not of a new call."""
        call = (*TALKING, ("i", disconnected()))
        for word in (*call, ("o", disconnected()), ("o", redirected(THIRD)), ("z", alerting)):
            self.setUp()
            self.gateway.play(*call)
            self.gateway.restart()
            self.assertEqual(self.gateway.tracker.active, 0)
            self.assertEqual(self.gateway.play(word), [], word)
            self.gateway.sweep(24 * 3600)
            self.assertEqual((len(self.gateway.calls()), len(self.gateway.events)), (1, 3), word)

    def test_ended_calls_are_forgotten_in_their_time(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        self.gateway.restart()
        self.gateway.sweep(KEPT + 1)
        self.assertEqual(self.gateway.play(("x", alerting)), [A])

    def test_callid_used_again_before_the_restart(self) -> None:
        """The call in progress counts, in whatever order the two are given; of ended ones the later."""
        self.gateway.play(*TALKING, ("i", disconnected()))
        self.gateway.play(("n", created("in", THIRD, CALLED, OTHER_GUID)))
        old, new = self.gateway.calls()
        for calls in ([old, new], [new, old]):
            self.gateway.tracker = self.gateway.restarted()
            self.gateway.tracker.restore(calls)
            self.assertEqual([call.id for call in self.gateway.tracker.open_calls()], [new.id])
        self.assertEqual(self.gateway.play(("n", alerting), ("n", disconnected())), [A, D])
        old, new = self.gateway.calls()
        self.gateway.tracker = self.gateway.restarted()
        self.gateway.tracker.restore([old, new])
        changes = self.gateway.tracker.connection_data(notification(disconnected(), conn="n"), NOW)
        assert changes.about is not None
        self.assertEqual(changes.about.id, new.id)

    def test_no_more_ended_calls_are_restored_than_are_kept(self) -> None:
        self.patch(tracker, "ENDED_KEPT_MOST", 3)
        for number in range(5):
            self.gateway.play(("i", created("in")), ("i", disconnected()), call=str(number))
        self.gateway.restart()
        for number in (2, 3, 4):
            self.assertEqual(self.gateway.play(("o", alerting), call=str(number)), [])
        self.assertEqual(self.gateway.play(("o", alerting), call="1"), [A])

    def test_cube_no_longer_configured(self) -> None:
        """What the service does for its calls: take them up, and close them."""
        self.gateway.play(*TALKING)
        self.gateway.restart()
        (event,) = self.gateway.reload()
        self.assertEqual((event.call_event.outcome, event.call_event.inferred), (Outcome.ANSWERED, True))
        self.assertEqual((event.call_event.sequence, event.call_event.calling_number), (3, CALLER))
        self.assertTrue(self.gateway.call().ended)


class LegEventTests(TrackerTestCase):
    def setUp(self) -> None:
        self.gateway = Gateway(leg_events=True)

    def legs(self) -> list[tuple[str, str]]:
        return [
            (event.call_event.connections[0].connection_id, event.call_event.call_state.value)
            for event in self.gateway.told(Granularity.CONNECTION)
        ]

    def test_each_leg_each_state_once(self) -> None:
        call = (*TALKING, ("i", disconnected()), ("o", disconnected()))
        self.gateway.play(*(step for step in call for _ in range(2)))
        self.assertEqual(self.legs(), [("o", A), ("i", A), ("o", C), ("i", C), ("i", D), ("o", D)])
        payloads = [event.call_event for event in self.gateway.told(Granularity.CONNECTION)]
        call_id = id_text(self.gateway.call().id)
        self.assertEqual([p.event_id for p in payloads], [f"{call_id}-L{n}" for n in range(1, 7)])
        self.assertEqual([p.sequence for p in payloads], [1, 2, 3, 4, 5, 6])
        self.assertEqual([e.call_event.sequence for e in self.gateway.told()], [1, 2, 3])

    def test_its_own_numbers_and_times(self) -> None:
        self.gateway.play(
            ("i", created("in")),
            ("o", created("out", CALLER, "1001")),
            ("o", alerting),
            ("i", alerting),
            ("o", connected("out", CALLER, "1001")),
            ("o", disconnected(31)),
        )
        end = self.last()
        self.assertEqual((end.called_number, end.direction), ("1001", Direction.OUTGOING))
        self.assertEqual((end.ring_seconds, end.talk_seconds), (2.0, 1.0))
        self.assertEqual((end.disconnected_at, end.guid), (iso(self.gateway.now), GUID))
        self.assertEqual((end.outcome, end.disconnect_cause), (Outcome.ANSWERED, 31))
        self.assertEqual(len(end.connections), 1)

    def test_outcome_of_each(self) -> None:
        self.gateway.play(
            ("i", created("in")),
            ("a", created("out")),
            ("a", disconnected(17)),
            ("b", created("out")),
            ("b", alerting),
            ("i", disconnected(16)),
            ("b", disconnected(16)),
        )
        ends = [e.call_event for e in self.gateway.told(Granularity.CONNECTION) if e.call_event.outcome]
        self.assertEqual(
            [(p.connections[0].connection_id, p.outcome) for p in ends],
            [("a", Outcome.BUSY), ("i", Outcome.ABANDONED), ("b", Outcome.MISSED)],
        )

    def test_caller_of_an_answered_call_whose_own_answer_was_not_told(self) -> None:
        self.gateway.play(*RINGING, ("o", connected("out")), ("i", disconnected(16)))
        self.assertEqual(self.legs()[-1], ("i", D))
        self.assertEqual((self.last().outcome, self.last().talk_seconds), (Outcome.ANSWERED, None))

    def test_guid_of_a_leg_that_has_none(self) -> None:
        self.gateway.play(("i", created("in")), ("o", created("out", CALLER, CALLED, None)), ("o", alerting))
        self.assertEqual(self.last().guid, GUID)

    def test_leg_whose_end_is_never_told(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        (event,) = self.gateway.sweep(60)
        self.assertIs(event.granularity, Granularity.CONNECTION)
        payload = event.call_event
        self.assertEqual((payload.connections[0].connection_id, payload.inferred), ("o", True))
        self.assertIsNone(payload.talk_seconds)
        self.assertEqual(self.gateway.call().leg_sequence, 6)
        self.assertEqual(self.gateway.play(("o", disconnected())), [])
        self.assertEqual(self.gateway.sweep(KEPT), [])

    def test_leg_whose_end_is_never_told_across_a_restart(self) -> None:
        self.gateway.play(*TALKING, ("i", disconnected()))
        self.gateway.restart()
        self.assertEqual(self.gateway.sweep(LATE), [])
        (event,) = self.gateway.sweep(1)
        self.assertEqual(event.call_event.connections[0].connection_id, "o")

    def test_reload(self) -> None:
        self.gateway.play(*TALKING)
        self.gateway.reload()
        self.assertEqual(self.legs()[-2:], [("i", D), ("o", D)])

    def test_end_before_the_beginning(self) -> None:
        self.gateway.play(("i", disconnected(3)), ("i", created("in")))
        self.assertEqual(self.legs(), [("i", D)])
        self.assertEqual(self.last().calling_number, CALLER)

    def test_leg_that_left_did_not_end(self) -> None:
        self.gateway.play(*TALKING, ("i", left), ("o", disconnected()))
        self.gateway.sweep(60)
        self.assertEqual(self.legs()[4:], [("o", D)])

    def test_switched_on_and_off(self) -> None:
        self.gateway.tracker.leg_events = False
        self.gateway.play(*RINGING)
        self.gateway.tracker.leg_events = True
        self.gateway.hear("o", connected("out"))
        self.gateway.tracker.leg_events = False
        self.gateway.hear("i", disconnected())
        self.gateway.sweep(60)
        self.assertEqual(self.legs(), [("o", C)])


class HostileTests(TrackerTestCase):
    def test_long_ids_are_cut(self) -> None:
        self.gateway.hear("1" * 100_000, created("in"), call="2" * 100_000)
        call = self.gateway.call()
        self.assertEqual((len(call.gateway_call_id), len(call.connections[0].connection_id)), (64, 64))

    def test_long_texts_are_cut(self) -> None:
        text = "x" * 100_000
        self.gateway.hear("i", created("in", text, text, text, conn_intf=text, route_name=text))
        self.assertLess(len(next(iter(self.gateway.saved.values()))), 4000)

    def test_legs_without_end(self) -> None:
        """Those that failed first are forgotten, the caller's never; no state is told twice."""
        self.patch(tracker, "LEGS_MOST", 5)
        self.assertEqual(self.gateway.play(("i", created("in"))), [])
        for number in range(20):
            leg = f"o{number}"
            states = self.gateway.play((leg, created("out")), (leg, alerting), (leg, disconnected(17)))
            self.assertEqual(states, [A] if number == 0 else [])
        names = [leg.connection_id for leg in self.gateway.call().connections]
        self.assertEqual(names, ["i", "o16", "o17", "o18", "o19"])
        for number in range(20):
            self.gateway.hear(f"p{number}", created("out"))
        self.assertEqual(len(self.gateway.call().connections), 5)
        self.assertEqual(self.gateway.hear("i", disconnected(17)), [D])

    def test_nothing_known(self) -> None:
        nothing = xcc.ConnDetailData()
        steps = (("i", xcc.Created(nothing)), ("i", xcc.Connected(nothing)), ("i", xcc.Disconnected()))
        self.assertEqual(self.gateway.play(*steps), [C, D])
