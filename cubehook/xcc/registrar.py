"""
Keeps one cube registered: carries out what `cubehook.xcc.registration` decides.

Requests, one timer, the journal and the log are here; when and why are not.
"""

from __future__ import annotations

import random as random_numbers
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from cubehook.config import Cube
from cubehook.events import Micros
from cubehook.interfaces import IJournal
from cubehook.records import Registration, RegistrationState
from cubehook.steady import past_after_step
from cubehook.xcc import messages as xcc
from cubehook.xcc.client import FaultError, GatewayError
from cubehook.xcc.registration import (
    SECOND,
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

STOP_SECONDS = 2.0
"""How long stopping waits for a gateway."""

Answer = (
    xcc.ResponseXccProbing
    | xcc.ResponseXccProviderUnRegister
    | xcc.ResponseXccConnectionAuthorize
    | xcc.ResponseXccConnectionAddressAnalyze
)

_IN_SERVICE = {"IN_SERVICE": True, "SHUTDOWN": False}


class Client(Protocol):
    """What a registrar needs of `cubehook.xcc.client.GatewayClient`."""

    async def register(self) -> xcc.ResponseXccRegister:
        """Raises `GatewayError`."""

    async def unregister(self, registration_id: str) -> None:
        """Raises `GatewayError`."""


class Registrar:
    """
    Keeps one cube registered between `start` and `stop`, which may follow each other repeatedly.

    `on_result` is told the result of each request to register, a word of a closed set; `on_loss` that
    notifications may have been lost; `on_reload` that the gateway restarted, so that its calls from
    before the given time are gone; `on_change` how the registration stands, each time that is published.
    They must be quick and not raise.
    """

    _log = Logger()

    def __init__(
        self,
        cube: Cube,
        client: Client,
        journal: IJournal,
        reactor: IReactorTime,
        now: Callable[[], Micros],
        *,
        on_result: Callable[[str], None],
        on_loss: Callable[[], None],
        on_reload: Callable[[Micros], None],
        on_change: Callable[[Registration], None] = lambda registration: None,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self._cube = cube
        self._client = client
        self._journal = journal
        self._reactor = reactor
        self._now = now
        self._on_result = on_result
        self._on_loss = on_loss
        self._on_reload = on_reload
        self._on_change = on_change
        self._machine = RegistrationMachine(cube.id, random)
        self._settled_id: str | None = None
        self._last_message_at: Micros | None = None
        self._last_probe_at: Micros | None = None
        self._last_transaction_id: str | None = None
        self._shown = Registration(
            cube=cube.id, state=RegistrationState.UNREGISTERED, since=now(), reason="Not started yet."
        )
        self._commands: deque[Command] = deque()
        self._timer: IDelayedCall | None = None
        self._requests: set[Deferred[None]] = set()
        self._idle: list[Deferred[None]] = []
        self._asked: list[Deferred[None]] = []

    @property
    def registration(self) -> Registration:
        """How the registration stands now."""
        return msgspec.structs.replace(
            self._shown, last_message_at=self._last_message_at, last_probe_at=self._last_probe_at
        )

    @property
    def registered(self) -> bool:
        """True while the gateway has us registered, as far as can be known."""
        return self._shown.state is RegistrationState.REGISTERED

    @property
    def registration_id(self) -> str | None:
        """The id under which the gateway may speak to us; None if it granted none."""
        return self._machine.registration_id

    def restore(self, registration: Registration) -> None:
        """Go on from what an earlier run left in the store; to be called before `start`."""
        self._shown = registration
        self._last_message_at = registration.last_message_at
        self._machine.restore(registration)

    def start(self) -> None:
        """Register and stay registered; a cube that is not enabled is only shown as such."""
        at = self._now()
        if self._cube.enabled:
            self._carry_out(self._machine.start(at))
        else:
            self._carry_out(self._machine.stop(at, disabled=True))

    async def stop(self, *, disabled: bool = False, reason: str = "cubehook was stopped.") -> None:
        """
        Unregister, and let go of every timer and request; takes `STOP_SECONDS` at most.

        `disabled`: because an operator disabled the cube; `reason` tells why else, unless it is disabled.
        """
        disabled = disabled or not self._cube.enabled
        self._carry_out(self._machine.stop(self._now(), disabled=disabled, reason=reason))
        _release(self._asked)
        if not self._requests:
            return
        idle: Deferred[None] = Deferred(self._idle.remove)
        self._idle.append(idle)
        try:
            await idle.addTimeout(STOP_SECONDS, self._reactor)
        except TimeoutError:
            self._log.warn(
                "Cube {cube}: the gateway did not answer the request to unregister within {seconds} s; it "
                "will find out when its probes fail",
                cube=self._cube.id,
                seconds=STOP_SECONDS,
            )
        finally:
            for request in list(self._requests):
                request.cancel()

    async def hand_over(self) -> None:
        """
        Let go of everything, and leave a registration that stands to the next run; otherwise `stop`.

        For when gateways find the port open also while the service is away, and wait.  What was never started
        stands as an earlier run left it.
        """
        if self._requests or (self._machine.running and not self.registered):
            await self.stop()
        elif self._machine.running:
            self._carry_out(self._machine.hand_over(self._now()))
            _release(self._asked)

    async def register(self) -> Registration:
        """
        Register again now, and tell how the registration stands after that.

        A request under way already is taken for this one.  Where there is nothing to do (disabled,
        stopped) it returns at once.
        """
        if self._machine.running:
            result: Deferred[None] = Deferred(self._asked.remove)
            self._asked.append(result)
            self._carry_out(self._machine.register(self._now()))
            await result
        return self.registration

    def clock_set(self, by: Micros) -> None:
        """The clock was set by so much: what is planned comes no later, and no gateway was silent so long."""
        now = self._now()
        if self._last_message_at is not None:
            self._last_message_at = past_after_step(self._last_message_at, by, now)
        self._carry_out(self._machine.clock_set(now, by))

    def heard(self, message: xcc.FromGateway, at: Micros) -> Answer | None:
        """
        Take note of a message that this cube's gateway sent, received at `at`.

        Returns the answer to it; None where an empty one is due.  Cheap while nothing changes.
        """
        self._last_message_at = at
        kind = type(message)
        header = message.msg_header
        before = self._last_transaction_id
        self._last_transaction_id = header.transaction_id or before
        if kind is xcc.NotifyXccConnectionData or kind is xcc.NotifyXccCallData:
            if self._settled_id is None or header.registration_id != self._settled_id:
                self._carry_out(self._machine.heard(at, header.registration_id))
            return None
        if isinstance(message, xcc.SolicitXccProbing):
            self._last_probe_at = at
            self._carry_out(
                self._machine.probed(
                    at,
                    header.registration_id,
                    interval=message.interval_seconds,
                    failure_count=message.failure_count,
                    registered=message.registered,
                    in_service=_IN_SERVICE.get(message.provider_status or ""),
                )
            )
            return xcc.ResponseXccProbing(msg_header=header, sequence=message.sequence)
        if isinstance(message, xcc.NotifyXccProviderStatus):
            in_service = _IN_SERVICE.get(message.provider_status or "")
            restarted = began_again(before, header.transaction_id)
            self._carry_out(self._machine.provider_status(at, in_service, restarted))
            return None
        if isinstance(message, xcc.SolicitXccProviderUnRegister):
            self._carry_out(self._machine.told_to_unregister(at, header.registration_id))
            return xcc.ResponseXccProviderUnRegister(msg_header=header)
        self._carry_out(self._machine.heard(at, header.registration_id))
        # A call waits for these: whatever we were not subscribed to goes on at once.
        if isinstance(message, xcc.SolicitXccConnectionAuthorize):
            return xcc.ResponseXccConnectionAuthorize(msg_header=header, action=xcc.ContinueProcessing())
        if isinstance(message, xcc.SolicitXccConnectionAddressAnalyze):
            return xcc.ResponseXccConnectionAddressAnalyze(msg_header=header, action=xcc.ContinueProcessing())
        return None

    def _carry_out(self, commands: list[Command]) -> None:
        """Carry out in order; a command that gives rise to others at once has them queue behind the rest."""
        self._settled_id = self._machine.settled_id
        self._commands.extend(commands)
        while self._commands:
            self._carry_out_one(self._commands.popleft())

    def _carry_out_one(self, command: Command) -> None:
        match command:
            case Register(generation):
                self._request(self._register(generation))
            case Unregister(registration_id):
                self._request(self._unregister(registration_id))
            case WakeAt(at):
                self._set_timer(at)
            case Publish(registration, level):
                self._publish(registration, level)
            case LossWindow():
                self._on_loss()
            case Reloaded(at):
                self._on_reload(at)

    def _set_timer(self, at: Micros | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            delay = max(0, at - self._now()) / SECOND
            self._timer = self._reactor.callLater(delay, self._wake, at)

    def _wake(self, at: Micros) -> None:
        self._timer = None
        # The timer is right even where the clock was set back meanwhile.
        self._carry_out(self._machine.woken(max(at, self._now()), self._last_message_at))

    def _publish(self, registration: Registration, level: str) -> None:
        self._shown = registration
        self._log.emit(
            LogLevel.levelWithName(level),
            "Cube {cube} is {state}: {reason}",
            cube=registration.cube,
            state=registration.state.value,
            reason=registration.reason,
        )
        _ = self._journal.registration(self.registration).addErrback(self._not_kept)
        self._on_change(registration)

    def _not_kept(self, failure: Failure) -> None:
        self._log.failure("The registration of cube {cube} was not stored", failure, cube=self._cube.id)

    def _request(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        request = Deferred.fromCoroutine(work)
        self._requests.add(request)
        _ = request.addErrback(self._broke).addCallback(self._request_over, request)

    def _broke(self, failure: Failure) -> None:
        self._log.failure("A request to the gateway of cube {cube} broke", failure, cube=self._cube.id)

    def _request_over(self, _: None, request: Deferred[None]) -> None:
        self._requests.discard(request)
        if not self._requests:
            _release(self._idle)

    async def _register(self, generation: int) -> None:
        machine = self._machine
        try:
            answer = await self._client.register()
        except FaultError as error:
            result, commands = error.result, machine.refused(self._now(), generation, str(error))
        except GatewayError as error:
            result, commands = error.result, machine.failed(self._now(), generation, str(error))
        except CancelledError:
            result = "cancelled"
            commands = machine.failed(self._now(), generation, "cubehook did not wait for the answer.")
        except Exception:
            # The machine must hear of every end, or it would wait for this one for ever.
            self._log.failure("Registering with cube {cube} broke", cube=self._cube.id)
            result = "failed"
            words = "The request failed for a fault in cubehook; its log tells."
            commands = machine.failed(self._now(), generation, words)
        else:
            in_service = answer.provider_status != "SHUTDOWN"
            result = "registered" if in_service else "shutdown"
            registration_id = answer.msg_header.registration_id or ""
            commands = machine.answered(self._now(), generation, registration_id, in_service)
        self._on_result(result)
        self._carry_out(commands)
        _release(self._asked)

    async def _unregister(self, registration_id: str) -> None:
        try:
            await self._client.unregister(registration_id)
        except CancelledError:
            return
        except GatewayError as error:
            self._log.info("Cube {cube}: not unregistered: {error}", cube=self._cube.id, error=str(error))


def _release(waiting: list[Deferred[None]]) -> None:
    while waiting:
        waiting.pop().callback(None)
