"""The simulated gateway against an application on loopback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from cubehook.simulator.gateway import Observer, Settings, SimulatedCall, SimulatedGateway
from cubehook.simulator.http import Request, Server, response
from cubehook.simulator.observers import Story
from cubehook.simulator.provider import ProberState, Probing, Registration
from cubehook.simulator.scenarios import Script, Step, Traffic, script
from cubehook.xcc import codec
from cubehook.xcc import messages as xcc
from cubehook.xcc.registration import began_again
from tests.simulator.application import EVERYTHING, OK, PATIENCE, Application, reactor, soap, well
from tests.simulator.test_http import Raw

BROKEN = response(500)
QUICK = Probing(
    exchange_max_failures=1, response_timeout=PATIENCE, max_failures=2, keepalive=PATIENCE, negative=0.02
)


class Watcher(Observer):
    """Keeps what it is told, and lets tests wait for it."""

    def __init__(self) -> None:
        self.states: list[ProberState] = []
        self.gone: list[str] = []
        self.steps: list[Step] = []
        self.statuses: list[int | None] = []
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def prober(self, state: ProberState) -> None:
        self.states.append(state)
        self._look()

    def registered(self, registration: Registration) -> None:
        self._look()

    def unregistered(self, reason: str) -> None:
        self.gone.append(reason)
        self._look()

    def stepped(self, call: SimulatedCall, step: Step) -> None:
        self.steps.append(step)
        self._look()

    def notified(self, notification: Any, status: int | None, error: str, at: float) -> None:
        self.statuses.append(status)
        self._look()

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Fires when `condition` holds after something that is told here."""
        event: Deferred[None] = Deferred()
        _ = event.addTimeout(PATIENCE, reactor)
        self._waiting.append((condition, event))
        self._look()
        return event

    def _look(self) -> None:
        for entry in list(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)


class GatewayTestCase(TestCase):
    async def begin(
        self, probing: Probing = QUICK, observers: Sequence[Observer] = (), **settings: Any
    ) -> None:
        """A gateway and an application that is not registered yet."""
        self.application = Application(self)
        await self.application.start()
        self.watcher = Watcher()
        gateway = self.gateway = SimulatedGateway(
            reactor,
            Settings(remote_url=self.application.url, probing=probing, speed=1000.0, **settings),
            Random(1),
            [self.watcher, *observers],
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(gateway.stop()))
        booted = self.application.when(xcc.NotifyXccProviderStatus)
        await self.gateway.start()
        await booted

    async def begin_registered(self, events: tuple[str, ...] = EVERYTHING, **settings: Any) -> None:
        await self.begin(**settings)
        await self.application.register(self.gateway.url, events)

    def script(self, name: str, seed: int = 1) -> Script:
        return script(name, Random(seed), 1.0)

    async def play(self, name: str) -> SimulatedCall:
        """One call, to its end."""
        call = self.gateway.place_call(self.script(name))
        await self.gateway.when_idle()
        return call


class RegistrationTests(GatewayTestCase):
    async def test_boot_is_told(self) -> None:
        await self.begin()
        (status,) = self.application.received
        self.assertEqual(status.provider_status, "IN_SERVICE")
        self.assertEqual(status.application_data.url, self.application.url)
        self.assertIsNone(status.msg_header.registration_id)

    async def test_answers_have_the_headers_of_a_router(self) -> None:
        await self.begin()
        request = xcc.RequestXccUnRegister(xcc.MsgHeader("A:1", "unknown"))
        status, fault = await self.application.ask(self.gateway.url, request)
        self.assertEqual((status, fault.reason), (500, "The registration ID is not known"))
        head, _, body = (await self.raw(b"POST /cisco_xcc HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
        self.assertEqual(
            head,
            b"HTTP/1.1 400 Bad Request\r\nServer: cisco-IOS\r\nConnection: close\r\n"
            b"Content-Length: %d\r\nContent-Type: application/soap+xml" % len(body),
        )

    async def raw(self, request: bytes) -> bytes:
        """What comes back on a connection of its own until it is closed."""
        port = int(self.gateway.url.rpartition(":")[2].partition("/")[0])
        raw: Raw = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Raw())
        raw.transport.write(request)  # type: ignore[union-attr]
        await raw.gone
        return raw.data

    async def test_other_paths_and_methods(self) -> None:
        await self.begin()
        self.assertTrue((await self.raw(b"POST /other HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 "))
        self.assertTrue((await self.raw(b"GET /cisco_xcc HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405 "))

    async def test_kept_connection_if_wanted(self) -> None:
        await self.begin(close=False)
        bodies = await self.raw(
            b"POST /other HTTP/1.1\r\n\r\nPOST /other HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        self.assertEqual(bodies.count(b"HTTP/1.1 404 "), 2)

    async def test_registration_is_told_and_waited_for(self) -> None:
        await self.begin()
        waiting = self.gateway.when_registered()
        answer = await self.application.register(self.gateway.url)
        registration = await waiting
        self.assertEqual(registration.id, answer.msg_header.registration_id)
        self.assertEqual(await self.gateway.when_registered(), registration)
        self.assertEqual(self.gateway.counters.registrations, 1)

    async def test_unregistered_application_hears_nothing(self) -> None:
        await self.begin_registered()
        await self.application.ask(self.gateway.url, xcc.RequestXccUnRegister(self.application.header))
        self.assertEqual(self.watcher.gone, ["the application asked for it"])
        await self.play("answered")
        self.assertEqual(self.application.events(), [])
        self.assertEqual(self.gateway.counters.lost_unregistered, 9)

    async def test_shut_down_asks_waits_and_refuses(self) -> None:
        await self.begin_registered()
        shutdown = self.application.when(lambda m: getattr(m, "provider_status", None) == "SHUTDOWN")
        await self.gateway.shut_down_provider()
        await shutdown
        asked = [type(message).__name__ for message in self.application.received]
        self.assertEqual(
            asked, ["NotifyXccProviderStatus", "SolicitXccProviderUnRegister", "NotifyXccProviderStatus"]
        )
        self.assertEqual(
            self.application.received[1].msg_header.registration_id, self.application.registration_id
        )
        fault = await self.application.register(self.gateway.url)
        self.assertEqual(fault.reason, "The provider is shut down")
        back = self.application.when(xcc.NotifyXccProviderStatus)
        self.gateway.start_provider()
        status = await back
        self.assertEqual(status.provider_status, "IN_SERVICE")
        before = self.application.received[-2].msg_header.transaction_id
        self.assertFalse(began_again(before, status.msg_header.transaction_id))
        await self.application.register(self.gateway.url)
        self.assertIsNotNone(self.gateway.registration)

    async def test_opened_again_before_the_application_answered(self) -> None:
        await self.begin_registered()
        asked = self.application.when(xcc.SolicitXccProviderUnRegister)
        self.application.answer = lambda message: (
            None if isinstance(message, xcc.SolicitXccProviderUnRegister) else well(message)
        )
        shutting = Deferred.fromCoroutine(self.gateway.shut_down_provider())
        await asked
        back = self.application.when(xcc.NotifyXccProviderStatus)
        self.gateway.start_provider()
        self.assertEqual((await back).provider_status, "IN_SERVICE")
        await self.application.register(self.gateway.url)
        self.gateway.reload()
        await shutting
        await self.application.when(xcc.NotifyXccProviderStatus)
        said = [getattr(message, "provider_status", None) for message in self.application.received]
        self.assertEqual(said, ["IN_SERVICE", None, "IN_SERVICE", "IN_SERVICE"])

    async def test_registered_again_before_the_application_answered(self) -> None:
        await self.begin_registered()
        held: list[Request] = []

        def hold(message: Any, request: Request) -> bool:
            if not isinstance(message, xcc.SolicitXccProviderUnRegister):
                return False
            held.append(request)
            return True

        self.application.hold = hold
        asked = self.application.when(xcc.SolicitXccProviderUnRegister)
        shutting = Deferred.fromCoroutine(self.gateway.shut_down_provider())
        solicited = await asked
        self.gateway.start_provider()
        await self.application.register(self.gateway.url)
        held[0].respond(soap(xcc.ResponseXccProviderUnRegister(solicited.msg_header)))
        await shutting
        registration = self.gateway.registration
        assert registration is not None
        self.assertEqual(registration.id, self.application.registration_id)
        self.assertEqual(self.watcher.gone, [])

    async def test_refusals_are_told(self) -> None:
        said: list[str] = []
        await self.begin(observers=[Story(said.append)])
        url = self.application.url
        self.application.url += "/"
        await self.application.register(self.gateway.url)
        self.application.url = url
        await self.application.ask(self.gateway.url, xcc.RequestXccUnRegister(xcc.MsgHeader("A:1", "x")))
        self.assertEqual(
            said,
            [
                f"refused the registration of cubehook at {url}/: "
                "The application URL is not configured as remote-url",
                "refused RequestXccUnRegister: The registration ID is not known",
            ],
        )

    async def test_the_story_after_a_reload(self) -> None:
        said: list[str] = []
        await self.begin_registered(observers=[Story(said.append)])
        for _ in range(2):
            said.clear()
            self.watcher.statuses.clear()
            self.gateway.place_call(self.script("long"))
            await self.watcher.until(lambda: len(self.watcher.statuses) == 4)
            self.assertRegex(said[0], "^call 1: .* calls ")
            self.assertEqual(said[1], "call 1 rings")
            self.gateway.reload()
            self.assertIn("the gateway reloads: its calls are gone", said)
            await self.application.register(self.gateway.url)

    async def test_reload_forgets_everything_and_begins_to_count_again(self) -> None:
        await self.begin_registered()
        first_id = self.application.registration_id
        created = self.application.when(xcc.NotifyXccConnectionData)
        self.gateway.place_call(self.script("long"))
        before = (await created).msg_header.transaction_id
        back = self.application.when(xcc.NotifyXccProviderStatus)
        self.gateway.reload()
        status = await back
        self.assertEqual(status.provider_status, "IN_SERVICE")
        self.assertTrue(began_again(before, status.msg_header.transaction_id), (before, status.msg_header))
        # milliseconds since the start
        self.assertLess(int(before.partition(":")[0], 16), PATIENCE * 1000)
        self.assertEqual((self.gateway.calls, self.gateway.registration), ({}, None))
        await self.gateway.when_idle()
        await self.application.register(self.gateway.url)
        self.assertNotEqual(self.application.registration_id, first_id)
        self.application.received.clear()
        await self.play("busy")
        self.assertEqual({event[0] for event in self.application.events()}, {"1"})
        self.assertEqual({event[1] for event in self.application.events()}, {"1", "2"})


class CallTests(GatewayTestCase):
    async def test_call_is_told_in_order_with_the_current_registration(self) -> None:
        await self.begin_registered()
        call = await self.play("answered")
        told = [event[2] for event in self.application.events()]
        self.assertEqual(told, [type(step.event).__name__ for step in call.script.steps])
        self.assertEqual({event[0] for event in self.application.events()}, {"1"})
        headers = [message.msg_header for message in self.application.received[1:]]
        self.assertEqual({header.registration_id for header in headers}, {self.application.registration_id})
        self.assertEqual(len({header.transaction_id for header in headers}), 9)
        self.assertEqual((self.gateway.calls, self.gateway.counters.ended), ({}, 1))

    async def test_events_of_a_call_wait_for_each_other_and_not_for_other_calls(self) -> None:
        await self.begin_registered()
        self.application.answer = lambda message: None if message.call_data.call_id == "1" else OK
        first = self.application.when(xcc.NotifyXccConnectionData)
        self.gateway.place_call(self.script("answered"))
        await first
        ended = self.watcher.until(lambda: self.gateway.counters.ended == 1)
        self.gateway.place_call(self.script("busy"))
        await ended
        await self.watcher.until(lambda: len(self.watcher.steps) == 14)
        heard = self.application.events()
        self.assertEqual([event for event in heard if event[0] == "1"], [("1", "1", "Created")])
        self.assertEqual(len([event for event in heard if event[0] == "2"]), 5)

    async def test_both_styles_of_connection_tell_the_same(self) -> None:
        for persistent in (True, False):
            await self.begin_registered(persistent=persistent)
            for _ in range(5):
                self.gateway.place_call(self.script("answered"))
            await self.gateway.when_idle()
            self.assertEqual(len(self.application.events()), 45)

    async def test_layout_is_mixed_as_wanted(self) -> None:
        for share, broken in ((0.0, 0), (1.0, 9)):
            await self.begin_registered(line_breaks=share)
            await self.play("answered")
            self.assertEqual(sum(b"\n" in body for body in self.application.bodies[1:]), broken)

    async def test_only_subscribed_events_are_sent(self) -> None:
        await self.begin_registered(events=("ALERTING", "DISCONNECTED"))
        await self.play("answered")
        self.assertEqual({event[2] for event in self.application.events()}, {"Alerting", "Disconnected"})
        self.assertEqual(self.gateway.counters.filtered, 5)

    async def test_new_filter_is_for_new_calls(self) -> None:
        await self.begin_registered()
        call = self.gateway.place_call(self.script("answered"))
        update = xcc.RequestXccControlUpdate(
            msg_header=self.application.header, connection_events_filter=("ALERTING",)
        )
        await self.application.ask(self.gateway.url, update)
        await self.gateway.when_idle()
        self.assertEqual(len(self.application.events()), len(call.script.steps))
        self.application.received.clear()
        await self.play("answered")
        self.assertEqual([event[2] for event in self.application.events()], ["Alerting"] * 2)

    async def test_repeated_notification_is_the_same_to_the_letter(self) -> None:
        await self.begin_registered()
        await self.play("duplicate")
        bodies = self.application.bodies[1:]
        self.assertEqual((len(bodies), len(set(bodies))), (10, 9))

    async def test_two_calls_of_an_attended_transfer(self) -> None:
        await self.begin_registered()
        await self.play("attended_transfer")
        heard = self.application.events()
        (left,) = [event for event in heard if event[2] == "HandoffLeave"]
        (joined,) = [event for event in heard if event[2] == "HandoffJoin"]
        self.assertEqual((left[0], joined[0]), ("2", "1"))
        self.assertEqual(left[1], joined[1])

    async def test_call_that_began_unregistered_is_told_from_the_middle(self) -> None:
        await self.begin()
        call = self.gateway.place_call(self.script("no_answer"))
        await self.watcher.until(lambda: len(self.watcher.steps) >= 2)
        await self.application.register(self.gateway.url)
        await self.gateway.when_idle()
        told = len(self.application.events())
        self.assertLess(told, len(call.script.steps))
        self.assertEqual(told + self.gateway.counters.lost_unregistered, len(call.script.steps))

    async def test_failed_event_is_lost_and_the_next_is_sent(self) -> None:
        await self.begin_registered(probing=Probing(exchange_max_failures=100, keepalive=PATIENCE))
        self.application.answer = lambda m: BROKEN if isinstance(m.event, xcc.Alerting) else OK
        await self.play("answered")
        self.assertEqual(len(self.application.events()), 9)
        self.assertEqual((self.gateway.counters.notifications, self.gateway.counters.failed), (7, 2))
        self.assertEqual(self.gateway.counters.failures, {"HTTP 500": 2})

    async def test_make_calls_makes_as_many_as_wanted(self) -> None:
        await self.begin_registered()
        await self.gateway.make_calls(Traffic(mix={"busy": 1}, rate=1000, count=20))
        await self.gateway.when_idle()
        self.assertEqual((self.gateway.counters.calls, self.gateway.counters.ended), (20, 20))

    async def test_never_more_calls_than_allowed(self) -> None:
        await self.begin_registered()
        await self.gateway.make_calls(Traffic(mix={"long": 1}, rate=1000, count=20, max_calls=3))
        self.assertEqual((self.gateway.counters.calls, self.gateway.counters.not_placed), (3, 17))
        self.assertEqual(self.gateway.in_progress, 3)

    async def test_story_is_told(self) -> None:
        said: list[str] = []
        await self.begin(observers=[Story(said.append)])
        await self.application.register(self.gateway.url, ("ALERTING", "CREATED"))
        await self.play("attended_transfer")
        registration_id = self.application.registration_id
        self.assertEqual(said[0], f"cubehook registered as {registration_id} for ALERTING CREATED")
        self.assertRegex(said[1], r"^call 1: \S+ calls \S+ \(attended_transfer\)$")
        self.assertEqual(said[2:4], ["call 1 rings", "call 1 is answered"])
        ends = sorted(line for line in said if " ended, " in line)
        self.assertEqual(ends, [f"call {number} ended, cause 16" for number in (1, 2)])
        self.assertEqual(len(said), len(set(said)))


class ReleaseTests(GatewayTestCase):
    async def talking(self) -> None:
        """A call whose two legs are connected, for hours."""
        await self.begin_registered()
        self.call = self.gateway.place_call(self.script("long"))
        await self.watcher.until(lambda: self.watcher.statuses.count(200) == 7)
        self.application.received.clear()

    async def test_call_release_ends_every_leg(self) -> None:
        await self.talking()
        request = xcc.RequestXccCallRelease(msg_header=self.application.header, call_id="1", disc_cause=47)
        self.assertEqual((await self.application.ask(self.gateway.url, request))[0], 200)
        await self.gateway.when_idle()
        ends = [m for m in self.application.received if isinstance(m, xcc.NotifyXccConnectionData)]
        self.assertEqual([end.event for end in ends], [xcc.Disconnected(disc_cause=47)] * 2)
        self.assertEqual({end.conn_data.conn_id for end in ends}, {"1", "2"})
        status, fault = await self.application.ask(self.gateway.url, request)
        self.assertEqual((status, fault.reason), (500, "The call or connection ID is not known"))

    async def test_release_of_one_of_two_legs_ends_the_other_too(self) -> None:
        await self.talking()
        request = xcc.RequestXccConnectionRelease(
            msg_header=self.application.header, call_id="1", conn_id="2"
        )
        self.assertEqual((await self.application.ask(self.gateway.url, request))[0], 200)
        await self.gateway.when_idle()
        self.assertEqual(len(self.application.events()), 2)

    async def test_release_of_one_of_several_legs_leaves_the_call(self) -> None:
        await self.begin_registered()
        self.gateway.settings = Settings(remote_url=self.application.url, speed=1e-6)
        script = self.script("simultaneous")
        # All of it up to the last telephone that rings happens at once.
        last = max(n for n, step in enumerate(script.steps) if isinstance(step.event, xcc.Alerting))
        at_once = [Step(0.0, s.call, s.leg, s.event) for s in script.steps[: last + 1]]
        legs = {step.leg for step in at_once}
        script = Script(
            scenario="simultaneous",
            calling=None,
            called="",
            guids=script.guids,
            outcome="answered",
            steps=(*at_once, *script.steps[last + 1 :]),
        )
        call = self.gateway.place_call(script)
        self.assertEqual(set(call.live), legs)
        self.assertTrue(self.gateway.release_connection("1", call.connection_ids[1], 26))
        self.assertEqual(set(call.live), legs - {1})
        self.assertFalse(self.gateway.release_connection("1", call.connection_ids[1], 26))
        self.assertTrue(self.gateway.release_call("1", 16))
        await self.gateway.when_idle()
        ends = [event for event in self.application.events() if event[2] == "Disconnected"]
        self.assertEqual(len(ends), len(legs))


class AuthorizeTests(GatewayTestCase):
    EVENTS = ("AUTHORIZE_CALL", *EVERYTHING)

    def action(self, action: Any) -> None:
        def answer(message: Any) -> bytes | None:
            if isinstance(message, xcc.SolicitXccConnectionAuthorize):
                return soap(xcc.ResponseXccConnectionAuthorize(msg_header=message.msg_header, action=action))
            return well(message)

        self.application.answer = answer

    async def test_call_waits_for_the_answer_and_goes_on(self) -> None:
        await self.begin_registered(events=self.EVENTS)
        self.application.answer = lambda m: None if not isinstance(m, xcc.NotifyXccConnectionData) else OK
        solicited = self.application.when(xcc.SolicitXccConnectionAuthorize)
        call = self.gateway.place_call(self.script("answered"))
        message = await solicited
        self.assertEqual(message.conn_detail_data.conn_data.state, "AUTHORIZE_CALL_ATTEMPT")
        self.assertEqual((call.position, [event[2] for event in self.application.events()]), (1, ["Created"]))
        self.assertTrue(self.gateway.authorize("1", "1", None))
        self.assertEqual(self.gateway.authorize("1", "1", None), False)

    async def test_continue(self) -> None:
        await self.begin_registered(events=self.EVENTS)
        await self.play("answered")
        self.assertEqual(len(self.application.events()), 9)

    async def test_release(self) -> None:
        await self.begin_registered(events=self.EVENTS)
        self.action(xcc.Release(34))
        await self.play("answered")
        self.assertEqual([event[2] for event in self.application.events()], ["Created", "Disconnected"])
        self.assertEqual(self.application.received[-1].event.disc_cause, 34)

    async def test_block_until_the_time_is_over(self) -> None:
        for handle, events in (("CONTINUE_PROCESSING", 9), ("RELEASE", 2)):
            await self.begin_registered(events=self.EVENTS)
            self.action(xcc.Block(blocking_event_timeout_sec=1, blocking_timeout_handle=handle))
            self.patch(self.gateway, "_reactor", Impatient())
            await self.play("answered")
            self.assertEqual(len(self.application.events()), events)

    async def test_block_until_the_application_says_so(self) -> None:
        await self.begin_registered(events=self.EVENTS)
        self.action(xcc.Block(blocking_event_timeout_sec=300))
        solicited = self.application.when(xcc.SolicitXccConnectionAuthorize)
        call = self.gateway.place_call(self.script("answered"))
        await solicited
        request = xcc.RequestXccConnectionAuthorizeDone(
            msg_header=self.application.header, call_id="1", conn_id="1", action=xcc.ContinueProcessing()
        )
        self.assertEqual((await self.application.ask(self.gateway.url, request))[0], 200)
        await self.gateway.when_idle()
        self.assertEqual(len(self.application.events()), len(call.script.steps))

    async def test_no_answer_is_handled_as_registered(self) -> None:
        await self.begin(probing=Probing(exchange_max_failures=100, keepalive=PATIENCE))
        await self.application.register(self.gateway.url, self.EVENTS, blocking_timeout_handle="RELEASE")
        self.application.answer = lambda m: BROKEN if isinstance(m, xcc.SolicitXccConnectionAuthorize) else OK
        await self.play("answered")
        self.assertEqual([event[2] for event in self.application.events()], ["Created", "Disconnected"])


class Impatient:
    """The reactor, for which every wait is over at once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def callLater(self, delay: float, *args: Any) -> Any:
        return reactor.callLater(0, *args)


class ProbingTests(GatewayTestCase):
    async def test_the_probe_of_a_former_registration_is_not_taken_for_the_present_one(self) -> None:
        await self.begin_registered()
        held: list[Request] = []

        def hold(message: Any, request: Request) -> bool:
            held.append(request)
            return True

        self.application.hold = hold
        for _ in range(2):
            probed = self.application.when(xcc.SolicitXccProbing)
            self.gateway.probe_now()
            await probed
            await self.application.register(self.gateway.url)
        probed = self.application.when(xcc.SolicitXccProbing)
        self.gateway.probe_now()
        await probed
        for request in held[:2]:
            request.respond(BROKEN)
        # A round trip later the gateway has both.
        await self.application.ask(self.gateway.url, xcc.RequestXccUnRegister(xcc.MsgHeader("A:1", "x")))
        self.assertEqual((self.gateway.counters.probes_failed, self.gateway.prober.failures), (2, 0))
        self.assertIsNone(self.gateway.prober.due)

    async def test_probe_after_silence_and_what_it_says(self) -> None:
        probing = Probing(keepalive=0.02, response_timeout=PATIENCE)
        await self.begin_registered(probing=probing)
        first = await self.application.when(xcc.SolicitXccProbing)
        second = await self.application.when(xcc.SolicitXccProbing)
        self.assertEqual((first.sequence, second.sequence), ("1", "2"))
        self.assertEqual(first.interval_seconds, 0.02)
        self.assertEqual((first.failure_count, first.registered), (0, True))
        self.assertEqual(first.provider_status, "IN_SERVICE")
        self.assertEqual(first.msg_header.registration_id, self.application.registration_id)
        self.assertEqual(self.watcher.states[:2], [ProberState.STEADY, ProberState.KEEPALIVE])

    async def test_failures_make_it_negative_events_are_lost_and_a_good_probe_ends_it(self) -> None:
        await self.begin_registered()
        self.application.answer = lambda message: BROKEN
        self.gateway.place_call(self.script("answered"))
        await self.watcher.until(lambda: ProberState.NEGATIVE in self.watcher.states)
        probe = self.application.when(xcc.SolicitXccProbing)
        self.application.answer = well
        self.assertEqual((await probe).failure_count, 2)
        await self.watcher.until(lambda: self.watcher.states[-1] is ProberState.STEADY)
        await self.gateway.when_idle()
        counters = self.gateway.counters
        self.assertEqual(counters.failed, 2)
        self.assertEqual(counters.notifications + counters.failed + counters.lost_negative, 9)
        self.application.received.clear()
        await self.play("busy")
        self.assertEqual(len(self.application.events()), 5)

    async def test_nothing_but_probes_while_negative(self) -> None:
        probing = Probing(exchange_max_failures=0, keepalive=PATIENCE, negative=PATIENCE)
        await self.begin_registered(probing=probing)
        self.application.answer = lambda message: BROKEN
        await self.play("answered")
        self.assertEqual(len(self.application.events()), 1)
        self.assertEqual(self.gateway.counters.lost_negative, 8)
        self.application.answer = well
        self.gateway.probe_now()
        await self.watcher.until(lambda: self.watcher.states[-1] is ProberState.STEADY)

    async def test_events_go_on_while_negative_if_wanted(self) -> None:
        probing = Probing(exchange_max_failures=0, keepalive=PATIENCE, negative=PATIENCE)
        await self.begin_registered(probing=probing, negative_loss=False)
        self.application.answer = lambda message: BROKEN
        await self.play("answered")
        self.assertEqual((len(self.application.events()), self.gateway.counters.lost_negative), (9, 0))

    async def test_application_that_never_answers_probes_is_given_up(self) -> None:
        await self.begin_registered()
        self.application.answer = lambda message: BROKEN
        self.gateway.place_call(self.script("busy"))
        await self.watcher.until(lambda: bool(self.watcher.gone))
        self.assertEqual(self.watcher.gone, ["the application did not answer probes"])
        self.assertIsNone(self.gateway.registration)
        self.assertEqual((self.gateway.counters.probes, self.gateway.counters.probes_failed), (2, 2))

    async def test_application_that_is_away_fails_exchanges(self) -> None:
        await self.begin_registered()
        await self.application.stop()
        self.gateway.place_call(self.script("busy"))
        await self.watcher.until(lambda: bool(self.watcher.gone))
        self.assertIn("refused", " ".join(self.gateway.counters.failures))

    async def test_answer_must_echo_the_probe(self) -> None:
        def wrong_sequence(m: Any) -> bytes:
            return soap(xcc.ResponseXccProbing(msg_header=m.msg_header, sequence="77"))

        def wrong_id(m: Any) -> bytes:
            header = xcc.MsgHeader(m.msg_header.transaction_id, "other")
            return soap(xcc.ResponseXccProbing(msg_header=header, sequence=m.sequence))

        for answer in (wrong_sequence, wrong_id, lambda m: OK, lambda m: response(200, b"<x/>")):
            await self.begin_registered(probing=Probing(exchange_max_failures=0, keepalive=PATIENCE))
            self.application.answer = answer
            self.gateway.probe_now()
            await self.watcher.until(lambda: ProberState.NEGATIVE in self.watcher.states)

    async def test_forgotten_registration_is_told_in_the_next_probe(self) -> None:
        await self.begin_registered()
        self.gateway.forget_registration()
        probe = self.application.when(xcc.SolicitXccProbing)
        self.gateway.probe_now()
        message = await probe
        self.assertIs(message.registered, False)
        self.assertEqual(message.msg_header.registration_id, self.application.registration_id)


class SettingsTests(TestCase):
    def test_remote_url_must_be_http(self) -> None:
        with self.assertRaises(ValueError):
            SimulatedGateway(reactor, Settings(remote_url="https://192.0.2.1/x"), Random(1))

    async def test_status_reaches_an_application_at_any_path(self) -> None:
        seen: Deferred[Request] = Deferred()

        def handle(request: Request) -> None:
            request.respond(OK)
            seen.callback(request)

        server = Server(handle)
        origin = await server.listen(reactor, "tcp:0:interface=127.0.0.1")
        gateway = SimulatedGateway(reactor, Settings(remote_url=f"{origin}/a?b=c"), Random(1))
        await gateway.start()
        request = await seen
        self.assertEqual(request.target, b"/a?b=c")
        self.assertIsInstance(codec.read(request.body), xcc.NotifyXccProviderStatus)
        await gateway.stop()
        await server.close()
