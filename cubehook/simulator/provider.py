"""
The gateway's XCC provider: who is registered, how the prober judges them, and the answers to requests.

Pure: requests and times come in as arguments, answers go out.  Behaviour is that of the protocol notes,
sections 2 to 4; what those mark as inferred is inferred here too.
"""

from __future__ import annotations

import enum
import re
from typing import Annotated, NamedTuple, Protocol

import msgspec

from cubehook.events import Micros
from cubehook.simulator.wire import FILTER_WORDS
from cubehook.text import printable
from cubehook.xcc import codec, soap
from cubehook.xcc import messages as xcc

PROVIDER = "XCC"

_Interval = Annotated[float, msgspec.Meta(gt=0)]


class Probing(msgspec.Struct, frozen=True, kw_only=True):
    """`message-exchange`, `response-timeout` and `probing` of `uc wsapi`; intervals in seconds."""

    exchange_max_failures: int = 1
    """More failed exchanges than this in a row, and only probes are sent."""
    response_timeout: _Interval = 10.0
    max_failures: int = 3
    """So many failed probes in a row in the negative state, and the registration is dropped."""
    keepalive: _Interval = 120.0
    negative: _Interval = 10.0


class ProberState(enum.StrEnum):
    """What the prober thinks of the application; the names are those of `show wsapi registration all`."""

    STEADY = "STEADY"
    KEEPALIVE = "KEEPALIVE"
    NEGATIVE = "NEGATIVE"
    UNREGISTERED = "UNREGISTERED"


class Prober:
    """
    Judges the application by its answers and says when it must be probed.

    `due` is when the next probe must be sent, None while none is wanted or one is under way.
    """

    def __init__(self, probing: Probing) -> None:
        self._probing = probing
        self.state = ProberState.UNREGISTERED
        self.failures = 0
        """Failed exchanges since the last good one, probes included."""
        self.sequence = 0
        """The number of the last probe; a registration begins anew."""
        self.due: Micros | None = None
        self._failed_probes = 0
        self._under_way = False

    def registered(self, now: Micros) -> None:
        """An application has registered, or has done so again."""
        self.state = ProberState.STEADY
        self.failures = self._failed_probes = self.sequence = 0
        self._under_way = False
        self._wait(now)

    def unregistered(self) -> None:
        """There is nobody to probe any more."""
        self.state = ProberState.UNREGISTERED
        self.due = None
        self._under_way = False

    def probe(self) -> None:
        """A probe is being sent: `sequence` is its number, and nothing is due until `probed`."""
        if self.state is ProberState.STEADY:
            self.state = ProberState.KEEPALIVE
        self.sequence += 1
        self.due = None
        self._under_way = True

    def probed(self, good: bool, now: Micros) -> None:
        """How the probe went; the last of too many failed ones makes the state UNREGISTERED."""
        if not self._under_way:
            # It was sent in the name of an earlier registration.
            return
        self._under_way = False
        if good:
            idle = self.state is ProberState.KEEPALIVE
            self._well(ProberState.KEEPALIVE if idle else ProberState.STEADY, now)
            return
        if self.state is ProberState.NEGATIVE:
            self._failed_probes += 1
            if self._failed_probes >= self._probing.max_failures:
                self.unregistered()
                return
        self._badly(now)
        self._wait(now)

    def exchanged(self, good: bool, now: Micros) -> None:
        """How the exchange of a message that was not a probe went."""
        if self.state is ProberState.UNREGISTERED:
            return
        if good:
            self._well(ProberState.STEADY, now)
        else:
            self._badly(now)

    @property
    def interval(self) -> float:
        """Seconds between probes in the present state."""
        probing = self._probing
        return probing.negative if self.state is ProberState.NEGATIVE else probing.keepalive

    def _well(self, state: ProberState, now: Micros) -> None:
        self.failures = self._failed_probes = 0
        self.state = state
        self._wait(now)

    def _badly(self, now: Micros) -> None:
        self.failures += 1
        if self.state is not ProberState.NEGATIVE and self.failures > self._probing.exchange_max_failures:
            self.state = ProberState.NEGATIVE
            self._wait(now)

    def _wait(self, now: Micros) -> None:
        if not self._under_way:
            self.due = now + int(self.interval * 1e6)


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """An application as the provider knows it."""

    id: str
    name: str
    events: frozenset[str]
    """Its connectionEventsFilter."""
    blocking_timeout: int = 1
    """Seconds a blocked call is held at most."""
    blocking_handle: str = "CONTINUE_PROCESSING"
    """What then happens to it: CONTINUE_PROCESSING or RELEASE."""


class CallControl(Protocol):
    """What the provider needs of the calls in progress; each is False if there is no such call."""

    def release_call(self, call_id: str, cause: int) -> bool:
        """End a call with this cause."""

    def release_connection(self, call_id: str, connection_id: str, cause: int) -> bool:
        """End one leg."""

    def authorize(self, call_id: str, connection_id: str, cause: int | None) -> bool:
        """Let a blocked call go on, or end it with `cause`."""


class Reply(NamedTuple):
    """What answers a request."""

    status: int
    body: bytes
    """A SOAP message."""
    refused: str = ""
    """What was refused and why, in words for a person; empty if nothing was."""


class Provider:
    """
    `provider xcc` of a gateway whose `remote-url` is `remote_url`.

    `in_service` is False after `shutdown`.  Every registration gets an id that no other had, also after
    a reload, when the index in it begins again.
    """

    def __init__(self, remote_url: str, probing: Probing, calls: CallControl, epoch: int) -> None:
        """`epoch` begins the hexadecimal part of registration ids."""
        self._remote_url = remote_url
        self._calls = calls
        self._epoch = epoch
        self._index = 0
        self.in_service = True
        self.registration: Registration | None = None
        self.prober = Prober(probing)

    def forget(self) -> None:
        """Lose the registration without telling anybody; probes go on and say so."""
        self.registration = None

    def unregister(self) -> None:
        """End the registration, if there is one."""
        self.registration = None
        self.prober.unregistered()

    def reload(self) -> None:
        """The gateway restarts: nobody is registered, and indexes begin again."""
        self.unregister()
        self._index = 0
        self.in_service = True

    def answer(self, body: bytes, now: Micros) -> Reply:
        """The answer to a request; faults have status 400 or 500."""
        asked = "a request"
        try:
            message = codec.read(body)
            asked = _asked(message)
            answer = self._answer(message, now)
        except soap.SoapError as error:
            fault = error.fault()
            return Reply(400, codec.write(fault), f"{asked}: {fault.reason}: {printable(str(error))}")
        if not isinstance(answer, xcc.Fault):
            return Reply(200, codec.write(answer))
        return Reply(500, codec.write(answer), f"{asked}: {answer.reason}")

    def _answer(self, request: codec.Message, now: Micros) -> codec.Message:
        if isinstance(request, xcc.RequestXccRegister):
            return self._register(request, now)
        if isinstance(request, xcc.Fault) or not codec.name(request).startswith("Request"):
            raise soap.UnsupportedError(codec.name(request))
        registration = self.registration
        header = request.msg_header
        if registration is None or header.registration_id != registration.id:
            return _refusal(request, "The registration ID is not known")
        match request:
            case xcc.RequestXccUnRegister():
                self.unregister()
                return xcc.ResponseXccUnRegister(header)
            case xcc.RequestXccControlUpdate():
                self.registration = _updated(registration, request)
                return xcc.ResponseXccControlUpdate(header)
            case xcc.RequestXccCallRelease():
                if self._calls.release_call(request.call_id, _cause(request.disc_cause)):
                    return xcc.ResponseXccCallRelease(header)
            case xcc.RequestXccConnectionRelease():
                cause = _cause(request.disc_cause)
                if self._calls.release_connection(request.call_id, request.conn_id, cause):
                    return xcc.ResponseXccConnectionRelease(header)
            case xcc.RequestXccConnectionAuthorizeDone():
                action = request.action
                released_with = _cause(action.disc_cause) if isinstance(action, xcc.Release) else None
                if self._calls.authorize(request.call_id, request.conn_id, released_with):
                    return xcc.ResponseXccConnectionAuthorizeDone(header)
            case _:
                raise soap.UnsupportedError(codec.name(request))
        return _refusal(request, "The call or connection ID is not known")

    def _register(self, request: xcc.RequestXccRegister, now: Micros) -> codec.Message:
        if not self.in_service:
            return _refusal(request, "The provider is shut down")
        if request.application_data.url != self._remote_url:
            return _refusal(request, "The application URL is not configured as remote-url")
        name = _UNSAFE.sub("", request.application_data.name or "") or "app"
        unfiltered = Registration(id="", name=name, events=frozenset())
        registration = _updated(unfiltered, request)
        self._index += 1
        self._epoch += 1
        identifier = f"{self._epoch:X}:{PROVIDER}:{name}:{self._index}"
        self.registration = msgspec.structs.replace(registration, id=identifier)
        self.prober.registered(now)
        header = xcc.MsgHeader(request.msg_header.transaction_id, identifier)
        return xcc.ResponseXccRegister(msg_header=header, provider_status="IN_SERVICE")


_EVENT_WORDS = frozenset({*FILTER_WORDS.values(), "AUTHORIZE_CALL", "ADDRESS_ANALYZE"})
_UNSAFE = re.compile("[^A-Za-z0-9_.-]")
"""What an application's name must not bring into a registration id."""
_HANDLES = frozenset({"CONTINUE_PROCESSING", "RELEASE"})
_NORMAL = 16


def _updated(
    registration: Registration, request: xcc.RequestXccRegister | xcc.RequestXccControlUpdate
) -> Registration:
    """`registration` with what `request` says of filters and blocking; SoapError for a bad value."""
    changes: dict[str, object] = {}
    if request.connection_events_filter is not None:
        events = frozenset(request.connection_events_filter)
        if not events <= _EVENT_WORDS:
            raise soap.InvalidValueError(f"{codec.name(request)}/connectionEventsFilter")
        changes["events"] = events
    if request.blocking_event_timeout_sec is not None:
        changes["blocking_timeout"] = request.blocking_event_timeout_sec
    if request.blocking_timeout_handle is not None:
        if request.blocking_timeout_handle not in _HANDLES:
            raise soap.InvalidValueError(f"{codec.name(request)}/blockingTimeoutHandle")
        changes["blocking_handle"] = request.blocking_timeout_handle
    return msgspec.structs.replace(registration, **changes)


def _cause(cause: int | None) -> int:
    if cause is None:
        return _NORMAL
    if not 1 <= cause <= 188:
        raise soap.InvalidValueError("discCause")
    return cause


def _asked(message: codec.Message) -> str:
    """A request in words."""
    if isinstance(message, xcc.RequestXccRegister):
        application = message.application_data
        name = printable(application.name or "an application", 60)
        return f"the registration of {name} at {printable(application.url)}"
    return codec.name(message)


def _refusal(request: codec.Message, reason: str) -> xcc.Fault:
    assert not isinstance(request, xcc.Fault)
    return soap.service_exception(
        reason,
        error_code="XCC:1",
        operation=codec.name(request),
        transaction_id=request.msg_header.transaction_id,
        registration_id=request.msg_header.registration_id,
    )
