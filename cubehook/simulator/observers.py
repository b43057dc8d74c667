"""Who watches a simulated gateway: a story for a person, a record for a program, figures for a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import msgspec

from cubehook.events import Micros
from cubehook.simulator.gateway import Notification, Observer, SimulatedCall
from cubehook.simulator.latencies import Latencies, Percentiles
from cubehook.simulator.provider import ProberState, Registration
from cubehook.simulator.scenarios import Step, states
from cubehook.text import printable
from cubehook.xcc import messages as xcc


class Story(Observer):
    """Tells in plain sentences what happens; `say` is given one at a time."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[str, set[type[xcc.ConnectionEvent]]] = {}
        self._failing = ""

    def registered(self, registration: Registration) -> None:
        events = " ".join(sorted(registration.events)) or "no events"
        self._say(f"{registration.name} registered as {registration.id} for {events}")

    def unregistered(self, reason: str) -> None:
        self._say(f"the registration is gone: {reason}")

    def refused(self, words: str) -> None:
        self._say(f"refused {words}")

    def reloaded(self) -> None:
        self._told.clear()
        self._say("the gateway reloads: its calls are gone")

    def prober(self, state: ProberState) -> None:
        if state is ProberState.NEGATIVE:
            self._say("prober NEGATIVE: too many exchanges failed, events are lost until a probe is answered")
        elif state is ProberState.UNREGISTERED:
            self._say("prober UNREGISTERED")

    def stepped(self, call: SimulatedCall, step: Step) -> None:
        call_id = call.call_ids[step.call]
        kind = type(step.event)
        told = self._told.setdefault(call_id, set())
        if not told:
            told.add(xcc.Created)
            about = f" ({call.script.scenario})" if step.call == 0 else " (to ask a colleague)"
            self._say(f"call {call_id}: {_parties(call, step)}{about}")
        if kind is xcc.Alerting and kind not in told:
            self._say(f"call {call_id} rings")
        elif kind is xcc.Connected and kind not in told:
            self._say(f"call {call_id} is answered")
        elif kind is xcc.Transferred:
            self._say(f"call {call_id} is transferred")
        elif kind is xcc.Redirected:
            self._say(f"call {call_id} is forwarded")
        told.add(kind)
        if step.call not in call.live.values():
            # A leg may yet be tried, but then the caller's is up.
            cause = step.event.disc_cause if isinstance(step.event, xcc.Disconnected) else None
            self._say(f"call {call_id} ended" if cause is None else f"call {call_id} ended, cause {cause}")
            self._told.pop(call_id, None)

    def notified(self, notification: Notification, status: int | None, error: str, at: float) -> None:
        failing = "" if status is not None and 200 <= status < 300 else error or f"HTTP {status}"
        if failing != self._failing:
            self._failing = failing
            self._say(
                f"the application fails: {printable(failing)}" if failing else "the application is well again"
            )


def _parties(call: SimulatedCall, step: Step) -> str:
    calling, called = call.script.calling, call.script.called
    if isinstance(step.event, xcc.Created) and step.call:
        calling = called
        called = "a colleague"
    return f"{calling or 'withheld'} calls {called}"


class Recorder(Observer):
    """Writes a JSON line for every notification answered with 200, at once: what must never be lost."""

    def __init__(self, file: BinaryIO, now: Callable[[], Micros]) -> None:
        """`file` is unbuffered."""
        self._file = file
        self._now = now

    def notified(self, notification: Notification, status: int | None, error: str, at: float) -> None:
        if status == 200:
            line = {
                "callID": notification.call_id,
                "connID": notification.connection_id,
                "event": notification.name,
                "guid": notification.guid,
                "time": self._now(),
            }
            self._file.write(msgspec.json.encode(line) + b"\n")


class Second(msgspec.Struct):
    """What one second of a measurement saw."""

    second: int
    calls: int = 0
    answers: int = 0
    failures: int = 0
    worst_answer_ms: float = 0.0
    webhooks: int = 0


class Meter(Observer):
    """Measures the application's answers from `begin` on."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` is the `seconds` of the gateway's reactor."""
        self._now = now
        self._began: float | None = None
        self.answers = Latencies()
        """From sending to the answer."""
        self.waits = Latencies()
        """From the event in the call to the answer: with the time it waited for a free connection."""
        self.series: list[Second] = []
        self.failures = 0
        self.expected = 0
        """States that all calls so far should have been told in."""
        self.statuses: dict[str, int] = {}

    def begin(self) -> None:
        """Forget what was measured, and begin."""
        self._began = self._now()
        self.answers, self.waits = Latencies(), Latencies()
        self.series = []
        self.failures = 0
        self.statuses = {}

    def stepped(self, call: SimulatedCall, step: Step) -> None:
        if call.position == 1 and step is call.script.steps[0]:
            self.expected += sum(map(len, states(call.script)))
            second = self.second(self._now())
            if second is not None:
                second.calls += 1

    def notified(self, notification: Notification, status: int | None, error: str, at: float) -> None:
        second = self.second(at)
        if second is None:
            return
        word = str(status) if status is not None else "none"
        self.statuses[word] = self.statuses.get(word, 0) + 1
        if status is None or not 200 <= status < 300:
            second.failures += 1
            self.failures += 1
            return
        taken = at - notification.sent_at
        self.answers.add(taken)
        self.waits.add(at - notification.happened_at)
        second.answers += 1
        if taken * 1000 > second.worst_answer_ms:
            second.worst_answer_ms = round(taken * 1000, 3)

    def second(self, at: float) -> Second | None:
        """The entry of the series for this moment; None before `begin`."""
        if self._began is None:
            return None
        number = int(at - self._began)
        while len(self.series) <= number:
            self.series.append(Second(len(self.series)))
        return self.series[number]

    def percentiles(self) -> tuple[Percentiles, Percentiles]:
        """Of the answers, and of the waits."""
        return self.answers.percentiles(), self.waits.percentiles()
