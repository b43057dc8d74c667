"""
What holds of every call whatever a gateway says: calls of every shape, interleaved, and then told
with losses, repetitions, disorder, restarts of ours and reloads of the gateway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import TypeAlias

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import LEFT, Event, Granularity, Outcome
from cubehook.simulator import scenarios
from cubehook.simulator.wire import EVENT_NAMES
from cubehook.xcc import messages as xcc
from tests.calls.owed import Word, owed
from tests.calls.wire import (
    SECOND,
    Gateway,
    alerting,
    connected,
    created,
    delivered,
    disconnected,
    forking,
    joined,
    left,
    notification,
    redirected,
)

A, C, D = "ALERTING", "CONNECTED", "DISCONNECTED"
STATES = [A, C, D]

Script: TypeAlias = list[tuple[str, xcc.ConnectionEvent]]


class Shape(msgspec.Struct, frozen=True):
    """A way for a call to go: what the gateway says when nothing goes amiss, and what is to be told of it."""

    script: Callable[[str, str, str], Script]
    """From the caller, the number called and the guid."""
    states: list[str]
    outcome: Outcome


def _setup(a: str, b: str, g: str) -> Script:
    return [("i", created("in", a, b, g)), ("o", created("out", a, b, g)), ("o", delivered)]


def _ringing(a: str, b: str, g: str) -> Script:
    return [*_setup(a, b, g), ("o", alerting), ("i", alerting)]


def _talking(a: str, b: str, g: str) -> Script:
    return [*_ringing(a, b, g), ("o", connected("out", a, b, g)), ("i", connected("in", a, b, g))]


def _hunt(a: str, b: str, g: str) -> Script:
    return [
        *_ringing(a, b, g),
        ("o", disconnected(17)),
        ("p", created("out", a, "1002", g)),
        ("q", created("out", a, "1003", g)),
        ("p", alerting),
        ("q", alerting),
        ("q", connected("out", a, "1003", g)),
        ("p", disconnected(26)),
        ("i", connected("in", a, b, g)),
        ("q", disconnected(16)),
        ("i", disconnected(16)),
    ]


def _forwarded(a: str, b: str, g: str) -> Script:
    return [
        *_setup(a, b, g),
        ("o", redirected("+12025550143")),
        ("o", disconnected(16)),
        ("p", created("out", a, "+12025550143", g)),
        ("p", alerting),
        ("p", connected("out", a, "+12025550143", g)),
        ("i", disconnected(16)),
        ("p", disconnected(16)),
    ]


def _transferred(a: str, b: str, g: str) -> Script:
    return [
        *_talking(a, b, g),
        ("o", xcc.Transferred(xcc.AddrData("+12025550143"))),
        ("o", left),
        ("p", joined("out", a, "+12025550143", g)),
        ("p", connected("out", a, "+12025550143", g)),
        ("p", disconnected(16)),
        ("i", disconnected(16)),
    ]


SHAPES = [
    Shape(
        lambda a, b, g: [*_talking(a, b, g), ("i", disconnected()), ("o", disconnected())],
        [A, C, D],
        Outcome.ANSWERED,
    ),
    Shape(
        lambda a, b, g: [*_talking(a, b, g), ("o", forking), ("o", disconnected()), ("i", disconnected())],
        [A, C, D],
        Outcome.ANSWERED,
    ),
    Shape(
        lambda a, b, g: [*_setup(a, b, g), ("o", connected("out", a, b, g)), ("i", disconnected())],
        [C, D],
        Outcome.ANSWERED,
    ),
    Shape(
        lambda a, b, g: [*_setup(a, b, g), ("o", disconnected(17)), ("i", disconnected(17))],
        [D],
        Outcome.BUSY,
    ),
    Shape(
        lambda a, b, g: [*_ringing(a, b, g), ("o", disconnected(21)), ("i", disconnected(21))],
        [A, D],
        Outcome.REJECTED,
    ),
    Shape(
        lambda a, b, g: [*_ringing(a, b, g), ("o", disconnected(19)), ("i", disconnected(16))],
        [A, D],
        Outcome.MISSED,
    ),
    Shape(
        lambda a, b, g: [*_ringing(a, b, g), ("i", disconnected(16)), ("o", disconnected(16))],
        [A, D],
        Outcome.ABANDONED,
    ),
    Shape(
        lambda a, b, g: [("i", created("in", a, b, g)), ("i", disconnected(1))],
        [D],
        Outcome.FAILED,
    ),
    Shape(_hunt, [A, C, D], Outcome.ANSWERED),
    Shape(_forwarded, [A, C, D], Outcome.ANSWERED),
    Shape(_transferred, [A, C, D], Outcome.ANSWERED),
    Shape(
        lambda a, b, g: [*_talking(a, b, g), ("i", left), ("o", left)],
        [A, C, D],
        Outcome.ANSWERED,
    ),
]


class Said(msgspec.Struct, frozen=True):
    """One step of a run: a notification, or something that happens between two."""

    call: str = ""
    conn: str = ""
    event: xcc.ConnectionEvent | None = None
    happens: str = ""


def _numbers(index: int) -> tuple[str, str, str]:
    return f"+1251555{index:04d}", f"+1202555{index:04d}", f"{index + 1:032X}"


@st.composite
def interleaved(draw: st.DrawFn) -> list[tuple[Shape, str, list[tuple[float, Said]]]]:
    """Calls of their own callIDs, each step with the time it is due at."""
    calls = []
    for index in range(draw(st.integers(1, 4))):
        shape = draw(st.sampled_from(SHAPES))
        start, pace = draw(st.integers(0, 12)), draw(st.sampled_from([0.5, 1.0, 3.0]))
        steps = shape.script(*_numbers(index))
        key = str(index)
        calls.append(
            (shape, key, [(start + pace * n, Said(key, conn, e)) for n, (conn, e) in enumerate(steps)])
        )
    return calls


def _in_order(steps: list[tuple[float, Said]]) -> list[Said]:
    return [said for _, said in sorted(steps, key=lambda step: step[0])]


@st.composite
def troubled(draw: st.DrawFn) -> list[Said]:
    """Calls that may share callIDs, told with losses, repetitions, disorder, and things happening between."""
    steps: list[tuple[float, Said]] = []
    for index in range(draw(st.integers(1, 4))):
        shape = draw(st.sampled_from(SHAPES))
        a, b, guid = _numbers(index)
        key = draw(st.sampled_from("123"))
        start = draw(st.integers(0, 12))
        direction_known = draw(st.booleans())
        for n, (conn, event) in enumerate(shape.script(a, b, guid)):
            if not direction_known and isinstance(event, xcc.Created | xcc.Connected):
                bare = msgspec.structs.replace(
                    event.conn_detail_data, conn_direction_type=None, guid=None, called_addr_data=None
                )
                event = type(event)(bare)
            for _ in range(draw(st.sampled_from([1, 1, 1, 1, 0, 2]))):
                delay = draw(st.sampled_from([0, 0, 0, 0, 2, 5]))
                steps.append((start + n + delay, Said(key, conn, event)))
    for happens in draw(
        st.lists(st.sampled_from(["restart", "reload", "sweep", "minute", "day", "back", "legs"]), max_size=3)
    ):
        steps.append((draw(st.integers(0, 24)), Said(happens=happens)))
    return _in_order(steps)


def run(steps: list[Said], leg_events: bool) -> tuple[Gateway, dict[int, Said]]:
    """Say it all; the gateway, and for each of our calls the first notification that was of it."""
    gateway = Gateway(leg_events=leg_events)
    first: dict[int, Said] = {}
    for said in steps:
        gateway.wait(0.1)
        match said.happens:
            case "restart":
                gateway.restart()
            case "reload":
                gateway.reload()
            case "sweep":
                gateway.sweep()
            case "minute":
                gateway.wait(60)
            case "day":
                gateway.wait(90_000)
            case "back":
                gateway.wait(-3600)
            case "legs":
                gateway.tracker.leg_events = not gateway.tracker.leg_events
        if said.event is not None:
            changes = gateway.tracker.connection_data(
                notification(said.event, said.call, said.conn), gateway.now
            )
            gateway.take(changes)
            if changes.about is not None:
                first.setdefault(changes.about.id, said)
    return gateway, first


def by_call(events: list[Event]) -> dict[int, list[Event]]:
    calls: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        calls[event.call].append(event)
    return calls


class Gappy(msgspec.Struct, frozen=True):
    """A call as the simulator plays it, and how each of its notifications went."""

    script: scenarios.Script
    fates: list[str]
    """`answered`, `taken` (but not answered) or `lost`."""
    restarts: frozenset[int]
    """Before which notifications we were restarted."""


@st.composite
def gappy(draw: st.DrawFn) -> Gappy:
    """A call of which windows are lost, or single notifications; after a window we come up again."""
    # A long call is silent for longer than one may be whose answer was lost.
    names = st.sampled_from(["hunt", "hunt", *(name for name in scenarios.NAMES if name != "long")])
    script = scenarios.script(draw(names), Random(draw(st.integers(0, 10**6))), hold_seconds=5.0)
    count = len(script.steps)
    fates = ["answered"] * count
    restarts = set()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, count - 1))
        end = min(count, start + draw(st.sampled_from([1, 1, 2, 3, 5, 8])))
        fates[start:end] = [draw(st.sampled_from(["lost", "taken"])), *["lost"] * (end - start - 1)]
        if draw(st.booleans()):
            restarts.add(end)
    return Gappy(script, fates, frozenset(restarts))


def play(told: Gappy) -> tuple[Gateway, list[Event]]:
    """Say what was not lost, then wait until nothing is open; what was told before that wait."""
    gateway = Gateway()
    due = gateway.now
    for number, (step, fate) in enumerate(zip(told.script.steps, told.fates, strict=True)):
        due += int(step.after * SECOND)
        while due - gateway.now > 60 * SECOND:
            gateway.sweep(60)
        gateway.now = due
        if number in told.restarts:
            gateway.restart()
        if fate != "lost":
            for _ in range(step.copies):
                message = notification(step.event, str(step.call), str(step.leg))
                gateway.take(gateway.tracker.connection_data(message, due))
    at_once = list(gateway.events)
    while gateway.tracker.active:
        gateway.sweep(60)
    return gateway, at_once


def words_by_call(told: Gappy) -> dict[int, list[Word]]:
    """What was said of each call, in the words of `owed`."""
    words: dict[int, list[Word]] = defaultdict(list)
    for step, fate in zip(told.script.steps, told.fates, strict=True):
        words[step.call].append(Word(str(step.leg), EVENT_NAMES[type(step.event)], fate == "answered"))
    return words


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=150)
    @given(interleaved(), st.lists(st.integers(0, 60), max_size=3), st.booleans())
    def test_order_told_is_all_that_matters(
        self,
        calls: list[tuple[Shape, str, list[tuple[float, Said]]]],
        restarts: list[int],
        leg_events: bool,
    ) -> None:
        """Calls beside each other and our restarts change nothing of what is told of a call."""
        steps = _in_order([step for _, _, steps in calls for step in steps])
        for place in sorted(restarts, reverse=True):
            steps.insert(place, Said(happens="restart"))
        gateway, _ = run(steps, leg_events)
        self.assertEqual(gateway.tracker.active, 0)
        records = {call.gateway_call_id: call for call in gateway.calls()}
        self.assertEqual(len(gateway.calls()), len(calls))
        told = by_call(list(gateway.told()))
        for shape, key, _ in calls:
            call = records[key]
            payloads = [event.call_event for event in told[call.id]]
            self.assertEqual([p.call_state for p in payloads], shape.states)
            self.assertEqual(payloads[-1].outcome, shape.outcome)
            self.assertFalse(payloads[-1].inferred)
            calling, called, guid = _numbers(int(key))
            for payload in payloads:
                self.assertEqual((payload.calling_number, payload.called_number), (calling, called))
                self.assertEqual(payload.guid, guid)

    @settings(max_examples=100)
    @given(interleaved(), st.data())
    def test_repetitions_change_nothing(
        self, calls: list[tuple[Shape, str, list[tuple[float, Said]]]], data: st.DataObject
    ) -> None:
        steps = [step for _, _, steps in calls for step in steps]
        for due, said in list(steps):
            for delay in data.draw(st.lists(st.sampled_from([0, 1, 4, 20]), max_size=2)):
                steps.append((due + delay, said))
        gateway, _ = run(_in_order(steps), leg_events=False)
        records = {call.gateway_call_id: call for call in gateway.calls()}
        self.assertEqual(len(gateway.calls()), len(calls))
        told = by_call(gateway.events)
        for shape, key, _ in calls:
            payloads = [event.call_event for event in told[records[key].id]]
            self.assertEqual([p.call_state for p in payloads], shape.states)
            self.assertEqual(payloads[-1].outcome, shape.outcome)

    @settings(max_examples=400)
    @given(troubled(), st.booleans())
    def test_trouble(self, steps: list[Said], leg_events: bool) -> None:
        """Never an exception; each call closed once; each state at most once, in order, without gaps."""
        gateway, first = run(steps, leg_events)
        gateway.wait(7200)  # the clock may have been set back
        gateway.sweep(3 * 24 * 3600)
        self.assertEqual(gateway.tracker.active, 0)
        ids = [event.id for event in gateway.events]
        self.assertEqual(ids, sorted(set(ids)))
        event_ids = [event.call_event.event_id for event in gateway.events]
        self.assertEqual(len(event_ids), len(set(event_ids)))
        told = by_call(list(gateway.told()))
        self.assertEqual(told.keys() - gateway.saved.keys(), set())
        for call in gateway.calls():
            payloads = [event.call_event for event in told[call.id]]
            states = [p.call_state.value for p in payloads]
            self.assertEqual(states, [state for state in STATES if state in states])
            self.assertEqual(states[-1:], [D])
            self.assertEqual([p.sequence for p in payloads], list(range(1, len(payloads) + 1)))
            self.assertTrue(call.ended)
            self.assertEqual((call.sequence, call.outcome), (len(payloads), payloads[-1].outcome))
            self.assertEqual(A in states, call.alerting_at is not None)
            self.assertEqual(C in states, call.connected_at is not None)
            beginning = first[call.id].event
            if isinstance(beginning, xcc.Created):
                detail = beginning.conn_detail_data
                if detail.conn_direction_type == "INCOMING":
                    assert detail.calling_addr_data is not None
                    assert detail.called_addr_data is not None
                    for p in payloads:
                        self.assertEqual(p.calling_number, detail.calling_addr_data.addr)
                        self.assertEqual(p.called_number, detail.called_addr_data.addr)

    @settings(max_examples=200)
    @given(troubled())
    def test_legs_in_trouble(self, steps: list[Said]) -> None:
        """The same of legs: and each that did not leave is closed, if we were not restarted."""
        steps = [said for said in steps if said.happens not in ("restart", "legs")]
        gateway, _ = run(steps, leg_events=True)
        gateway.wait(7200)
        gateway.sweep(3 * 24 * 3600)
        gateway.sweep(60)
        legs = by_call(list(gateway.told(Granularity.CONNECTION)))
        for call in gateway.calls():
            payloads = [event.call_event for event in legs[call.id]]
            self.assertEqual([p.sequence for p in payloads], list(range(1, len(payloads) + 1)))
            self.assertEqual(call.leg_sequence, len(payloads))
            for connection in call.connections:
                states = [
                    p.call_state.value
                    for p in payloads
                    if p.connections[0].connection_id == connection.connection_id
                ]
                self.assertEqual(states, [state for state in STATES if state in states])
                if connection.state != LEFT:
                    self.assertEqual(states[-1:], [D])

    @settings(max_examples=400)
    @given(gappy())
    def test_gaps_in_real_calls(self, told: Gappy) -> None:
        """
        Whatever is lost of a call while we are away, it is told as one call, and closed once; and what
        is owed is told at once, unless so little was heard that its end could not be known.
        """
        gateway, at_once = play(told)
        for real, words in words_by_call(told).items():
            calls = [call.id for call in gateway.calls() if call.gateway_call_id == str(real)]
            self.assertLessEqual(len(calls), 1)
            states = [event.call_event.call_state.value for event in gateway.told() if event.call in calls]
            self.assertEqual(states, [state for state in STATES if state in states])
            self.assertEqual(states[-1:], [D] * len(calls))
            came = {event.call_event.call_state.value for event in at_once if event.call in calls}
            # In every scenario the incoming leg of a call has its call's number.
            self.assertEqual(owed(words, str(real)) - came, set())

    def test_time_does_not_run_in_the_tracker(self) -> None:
        """Times told are times handed in."""
        gateway = Gateway()
        gateway.play(("i", created("in")), ("i", alerting), ("i", disconnected()))
        self.assertEqual([event.at for event in gateway.events], [gateway.now - SECOND, gateway.now])
