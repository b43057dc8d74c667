"""
A CUBE that isn't: takes registrations, probes, and tells of calls as a router would.

Events of one call (of the calls that one script joins, too) are sent in order, the next after the
answer to the one before; events of different calls are sent at once, as connections allow.  An event
whose exchange fails is lost, as are those that occur while the prober is negative or nobody is registered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater

from cubehook.events import Micros
from cubehook.simulator.http import Answer, Exchange, Poster, Request, Server, response
from cubehook.simulator.provider import Prober, ProberState, Probing, Provider, Registration
from cubehook.simulator.scenarios import Script, Step, Traffic, arrivals, scripts
from cubehook.simulator.tls import Secure
from cubehook.simulator.wire import EVENT_NAMES, FILTER_WORDS, notification
from cubehook.text import printable
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

REJECTED = 21
"""The cause of a call that an application refused."""


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
    secure: Secure | None = None
    """Secure mode: TLS for applications that register, and to the application if its URL is https."""
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

    def refused(self, words: str) -> None:
        """A request was answered with a Fault; `words` say which and why."""

    def reloaded(self) -> None:
        """The gateway restarted: its calls are gone, and ids begin again."""

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
        self.events = events
        """The filter when the call began; None if nobody was registered then."""
        self.call_ids: dict[int, str] = {}
        """callIDs by the number of the call in the script."""
        self.connection_ids: dict[int, str] = {}
        """connIDs by the number of the leg in the script."""
        self.live: dict[int, int] = {}
        """Legs that are up, and the call each belongs to."""
        self.position = 0
        """The number of the next step."""
        self.released: set[int] = set()
        """Calls that were ended against the script."""
        self.cut: set[int] = set()
        """Legs that were ended against the script."""
        self.timer: IDelayedCall | None = None
        """To the next step, or to the end of an authorization."""
        self.authorizing: int | None = None
        """The leg whose authorization the script waits for."""
        self.waiting: deque[Exchange] = deque()
        self.sending = False

    @property
    def finished(self) -> bool:
        """Everything happened, and nothing is left to be told."""
        return self.position == len(self.script.steps) and not self.sending and not self.waiting

    def happens(self, step: Step) -> bool:
        """Whether `step` still happens, whatever was ended against the script."""
        return step.call not in self.released and step.leg not in self.cut


class Notification(Exchange):
    """A NotifyXccConnectionData on its way; rendered when its turn comes."""

    __slots__ = ("_gateway", "_kept", "call", "call_id", "connection_id", "event", "guid", "happened_at")

    def __init__(
        self,
        gateway: SimulatedGateway,
        call: SimulatedCall,
        step: Step,
        call_id: str,
        connection_id: str,
        happened_at: float,
    ) -> None:
        self._gateway = gateway
        # What is sent twice is sent to the letter.
        self._kept = b"" if step.copies > 1 else None
        self.call = call
        self.call_id = call_id
        self.connection_id = connection_id
        self.event = step.event
        self.guid = call.script.guids[step.call]
        self.happened_at = happened_at

    @property
    def name(self) -> str:
        """The event's element."""
        return EVENT_NAMES[type(self.event)]

    def body(self) -> bytes | None:
        if self._kept:
            return self._kept
        body = self._gateway.render(self)
        if self._kept is not None:
            self._kept = body
        return body

    def finished(self, answer: Answer | None, error: str) -> None:
        self._gateway.notified(self, answer, error)


class _Asked(Exchange):
    """Any other message; `then` is called with the body of a 2xx answer, or with None."""

    __slots__ = ("_gateway", "_message", "_probe", "_then")

    def __init__(
        self,
        gateway: SimulatedGateway,
        message: codec.Message,
        then: Callable[[bytes | None], None],
        probe: bool = False,
    ) -> None:
        self._gateway = gateway
        self._message = message
        self._then = then
        self._probe = probe

    def body(self) -> bytes:
        return codec.write(self._message)

    def finished(self, answer: Answer | None, error: str) -> None:
        good = answer is not None and 200 <= answer.status < 300
        if not good:
            self._gateway.count_failure(answer, error)
        if not self._probe:
            self._gateway.exchanged(good)
        self._then(answer.body if good and answer is not None else None)

    def dropped(self) -> None:
        self._then(None)


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
        self._provider = Provider(settings.remote_url, settings.probing, self, random.getrandbits(22))
        self._registration_id = ""
        self._server = Server(self._request, settings.max_connections)
        to_application = settings.secure if settings.remote_url.startswith("https:") else None
        self._poster = Poster(
            reactor,
            settings.remote_url,
            CLIENT_HEADERS,
            tls=to_application,
            connections=settings.connections,
            persistent=settings.persistent,
            timeout=settings.probing.response_timeout,
        )
        self._prober_state = ProberState.UNREGISTERED
        """As it was last looked at."""
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
    def in_progress(self) -> int:
        """Scripts that are being played, or have events left to be told."""
        return len(self._playing)

    @property
    def backlog(self) -> int:
        """Messages that wait for a connection."""
        return self._poster.waiting

    # Its life.

    async def start(self) -> None:
        """Listen, and tell the application that the provider is in service; CannotListenError."""
        settings = self.settings
        origin = await self._server.listen(self._reactor, settings.listen, settings.secure)
        self.url = origin + settings.path
        self._status("IN_SERVICE")

    async def stop(self) -> None:
        """Vanish without a word, as a router that lost its power."""
        self._drop_calls()
        self._provider.unregister()
        self._prober_state = self.prober.state
        self._arm()
        await self._server.close()
        await self._poster.close()

    def reload(self) -> None:
        """The `reload` command: calls and registration vanish, ids begin again, then it is in service."""
        was_registered = self.registration is not None
        self._drop_calls()
        self._provider.reload()
        self._poster.drop()
        for observer in self._observers:
            observer.reloaded()
        if was_registered:
            self._told_unregistered("the gateway reloaded")
        self._judged()
        self._boot()
        self._status("IN_SERVICE")

    async def shut_down_provider(self) -> None:
        """
        `shutdown` under `provider xcc`: tells the application and waits for its answer.

        A `no shutdown` or a reload in the meantime has the last word.
        """
        registration = self.registration
        self._provider.in_service = False
        if registration is not None:
            header = xcc.MsgHeader(self._transaction_id(), registration.id)
            await self._ask(xcc.SolicitXccProviderUnRegister(header))
        if self.registration is registration:
            self._provider.unregister()
            if registration is not None:
                self._told_unregistered("the provider was shut down")
            self._judged()
        if not self._provider.in_service:
            self._status("SHUTDOWN")

    def start_provider(self) -> None:
        """`no shutdown` under `provider xcc`."""
        self._provider.in_service = True
        self._status("IN_SERVICE")

    def forget_registration(self) -> None:
        """Lose the registration without a word; the next probe says `registered` false."""
        self._provider.forget()

    def probe_now(self) -> None:
        """Send the next probe at once, if one is due at all: somebody is probed and waits for none."""
        if self.prober.due is not None:
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
        Make the calls of `traffic` at their times, late ones at once; done when the last has begun.

        Cancelling makes no more calls; those in progress go on.
        """
        start = self._reactor.seconds()
        for made, (at, script) in enumerate(zip(arrivals(traffic), scripts(traffic), strict=False)):
            if made == traffic.count:
                break
            delay = start + at - self._reactor.seconds()
            if delay > 0:
                await deferLater(self._reactor, delay)
            if traffic.max_calls is not None and len(self._playing) >= traffic.max_calls:
                self.counters.not_placed += 1
            else:
                self.place_call(script)

    def release_call(self, call_id: str, cause: int) -> bool:
        """See `CallControl`."""
        call, legs = self._find(call_id)
        if call is None:
            return False
        self._release(call, legs, legs, cause)
        return True

    def release_connection(self, call_id: str, connection_id: str, cause: int) -> bool:
        """See `CallControl`; a leg that would be left alone ends too."""
        call, legs = self._find(call_id)
        for leg in legs:
            if call is not None and call.connection_ids[leg] == connection_id:
                self._release(call, legs, legs if len(legs) <= 2 else [leg], cause)
                return True
        return False

    def authorize(self, call_id: str, connection_id: str, cause: int | None) -> bool:
        """See `CallControl`."""
        call, legs = self._find(call_id)
        for leg in legs:
            if call is not None and call.authorizing == leg and call.connection_ids[leg] == connection_id:
                self._authorized(call, cause)
                return True
        return False

    def _find(self, call_id: str) -> tuple[SimulatedCall | None, list[int]]:
        """The call with this callID that is still up, and its legs."""
        call = self.calls.get(call_id)
        if call is None:
            return None, []
        legs = [leg for leg, index in call.live.items() if call.call_ids[index] == call_id]
        return (call, legs) if legs else (None, [])

    def _play(self, call: SimulatedCall) -> None:
        """Let the next step happen, and those that come with it."""
        call.timer = None
        steps = call.script.steps
        while call.position < len(steps):
            step = steps[call.position]
            call.position += 1
            if call.happens(step):
                self._happen(call, step)
                if call.authorizing is not None:
                    return
            if self._wait(call):
                return
        self._check_finished(call)

    def _wait(self, call: SimulatedCall) -> bool:
        """Set the timer to the next step; False if that is to happen now, or there is none."""
        steps = call.script.steps
        if call.position == len(steps):
            return False
        delay = steps[call.position].after / self.settings.speed
        if delay <= 0:
            return False
        call.timer = self._reactor.callLater(delay, self._play, call)
        return True

    def _happen(self, call: SimulatedCall, step: Step) -> None:
        call_id = call.call_ids.get(step.call)
        if call_id is None:
            self._last_call_id += 1
            call_id = call.call_ids[step.call] = str(self._last_call_id)
            self.calls[call_id] = call
        connection_id = call.connection_ids.get(step.leg)
        if connection_id is None:
            self._last_connection_id += 1
            connection_id = call.connection_ids[step.leg] = str(self._last_connection_id)
        kind = type(step.event)
        if kind is xcc.Disconnected or kind is xcc.HandoffLeave:
            call.live.pop(step.leg, None)
        else:
            call.live[step.leg] = step.call
        for observer in self._observers:
            observer.stepped(call, step)
        registration = self._provider.registration
        if registration is None:
            self.counters.lost_unregistered += step.copies
            return
        # A call that began while nobody was registered is told to whoever is now.
        events = registration.events if call.events is None else call.events
        if FILTER_WORDS[kind] in events:
            told = Notification(self, call, step, call_id, connection_id, self._reactor.seconds())
            call.waiting.extend([told] * step.copies)
        else:
            self.counters.filtered += step.copies
        if isinstance(step.event, xcc.Created) and "AUTHORIZE_CALL" in events:
            self._solicit(call, step, step.event.conn_detail_data, registration)
        if call.waiting and not call.sending:
            self._send_next(call)

    def _release(self, call: SimulatedCall, legs: list[int], ended: list[int], cause: int) -> None:
        """End some of a call's `legs` against its script."""
        index = call.live[legs[0]]
        if legs == ended:
            call.released.add(index)
        else:
            call.cut.update(ended)
        for leg in ended:
            self._happen(call, Step(0.0, index, leg, xcc.Disconnected(disc_cause=cause)))
        if call.authorizing in ended:
            call.authorizing = None
            self._stop_timer(call)
        if not any(call.happens(step) for step in call.script.steps[call.position :]):
            self._stop_timer(call)
            call.position = len(call.script.steps)
        if call.timer is None and call.authorizing is None and not self._wait(call):
            self._play(call)

    def _stop_timer(self, call: SimulatedCall) -> None:
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None

    def _send_next(self, call: SimulatedCall) -> None:
        if call.waiting:
            call.sending = True
            self._poster.post(call.waiting.popleft())
        else:
            call.sending = False
            self._check_finished(call)

    def _check_finished(self, call: SimulatedCall) -> None:
        if call.finished and call in self._playing:
            self._playing.remove(call)
            self.counters.ended += 1
            for call_id in call.call_ids.values():
                del self.calls[call_id]
            if not self._playing:
                self._fire_idle()

    def _drop_calls(self) -> None:
        for call in self._playing:
            self._stop_timer(call)
        self._playing.clear()
        self.calls.clear()
        self._fire_idle()

    def _fire_idle(self) -> None:
        idle, self._idle = self._idle, []
        for waiting in idle:
            waiting.callback(None)

    # Authorization.

    def _solicit(
        self, call: SimulatedCall, step: Step, detail: xcc.ConnDetailData, registration: Registration
    ) -> None:
        """Ask whether an incoming call may go on; it waits."""
        if detail.conn_direction_type != "INCOMING":
            return
        call.authorizing = step.leg
        connection = xcc.ConnData(call.connection_ids[step.leg], "AUTHORIZE_CALL_ATTEMPT")
        message = xcc.SolicitXccConnectionAuthorize(
            msg_header=xcc.MsgHeader(self._transaction_id(), registration.id),
            call_data=xcc.CallData(call.call_ids[step.call], "ACTIVE"),
            conn_detail_data=msgspec.structs.replace(detail, conn_data=connection),
        )
        leg = step.leg
        call.waiting.append(
            _Asked(self, message, lambda body: self._solicited(body, call, leg, registration))
        )

    def _solicited(
        self, body: bytes | None, call: SimulatedCall, leg: int, registration: Registration
    ) -> None:
        if call not in self._playing:
            return
        if call.authorizing == leg:
            answer = _read(body)
            action = answer.action if isinstance(answer, xcc.ResponseXccConnectionAuthorize) else None
            if isinstance(action, xcc.ContinueProcessing):
                self._authorized(call, None)
            elif isinstance(action, xcc.Release):
                self._authorized(call, action.disc_cause or REJECTED)
            else:
                handle = registration.blocking_handle
                timeout = registration.blocking_timeout
                if isinstance(action, xcc.Block):
                    handle = action.blocking_timeout_handle or handle
                    timeout = action.blocking_event_timeout_sec or timeout
                else:
                    # No answer, or none that makes sense, is not waited for any longer.
                    timeout = 0
                cause = REJECTED if handle == "RELEASE" else None
                call.timer = self._reactor.callLater(timeout, self._unblocked, call, cause)
        self._send_next(call)

    def _unblocked(self, call: SimulatedCall, cause: int | None) -> None:
        call.timer = None
        self._authorized(call, cause)

    def _authorized(self, call: SimulatedCall, cause: int | None) -> None:
        leg = call.authorizing
        self._stop_timer(call)
        call.authorizing = None
        if cause is not None and leg is not None:
            index = call.live[leg]
            legs = [live for live, its_call in call.live.items() if its_call == index]
            self._release(call, legs, legs, cause)
        elif not self._wait(call):
            self._play(call)

    # What is sent, and how it goes.

    def render(self, told: Notification) -> bytes | None:
        """`told` as it is sent now; None, and counted as lost, if nobody is told any more."""
        registration = self._provider.registration
        if registration is None:
            self.counters.lost_unregistered += 1
        elif self._prober_state is ProberState.NEGATIVE and self.settings.negative_loss:
            self.counters.lost_negative += 1
        else:
            return notification(
                self._transaction_id(),
                registration.id,
                told.call_id,
                told.connection_id,
                told.event,
                self._random.random() < self.settings.line_breaks,
            )
        self._send_next(told.call)
        return None

    def notified(self, told: Notification, answer: Answer | None, error: str) -> None:
        """The exchange of a notification is over."""
        at = self._reactor.seconds()
        status = answer.status if answer is not None else None
        good = status is not None and 200 <= status < 300
        if good:
            self.counters.notifications += 1
        else:
            self.counters.failed += 1
            self.count_failure(answer, error)
        for observer in self._observers:
            observer.notified(told, status, error, at)
        self.exchanged(good)
        if told.call in self._playing:
            self._send_next(told.call)

    def exchanged(self, good: bool) -> None:
        """An exchange that was no probe is over."""
        self.prober.exchanged(good, self._now())
        if self.prober.state is not self._prober_state:
            self._judged()

    def count_failure(self, answer: Answer | None, error: str) -> None:
        """An exchange failed."""
        word = printable(error) if answer is None else f"HTTP {answer.status}"
        self.counters.failures[word] = self.counters.failures.get(word, 0) + 1

    def _judged(self) -> None:
        """The prober's state may be another: tell, and set its timer."""
        state = self.prober.state
        if state is not self._prober_state:
            self._prober_state = state
            for observer in self._observers:
                observer.prober(state)
            if state is ProberState.UNREGISTERED and self.registration is not None:
                self._provider.unregister()
                self._told_unregistered("the application did not answer probes")
        self._arm()

    def _arm(self) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        due = self.prober.due
        if due is not None:
            delay = max(0, due - self._now()) / 1e6
            self._probe_timer = self._reactor.callLater(delay, self._probe_timer_fired)

    def _probe_timer_fired(self) -> None:
        self._probe_timer = None
        # Every good exchange puts the probe off; the timer finds out here.
        if self.prober.due is not None and self.prober.due <= self._now():
            self._probe()
        else:
            self._arm()

    def _probe(self) -> None:
        prober = self.prober
        prober.probe()
        sequence = str(prober.sequence)
        header = xcc.MsgHeader(self._transaction_id(), self._registration_id)
        message = xcc.SolicitXccProbing(
            msg_header=header,
            sequence=sequence,
            interval_seconds=prober.interval,
            failure_count=prober.failures,
            registered=self.registration is not None,
            provider_status="IN_SERVICE",
        )
        self.counters.probes += 1
        asked = _Asked(self, message, lambda body: self._probed(body, header, sequence), probe=True)
        self._poster.post(asked, urgent=True)
        self._judged()

    def _probed(self, body: bytes | None, header: xcc.MsgHeader, sequence: str) -> None:
        answer = _read(body)
        good = (
            isinstance(answer, xcc.ResponseXccProbing)
            and answer.sequence == sequence
            and answer.msg_header.registration_id == header.registration_id
        )
        if not good:
            self.counters.probes_failed += 1
        if header.registration_id == self._registration_id:
            self.prober.probed(good, self._now())
            self._judged()

    async def _ask(self, message: codec.Message) -> bytes | None:
        """Send `message` before all that waits; the body of its answer, None if none came."""
        answered: Deferred[bytes | None] = Deferred()
        self._poster.post(_Asked(self, message, answered.callback), urgent=True)
        return await answered

    def _status(self, status: str) -> None:
        """Tell the application the provider's status; nothing depends on its answer."""
        message = xcc.NotifyXccProviderStatus(
            msg_header=xcc.MsgHeader(transaction_id=self._transaction_id()),
            application_data=xcc.ApplicationData(url=self.settings.remote_url),
            provider_data=xcc.ProviderData(url=_INTERFACE_URL),
            provider_status=status,
        )
        self._poster.post(_Asked(self, message, lambda body: None), urgent=True)

    # What is asked.

    def _request(self, request: Request) -> None:
        """Answer one HTTP request as the gateway's server does."""
        close = self.settings.close
        before = b"Server: cisco-IOS\r\nConnection: %b\r\n" % (b"close" if close else b"Keep-Alive")
        if request.target != self.settings.path.encode():
            request.respond(response(404, before=before), close)
            return
        if request.method != b"POST":
            request.respond(response(405, before=before + b"Allow: POST\r\n"), close)
            return
        earlier = self.registration
        reply = self._provider.answer(request.body, self._now())
        after = b"Content-Type: application/soap+xml\r\n"
        request.respond(response(reply.status, reply.body, before, after), close)
        if reply.refused:
            for observer in self._observers:
                observer.refused(reply.refused)
        registration = self.registration
        if registration is None:
            if earlier is not None:
                self._told_unregistered("the application asked for it")
                self._judged()
        elif earlier is None or earlier.id != registration.id:
            self._registration_id = registration.id
            self.counters.registrations += 1
            for observer in self._observers:
                observer.registered(registration)
            self._judged()
            registered, self._registered = self._registered, []
            for waiting in registered:
                waiting.callback(registration)

    def _told_unregistered(self, reason: str) -> None:
        for observer in self._observers:
            observer.unregistered(reason)

    def _boot(self) -> None:
        """Begin to count time and ids, as after a restart."""
        self._last_call_id = 0
        self._last_connection_id = 0
        self._transactions = 0
        self._booted_at = self._reactor.seconds()

    def _transaction_id(self) -> str:
        """Milliseconds since the start and a count, which is what captured ones look like."""
        self._transactions += 1
        return f"{int((self._reactor.seconds() - self._booted_at) * 1000):X}:{self._transactions}"

    def _now(self) -> Micros:
        return int(self._reactor.seconds() * 1e6)


def _read(body: bytes | None) -> codec.Message | None:
    """The message in an answer; None if it is none."""
    if body is None:
        return None
    try:
        return codec.read(body)
    except soap.SoapError:
        return None
