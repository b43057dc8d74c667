"""The registration machine: by table, by story, and by any sequence of inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import Micros
from cubehook.records import Registration, RegistrationState
from cubehook.steady import past_after_step
from cubehook.xcc.registration import (
    AFTER_FAILURE,
    AFTER_FAULT,
    DEFAULT_INTERVAL,
    GREETING,
    HANDED_OVER,
    HANDED_OVER_FOR,
    LONGEST_WAIT,
    MISSED_INTERVALS,
    RETURNS,
    SECOND,
    SETTLED,
    SILENCE_MARGIN,
    SPACING,
    WHILE_SHUT,
    Command,
    LossWindow,
    Publish,
    Register,
    RegistrationMachine,
    Reloaded,
    Unregister,
    WakeAt,
    began_again,
)

START: Micros = 1_700_000_000 * SECOND
C = TypeVar("C", bound=Command)


@dataclass
class Driver:
    """Runs a machine, remembering what it commanded; the time is `at`."""

    machine: RegistrationMachine
    at: Micros = START
    heard_at: Micros | None = None
    wake_at: Micros | None = None
    asked: list[int] = field(default_factory=list)
    losses: int = 0
    reloads: list[Micros] = field(default_factory=list)
    unregistered: list[str] = field(default_factory=list)
    published: list[Publish] = field(default_factory=list)
    grants: int = 0

    def do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Register):
                self.asked.append(command.generation)
            elif isinstance(command, WakeAt):
                self.wake_at = command.at
            elif isinstance(command, LossWindow):
                self.losses += 1
            elif isinstance(command, Reloaded):
                self.reloads.append(command.at)
            elif isinstance(command, Unregister):
                self.unregistered.append(command.registration_id)
            else:
                self.published.append(command)

    @property
    def shown(self) -> Registration:
        return self.published[-1].registration

    @property
    def state(self) -> RegistrationState:
        return self.shown.state

    def tell(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.do(getattr(self.machine, name)(self.at, *args, **kwargs))

    def status(self, in_service: bool | None, restarted: bool = False) -> None:
        self.tell("provider_status", in_service, restarted)

    def advance(self, duration: Micros) -> None:
        """Let time pass, waking the machine when it wished to be."""
        end = self.at + duration
        while self.wake_at is not None and self.wake_at <= end:
            self.at = max(self.at, self.wake_at)
            self.wake_at = None
            self.tell("woken", self.heard_at)
        self.at = end

    def grant(self, registration_id: str | None = None, in_service: bool = True) -> None:
        self.grants += 1
        name = f"4CA5E4:XCC:cubehook:{self.grants}" if registration_id is None else registration_id
        self.tell("answered", self.asked[-1], name, in_service)

    def hear(self, registration_id: str | None) -> None:
        self.heard_at = self.at
        if registration_id is None or registration_id != self.machine.settled_id:
            self.tell("heard", registration_id)

    def probe(self, registration_id: str | None = None, **told: Any) -> None:
        self.heard_at = self.at
        known: dict[str, Any] = {
            "interval": 30.0,
            "failure_count": 0,
            "registered": True,
            "in_service": True,
        }
        self.tell("probed", registration_id or self.machine.registration_id, **(known | told))


def driver(random: Callable[[], float] = lambda: 0.5) -> Driver:
    return Driver(RegistrationMachine("hq", random))


def registered(age: Micros = 10 * SETTLED) -> Driver:
    """A cube that is registered, has been for `age`, and was just probed at intervals of 30 s."""
    made = driver()
    made.tell("start")
    made.grant()
    made.at += age
    made.probe()
    made.published.clear()
    made.published.append(Publish(made_registration(made), "info"))
    return made


def made_registration(made: Driver) -> Registration:
    return Registration(
        cube="hq",
        state=RegistrationState.REGISTERED,
        since=START,
        registration_id=made.machine.registration_id,
    )


SILENCE = MISSED_INTERVALS * 30 * SECOND + SILENCE_MARGIN


class StartTests(SynchronousTestCase):
    def test_registers_at_once(self) -> None:
        d = driver()
        d.tell("start")
        self.assertEqual(d.asked, [1])
        self.assertEqual((d.state, d.shown.since), (RegistrationState.REGISTERING, START))

    def test_granted(self) -> None:
        d = driver()
        d.tell("start")
        d.at += SECOND
        d.grant("4CA5E4:XCC:cubehook:4")
        self.assertEqual(d.state, RegistrationState.REGISTERED)
        self.assertEqual(d.shown.registration_id, "4CA5E4:XCC:cubehook:4")
        self.assertEqual(d.shown.since, START + SECOND)
        self.assertEqual(d.machine.settled_id, "4CA5E4:XCC:cubehook:4")
        self.assertEqual(d.losses, 0)

    def test_a_second_start_changes_nothing(self) -> None:
        d = registered()
        d.tell("start")
        self.assertEqual((d.asked, d.state), ([1], RegistrationState.REGISTERED))

    def test_results_of_another_request_are_ignored(self) -> None:
        d = driver()
        d.tell("start")
        d.tell("answered", 7, "other", True)
        d.tell("refused", 0, "no")
        d.tell("failed", 2, "no")
        self.assertEqual(d.state, RegistrationState.REGISTERING)
        d.grant()
        d.tell("failed", 1, "told twice")
        self.assertEqual(d.state, RegistrationState.REGISTERED)

    def test_a_provider_that_is_shut_down_registers_nobody(self) -> None:
        d = driver()
        d.tell("start")
        d.grant(in_service=False)
        self.assertEqual(d.state, RegistrationState.UNREGISTERED)
        self.assertIn("no shutdown", d.shown.reason)
        self.assertIsNone(d.machine.registration_id)
        self.assertEqual(d.wake_at, START + WHILE_SHUT.first)


class RetryTests(SynchronousTestCase):
    def delays(self, result: str, count: int, random: float = 0.5) -> list[float]:
        d = driver(lambda: random)
        d.tell("start")
        delays = []
        for _ in range(count):
            d.tell(result, d.asked[-1], "what went wrong")
            assert d.wake_at is not None
            delays.append((d.wake_at - d.at) / SECOND)
            d.advance(d.wake_at - d.at)
        self.assertEqual(d.asked, list(range(1, count + 2)))
        return delays

    def test_after_failures(self) -> None:
        self.assertEqual(self.delays("failed", 8), [1, 2, 4, 8, 16, 32, 60, 60])

    def test_after_faults(self) -> None:
        self.assertEqual(self.delays("refused", 10), [2, 4, 8, 16, 32, 64, 128, 256, 300, 300])

    def test_for_ever(self) -> None:
        self.assertEqual(self.delays("failed", 200)[-1], 60)

    def test_jitter(self) -> None:
        self.assertEqual(self.delays("failed", 3, 0.0)[1:], [1.6, 3.2])
        self.assertEqual(self.delays("failed", 3, 1.0)[1:], [2.4, 4.8])
        self.assertLessEqual(AFTER_FAULT.after(99, 0.999), LONGEST_WAIT)
        self.assertEqual(AFTER_FAILURE.after(1, 0.5), SECOND)

    def test_states(self) -> None:
        d = driver()
        d.tell("start")
        d.tell("failed", 1, "refused the connection.")
        self.assertEqual(d.state, RegistrationState.UNREGISTERED)
        self.assertEqual(d.shown.last_error, "refused the connection.")
        self.assertIn("Next try in 1 s", d.shown.reason)
        d.advance(SECOND)
        # Trying again is no news: the state stays, and with it since when.
        self.assertEqual((d.state, d.shown.since), (RegistrationState.UNREGISTERED, START))
        d.tell("refused", 2, "another remote-url")
        self.assertEqual(d.state, RegistrationState.REJECTED)
        self.assertEqual(d.shown.failure_count, 2)
        d.advance(10 * SECOND)
        d.grant()
        self.assertEqual(d.state, RegistrationState.REGISTERED)
        self.assertEqual((d.shown.failure_count, d.shown.last_error), (0, None))

    def test_the_same_failure_again_is_no_news(self) -> None:
        d = driver()
        d.tell("start")
        levels = []
        for error in ("a", "a", "b", "b"):
            d.tell("failed", d.asked[-1], error)
            levels.append(d.published[-1].level)
            d.advance(60 * SECOND)
        self.assertEqual(levels, ["warn", "debug", "warn", "debug"])

    def test_success_forgets_the_failures(self) -> None:
        d = driver()
        d.tell("start")
        for _ in range(6):
            d.tell("failed", d.asked[-1], "x")
            d.advance(60 * SECOND)
        d.grant()
        d.at += 10 * SETTLED
        d.probe(registered=False)
        d.tell("failed", d.asked[-1], "x")
        self.assertEqual(d.wake_at, d.at + SECOND)

    def test_asked_to_register(self) -> None:
        d = driver()
        d.tell("start")
        for _ in range(8):
            d.tell("refused", d.asked[-1], "x")
            d.advance(LONGEST_WAIT)
        d.tell("refused", d.asked[-1], "x")
        d.at += 10 * SECOND
        before = len(d.asked)
        d.tell("register")
        self.assertEqual(len(d.asked), before + 1)
        d.tell("register")
        self.assertEqual(len(d.asked), before + 1)

    def test_what_someone_asked_for_is_not_dropped(self) -> None:
        d = registered()
        d.tell("register")
        d.tell("refused", 2, "x")
        d.tell("register")
        d.hear(d.machine.registration_id)
        self.assertEqual(d.state, RegistrationState.REGISTERED)
        d.advance(SPACING)
        self.assertEqual(d.asked, [1, 2, 3])

    def test_what_someone_asked_for_is_more_than_a_doubt(self) -> None:
        d = registered(age=GREETING - 1)
        d.status(True)
        d.tell("register")
        d.hear(d.machine.registration_id)
        d.advance(SPACING)
        self.assertEqual(d.asked, [1, 2])
        d.grant()
        # The next one that is only for a doubt is dropped again.
        d.status(True)
        d.hear(d.machine.registration_id)
        d.advance(10 * SECOND)
        self.assertEqual(d.asked, [1, 2])

    def test_a_doubt_ends_with_its_request(self) -> None:
        d = registered(age=GREETING - 1)
        d.status(True)
        d.advance(SPACING)
        d.tell("failed", 2, "x")
        self.assertIsNotNone(d.machine.settled_id)
        d.hear(d.machine.registration_id)
        d.advance(2 * SECOND)
        self.assertEqual(d.asked, [1, 2, 3])

    def test_asked_to_register_twice_within_a_second(self) -> None:
        d = registered()
        d.tell("register")
        d.grant()
        d.tell("register")
        self.assertEqual(d.asked, [1, 2])
        d.advance(SPACING)
        self.assertEqual(d.asked, [1, 2, 3])

    def test_a_failed_renewal_leaves_the_registration(self) -> None:
        d = registered()
        mine = d.machine.registration_id
        d.tell("register")
        d.tell("failed", 2, "timed out")
        self.assertEqual((d.state, d.machine.registration_id), (RegistrationState.REGISTERED, mine))
        self.assertEqual(d.shown.last_error, "timed out")
        d.advance(SECOND)
        self.assertEqual(d.asked, [1, 2, 3])
        self.assertEqual(d.losses, 0)

    def test_a_refused_renewal_ends_it_until_the_gateway_speaks_under_it(self) -> None:
        d = registered()
        mine = d.machine.registration_id
        d.tell("register")
        d.tell("refused", 2, "no")
        self.assertEqual(d.state, RegistrationState.REJECTED)
        self.assertEqual(d.losses, 1)
        d.hear(mine)
        self.assertEqual(d.state, RegistrationState.REGISTERED)
        d.advance(SILENCE - 1)
        self.assertEqual(d.asked, [1, 2])


class SilenceTests(SynchronousTestCase):
    def test_limit_before_the_first_probe(self) -> None:
        d = driver()
        d.tell("start")
        d.grant()
        limit = MISSED_INTERVALS * DEFAULT_INTERVAL + SILENCE_MARGIN
        d.advance(limit - 1)
        self.assertEqual(d.state, RegistrationState.REGISTERED)
        d.advance(1)
        self.assertEqual(d.state, RegistrationState.SILENT)

    def test_the_first_probe_may_come_after_the_longest_interval(self) -> None:
        d = driver()
        d.tell("start")
        d.grant()
        for _ in range(5):
            d.advance(256 * SECOND)
            d.probe(interval=255.0)
        self.assertEqual((d.state, d.asked, d.losses), (RegistrationState.REGISTERED, [1], 0))

    def test_limit_is_learned_from_probes(self) -> None:
        d = registered()
        d.advance(SILENCE - 1)
        self.assertEqual((d.state, d.asked), (RegistrationState.REGISTERED, [1]))
        d.advance(1)
        self.assertEqual((d.state, d.asked, d.losses), (RegistrationState.SILENT, [1, 2], 1))
        self.assertIn(f"{SILENCE // SECOND} s", d.shown.reason)

    def test_unreported_messages_count(self) -> None:
        d = registered()
        d.advance(SILENCE - 1)
        d.heard_at = d.at
        d.advance(SILENCE - 1)
        self.assertEqual(d.asked, [1])
        d.advance(1)
        self.assertEqual(d.asked, [1, 2])

    def test_negative_probing_does_not_shorten_it(self) -> None:
        d = registered()
        d.probe(interval=5.0, failure_count=2)
        d.advance(SILENCE - 1)
        self.assertEqual(d.asked, [1])

    def test_a_steady_probe_shortens_it(self) -> None:
        d = registered()
        d.probe(interval=5.0)
        d.advance(MISSED_INTERVALS * 5 * SECOND + SILENCE_MARGIN)
        self.assertEqual(d.asked, [1, 2])

    def test_nonsense_intervals(self) -> None:
        for interval in (0.0, -3.0, float("nan"), None):
            d = registered()
            d.probe(interval=interval)
            d.advance(SILENCE)
            self.assertEqual(d.asked, [1, 2], interval)
        d = registered()
        d.probe(interval=float("inf"))
        d.advance(2 * 3600 * SECOND + SILENCE_MARGIN)
        self.assertEqual(d.asked, [1, 2])

    def test_registering_ends_it(self) -> None:
        d = registered()
        d.advance(SILENCE)
        d.grant()
        self.assertEqual(d.state, RegistrationState.REGISTERED)

    def test_stays_silent_while_the_gateway_is_away(self) -> None:
        d = registered()
        d.advance(SILENCE)
        d.tell("failed", 2, "timed out")
        d.advance(SECOND)
        d.tell("failed", 3, "timed out")
        self.assertEqual((d.state, d.shown.last_error), (RegistrationState.SILENT, "timed out"))
        self.assertEqual(d.losses, 1)

    def test_speaks_again_under_our_registration(self) -> None:
        d = registered()
        mine = d.machine.registration_id
        d.advance(SILENCE)
        d.tell("failed", 2, "timed out")
        d.probe(mine, failure_count=3)
        self.assertEqual((d.state, d.machine.settled_id), (RegistrationState.REGISTERED, None))
        # The silence and the failed exchanges are one and the same loss.
        self.assertEqual(d.losses, 1)
        d.hear(mine)
        self.assertEqual(d.machine.settled_id, mine)
        d.advance(SILENCE - 1)
        self.assertEqual(d.asked, [1, 2])

    def test_speaks_again_while_the_request_is_under_way(self) -> None:
        d = registered()
        d.advance(SILENCE)
        d.hear(d.machine.registration_id)
        self.assertEqual(d.state, RegistrationState.REGISTERED)
        d.tell("failed", 2, "timed out")
        self.assertEqual(d.state, RegistrationState.REGISTERED)

    def test_speaks_again_under_another(self) -> None:
        d = registered()
        d.advance(SILENCE)
        for _ in range(6):
            d.tell("failed", d.asked[-1], "timed out")
            d.advance(d.wake_at - d.at if d.wake_at else 0)
        d.tell("failed", d.asked[-1], "timed out")
        d.at += 2 * SECOND
        d.hear("other")
        self.assertEqual((d.state, len(d.asked)), (RegistrationState.UNREGISTERED, 9))

    def test_granted_but_never_heard(self) -> None:
        d = driver()
        d.tell("start")
        d.grant()
        times = []
        for _ in range(5):
            assert d.wake_at is not None
            times.append((d.wake_at - d.at) // SECOND)
            d.advance(d.wake_at - d.at)
            self.assertEqual(d.state, RegistrationState.SILENT)
            d.grant()
        self.assertEqual(d.state, RegistrationState.SILENT)
        self.assertIn("source-address", d.shown.reason)
        self.assertEqual(times, [260, 520, 900, 900, 900])
        self.assertEqual(d.losses, 5)
        d.hear(d.machine.registration_id)
        self.assertEqual(d.state, RegistrationState.REGISTERED)


class LostTests(SynchronousTestCase):
    def test_probe_says_unregistered(self) -> None:
        d = registered()
        d.probe(registered=False)
        self.assertEqual((d.asked, d.losses, d.reloads), ([1, 2], 1, []))
        self.assertEqual(d.state, RegistrationState.REGISTERING)
        self.assertIsNone(d.machine.settled_id)

    def test_probe_of_a_former_registration(self) -> None:
        d = registered()
        former = d.machine.registration_id
        d.tell("register")
        d.grant()
        d.probe(former, registered=False)
        d.probe(former, in_service=False)
        d.advance(SILENCE - 1)
        self.assertEqual((d.asked, d.state, d.losses), ([1, 2], RegistrationState.REGISTERED, 0))

    def test_failed_exchanges(self) -> None:
        d = registered()
        d.probe(failure_count=1)
        self.assertEqual((d.losses, d.shown.failure_count), (1, 1))
        self.assertEqual(d.state, RegistrationState.REGISTERED)
        d.probe(failure_count=2)
        self.assertEqual((d.losses, d.shown.failure_count), (1, 2))
        d.probe(failure_count=0)
        self.assertEqual((d.losses, d.shown.failure_count), (1, 0))
        d.probe(failure_count=1)
        d.probe(failure_count=1)
        self.assertEqual(d.losses, 3)

    def test_a_foreign_registration_is_looked_into_once(self) -> None:
        d = registered()
        d.hear("foreign")
        self.assertEqual(d.asked, [1, 2])
        d.grant()
        d.at += 10 * SECOND
        d.hear("foreign")
        d.probe("foreign")
        self.assertEqual((d.asked, d.losses), ([1, 2], 0))

    def test_a_probe_for_a_foreign_registration(self) -> None:
        d = registered()
        d.probe("foreign")
        self.assertEqual(d.asked, [1, 2])

    def test_calls_of_a_former_registration_go_on(self) -> None:
        d = registered()
        former = d.machine.registration_id
        d.tell("register")
        d.grant()
        for _ in range(50):
            d.at += SECOND
            d.hear(former)
        self.assertEqual(d.asked, [1, 2])

    def test_the_id_being_granted_is_not_foreign(self) -> None:
        d = driver()
        d.tell("start")
        d.hear("new")
        d.grant("new")
        d.at += SECOND
        d.probe("new", interval=5.0)
        self.assertEqual(d.machine.settled_id, "new")
        d.advance(MISSED_INTERVALS * 5 * SECOND + SILENCE_MARGIN)
        self.assertEqual(d.asked, [1, 2])

    def test_the_id_being_granted_instead_of_another_is_not_foreign(self) -> None:
        d = registered()
        d.tell("register")
        d.hear("new")
        d.grant("new")
        d.advance(10 * SECOND)
        self.assertEqual((d.asked, d.losses), ([1, 2], 0))

    def test_an_id_taken_for_foreign_before_it_was_granted(self) -> None:
        d = registered()
        d.hear("late")
        d.grant("late")
        d.probe("late", registered=False)
        self.assertEqual(d.state, RegistrationState.REGISTERING)

    def test_many_foreign_ids_do_not_hammer(self) -> None:
        d = registered()
        for number in range(600):
            d.hear(f"foreign:{number}")
            if len(d.asked) > d.grants:
                d.grant()
            d.advance(SECOND)
        # 1, 2, 4, ... 60 s apart
        self.assertLess(len(d.asked), 18)
        self.assertGreater(len(d.asked), 8)
        self.assertLess(len(d.published), 40)


class ProviderTests(SynchronousTestCase):
    def test_restart(self) -> None:
        d = registered()
        d.status(True, restarted=True)
        self.assertEqual((d.asked, d.reloads, d.losses), ([1, 2], [d.at], 1))
        self.assertIn("restarted; registering", d.shown.reason)
        d.grant()
        self.assertEqual(d.state, RegistrationState.REGISTERED)

    def test_in_service_after_a_goodbye_that_was_lost(self) -> None:
        d = registered()
        d.status(True)
        self.assertEqual((d.asked, d.reloads, d.losses), ([1, 2], [], 1))
        self.assertIn("live on", d.shown.reason)
        d.grant()
        self.assertEqual((d.state, d.reloads), (RegistrationState.REGISTERED, []))

    def test_restart_after_a_goodbye(self) -> None:
        for back in (True, False):
            d = registered()
            d.status(False)
            d.at += 5 * SECOND
            d.status(back, restarted=True)
            self.assertEqual((d.reloads, d.losses), ([d.at], 1))
            self.assertEqual(d.asked, [1, 2] if back else [1])

    def test_in_service_after_silence(self) -> None:
        for restarted in (False, True):
            d = registered()
            d.advance(SILENCE)
            d.tell("failed", 2, "timed out")
            d.at += 60 * SECOND
            d.status(True, restarted)
            self.assertEqual((d.reloads, d.losses), ([d.at] if restarted else [], 1))
            self.assertEqual(d.asked, [1, 2, 3])

    def test_in_service_while_a_request_is_under_way(self) -> None:
        for restarted in (False, True):
            d = registered()
            d.advance(SILENCE + GREETING)
            d.status(True, restarted)
            self.assertEqual((d.asked, d.reloads), ([1, 2], [d.at] if restarted else []))
            d.grant()
            d.advance(SPACING)
            self.assertEqual(d.asked, [1, 2, 3])

    def test_a_restart_is_no_greeting(self) -> None:
        d = registered(age=GREETING - 1)
        d.status(True, restarted=True)
        self.assertEqual((d.reloads, d.losses, d.state), ([d.at], 1, RegistrationState.REGISTERING))
        d.advance(SPACING)
        self.assertEqual(d.asked, [1, 2])

    def test_restarts_of_a_stopped_cube_do_not_matter(self) -> None:
        d = driver()
        d.status(True, restarted=True)
        self.assertEqual((d.reloads, d.asked), ([], []))

    def test_shut_and_opened_by_hand(self) -> None:
        for goodbye in (("told_to_unregister", None), ("provider_status", False, False)):
            d = registered()
            d.tell(*goodbye)
            self.assertEqual((d.state, d.losses), (RegistrationState.UNREGISTERED, 1))
            self.assertIn("no shutdown", d.shown.reason)
            self.assertEqual(d.asked, [1])
            d.at += 5 * SECOND
            d.status(True)
            self.assertEqual((d.asked, d.reloads), ([1, 2], []))
            d.grant()
            self.assertEqual((d.state, d.losses), (RegistrationState.REGISTERED, 1))

    def test_both_goodbyes_are_one(self) -> None:
        d = registered()
        d.tell("told_to_unregister", d.machine.registration_id)
        count = len(d.published)
        d.status(False)
        self.assertEqual((len(d.published), d.losses), (count, 1))

    def test_goodbye_to_a_former_registration(self) -> None:
        d = registered()
        former = d.machine.registration_id
        d.tell("register")
        d.grant()
        d.tell("told_to_unregister", former)
        self.assertEqual(d.state, RegistrationState.REGISTERED)

    def test_delays_grow_while_the_provider_stays_shut(self) -> None:
        d = driver()
        d.tell("start")
        for delay in (30, 60, 120, 240, 300, 300):
            d.grant(in_service=False)
            self.assertEqual(d.wake_at, d.at + delay * SECOND)
            d.advance(delay * SECOND)

    def test_in_service_may_get_lost(self) -> None:
        d = registered()
        d.status(False)
        d.advance(WHILE_SHUT.first)
        self.assertEqual(d.asked, [1, 2])
        d.tell("refused", 2, "provider is down")
        # A Fault is what a provider that is shut down answers.
        self.assertEqual(d.state, RegistrationState.UNREGISTERED)
        d.advance(WHILE_SHUT.first * 2)
        d.grant()
        self.assertEqual(d.state, RegistrationState.REGISTERED)

    def test_probe_tells_of_the_provider(self) -> None:
        d = registered()
        d.probe(in_service=False)
        self.assertEqual(d.state, RegistrationState.UNREGISTERED)
        d.at += 5 * SECOND
        d.probe(in_service=True)
        self.assertEqual(d.asked, [1, 2])

    def test_in_service_soon_after_registering(self) -> None:
        d = registered(age=GREETING)
        d.status(True)
        self.assertEqual((d.state, d.losses), (RegistrationState.REGISTERING, 1))
        d.advance(SPACING)
        self.assertEqual(d.asked, [1, 2])

    def test_greeting(self) -> None:
        d = registered(age=GREETING - 1)
        d.status(True)
        self.assertEqual((d.reloads, d.asked, d.losses), ([], [1], 0))
        self.assertEqual((d.state, d.machine.settled_id), (RegistrationState.REGISTERED, None))
        d.advance(SPACING)
        self.assertEqual(d.asked, [1, 2])

    def test_greeting_from_a_gateway_that_goes_on_speaking(self) -> None:
        d = registered(age=GREETING - 1)
        mine = d.machine.registration_id
        d.status(True)
        d.hear(mine)
        self.assertEqual(d.machine.settled_id, mine)
        d.advance(10 * SECOND)
        self.assertEqual(d.asked, [1])

    def test_greeting_to_a_renewal(self) -> None:
        d = registered()
        d.tell("register")
        d.status(True)
        d.grant()
        d.advance(SPACING)
        self.assertEqual((d.reloads, d.asked), ([], [1, 2, 3]))

    def greeted(self, seconds: int, after: Micros, early: bool = False) -> Driver:
        """A gateway that says IN_SERVICE `after` it was asked to register us, time and again."""
        d = driver()
        d.tell("start")
        step = SECOND // 10
        greet_at: Micros | None = None
        for _ in range(seconds * SECOND // step):
            if greet_at is None and len(d.asked) > d.grants:
                greet_at = d.at + after
                if not early:
                    d.grant()
            elif greet_at is not None and d.at >= greet_at:
                greet_at = None
                d.status(True)
                if early:
                    d.grant()
            d.advance(step)
        return d

    def test_a_gateway_that_greets_whoever_registers(self) -> None:
        for early in (False, True):
            d = self.greeted(600, SECOND // 10, early)
            # 1, 2, 4, ... 60 s apart
            self.assertLessEqual(len(d.asked), 18)
            self.assertEqual((d.state, d.reloads), (RegistrationState.REGISTERED, []))

    def test_a_gateway_that_greets_late(self) -> None:
        d = self.greeted(600, 2 * SECOND)
        self.assertEqual(sum("live on" in told.registration.reason for told in d.published), RETURNS)
        self.assertEqual(d.reloads, [])
        self.assertLessEqual(len(d.asked), 20)

    def test_in_service_in_an_earlier_runs_registration(self) -> None:
        d = driver()
        d.machine.restore(
            Registration(cube="hq", state=RegistrationState.REGISTERED, since=START, registration_id="old")
        )
        d.tell("start")
        d.hear("old")
        d.tell("failed", 1, "x")
        d.status(True)
        self.assertEqual((d.state, d.reloads), (RegistrationState.REGISTERED, []))
        d.advance(SPACING)
        self.assertEqual(d.asked, [1, 2])

    def test_in_service_while_a_request_fails(self) -> None:
        for result in ("failed", "refused"):
            d = driver()
            d.tell("start")
            for _ in range(9):
                d.tell(result, d.asked[-1], "x")
                d.advance(LONGEST_WAIT)
            d.status(True)
            d.tell(result, d.asked[-1], "x")
            self.assertEqual(len(d.asked), 11)

    def test_in_service_ends_a_long_wait(self) -> None:
        d = driver()
        d.tell("start")
        for _ in range(9):
            d.tell("refused", d.asked[-1], "x")
            d.advance(LONGEST_WAIT)
        d.tell("refused", d.asked[-1], "x")
        d.at += 10 * SECOND
        d.status(True)
        self.assertEqual((len(d.asked), d.state), (11, RegistrationState.REGISTERING))
        # and the delays begin anew
        d.tell("refused", d.asked[-1], "x")
        self.assertEqual(d.wake_at, d.at + AFTER_FAULT.first)

    def test_an_unknown_status_is_just_a_message(self) -> None:
        d = registered()
        d.status(None)
        self.assertEqual((d.asked, d.state), ([1], RegistrationState.REGISTERED))


class BeganAgainTests(SynchronousTestCase):
    """Whether two transaction ids have a restart between them."""

    def test_time_and_count_went_back(self) -> None:
        for before, now in (
            ("D388222:325", "2A3B:1"),
            ("D388222:325", "2a3b:9"),
            ("546CF8:25", "546CF8:2"),
            ("546CF8:25", "4CA5E4:25"),
            ("FFFFFFFF:1A", "0:1"),
        ):
            self.assertTrue(began_again(before, now), (before, now))

    def test_one_went_on(self) -> None:
        for before, now in (
            # the captured ones
            ("546CF8:25", "D388222:325"),
            # the time wrapped
            ("FFFFFFF0:325", "12:326"),
            # the count wrapped, or is another one
            ("546CF8:65535", "546CF9:1"),
            ("546CF8:99", "546CF8:100"),
            # said twice
            ("546CF8:25", "546CF8:25"),
        ):
            self.assertFalse(began_again(before, now), (before, now))

    def test_nothing_is_proved_by_ids_of_another_form(self) -> None:
        for other in (None, "", "25", "1", ":", "x:1", "1:y", "1:2:3", "4CA5E4:XCC:myapp:1", "1:" + "9" * 99):
            self.assertFalse(began_again("546CF8:25", other), other)
            self.assertFalse(began_again(other, "1:1"), other)


class StopTests(SynchronousTestCase):
    def test_registered(self) -> None:
        d = registered()
        mine = d.machine.registration_id
        d.tell("stop", False)
        self.assertEqual((d.unregistered, d.state), ([mine], RegistrationState.UNREGISTERED))
        self.assertIsNone(d.wake_at)
        self.assertIsNone(d.machine.registration_id)
        self.assertEqual(d.losses, 0)

    def test_disabled(self) -> None:
        d = registered()
        d.tell("stop", True)
        self.assertEqual(d.state, RegistrationState.DISABLED)
        d.tell("start")
        self.assertEqual((d.state, len(d.asked)), (RegistrationState.REGISTERING, 2))

    def test_disabled_from_the_start(self) -> None:
        d = driver()
        d.tell("stop", True)
        self.assertEqual((d.state, d.asked, d.wake_at), (RegistrationState.DISABLED, [], None))

    def test_trouble_is_left_to_the_next_run(self) -> None:
        for result in ("failed", "refused"):
            d = driver()
            d.tell("start")
            d.tell(result, 1, "x")
            trouble = d.shown
            d.tell("stop", False)
            self.assertEqual((d.unregistered, d.wake_at, d.shown), ([], None, trouble))
            d.tell("stop", True)
            self.assertEqual((d.state, d.shown.last_error), (RegistrationState.DISABLED, None))

    def test_an_answer_that_comes_too_late_is_undone(self) -> None:
        d = driver()
        d.tell("start")
        d.tell("stop", False)
        d.grant("late")
        self.assertEqual((d.unregistered, d.state), (["late"], RegistrationState.UNREGISTERED))

    def test_both_are_undone_when_stopped_while_renewing(self) -> None:
        d = registered()
        mine = d.machine.registration_id
        d.tell("register")
        d.tell("stop", False)
        d.grant("late")
        self.assertEqual(d.unregistered, [mine, "late"])

    def test_started_again_while_the_old_request_is_under_way(self) -> None:
        d = driver()
        d.tell("start")
        d.tell("stop", False)
        d.tell("start")
        self.assertEqual(d.asked, [1])
        d.grant()
        self.assertEqual((d.state, d.unregistered), (RegistrationState.REGISTERED, []))

    def test_nothing_moves_a_stopped_machine(self) -> None:
        d = registered()
        d.tell("stop", False)
        d.probe("x", registered=False)
        d.hear("x")
        d.status(True)
        d.status(False)
        d.tell("told_to_unregister", "x")
        d.tell("register")
        d.tell("woken", d.at)
        self.assertEqual((d.asked, d.wake_at, d.state), ([1], None, RegistrationState.UNREGISTERED))


class RestoreTests(SynchronousTestCase):
    def restored(self, state: RegistrationState, **more: Any) -> Driver:
        d = driver()
        d.machine.restore(Registration(cube="hq", state=state, since=START - 99 * SECOND, **more))
        d.tell("start")
        self.assertEqual(d.asked, [1])
        return d

    def test_trouble_goes_on(self) -> None:
        d = self.restored(RegistrationState.REJECTED, failure_count=7, last_error="x")
        self.assertEqual(d.published, [])
        d.tell("refused", 1, "x")
        self.assertEqual(d.shown.since, START - 99 * SECOND)
        self.assertEqual(d.shown.failure_count, 8)
        self.assertEqual(d.published[-1].level, "debug")
        self.assertEqual(d.wake_at, START + AFTER_FAULT.first)

    def test_a_crash_while_registered_may_have_lost_something(self) -> None:
        d = self.restored(RegistrationState.REGISTERED, registration_id="old")
        self.assertEqual((d.state, d.losses), (RegistrationState.REGISTERING, 1))
        d.hear("old")
        self.assertEqual(d.state, RegistrationState.REGISTERED)
        d.tell("failed", 1, "timed out")
        self.assertEqual(d.state, RegistrationState.REGISTERED)
        d.advance(2 * SECOND)
        self.assertEqual(d.asked, [1, 2])

    def test_a_registration_of_an_earlier_run_is_renewed_all_the_same(self) -> None:
        d = self.restored(RegistrationState.REGISTERED, registration_id="old")
        d.tell("failed", 1, "timed out")
        self.assertEqual(d.state, RegistrationState.UNREGISTERED)
        d.hear("old")
        self.assertEqual((d.state, d.asked), (RegistrationState.REGISTERED, [1]))
        d.advance(SECOND)
        self.assertEqual(d.asked, [1, 2])

    def test_nothing_is_known_of_restarts_meanwhile(self) -> None:
        d = self.restored(RegistrationState.REGISTERED, registration_id="old")
        d.status(True)
        self.assertEqual(d.reloads, [])

    def test_one_that_was_handed_over_lost_nothing(self) -> None:
        d = registered()
        name = d.shown.registration_id
        d.tell("hand_over")
        self.assertEqual((d.state, d.wake_at), (RegistrationState.REGISTERED, None))
        self.assertEqual((d.shown.registration_id, d.shown.reason), (name, HANDED_OVER))
        then = driver()
        then.machine.restore(d.shown)
        then.at = d.at + SECOND
        then.tell("start")
        self.assertEqual((then.state, then.losses), (RegistrationState.REGISTERING, 0))
        then.hear(name)
        self.assertEqual(then.state, RegistrationState.REGISTERED)

    def test_one_that_was_handed_over_to_nobody_for_long_lost_something(self) -> None:
        for away, losses in ((HANDED_OVER_FOR, 0), (HANDED_OVER_FOR + SECOND, 1), (-3600 * SECOND, 0)):
            d = registered()
            d.tell("hand_over")
            then = driver()
            then.machine.restore(d.shown)
            then.at = d.at + away
            then.tell("start")
            self.assertEqual((then.losses, then.asked), (losses, [1]))

    def test_after_a_clean_stop(self) -> None:
        d = self.restored(RegistrationState.UNREGISTERED)
        self.assertEqual((d.state, d.shown.since, d.losses), (RegistrationState.REGISTERING, START, 0))


class ClockTests(SynchronousTestCase):
    def test_set_back(self) -> None:
        d = driver()
        d.tell("start")
        d.tell("failed", 1, "x")
        d.at -= 3600 * SECOND
        d.hear(None)
        assert d.wake_at is not None
        self.assertLessEqual(d.wake_at, d.at + LONGEST_WAIT)

    def test_set_back_before_someone_asks(self) -> None:
        d = registered()
        d.tell("register")
        d.grant()
        d.at -= 3600 * SECOND
        d.tell("register")
        d.advance(SPACING)
        self.assertEqual(d.asked, [1, 2, 3])

    def test_set_back_while_registered(self) -> None:
        d = registered()
        d.at -= 3600 * SECOND
        d.probe()
        d.advance(SILENCE)
        self.assertEqual(d.state, RegistrationState.SILENT)


class ShownTextTests(SynchronousTestCase):
    def test_received_text_is_escaped(self) -> None:
        d = registered()
        d.hear("evil\n\x1b[2J" + "x" * 5000)
        self.assertNotIn("\n", d.shown.reason)
        self.assertNotIn("\x1b", d.shown.reason)
        self.assertLess(len(d.shown.reason), 600)


IDS = st.sampled_from(["a", "b", "c", "4CA5E4:XCC:cubehook:1", "4CA5E4:XCC:cubehook:2"])


class AnySequence(RuleBasedStateMachine):
    """
    Whatever comes: no exception, never two requests under way nor too close, never forgotten.

    Requests get one result each, late or soon; everything else comes as it likes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.driver = driver(lambda: 0.5)
        self.done = 0
        self.running = False
        self.request_times: list[Micros] = []

    @initialize(state=st.sampled_from(RegistrationState), name=st.none() | IDS, restore=st.booleans())
    def restored(self, state: RegistrationState, name: str | None, restore: bool) -> None:
        if restore:
            self.driver.machine.restore(
                Registration(cube="hq", state=state, since=START - SECOND, registration_id=name)
            )
        self.start()

    def tell(self, name: str, *args: Any, **kwargs: Any) -> None:
        before = len(self.driver.asked)
        self.driver.tell(name, *args, **kwargs)
        self.note_requests(before)

    def note_requests(self, before: int) -> None:
        new = len(self.driver.asked) - before
        assert new <= 1, "two requests at once"
        if new:
            if self.request_times:
                assert self.driver.at - self.request_times[-1] >= SPACING, "requests too close"
            self.request_times.append(self.driver.at)

    @property
    def under_way(self) -> bool:
        return self.done < len(self.driver.asked)

    @rule()
    def start(self) -> None:
        self.running = True
        self.tell("start")

    @rule(disabled=st.booleans())
    def stop(self, disabled: bool) -> None:
        self.running = False
        self.tell("stop", disabled)

    @rule()
    def register(self) -> None:
        self.tell("register")

    @precondition(lambda self: self.under_way)
    @rule(name=IDS, in_service=st.booleans())
    def granted(self, name: str, in_service: bool) -> None:
        self.done += 1
        self.tell("answered", self.done, name, in_service)

    @precondition(lambda self: self.under_way)
    @rule(how=st.sampled_from(["refused", "failed"]))
    def not_granted(self, how: str) -> None:
        self.done += 1
        self.tell(how, self.done, "words")

    @rule(generation=st.integers(-1, 9), how=st.sampled_from(["refused", "failed"]))
    def stray_result(self, generation: int, how: str) -> None:
        if not (self.under_way and generation == self.done + 1):
            self.tell(how, generation, "words")

    @rule(name=st.none() | IDS | st.text(max_size=3))
    def heard(self, name: str | None) -> None:
        self.driver.heard_at = self.driver.at
        if name is None or name != self.driver.machine.settled_id:
            self.tell("heard", name)

    @rule(
        name=st.none() | IDS,
        interval=st.none() | st.floats(),
        failure_count=st.none() | st.integers(-1, 5),
        registered=st.none() | st.booleans(),
        in_service=st.none() | st.booleans(),
    )
    def probed(self, name: str | None, **told: Any) -> None:
        self.driver.heard_at = self.driver.at
        self.tell("probed", name, **told)

    @rule(in_service=st.none() | st.booleans(), restarted=st.booleans())
    def provider_status(self, in_service: bool | None, restarted: bool) -> None:
        reloads = len(self.driver.reloads)
        self.tell("provider_status", in_service, restarted)
        assert len(self.driver.reloads) - reloads == (restarted and self.running), "a restart is told once"

    @rule(name=st.none() | IDS)
    def told_to_unregister(self, name: str | None) -> None:
        self.tell("told_to_unregister", name)

    @rule(duration=st.integers(0, 10**10) | st.integers(0, 3 * SECOND))
    def time_passes(self, duration: Micros) -> None:
        end = self.driver.at + duration
        driver = self.driver
        while driver.wake_at is not None and driver.wake_at <= end:
            driver.at = max(driver.at, driver.wake_at)
            driver.wake_at = None
            self.tell("woken", driver.heard_at)
        driver.at = end

    @rule()
    def woken_for_nothing(self) -> None:
        self.tell("woken", self.driver.heard_at)

    @invariant()
    def never_two_under_way(self) -> None:
        assert len(self.driver.asked) - self.done in (0, 1)
        assert self.driver.asked == list(range(1, len(self.driver.asked) + 1))

    @invariant()
    def never_forgotten(self) -> None:
        driver = self.driver
        assert driver.machine.running == self.running
        if not self.running:
            assert driver.wake_at is None
        elif not self.under_way:
            assert driver.wake_at is not None
            longest = max(MISSED_INTERVALS * 3600 * SECOND + SILENCE_MARGIN, LONGEST_WAIT)
            assert driver.wake_at <= driver.at + longest

    @invariant()
    def shown_as_it_is(self) -> None:
        driver = self.driver
        if driver.machine.settled_id is not None:
            assert driver.state is RegistrationState.REGISTERED
            assert driver.machine.settled_id == driver.machine.registration_id
        if driver.published and not self.running:
            assert driver.state not in (RegistrationState.REGISTERED, RegistrationState.REGISTERING)
        if driver.published:
            assert driver.shown.reason
            assert driver.shown.since <= driver.at


class AnySequenceTests(SynchronousTestCase):
    def test_any_sequence(self) -> None:
        run_state_machine_as_test(AnySequence, settings=settings(max_examples=150, stateful_step_count=40))


class RetryDelayTests(SynchronousTestCase):
    @settings(max_examples=50)
    @given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
    def test_bounds(self, failures: int, random: float) -> None:
        for delays in (AFTER_FAILURE, AFTER_FAULT, WHILE_SHUT):
            delay = delays.after(failures, random)
            self.assertGreaterEqual(delay, int(delays.first * 0.8))
            self.assertLessEqual(delay, int(delays.most * 1.2))


class ClockSetTests(SynchronousTestCase):
    """Whoever sets the clock: no gateway was silent for that long, and none is waited for that long."""

    def set_clock(self, made: Driver, by: Micros) -> None:
        made.at += by
        if made.heard_at is not None:
            made.heard_at = past_after_step(made.heard_at, by, made.at)
        made.tell("clock_set", by)

    def test_a_registered_cube_stays_registered_and_is_silent_when_it_would_have_been(self) -> None:
        for by in (-86400 * SECOND, -3600 * SECOND, 3600 * SECOND, 86400 * SECOND):
            made = registered()
            limit = MISSED_INTERVALS * 30 * SECOND + SILENCE_MARGIN
            made.advance(10 * SECOND)
            self.set_clock(made, by)
            made.advance(limit - 11 * SECOND)
            self.assertEqual((made.state, made.losses), (RegistrationState.REGISTERED, 0))
            # Set back, it counts from then.
            made.advance(12 * SECOND)
            self.assertNotEqual(made.state, RegistrationState.REGISTERED)

    def test_a_gateway_heard_between_the_step_and_its_being_noticed_is_not_silent(self) -> None:
        for by in (-86400 * SECOND, 86400 * SECOND):
            made = registered()
            made.at += by
            made.probe()
            self.set_clock(made, 0)
            made.tell("clock_set", by)
            made.advance(MISSED_INTERVALS * 30 * SECOND)
            self.assertEqual((made.state, made.losses), (RegistrationState.REGISTERED, 0))
            made.advance(SILENCE_MARGIN + SECOND)
            self.assertNotEqual(made.state, RegistrationState.REGISTERED)

    def test_a_retry_comes_as_soon_as_it_would_have_or_sooner(self) -> None:
        for by in (-86400 * SECOND, -3600 * SECOND, 3600 * SECOND, 86400 * SECOND):
            made = driver()
            made.tell("start")
            made.tell("failed", made.asked[-1], "no route")
            assert made.wake_at is not None
            wait = made.wake_at - made.at
            self.set_clock(made, by)
            made.advance(wait - 1)
            self.assertEqual(len(made.asked), 1 if by < 0 else 2)
            made.advance(1)
            self.assertEqual(len(made.asked), 2)
