"""
One cube's registration: when to register, when to doubt it, what to say of it.  Pure.

`RegistrationMachine` is told what happened and when, and answers with commands; `cubehook.xcc.registrar`
carries them out.  Nothing here does I/O, reads a clock or draws a random number of its own.

What a gateway's signs mean:

=====================================  ============================================================
sign                                   taken for
=====================================  ============================================================
a provider status whose transaction    the gateway restarted: calls it told of before are gone
id shows that it counts from anew      (`Reloaded`); see `began_again`.
IN_SERVICE otherwise                   the provider was shut and opened again by hand, whether or
                                       not we were told goodbye.  Calls lived on, what happened to
                                       them meanwhile was not told.
IN_SERVICE as if in answer to our      a greeting to whoever registers.  Register once more, to be
request, or time and again soon        sure, unless it goes on speaking under our registration.
after registering us
a probe with `registered` false        the gateway dropped us, its messages having failed.  The calls
                                       live on.
silence                                the network or the gateway is away.  The calls may live on.
=====================================  ============================================================

A live call is never given up on a guess: a restart that went unnoticed shows in reused callIDs and
in calls that are never heard of again, which is the tracker's matter.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import msgspec
from automat import TypeMachineBuilder, pep614

from cubehook.events import Micros
from cubehook.records import Registration, RegistrationState
from cubehook.steady import future_after_step, past_after_step
from cubehook.text import printable

HANDED_OVER = "cubehook is restarted, and its port stays open meanwhile."
"""Why a registration stands that nobody answers for; the next run knows by it that nothing need be lost."""

SECOND: Micros = 1_000_000

HANDED_OVER_FOR: Micros = 10 * SECOND
"""How long a gateway waits for an answer, unless its `response-timeout` says otherwise."""

SPACING: Micros = 1 * SECOND
"""The least time between two requests, whatever the reason for the second."""

SETTLED: Micros = 30 * SECOND
"""A registration called into question sooner than this after it was granted counts as flapping."""

FLAP_LIMIT: Micros = 60 * SECOND
"""The most that flapping spaces requests apart."""

GREETING: Micros = SECOND // 2
"""IN_SERVICE so soon after we asked to be registered, or were, is a reaction to that."""

RETURNS = 5
"""How many times in a row IN_SERVICE is taken at its word before a registration has settled."""

JITTER = 0.2
"""The share by which a retry's delay may be shorter or longer."""

DEFAULT_INTERVAL: Micros = 120 * SECOND
"""The keepalive interval assumed before a probe tells it: the API guide's default."""

MAX_INTERVAL: Micros = 3600 * SECOND
"""Longer intervals in probes are taken for this; routers allow up to 255 s."""

MISSED_INTERVALS = 2
SILENCE_MARGIN: Micros = 20 * SECOND
"""With it, the first probe of a router with the longest interval that it allows, 255 s, is waited for."""
MAX_UNHEARD_SILENCE: Micros = 900 * SECOND

_KNOWN_IDS = 8


class RetryDelays(msgspec.Struct, frozen=True):
    """Doubling delays: `first` after the first failure, never more than `most`."""

    first: Micros
    most: Micros

    def after(self, failures: int, random: float) -> Micros:
        """The delay after so many failures in a row; `random` is in [0, 1)."""
        delay = min(self.most, self.first << min(failures - 1, 20))
        return int(delay * (1 - JITTER + 2 * JITTER * random))


AFTER_FAILURE = RetryDelays(1 * SECOND, 60 * SECOND)
AFTER_FAULT = RetryDelays(2 * SECOND, 300 * SECOND)
WHILE_SHUT = RetryDelays(30 * SECOND, 300 * SECOND)
"""While the provider is shut down its IN_SERVICE is waited for; asking is for when that gets lost."""

LONGEST_WAIT: Micros = int(300 * SECOND * (1 + JITTER))


_TRANSACTION = re.compile("([0-9A-Fa-f]{1,16}):([0-9A-Fa-f]{1,16})")


def began_again(before: str | None, now: str | None) -> bool:
    """
    Whether a gateway restarted between two transaction ids of its own, of which it wrote `now` last.

    Routers write HEX:NUMBER (`546CF8:25`): in all captures a time that fits milliseconds since the
    start, and a count of messages.  Either may wrap (the time does after 49 days), both go back at once
    only after a restart.  Anything else proves nothing.  Registration ids prove nothing either: their
    index may be one that was free, and then only the time is left.
    """
    earlier = _TRANSACTION.fullmatch(before or "")
    later = _TRANSACTION.fullmatch(now or "")
    if earlier is None or later is None or before == now:
        return False
    # A decimal number compares as it should when it is read as a hexadecimal one.
    return all(int(later[part], 16) <= int(earlier[part], 16) for part in (1, 2))


class Register(msgspec.Struct, frozen=True):
    """Send RequestXccRegister now; exactly one result with this `generation` must follow."""

    generation: int


class Unregister(msgspec.Struct, frozen=True):
    """Send RequestXccUnRegister for this registration; its result is of no concern."""

    registration_id: str


class WakeAt(msgspec.Struct, frozen=True):
    """Call `woken` at this time, and at no earlier appointed one; None: not at all."""

    at: Micros | None


class Publish(msgspec.Struct, frozen=True):
    """
    Keep and show how the registration stands (`last_message_at` is for the carrier to fill in).

    `level` is the name of the log level its reason deserves.
    """

    registration: Registration
    level: str


class LossWindow(msgspec.Struct, frozen=True):
    """Notifications may have been lost from some time before `at` on; told once a window."""

    at: Micros


class Reloaded(msgspec.Struct, frozen=True):
    """The gateway restarted: the calls it told of before `at` are gone."""

    at: Micros


Command: TypeAlias = Register | Unregister | WakeAt | Publish | LossWindow | Reloaded

_State = RegistrationState


class _Inputs(Protocol):
    def start(self, at: Micros) -> None:
        """Be registered from now on."""

    def attempt(self, at: Micros) -> None:
        """The time for a request has come."""

    def granted(self, at: Micros, registration_id: str) -> None:
        """The gateway registered us."""

    def granted_shut(self, at: Micros, registration_id: str) -> None:
        """The gateway registered us, but its provider is shut down."""

    def refused(self, at: Micros, error: str) -> None:
        """The gateway answered with a Fault."""

    def failed(self, at: Micros, error: str) -> None:
        """No usable answer came."""

    def confirmed(self, at: Micros) -> None:
        """The gateway used the registration that we hold."""

    def lapsed(self) -> None:
        """The registration may not be relied on any more."""

    def stop(self, at: Micros, state: RegistrationState, reason: str) -> None:
        """Be unregistered from now on."""


@dataclass
class _Core:
    """What the machine knows besides its state."""

    cube: str
    random: Callable[[], float]
    commands: list[Command] = field(default_factory=list)

    # What is shown.
    state: RegistrationState = _State.UNREGISTERED
    since: Micros = 0
    failure_count: int = 0
    last_error: str | None = None
    reason: str = ""

    # The registration: held as long as the gateway may still honour it, live as long as we think it does.
    registration_id: str | None = None
    granted_at: Micros | None = None
    """None for a registration that an earlier run of ours was granted."""
    live: bool = False
    provider_shut: bool = False
    known_ids: deque[str] = field(default_factory=lambda: deque(maxlen=_KNOWN_IDS))
    """Ids of ours that were replaced, and foreign ones that were looked into."""

    # Requests.
    running: bool = False
    generation: int = 0
    under_way: bool = False
    requested_at: Micros | None = None
    next_at: Micros | None = None
    """When the next request may start; None if none is planned."""
    failures: int = 0
    """Failures in a row, for the delays; `failure_count` also counts those of an earlier run."""
    flaps: int = 0
    asked: bool = False
    """Someone asked for the next request."""
    doubted: bool = False
    """The next request is only because of a greeting: any word under our registration makes it needless."""

    # Silence and loss.
    interval: Micros = DEFAULT_INTERVAL
    heard_at: Micros | None = None
    unheard: int = 0
    """Registrations in a row that were granted and then never spoken under."""
    gateway_failures: int = 0
    """The failed exchanges that the last probe told of."""
    losing: bool = False
    """A loss window has been told of and nothing good was heard since."""

    def publish(self, at: Micros, state: RegistrationState, reason: str, level: str = "info") -> None:
        if state is not self.state or not self.since:
            self.state = state
            self.since = at
        self.reason = reason
        registration = Registration(
            cube=self.cube,
            state=state,
            since=self.since,
            registration_id=self.registration_id,
            failure_count=self.failure_count or self.gateway_failures,
            last_error=self.last_error,
            reason=reason,
        )
        self.commands.append(Publish(registration, level))

    def lose(self, at: Micros) -> None:
        """Tell of a loss window, unless one is open already."""
        if not self.losing:
            self.losing = True
            self.commands.append(LossWindow(at))

    def forget(self) -> None:
        """The gateway does not honour the registration that we hold."""
        if self.registration_id is not None:
            self.known_ids.append(self.registration_id)
        self.registration_id = None
        self.granted_at = None

    def hold(self, at: Micros, registration_id: str) -> None:
        if registration_id != self.registration_id:
            self.forget()
        while registration_id in self.known_ids:
            self.known_ids.remove(registration_id)
        self.registration_id = registration_id
        self.granted_at = at
        self.failures = self.failure_count = self.gateway_failures = 0
        self.last_error = None

    def retry(self, at: Micros, delays: RetryDelays) -> str:
        """Plan the next request, unless one is planned already; says when that is."""
        if self.next_at is None:
            self.next_at = max(self.spaced(at), at + delays.after(self.failures, self.random()))
        return f"Next try in {_seconds(self.next_at - at)}."

    def spaced(self, at: Micros) -> Micros:
        """The earliest time from `at` on at which another request is not too much."""
        if self.requested_at is None:
            return at
        spacing = min(FLAP_LIMIT, SPACING << min(max(0, self.flaps - 1), 10))
        return max(at, self.requested_at + spacing)

    def silence_limit(self) -> Micros:
        """How long nothing may be heard before the gateway counts as silent."""
        limit = MISSED_INTERVALS * self.interval + SILENCE_MARGIN
        if self.unheard:
            # Registering does not help, and must not become a habit.
            return max(limit, min(MAX_UNHEARD_SILENCE, limit << min(self.unheard, 10)))
        return limit

    def silent_at(self) -> Micros:
        return max(self.granted_at or 0, self.heard_at or 0) + self.silence_limit()

    def wake_at(self) -> Micros | None:
        if not self.running or self.under_way:
            return None
        if not self.live:
            return self.next_at
        silent_at = self.silent_at()
        return silent_at if self.next_at is None else min(silent_at, self.next_at)


def _build() -> Callable[[_Core], _Inputs]:
    builder = TypeMachineBuilder(_Inputs, _Core)

    stopped = builder.state("stopped")
    leaving = builder.state("leaving")
    """Stopped, with a request still under way."""
    waiting = builder.state("waiting")
    registering = builder.state("registering")
    registered = builder.state("registered")
    renewing = builder.state("renewing")
    """Registered, with a request for another registration under way."""

    @pep614(stopped.upon(_Inputs.start).to(waiting))
    @pep614(leaving.upon(_Inputs.start).to(registering))
    def start(machine: _Inputs, core: _Core, at: Micros) -> None:
        core.running = True
        if not core.under_way:
            core.next_at = core.spaced(at)
        handed_over = core.reason == HANDED_OVER and at - core.since <= HANDED_OVER_FOR
        if core.state is _State.REGISTERED and not handed_over:
            # We went away without a word, or for too long, and the gateway spoke to nobody.
            core.lose(at)
        if not _in_trouble(core):
            core.publish(at, _State.REGISTERING, "Registering with the gateway.")

    @pep614(waiting.upon(_Inputs.attempt).to(registering))
    @pep614(registered.upon(_Inputs.attempt).to(renewing))
    def attempt(machine: _Inputs, core: _Core, at: Micros) -> None:
        core.generation += 1
        core.under_way = True
        core.requested_at = at
        core.next_at = None
        core.asked = core.doubted = False
        core.commands.append(Register(core.generation))

    @pep614(registering.upon(_Inputs.granted).to(registered))
    @pep614(renewing.upon(_Inputs.granted).to(registered))
    def granted(machine: _Inputs, core: _Core, at: Micros, registration_id: str) -> None:
        core.hold(at, registration_id)
        core.provider_shut = core.losing = False
        core.live = True
        if core.unheard:
            core.publish(
                at,
                _State.SILENT,
                "The gateway grants our registration, but nothing came from it under the last one. "
                "Check that it can reach the application URL: its source-address under uc wsapi, the "
                "firewall on the way, `show wsapi http client`.",
                "warn" if core.unheard == 1 else "debug",
            )
        else:
            name = printable(registration_id)
            core.publish(at, _State.REGISTERED, f"The gateway granted registration {name}.")

    @pep614(registering.upon(_Inputs.granted_shut).to(waiting))
    @pep614(renewing.upon(_Inputs.granted_shut).to(waiting))
    def granted_shut(machine: _Inputs, core: _Core, at: Micros, registration_id: str) -> None:
        if core.live:
            core.lose(at)
        failures = core.failures
        core.hold(at, registration_id)
        core.forget()
        core.live = False
        core.provider_shut = True
        core.failures = failures + 1
        core.last_error = "The gateway answered our registration with provider status SHUTDOWN."
        when = core.retry(at, WHILE_SHUT)
        core.publish(
            at,
            _State.UNREGISTERED,
            f"The gateway's provider xcc is shut down: enter `no shutdown` under `provider xcc`. {when}",
            "warn",
        )

    @pep614(registering.upon(_Inputs.refused).to(waiting))
    @pep614(renewing.upon(_Inputs.refused).to(waiting))
    def refused(machine: _Inputs, core: _Core, at: Micros, error: str) -> None:
        if core.live:
            core.lose(at)
        core.live = False
        if core.provider_shut:
            _note_failure(core, at, _State.UNREGISTERED, error, WHILE_SHUT)
        else:
            _note_failure(core, at, _State.REJECTED, error, AFTER_FAULT)

    @pep614(registering.upon(_Inputs.failed).to(waiting))
    def failed(machine: _Inputs, core: _Core, at: Micros, error: str) -> None:
        state = _State.SILENT if core.state is _State.SILENT else _State.UNREGISTERED
        _note_failure(core, at, state, error, WHILE_SHUT if core.provider_shut else AFTER_FAILURE)

    @pep614(renewing.upon(_Inputs.failed).to(registered))
    def renewal_failed(machine: _Inputs, core: _Core, at: Micros, error: str) -> None:
        _note_failure(core, at, core.state, error, AFTER_FAILURE)

    @pep614(waiting.upon(_Inputs.confirmed).to(registered))
    @pep614(registering.upon(_Inputs.confirmed).to(renewing))
    def confirmed(machine: _Inputs, core: _Core, at: Micros) -> None:
        core.live = True
        core.losing = False
        if core.granted_at is not None and not core.asked:
            core.next_at = None
        core.failures = core.failure_count = 0
        core.last_error = None
        name = printable(core.registration_id or "")
        core.publish(at, _State.REGISTERED, f"The gateway speaks under registration {name}, so it stands.")

    @pep614(registered.upon(_Inputs.lapsed).to(waiting))
    @pep614(renewing.upon(_Inputs.lapsed).to(registering))
    def lapsed(machine: _Inputs, core: _Core) -> None:
        core.live = False

    @pep614(registering.upon(_Inputs.stop).to(leaving))
    @pep614(renewing.upon(_Inputs.stop).to(leaving))
    @pep614(registered.upon(_Inputs.stop).to(stopped))
    @pep614(waiting.upon(_Inputs.stop).to(stopped))
    @pep614(stopped.upon(_Inputs.stop).loop())
    @pep614(leaving.upon(_Inputs.stop).loop())
    def stop(machine: _Inputs, core: _Core, at: Micros, state: RegistrationState, reason: str) -> None:
        if core.live and core.registration_id is not None:
            core.commands.append(Unregister(core.registration_id))
        # Trouble that is not over when the service ends is found there by the next run.
        if state is _State.DISABLED or not _in_trouble(core):
            core.forget()
            core.failure_count = core.gateway_failures = 0
            core.last_error = None
            if core.running or core.state is not state:
                core.publish(at, state, reason)
        core.running = core.live = core.provider_shut = core.losing = False
        core.asked = core.doubted = False
        core.next_at = None
        core.failures = core.flaps = core.unheard = 0

    @pep614(leaving.upon(_Inputs.granted).to(stopped))
    @pep614(leaving.upon(_Inputs.granted_shut).to(stopped))
    def granted_too_late(machine: _Inputs, core: _Core, at: Micros, registration_id: str) -> None:
        core.known_ids.append(registration_id)
        core.commands.append(Unregister(registration_id))

    leaving.upon(_Inputs.refused).to(stopped).returns(None)
    leaving.upon(_Inputs.failed).to(stopped).returns(None)

    for state in (waiting, registering, registered, renewing):
        state.upon(_Inputs.start).loop().returns(None)
    for state in (stopped, leaving, registering, renewing):
        state.upon(_Inputs.attempt).loop().returns(None)
    for state in (stopped, leaving, registered, renewing):
        state.upon(_Inputs.confirmed).loop().returns(None)
    for state in (stopped, leaving, waiting, registering):
        state.upon(_Inputs.lapsed).loop().returns(None)

    return builder.build()


_new_machine = _build()


class RegistrationMachine:
    """
    Decides about one cube's registration.

    Every method but `restore` is told the time, returns what is to be done now, in order, and never
    raises for what a gateway sent.  `random` gives numbers in [0, 1).
    """

    def __init__(self, cube: str, random: Callable[[], float]) -> None:
        self._core = _Core(cube, random)
        self._machine = _new_machine(self._core)
        self._wake_at: Micros | None = None

    @property
    def running(self) -> bool:
        """True between `start` and `stop`: a request is under way, or `WakeAt` told of a time."""
        return self._core.running

    @property
    def registration_id(self) -> str | None:
        """The registration that the gateway may honour; None if it honours none."""
        return self._core.registration_id

    @property
    def settled_id(self) -> str | None:
        """While not None, a message about a call with this registration id need not be reported."""
        core = self._core
        if core.live and core.state is _State.REGISTERED and not core.losing and not core.doubted:
            return core.registration_id
        return None

    def restore(self, registration: Registration) -> None:
        """Go on from what an earlier run left; to be called before `start`."""
        core = self._core
        core.state = registration.state
        core.since = registration.since
        core.failure_count = registration.failure_count
        core.last_error = registration.last_error
        core.reason = registration.reason
        core.registration_id = registration.registration_id
        core.losing = registration.state is _State.SILENT

    def start(self, at: Micros) -> list[Command]:
        """Register, and stay registered."""
        self._observe(at)
        self._machine.start(at)
        return self._commands(at)

    def stop(self, at: Micros, disabled: bool, reason: str = "cubehook was stopped.") -> list[Command]:
        """Unregister; `disabled` tells that the cube is, `reason` why else."""
        self._observe(at)
        if disabled:
            self._machine.stop(at, _State.DISABLED, "The cube is disabled.")
        else:
            self._machine.stop(at, _State.UNREGISTERED, reason)
        return self._commands(at)

    def hand_over(self, at: Micros) -> list[Command]:
        """
        Leave a registration that stands to the next run, for which what the gateway says meanwhile is kept.

        To be told only of a machine that holds one and has no request under way; nothing may follow.
        """
        self._observe(at)
        self._core.since = at
        self._core.publish(at, _State.REGISTERED, HANDED_OVER)
        self._core.running = False
        return self._commands(at)

    def register(self, at: Micros) -> list[Command]:
        """Someone asked to register again; one request under way already is enough."""
        self._observe(at)
        core = self._core
        if core.running and not core.under_way:
            # What is planned already is no earlier.
            core.next_at = at if core.requested_at is None else max(at, core.requested_at + SPACING)
            core.asked = True
            core.doubted = False
        return self._commands(at)

    def answered(self, at: Micros, generation: int, registration_id: str, in_service: bool) -> list[Command]:
        """The gateway answered the request `generation` with a registration."""
        if self._result(at, generation):
            if in_service:
                self._machine.granted(at, registration_id)
            else:
                self._machine.granted_shut(at, registration_id)
        return self._commands(at)

    def refused(self, at: Micros, generation: int, error: str) -> list[Command]:
        """The gateway answered the request `generation` with a Fault; `error` is fit to show."""
        if self._result(at, generation):
            self._core.failures += 1
            self._machine.refused(at, error)
        return self._commands(at)

    def failed(self, at: Micros, generation: int, error: str) -> list[Command]:
        """The request `generation` got no usable answer; `error` is fit to show."""
        if self._result(at, generation):
            self._core.failures += 1
            self._machine.failed(at, error)
        return self._commands(at)

    def heard(self, at: Micros, registration_id: str | None) -> list[Command]:
        """A well-formed message came, under this registration id."""
        self._observe(at)
        self._note_heard(at, registration_id)
        return self._commands(at)

    def probed(
        self,
        at: Micros,
        registration_id: str | None,
        *,
        interval: float | None,
        failure_count: int | None,
        registered: bool | None,
        in_service: bool | None,
    ) -> list[Command]:
        """
        SolicitXccProbing came; absent knowledge is None.

        `interval` is in seconds; `failure_count` counts the exchanges that failed since the last good one.
        """
        self._observe(at)
        core = self._core
        # One that still speaks of a registration since replaced says nothing about ours.
        current = registration_id is None or registration_id not in core.known_ids
        if current and interval is not None and interval > 0:
            # Routers write the negative probing's interval while that lasts: usually a shorter one.
            told = min(MAX_INTERVAL, max(SECOND, int(min(interval, 1e6) * SECOND)))
            core.interval = max(core.interval, told) if failure_count else told
        if not current or not core.running:
            self._note_heard(at, registration_id)
        elif in_service is False:
            self._goodbye(at, "A probe says that the gateway's provider xcc is shut down.")
        elif registered is False:
            self._dropped(at)
        else:
            losing = core.losing
            if core.provider_shut and in_service:
                self._back_in_service(at)
            self._note_heard(at, registration_id)
            self._note_exchange_failures(at, max(0, failure_count or 0), losing)
        return self._commands(at)

    def provider_status(self, at: Micros, in_service: bool | None, restarted: bool) -> list[Command]:
        """
        NotifyXccProviderStatus came; None for a status that is neither IN_SERVICE nor SHUTDOWN.

        `restarted`: it proves that the gateway restarted since we heard of it last (`began_again`).
        """
        self._observe(at)
        core = self._core
        if restarted and core.running:
            core.commands.append(Reloaded(at))
        if not core.running or in_service is None:
            self._note_heard(at, None)
        elif in_service:
            self._in_service(at, restarted)
        else:
            self._goodbye(at, "The gateway's provider xcc was shut down.")
        return self._commands(at)

    def told_to_unregister(self, at: Micros, registration_id: str | None) -> list[Command]:
        """SolicitXccProviderUnRegister came."""
        self._observe(at)
        if not self._core.running or registration_id in self._core.known_ids:
            self._note_heard(at, registration_id)
        else:
            self._goodbye(at, "The gateway is shutting its provider xcc down and ended our registration.")
        return self._commands(at)

    def clock_set(self, at: Micros, by: Micros) -> list[Command]:
        """The clock was set by so much, and says `at` now: nobody was silent for that long, nor need wait."""
        core = self._core
        for name in ("granted_at", "requested_at", "heard_at"):
            known = getattr(core, name)
            if known is not None:
                setattr(core, name, past_after_step(known, by, at))
        if core.next_at is not None:
            core.next_at = future_after_step(core.next_at, by)
        return self._commands(at)

    def woken(self, at: Micros, heard_at: Micros | None) -> list[Command]:
        """The appointed time has come; `heard_at` is when the last message came, reported or not."""
        self._observe(at)
        core = self._core
        self._wake_at = None
        if heard_at is not None:
            core.heard_at = min(heard_at, at)
        if core.live and not core.under_way and at >= core.silent_at():
            self._silent(at)
        return self._commands(at)

    def _observe(self, at: Micros) -> None:
        """Keep what was planned within reach when the clock was set back."""
        core = self._core
        if core.requested_at is not None and core.requested_at > at:
            core.requested_at = at
            if core.granted_at is not None:
                core.granted_at = min(core.granted_at, at)
            if core.heard_at is not None:
                core.heard_at = min(core.heard_at, at)
        if core.next_at is not None:
            core.next_at = min(core.next_at, at + LONGEST_WAIT)

    def _commands(self, at: Micros) -> list[Command]:
        core = self._core
        if core.running and not core.under_way and core.next_at is not None and core.next_at <= at:
            self._machine.attempt(at)
        wake_at = core.wake_at()
        if wake_at != self._wake_at:
            self._wake_at = wake_at
            core.commands.append(WakeAt(wake_at))
        commands, core.commands = core.commands, []
        return commands

    def _result(self, at: Micros, generation: int) -> bool:
        self._observe(at)
        core = self._core
        if not core.under_way or generation != core.generation:
            return False
        core.under_way = False
        return True

    def _hasten(self, at: Micros) -> None:
        """Register as soon as is decent; one under way is followed by another."""
        core = self._core
        soon = core.spaced(at)
        core.next_at = soon if core.next_at is None else min(core.next_at, soon)

    def _question(self, at: Micros) -> None:
        """Register again because the registration is in doubt, ever more slowly if that happens at once."""
        core = self._core
        if core.next_at is None:
            core.flaps = core.flaps + 1 if self._age(at) < SETTLED else 0
        self._hasten(at)

    def _note_heard(self, at: Micros, registration_id: str | None) -> None:
        core = self._core
        core.heard_at = at
        if not core.running:
            return
        core.unheard = 0
        foreign = registration_id is not None and registration_id not in core.known_ids
        if foreign and registration_id == core.registration_id:
            foreign = False
            if core.doubted:
                core.doubted = False
                core.next_at = None
            self._machine.confirmed(at)
        if core.live:
            core.losing = False
            if core.state is _State.SILENT:
                core.publish(at, _State.REGISTERED, "The gateway is heard again.")
        elif core.state is _State.SILENT:
            core.publish(at, _State.UNREGISTERED, "The gateway is heard again; registering.")
            self._hasten(at)
        if foreign and registration_id is not None and not core.under_way:
            # With a request under way it may well be the id that is being granted.
            core.known_ids.append(registration_id)
            if core.live and core.next_at is None:
                self._question(at)
                core.publish(
                    at,
                    core.state,
                    f"The gateway speaks under registration {printable(registration_id)}, which is not "
                    f"ours ({printable(core.registration_id or '')}); registering again.",
                    "warn",
                )

    def _note_exchange_failures(self, at: Micros, failure_count: int, losing: bool) -> None:
        core = self._core
        before, core.gateway_failures = core.gateway_failures, failure_count
        if not core.live or failure_count == before == 0:
            return
        if failure_count == 0:
            core.publish(at, core.state, "The gateway's messages reach us again.")
            return
        # One window, if a silence just ended, or if the count goes on growing: nothing good came between.
        core.losing = failure_count > before if before else losing
        core.lose(at)
        core.publish(
            at,
            core.state,
            f"A probe tells of {failure_count} failed exchanges: the gateway could not reach us, or had no "
            "answer in time (`response-timeout`). What it had to tell meanwhile may be lost.",
            "warn",
        )

    def _in_service(self, at: Micros, restarted: bool) -> None:
        core = self._core
        core.heard_at = at
        core.unheard = core.failures = 0
        if core.provider_shut:
            self._back_in_service(at)
            return
        greeting = not restarted and (core.granted_at is None or self._is_greeting(at))
        if greeting and not core.live:
            self._hasten(at)
            if core.state is not _State.REGISTERING:
                core.publish(at, _State.REGISTERING, "The gateway's provider xcc is in service; registering.")
        elif greeting:
            if core.next_at is None:
                core.doubted = True
                self._question(at)
                core.publish(
                    at,
                    core.state,
                    "The gateway's provider xcc came into service as it registered us; registering once "
                    "more, to be sure.",
                )
        else:
            core.lose(at)
            self._question(at)
            core.doubted = False
            core.forget()
            self._machine.lapsed()
            if restarted:
                reason = "The gateway restarted; registering again."
            else:
                reason = (
                    "The gateway's provider xcc came into service anew and nothing shows that the gateway "
                    "restarted, so its calls are taken to live on; registering again."
                )
            core.publish(at, _State.REGISTERING, reason, "warn")

    def _age(self, at: Micros) -> Micros:
        """How long ago we asked for a registration, if that is under way, or else were granted ours."""
        core = self._core
        since = core.requested_at if core.under_way else core.granted_at
        return at - (since or 0)

    def _is_greeting(self, at: Micros) -> bool:
        age = self._age(at)
        return age < GREETING or (age < SETTLED and self._core.flaps >= RETURNS)

    def _back_in_service(self, at: Micros) -> None:
        core = self._core
        core.provider_shut = False
        core.failures = 0
        self._hasten(at)
        core.publish(at, _State.REGISTERING, "The gateway's provider xcc is in service again; registering.")

    def _goodbye(self, at: Micros, reason: str) -> None:
        core = self._core
        core.heard_at = at
        if core.registration_id is not None:
            core.lose(at)
        told = core.provider_shut
        core.provider_shut = True
        core.forget()
        self._machine.lapsed()
        if not told:
            core.failures = 1
            core.next_at = None
            core.retry(at, WHILE_SHUT)
            core.publish(
                at,
                _State.UNREGISTERED,
                f"{reason} Nothing is told of calls until `no shutdown` is entered under `provider xcc`.",
                "warn",
            )

    def _dropped(self, at: Micros) -> None:
        core = self._core
        core.heard_at = at
        core.unheard = 0
        if core.registration_id is None:
            return
        core.lose(at)
        if not core.under_way:
            self._question(at)
        core.forget()
        self._machine.lapsed()
        core.publish(
            at,
            _State.REGISTERING,
            "A probe says that the gateway holds no registration of ours any more, as its messages failed "
            "too often (`message-exchange max-failures`, `probing max-failures`); registering again.",
            "warn",
        )

    def _silent(self, at: Micros) -> None:
        core = self._core
        last = max(core.granted_at or 0, core.heard_at or 0)
        if (core.heard_at or 0) < (core.granted_at or 0):
            core.unheard += 1
        core.lose(at)
        core.next_at = core.spaced(at)
        level = "debug" if core.state is _State.SILENT else "warn"
        self._machine.lapsed()
        core.publish(
            at,
            _State.SILENT,
            f"Nothing came from the gateway for {_seconds(at - last)}, though it should probe us every "
            f"{_seconds(core.interval)}; registering again.",
            level,
        )


def _in_trouble(core: _Core) -> bool:
    """True while the state shown tells of a failure: trying again does not make that go away."""
    if core.state is _State.UNREGISTERED:
        return core.last_error is not None
    return core.state in (_State.REJECTED, _State.SILENT)


def _note_failure(core: _Core, at: Micros, state: RegistrationState, error: str, delays: RetryDelays) -> None:
    """Show a request's failure; loudly only when it is news."""
    news = state is not core.state or error != core.last_error
    core.last_error = error
    core.failure_count += 1
    when = core.retry(at, delays)
    core.publish(at, state, f"{error} {when}", "warn" if news else "debug")


def _seconds(duration: Micros) -> str:
    return f"{max(1, round(duration / SECOND))} s"
