"""Scripts of calls: the same for the same seed, and in orders that routers have."""

from __future__ import annotations

from itertools import islice
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from cubehook.simulator.scenarios import (
    DEFAULT_MIX,
    NAMES,
    Script,
    Traffic,
    arrivals,
    parse_mix,
    script,
    scripts,
    states,
)
from cubehook.simulator.wire import notification
from cubehook.xcc import codec
from cubehook.xcc import messages as xcc

TWISTED = ("from_the_middle", "duplicate", "out_of_order")


def several(name: str, count: int = 30) -> list[Script]:
    random = Random(name)
    return [script(name, random) for _ in range(count)]


def causes(one: Script) -> list[int | None]:
    return [step.event.disc_cause for step in one.steps if isinstance(step.event, xcc.Disconnected)]


def names(one: Script, leg: int) -> list[str]:
    return [type(step.event).__name__ for step in one.steps if step.leg == leg]


class ScriptTests(SynchronousTestCase):
    def test_every_message_of_every_scenario_can_be_read(self) -> None:
        for name in NAMES:
            for one in several(name, 5):
                for step in one.steps:
                    message = codec.read(notification("A:1", "B:XCC:c:1", "1", "2", step.event, True))
                    self.assertIsInstance(message, xcc.NotifyXccConnectionData)
                    self.assertIs(type(message.event), type(step.event))  # type: ignore[union-attr]

    def test_every_leg_is_created_once_and_ends_once(self) -> None:
        for name in set(NAMES) - set(TWISTED):
            for one in several(name):
                for leg in {step.leg for step in one.steps}:
                    heard = names(one, leg)
                    self.assertEqual(heard[0], "Created", name)
                    self.assertEqual(heard[-1], "Disconnected", name)
                    self.assertEqual(heard.count("Created") + heard.count("Disconnected"), 2, name)

    def test_answered_has_the_order_of_the_protocol(self) -> None:
        for one in several("answered"):
            heard = [(step.leg, type(step.event).__name__) for step in one.steps]
            self.assertEqual(
                heard[:7],
                [
                    (0, "Created"),
                    (1, "Created"),
                    (1, "CallDelivery"),
                    (1, "Alerting"),
                    (0, "Alerting"),
                    (1, "Connected"),
                    (0, "Connected"),
                ],
            )
            self.assertEqual(sorted(heard[7:]), [(0, "Disconnected"), (1, "Disconnected")])
        self.assertEqual({one.steps[-1].leg for one in several("answered")}, {0, 1})

    def test_outcomes_have_their_causes(self) -> None:
        for name, outcome, allowed in (
            ("busy", "busy", {17}),
            ("rejected", "rejected", {21}),
            ("no_answer", "missed", {19, 102}),
            ("abandoned", "abandoned", {16}),
            ("failed", "failed", {1, 3, 41}),
        ):
            for one in several(name):
                self.assertEqual(one.outcome, outcome)
                self.assertLessEqual(set(causes(one)), allowed)
                self.assertNotIn("Connected", names(one, 1))

    def test_abandoned_ends_with_the_caller_first(self) -> None:
        for one in several("abandoned"):
            ends = [step.leg for step in one.steps if isinstance(step.event, xcc.Disconnected)]
            self.assertEqual(ends, [0, 1])

    def test_hunt_goes_on_after_failed_legs(self) -> None:
        for one in several("hunt"):
            last = max(step.leg for step in one.steps)
            self.assertGreaterEqual(last, 2)
            self.assertIn("Connected", names(one, last))
            for failed in range(1, last):
                self.assertNotIn("Connected", names(one, failed))

    def test_simultaneous_ringing_has_one_winner(self) -> None:
        for one in several("simultaneous"):
            legs = {step.leg for step in one.steps} - {0}
            self.assertEqual(sum("Connected" in names(one, leg) for leg in legs), 1)
            self.assertTrue(all("Alerting" in names(one, leg) for leg in legs))

    def test_attended_transfer_moves_a_leg_between_two_calls(self) -> None:
        for one in several("attended_transfer"):
            moved = [step for step in one.steps if step.leg == 3]
            kinds = [(step.call, type(step.event).__name__) for step in moved]
            self.assertLess(kinds.index((1, "HandoffLeave")), kinds.index((0, "HandoffJoin")))
            self.assertEqual(kinds[-1], (0, "Disconnected"))
            self.assertEqual(len(set(one.guids)), 2)

    def test_withheld_callers_are_absent_empty_or_anonymous(self) -> None:
        seen = set()
        for one in several("withheld", 60):
            self.assertIsNone(one.calling)
            created = one.steps[0].event
            assert isinstance(created, xcc.Created)
            calling = created.conn_detail_data.calling_addr_data
            seen.add(None if calling is None else calling.addr)
        self.assertEqual(seen, {None, "", "anonymous"})

    def test_numbers_and_guids_come_in_every_form(self) -> None:
        heads, guids = set(), set()
        for one in several("answered", 200):
            created = one.steps[0].event
            assert isinstance(created, xcc.Created)
            guid = created.conn_detail_data.guid or ""
            guids.add("0x" if guid.startswith("0x") else " " if " " in guid else "")
            heads.add(one.called[:4] if one.called.startswith("sip:") else one.called[:1])
            bare = guid.replace("0x", "").replace("-", "").replace(" ", "")
            self.assertEqual(bare, one.guids[0])
        self.assertEqual((heads, guids), ({"+", "1", "sip:"}, {"0x", " ", ""}))

    def test_unknown_scenario_is_named(self) -> None:
        error = self.assertRaises(ValueError, script, "nonsense", Random(1))
        self.assertIn("'nonsense'", str(error))


class TwistTests(SynchronousTestCase):
    def test_from_the_middle_lacks_the_beginning(self) -> None:
        for one in several("from_the_middle"):
            self.assertLess(len(one.steps), 9)
            self.assertIsInstance(one.steps[-1].event, xcc.Disconnected)

    def test_duplicate_repeats_one_event(self) -> None:
        for one in several("duplicate"):
            self.assertEqual(sorted(step.copies for step in one.steps), [1] * 8 + [2])

    def test_out_of_order_swaps_two_neighbours_and_keeps_the_times(self) -> None:
        random, same = Random(5), Random(5)
        swapped, plain = script("out_of_order", random), script("answered", same)
        self.assertEqual([step.after for step in swapped.steps], [step.after for step in plain.steps])
        differing = [
            place
            for place, (one, other) in enumerate(zip(swapped.steps, plain.steps, strict=True))
            if one.event is not other.event and (one.leg, one.event) != (other.leg, other.event)
        ]
        self.assertEqual(len(differing), 2)
        self.assertEqual(differing[1] - differing[0], 1)


class TrafficTests(SynchronousTestCase):
    def test_same_seed_makes_the_same_calls(self) -> None:
        traffic = Traffic(mix=dict.fromkeys(NAMES, 1.0), seed=3, swaps=0.2, late=0.2, duplicates=0.2)
        other = Traffic(mix=traffic.mix, seed=4, swaps=0.2, late=0.2, duplicates=0.2)
        first = list(islice(scripts(traffic), 100))
        self.assertEqual(first, list(islice(scripts(traffic), 100)))
        self.assertNotEqual(first, list(islice(scripts(other), 100)))
        self.assertEqual(list(islice(arrivals(traffic), 100)), list(islice(arrivals(traffic), 100)))

    def test_rate_is_kept_both_ways(self) -> None:
        for regular in (True, False):
            *_, last = islice(arrivals(Traffic(mix=DEFAULT_MIX, rate=50, regular=regular)), 5000)
            self.assertApproximates(last, 100, 0.001 if regular else 6)

    def test_mix_gives_the_weights(self) -> None:
        made = [one.scenario for one in islice(scripts(Traffic(mix={"busy": 3, "failed": 1})), 2000)]
        self.assertEqual(set(made), {"busy", "failed"})
        self.assertApproximates(made.count("busy") / 2000, 0.75, 0.05)

    def test_default_mix_has_the_notifications_of_life(self) -> None:
        made = list(islice(scripts(Traffic(mix=DEFAULT_MIX)), 2000))
        self.assertApproximates(sum(len(one.steps) for one in made) / 2000, 8.5, 0.7)

    def test_conversations_have_the_wanted_mean(self) -> None:
        traffic = Traffic(mix={"answered": 1}, hold_seconds=10)
        talks = [one.steps[7].after for one in islice(scripts(traffic), 3000)]
        self.assertApproximates(sum(talks) / 3000, 10, 1)
        self.assertGreaterEqual(min(talks), 0.5)

    def test_mix_is_parsed(self) -> None:
        self.assertEqual(
            parse_mix("answered=70, busy=2.5,failed"), {"answered": 70, "busy": 2.5, "failed": 1}
        )
        for bad, word in (
            ("nonsense=1", "'nonsense'"),
            ("busy=x", "'x'"),
            ("busy=-1", "negative"),
            ("busy=nan", "negative"),
            ("busy=0", "above 0"),
        ):
            self.assertIn(word, str(self.assertRaises(ValueError, parse_mix, bad)))

    def test_states_are_those_an_application_tells(self) -> None:
        self.assertEqual(states(script("busy", Random(1))), [("DISCONNECTED",)])
        self.assertEqual(states(script("early_media", Random(1))), [("CONNECTED", "DISCONNECTED")])
        whole = ("ALERTING", "CONNECTED", "DISCONNECTED")
        self.assertEqual(states(script("attended_transfer", Random(1))), [whole, whole])
