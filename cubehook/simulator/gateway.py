"""
A CUBE that isn't: takes registrations, probes, and tells of calls as a router would.

Events of one call (of the calls that one script joins, too) are sent in order, the next after the
answer to the one before; events of different calls are sent at once, as connections allow.  An event
whose exchange fails is lost, as are those that occur while the prober is negative or nobody is registered.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater

from cubehook.simulator.http import Answer, Exchange, Poster, Request, Server, response
from cubehook.simulator.provider import Prober, ProberState, Probing, Provider, Registration
from cubehook.simulator.scenarios import Script, Step, Traffic, arrivals, scripts
from cubehook.simulator.wire import EVENT_NAMES, FILTER_WORDS, notification
from cubehook.xcc import codec, soap
from cubehook.xcc import messages as xcc

CLIENT_HEADERS = (
    b"Content-Type: application/soap+xml\r\n"
    b"Connection: Keep-Alive\r\n"
    b"Accept: text/vxml, text/x-vxml, application/vxml, application/x-vxml, application/voicexml, "
    b"application/x-voicexml, text/plain, text/html, audio/basic, audio/wav, multipart/form-data, "
    b"application/octet-stream\r\n"
    b"User-Agent: Cisco-IOS-C3900/15.2\r\n"
)
"""What a captured router sends after Content-Length, byte for byte."""

_INTERFACE_URL = "http://GigabitEthernet0/0.100:8090/cisco_xcc"
"""providerData/url as a router was seen to write it, of no use to anybody."""

NORMAL = 16
REJECTED = 21


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an engineer would configure on the router, and how the simulation runs."""

    remote_url: str
    listen: str = "tcp:0:interface=127.0.0.1"
    path: str = "/cisco_xcc"
    probing: Probing = Probing()
    max_connections: int = 5
    """`ip http max-connections`: more are closed as soon as they open."""
    close: bool = True
    """The server closes after each answer, as routers do by default."""
    connections: int = 8
    """Connections to the application at once; how many a router makes is not documented."""
    persistent: bool = True
    """`http client connection persistent`; otherwise every message has a connection of its own."""
    line_breaks: float = 0.5
    """Share of notifications that are laid out with line breaks."""
    negative_loss: bool = True
    """False keeps events coming while the prober is negative, which no router does."""
    speed: float = 1.0
    """How many times faster than life calls go; neither their rate nor the prober is changed."""


class Counters(msgspec.Struct):
    """What was done since the start."""

    calls: int = 0
    ended: int = 0
    not_placed: int = 0
    """Calls that `max_calls` kept from being made."""
    registrations: int = 0
    notifications: int = 0
    """Answered with 2xx."""
    failed: int = 0
    """Notifications whose exchange failed."""
    lost_negative: int = 0
    lost_unregistered: int = 0
    filtered: int = 0
    """Events that nobody subscribed to."""
    probes: int = 0
    probes_failed: int = 0
    failures: dict[str, int] = {}
    """Failed exchanges of every kind, by what went wrong."""


class Observer:
    """Is told what a gateway does; override what is of interest.  Must not raise."""

    def registered(self, registration: Registration) -> None:
        """An application registered."""

    def unregistered(self, reason: str) -> None:
        """The registration is gone."""

    def prober(self, state: ProberState) -> None:
        """The prober changed its mind."""

    def stepped(self, call: SimulatedCall, step: Step) -> None:
        """Something happened in a call, told to the application or not."""

    def notified(self, notification: Notification, status: int | None, error: str, at: float) -> None:
        """A notification's exchange is over: answered with `status`, or without an answer and why."""


class SimulatedCall:
    """One script as it is being played."""

    def __init__(self, script: Script, events: frozenset[str] | None) -> None:
        self.script = script
        self.call_ids: dict[int, str] = {}
        """callIDs by the number of the call in the script."""
        self.connection_ids: dict[int, str] = {}
        """connIDs by the number of the leg in the script."""
        self.live: dict[int, int] = {}
        """Legs that are up, and the call each belongs to."""
        self.events = events
        """The filter when the call began; None if nobody was registered then."""
        self.position = 0
        self.released: set[int] = set()
        """Calls that were ended against the script."""
        self.cut: set[int] = set()
        """Legs that were ended against the script."""
        self.waiting: deque[Exchange] = deque()
        self.sending = False
        self.timer: IDelayedCall | None = None
        self.authorizing: int | None = None
        """The leg whose authorization the call waits for."""

    @property
    def over(self) -> bool:
        """Everything happened, and nothing is left to be told."""
        return self.position == len(self.script.steps) and not self.sending and not self.waiting


class Notification(Exchange):
    """A NotifyXccConnectionData on its way; rendered when its turn comes."""

    __slots__ = ("_gateway", "_kept", "call", "call_id", "connection_id", "event", "guid", "happened_at")

    def __init__(
        self,
        gateway: SimulatedGateway,
        call: SimulatedCall,
        call_id: str,
        connection_id: str,
        event: xcc.ConnectionEvent,
        guid: str,
        happened_at: float,
        keep: bool,
    ) -> None:
        self._gateway = gateway
        self.call = call
        self.call_id = call_id
        self.connection_id = connection_id
        self.event = event
        self.guid = guid
        self.happened_at = happened_at
        self._kept: bytes | None = b"" if keep else None

    @property
    def name(self) -> str:
        """The event's element."""
        return EVENT_NAMES[type(self.event)]

    def body(self) -> bytes | None:
        if self._kept:
            return self._kept
        body = self._gateway.render(self)
        if self._kept is not None and body is not None:
            # It will be sent again, to the letter.
            self._kept = body
        return body

    def finished(self, answer: Answer | None, error: str) -> None:
        self._gateway.notified(self, answer, error)


class _Asked(Exchange):
    """Any other message; `done` fires with the answer to it, None if there was no good one."""

    __slots__ = ("_error", "_gateway", "_message", "done", "probe")

    def __init__(self, gateway: SimulatedGateway, message: codec.Message, probe: bool = False) -> None:
        self._gateway = gateway
        self._message = message
        self.probe = probe
        self.done: Deferred[bytes | None] = Deferred()

    def body(self) -> bytes:
        return codec.write(self._message)

    def finished(self, answer: Answer | None, error: str) -> None:
        good = answer is not None and 200 <= answer.status < 300
        if not good:
            self._gateway.count_failure(answer, error)
        if not self.probe:
            self._gateway.exchanged(good)
        self.done.callback(answer.body if good and answer is not None else None)


class SimulatedGateway:
    """
    One gateway, in this process.

    Use: `await start()`, register at `url`, `place_call(...)` or `make_calls(...)`, `await stop()`.
    `random` decides whatever a script does not: ids and the layout of messages.
    """

    def __init__(
        self, reactor: Any, settings: Settings, random: Random, observers: Sequence[Observer] = ()
    ) -> None:
        self.settings = settings
        self.counters = Counters()
        self.calls: dict[str, SimulatedCall] = {}
        """Calls in progress by callID."""
        self.url = ""
        """Where applications register, once started."""
        self._reactor = reactor
        self._random = random
        self._observers = tuple(observers)
        self._playing: set[SimulatedCall] = set()
        self._failures: Counter[str] = Counter()
        self._provider = Provider(settings.remote_url, settings.probing, self, random.getrandbits(22))
        self._registration_id = ""
        self._server = Server(self._request, settings.max_connections)
        self._poster = Poster(
            reactor,
            settings.remote_url,
            CLIENT_HEADERS,
            connections=settings.connections,
            persistent=settings.persistent,
            timeout=settings.probing.response_timeout,
        )
        self._probe_timer: IDelayedCall | None = None
        self._registered: list[Deferred[Registration]] = []
        self._idle: list[Deferred[None]] = []
        self._boot()

    @property
    def registration(self) -> Registration | None:
        """Who is registered."""
        return self._provider.registration

    @property
    def prober(self) -> Prober:
        """What the prober thinks of the application."""
        return self._provider.prober

    @property
    def backlog(self) -> int:
        """Messages that wait for a connection."""
        return self._poster.waiting

    # Its life.

    async def start(self) -> None:
        """Listen, and tell the application that the provider is in service; CannotListenError."""
        address = await self._server.listen(serverFromString(self._reactor, self.settings.listen))
        host = getattr(address, "host", "127.0.0.1")
        host = "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host  # noqa: S104
        self.url = f"http://{host}:{getattr(address, 'port', 0)}{self.settings.path}"
        self._status("IN_SERVICE")

    async def stop(self) -> None:
        """Vanish without a word, as a router that lost its power."""
        self._drop_calls()
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        await self._server.close()
        await self._poster.close()

    def reload(self) -> None:
        """The `reload` command: calls and registration vanish, ids begin again, then it is in service."""
        self._drop_calls()
        self._poster.drop()
        self._provider.reload()
        self._arm()
        self._told_unregistered("the gateway reloaded")
        self._boot()
        self._status("IN_SERVICE")

    async def shut_down_provider(self) -> None:
        """`shutdown` under `provider xcc`: tells the application and waits for its answer."""
        registration = self.registration
        self._provider.in_service = False
        if registration is not None:
            header = xcc.MsgHeader(self._transaction_id(), registration.id)
            await self._ask(xcc.SolicitXccProviderUnRegister(header))
        self._provider.unregister()
        self._arm()
        self._told_unregistered("the provider was shut down")
        self._status("SHUTDOWN")

    def start_provider(self) -> None:
        """`no shutdown` under `provider xcc`."""
        self._provider.in_service = True
        self._status("IN_SERVICE")

    def forget_registration(self) -> None:
        """Lose the registration without a word; the next probe says `registered` false."""
        self._provider.forget()

    def probe_now(self) -> None:
        """Send the next probe at once, if anybody registered since the start."""
        if self._registration_id and self.prober.state is not ProberState.UNREGISTERED:
            self._probe()

    def when_registered(self) -> Deferred[Registration]:
        """Fires when somebody is registered."""
        registered: Deferred[Registration] = Deferred()
        if self.registration is not None:
            registered.callback(self.registration)
        else:
            self._registered.append(registered)
        return registered

    def when_idle(self) -> Deferred[None]:
        """Fires when no call is in progress and every notification has had its turn."""
        idle: Deferred[None] = Deferred()
        if self._playing:
            self._idle.append(idle)
        else:
            idle.callback(None)
        return idle

    # Calls.

    def place_call(self, script: Script) -> SimulatedCall:
        """Begin a call; its first event happens at once."""
        registration = self.registration
        call = SimulatedCall(script, registration.events if registration else None)
        self._playing.add(call)
        self.counters.calls += 1
        self._play(call)
        return call

    async def make_calls(self, traffic: Traffic) -> None:
        """
        Make the calls of `traffic` at their times, late ones at once; done when the last is over.

        Cancelling makes no more calls; those in progress go on.
        """
        start = self._reactor.seconds()
        made = 0
        for at, script in zip(arrivals(traffic), scripts(traffic), strict=False):
            if made == traffic.count:
                break
            delay = start + at - self._reactor.seconds()
            if delay > 0:
                await deferLater(self._reactor, delay)
            made += 1
            if traffic.max_calls is not None and len(self._playing) >= traffic.max_calls:
                self.counters.not_placed += 1
            else:
                self.place_call(script)
        await self.when_idle()

    def release_call(self, call_id: str, cause: int) -> bool:
        """See `CallControl`."""
        call = self.calls.get(call_id)
        if call is None:
            return False
        index = next(number for number, given in call.call_ids.items() if given == call_id)
        self._release(call, index, list(call.live), cause)
        return True

    def release_connection(self, call_id: str, connection_id: str, cause: int) -> bool:
        """See `CallControl`; a leg that would be left alone ends too."""
        call = self.calls.get(call_id)
        if call is None:
            return False
        index = next(number for number, given in call.call_ids.items() if given == call_id)
        mates = [leg for leg, its_call in call.live.items() if its_call == index]
        for leg in mates:
            if call.connection_ids[leg] == connection_id:
                self._release(call, index, mates if len(mates) <= 2 else [leg], cause)
                return True
        return False

    def authorize(self, call_id: str, connection_id: str, cause: int | None) -> bool:
        """See `CallControl`."""
        call = self.calls.get(call_id)
        if call is None or call.authorizing is None:
            return False
        if call.connection_ids[call.authorizing] != connection_id:
            return False
        self._authorized(call, cause)
        return True

    def _play(self, call: SimulatedCall) -> None:
        """Let the next step happen, and those that come with it."""
        call.timer = None
        steps = call.script.steps
        while call.position < len(steps):
            step = steps[call.position]
            call.position += 1
            if step.call not in call.released and step.leg not in call.cut:
                self._happen(call, step.call, step.leg, step.event, step)
                if call.authorizing is not None:
                    return
            if call.position < len(steps):
                delay = steps[call.position].after / self.settings.speed
                if delay > 0:
                    call.timer = self._reactor.callLater(delay, self._play, call)
                    return
        self._check_over(call)

    def _happen(
        self, call: SimulatedCall, index: int, leg: int, event: xcc.ConnectionEvent, step: Step
    ) -> None:
        call_id = call.call_ids.get(index)
        if call_id is None:
            self._last_call_id += 1
            call_id = call.call_ids[index] = str(self._last_call_id)
            self.calls[call_id] = call
        connection_id = call.connection_ids.get(leg)
        if connection_id is None:
            self._last_connection_id += 1
            connection_id = call.connection_ids[leg] = str(self._last_connection_id)
        kind = type(event)
        if kind is xcc.Disconnected or kind is xcc.HandoffLeave:
            call.live.pop(leg, None)
        else:
            call.live[leg] = index
        for observer in self._observers:
            observer.stepped(call, step)
        events = call.events
        if events is None:
            # It began while nobody was registered: whoever is now hears of it.
            registration = self.registration
            events = registration.events if registration else frozenset()
        if registration_missing := self.registration is None:
            self.counters.lost_unregistered += 1
        if not registration_missing and FILTER_WORDS[kind] not in events:
            self.counters.filtered += 1
        elif not registration_missing:
            guid = call.script.guids[index]
            for _ in range(step.copies):
                pass
            exchange = Notification(
                self, call, call_id, connection_id, event, guid, self._reactor.seconds(), step.copies > 1
            )
            call.waiting.extend([exchange] * step.copies)
            if not call.sending:
                self._send_next(call)
