"""The registrar with a clock and a client that are both in the test's hand."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cubehook.config import Cube
from cubehook.events import Micros
from cubehook.interfaces import IJournal, StoreFullError
from cubehook.records import Registration, RegistrationState
from cubehook.xcc import messages as xcc
from cubehook.xcc.client import AnswerTimeoutError, FaultError
from cubehook.xcc.registrar import STOP_SECONDS, Registrar
from cubehook.xcc.registration import MISSED_INTERVALS, SECOND, SETTLED, SILENCE_MARGIN

EPOCH = 1_700_000_000
MINE = "4CA5E4:XCC:cubehook:1"
FAULT = FaultError("The gateway refused.", xcc.Fault(code="Receiver", reason="no"))


@implementer(IJournal)
class Journal:
    degraded = False
    full = False

    def __init__(self) -> None:
        self.kept: list[Registration] = []
        self.fail_with: Exception | None = None

    def accept(self, *args: Any) -> Deferred[None]:
        return succeed(None)

    def registration(self, registration: Registration) -> Deferred[None]:
        self.kept.append(registration)
        return succeed(None) if self.fail_with is None else fail(self.fail_with)


class FakeClient:
    """Keeps every request until the test answers it; `at_once` answers registers without waiting."""

    def __init__(self) -> None:
        self.registers: list[Deferred[xcc.ResponseXccRegister]] = []
        self.unregisters: list[tuple[str, Deferred[None]]] = []
        self.at_once: xcc.ResponseXccRegister | Exception | None = None

    async def register(self) -> xcc.ResponseXccRegister:
        asked: Deferred[xcc.ResponseXccRegister] = Deferred()
        self.registers.append(asked)
        if isinstance(self.at_once, Exception):
            raise self.at_once
        if self.at_once is not None:
            return self.at_once
        return await asked

    async def unregister(self, registration_id: str) -> None:
        asked: Deferred[None] = Deferred()
        self.unregisters.append((registration_id, asked))
        await asked


def grant(name: str = MINE, status: str | None = "IN_SERVICE") -> xcc.ResponseXccRegister:
    return xcc.ResponseXccRegister(msg_header=xcc.MsgHeader("1:1", name), provider_status=status)


def notification(name: str | None = MINE) -> xcc.NotifyXccConnectionData:
    return xcc.NotifyXccConnectionData(
        msg_header=xcc.MsgHeader("546CF8:25", name),
        call_data=xcc.CallData("25", "ACTIVE"),
        conn_data=xcc.ConnData("132", "ALERTING"),
        event=xcc.Alerting(),
    )


def probe(name: str | None = MINE, **told: Any) -> xcc.SolicitXccProbing:
    known: dict[str, Any] = {
        "sequence": "7",
        "interval_seconds": 30.0,
        "failure_count": 0,
        "registered": True,
        "provider_status": "IN_SERVICE",
    }
    return xcc.SolicitXccProbing(msg_header=xcc.MsgHeader("546CF8:26", name), **(known | told))


class RegistrarTests(SynchronousTestCase):
    enabled = True

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = EPOCH
        self.client = FakeClient()
        self.journal = Journal()
        self.results: list[str] = []
        self.losses = 0
        self.reloads: list[Micros] = []
        self.logged: list[LogEvent] = []
        observer = cast(ILogObserver, self.logged.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.registrar = self.make(True)

    def make(self, enabled: bool) -> Registrar:
        return Registrar(
            Cube(
                id="hq",
                provider_url="http://192.0.2.1:8090/cisco_xcc",
                application_url="http://192.0.2.20:8090/xcc/hq",
                enabled=enabled,
            ),
            self.client,
            self.journal,
            self.clock,
            self.now,
            on_result=self.results.append,
            on_loss=self.lost,
            on_reload=self.reloads.append,
            random=lambda: 0.5,
        )

    def now(self) -> Micros:
        return int(self.clock.seconds() * SECOND)

    def lost(self) -> None:
        self.losses += 1

    def hear(self, message: xcc.FromGateway) -> Any:
        return self.registrar.heard(message, self.now())

    @property
    def state(self) -> RegistrationState:
        return self.registrar.registration.state

    def register(self) -> None:
        self.registrar.start()
        self.client.registers[-1].callback(grant())

    def words(self) -> list[str]:
        return [formatEvent(event) for event in self.logged if event.get("cube") == "hq"]


class LifeTests(RegistrarTests):
    def test_start(self) -> None:
        self.registrar.start()
        self.assertEqual(len(self.client.registers), 1)
        self.assertFalse(self.registrar.registered)
        self.assertEqual(self.state, RegistrationState.REGISTERING)
        self.client.registers[0].callback(grant())
        self.assertTrue(self.registrar.registered)
        self.assertEqual(self.registrar.registration_id, MINE)
        self.assertEqual(self.results, ["registered"])
        self.assertEqual(
            [kept.state for kept in self.journal.kept],
            [RegistrationState.REGISTERING, RegistrationState.REGISTERED],
        )
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertIn(MINE, self.words()[-1])
        self.assertIn("hq", self.words()[-1])

    def test_a_client_that_answers_at_once(self) -> None:
        self.client.at_once = grant()
        self.registrar.start()
        self.assertTrue(self.registrar.registered)
        # The wake-up for silence must survive the commands of the request that came before it.
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(3600)
        self.assertGreater(len(self.client.registers), 1)

    def test_a_client_that_fails_at_once(self) -> None:
        self.client.at_once = AnswerTimeoutError("192.0.2.1:8090 did not answer.")
        self.registrar.start()
        self.assertEqual(self.state, RegistrationState.UNREGISTERED)
        for _ in range(1200):
            self.clock.advance(1)
        # 1, 2, 4, ... 60 s apart
        self.assertEqual(len(self.client.registers), 1 + 6 + (1200 - 63) // 60)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_results(self) -> None:
        self.registrar.start()
        self.client.registers[0].errback(AnswerTimeoutError("192.0.2.1:8090 did not answer."))
        self.assertEqual(self.registrar.registration.last_error, "192.0.2.1:8090 did not answer.")
        self.assertEqual(self.state, RegistrationState.UNREGISTERED)
        self.clock.advance(1)
        self.client.registers[1].errback(FAULT)
        self.assertEqual(self.state, RegistrationState.REJECTED)
        self.clock.advance(4)
        self.client.registers[2].callback(grant(status="SHUTDOWN"))
        self.assertEqual(self.state, RegistrationState.UNREGISTERED)
        self.assertEqual(self.results, ["timeout", "rejected", "shutdown"])

    def test_a_bug_in_the_client_is_logged_and_tried_again(self) -> None:
        self.registrar.start()
        self.client.registers[0].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.state, self.results), (RegistrationState.UNREGISTERED, ["failed"]))
        self.clock.advance(1)
        self.assertEqual(len(self.client.registers), 2)

    def test_a_journal_that_fails_is_logged(self) -> None:
        self.journal.fail_with = StoreFullError()
        self.register()
        self.assertTrue(self.registrar.registered)
        self.assertEqual(len(self.flushLoggedErrors(StoreFullError)), 2)

    def test_silence(self) -> None:
        self.register()
        self.hear(probe())
        limit = MISSED_INTERVALS * 30 + SILENCE_MARGIN // SECOND
        for _ in range(50):
            self.clock.advance(limit - 1)
            self.hear(notification())
        self.assertEqual(len(self.client.registers), 1)
        self.clock.advance(limit - 1)
        self.assertEqual(len(self.client.registers), 1)
        self.clock.advance(1)
        self.assertEqual((len(self.client.registers), self.state), (2, RegistrationState.SILENT))
        self.assertFalse(self.registrar.registered)
        self.assertEqual(self.losses, 1)

    def test_clock_set_back_does_not_delay_retries(self) -> None:
        self.registrar.start()
        self.client.registers[0].errback(FAULT)
        wall = self.registrar._now
        self.registrar._now = lambda: wall() - 3600 * SECOND
        self.clock.advance(2)
        self.assertEqual(len(self.client.registers), 2)

    def test_clock_set_forward_makes_no_gateway_silent(self) -> None:
        self.register()
        self.registrar.heard(probe(), self.registrar._now())
        wall = self.registrar._now
        self.registrar._now = lambda: wall() + 86400 * SECOND
        self.registrar.clock_set(86400 * SECOND)
        self.assertEqual(self.registrar.registration.last_message_at, self.registrar._now())
        self.clock.advance(70)
        self.assertEqual(self.state, RegistrationState.REGISTERED)

    def test_restore(self) -> None:
        earlier = Registration(
            cube="hq",
            state=RegistrationState.REJECTED,
            since=EPOCH * SECOND - 5,
            last_message_at=EPOCH * SECOND - 9,
            failure_count=4,
            last_error="x",
            reason="y",
        )
        self.registrar.restore(earlier)
        self.assertEqual(self.registrar.registration, earlier)
        self.registrar.start()
        self.assertEqual(len(self.client.registers), 1)
        self.client.registers[0].errback(FAULT)
        now = self.registrar.registration
        self.assertEqual((now.since, now.failure_count), (earlier.since, 5))
        self.assertEqual(now.last_message_at, earlier.last_message_at)


class DisabledTests(RegistrarTests):
    def test_never_registers(self) -> None:
        self.registrar = self.make(False)
        self.registrar.start()
        self.assertEqual(self.state, RegistrationState.DISABLED)
        self.assertEqual((self.client.registers, self.clock.getDelayedCalls()), ([], []))
        self.assertEqual(
            self.successResultOf(Deferred.fromCoroutine(self.registrar.register())).state,
            RegistrationState.DISABLED,
        )
        self.successResultOf(Deferred.fromCoroutine(self.registrar.stop()))
        self.assertEqual(self.state, RegistrationState.DISABLED)


class HeardTests(RegistrarTests):
    def test_notification(self) -> None:
        self.register()
        self.clock.advance(5)
        kept = len(self.journal.kept)
        self.assertIsNone(self.hear(notification()))
        self.assertEqual(self.registrar.registration.last_message_at, self.now())
        self.assertEqual((len(self.client.registers), len(self.journal.kept)), (1, kept))

    def test_when_it_was_probed(self) -> None:
        self.register()
        self.assertIsNone(self.registrar.registration.last_probe_at)
        self.hear(probe())
        probed = self.now()
        self.clock.advance(5)
        self.hear(notification())
        shown = self.registrar.registration
        self.assertEqual((shown.last_probe_at, shown.last_message_at), (probed, self.now()))

    def test_notification_without_an_id_ends_silence(self) -> None:
        self.register()
        self.clock.advance(3600)
        self.assertEqual(self.state, RegistrationState.SILENT)
        self.hear(notification(None))
        self.assertEqual(self.state, RegistrationState.UNREGISTERED)

    def test_notifications_move_no_timer(self) -> None:
        self.register()
        (before,) = self.clock.getDelayedCalls()
        self.hear(probe())
        (timer,) = self.clock.getDelayedCalls()
        self.assertIsNot(timer, before)
        for _ in range(10):
            self.clock.advance(1)
            self.hear(notification())
        self.assertEqual(self.clock.getDelayedCalls(), [timer])

    def test_notification_of_another_registration(self) -> None:
        self.register()
        self.clock.advance(60)
        self.assertIsNone(self.hear(notification("other")))
        self.assertEqual(len(self.client.registers), 2)
        self.assertTrue(self.registrar.registered)

    def test_probe(self) -> None:
        self.register()
        answer = self.hear(probe())
        self.assertEqual(
            answer, xcc.ResponseXccProbing(msg_header=xcc.MsgHeader("546CF8:26", MINE), sequence="7")
        )
        self.assertEqual(len(self.client.registers), 1)

    def test_probe_of_another_registration_is_answered_as_asked(self) -> None:
        self.register()
        self.clock.advance(60)
        answer = self.hear(probe("other"))
        self.assertEqual(answer.msg_header, xcc.MsgHeader("546CF8:26", "other"))
        self.assertEqual(len(self.client.registers), 2)

    def test_probe_says_unregistered(self) -> None:
        self.register()
        self.clock.advance(60)
        self.assertIsInstance(self.hear(probe(registered=False)), xcc.ResponseXccProbing)
        self.assertEqual((len(self.client.registers), self.losses), (2, 1))
        self.assertFalse(self.registrar.registered)

    def test_probe_tells_of_failures(self) -> None:
        self.register()
        self.hear(probe(failure_count=2))
        self.assertEqual(self.losses, 1)
        self.assertEqual(self.registrar.registration.failure_count, 2)
        self.assertTrue(self.registrar.registered)

    def in_service(self, transaction_id: str | None) -> None:
        """The provider is in service, long after it registered us."""
        self.clock.advance(SETTLED // SECOND)
        header = xcc.MsgHeader(transaction_id)
        self.assertIsNone(
            self.hear(xcc.NotifyXccProviderStatus(msg_header=header, provider_status="IN_SERVICE"))
        )
        self.assertEqual((len(self.client.registers), self.losses), (2, 1))

    def test_reload(self) -> None:
        self.register()
        self.hear(notification())
        self.in_service("3E8:1")
        self.assertEqual(self.reloads, [self.now()])

    def test_reload_is_seen_in_whatever_was_heard_last(self) -> None:
        self.register()
        self.hear(notification())
        self.hear(probe())
        unnumbered = xcc.MsgHeader(registration_id=MINE)
        self.hear(xcc.SolicitXccProbing(msg_header=unnumbered, interval_seconds=30.0))
        # one more than the notification, as many as the probe
        self.in_service("3E8:26")
        self.assertEqual(self.reloads, [self.now()])

    def test_goodbye_was_lost(self) -> None:
        self.register()
        self.hear(notification())
        self.in_service("546D00:26")
        self.assertEqual(self.reloads, [])

    def test_nothing_to_tell_a_reload_by(self) -> None:
        for heard, told in ((False, "3E8:1"), (True, None)):
            self.setUp()
            self.register()
            if heard:
                self.hear(notification())
            self.in_service(told)
            self.assertEqual(self.reloads, [])

    def test_provider_shut_down(self) -> None:
        self.register()
        self.clock.advance(SETTLED // SECOND)
        status = xcc.NotifyXccProviderStatus(msg_header=xcc.MsgHeader("1"), provider_status="SHUTDOWN")
        self.assertIsNone(self.hear(status))
        self.assertEqual((self.state, self.reloads), (RegistrationState.UNREGISTERED, []))

    def test_unregistered_by_the_gateway(self) -> None:
        self.register()
        header = xcc.MsgHeader("D3:1", MINE)
        answer = self.hear(xcc.SolicitXccProviderUnRegister(header))
        self.assertEqual(answer, xcc.ResponseXccProviderUnRegister(header))
        self.assertEqual((self.state, self.losses), (RegistrationState.UNREGISTERED, 1))

    def test_calls_that_wait_go_on(self) -> None:
        for name in (MINE, "other", None):
            header = xcc.MsgHeader("D3:1", name)
            self.assertEqual(
                self.hear(
                    xcc.SolicitXccConnectionAuthorize(
                        msg_header=header, call_data=xcc.CallData("1"), conn_detail_data=xcc.ConnDetailData()
                    )
                ),
                xcc.ResponseXccConnectionAuthorize(msg_header=header, action=xcc.ContinueProcessing()),
            )
            self.assertEqual(
                self.hear(
                    xcc.SolicitXccConnectionAddressAnalyze(
                        msg_header=header, call_data=xcc.CallData("1"), conn_data=xcc.ConnData("1")
                    )
                ),
                xcc.ResponseXccConnectionAddressAnalyze(msg_header=header, action=xcc.ContinueProcessing()),
            )

    def test_unknown_message(self) -> None:
        self.register()
        self.assertIsNone(
            self.hear(xcc.UnknownMessage(name="NotifyNew", msg_header=xcc.MsgHeader("1", MINE)))
        )
        self.assertEqual(len(self.client.registers), 1)

    def test_before_start_and_after_stop_questions_are_answered(self) -> None:
        self.assertIsInstance(self.hear(probe()), xcc.ResponseXccProbing)
        self.assertIsNone(self.hear(notification()))
        self.assertEqual(self.client.registers, [])

    def test_received_text_is_no_format(self) -> None:
        self.register()
        self.clock.advance(60)
        self.hear(notification("{log_source.__class__}\n\x1b[2J"))
        line = self.words()[-1]
        self.assertIn("{log_source.__class__}", line)
        self.assertNotIn("\n", line)
        self.assertNotIn("\x1b", line)


class RegisterAgainTests(RegistrarTests):
    def test_waits_for_the_result(self) -> None:
        self.register()
        self.clock.advance(60)
        asked = Deferred.fromCoroutine(self.registrar.register())
        self.assertNoResult(asked)
        self.client.registers[1].callback(grant("new"))
        self.assertEqual(self.successResultOf(asked).registration_id, "new")

    def test_not_more_often_than_once_a_second(self) -> None:
        self.register()
        self.clock.advance(60)
        self.client.at_once = grant("new")
        self.successResultOf(Deferred.fromCoroutine(self.registrar.register()))
        asked = Deferred.fromCoroutine(self.registrar.register())
        self.assertNoResult(asked)
        self.clock.advance(1)
        self.successResultOf(asked)
        self.assertEqual(len(self.client.registers), 3)

    def test_ended_by_stop(self) -> None:
        self.client.at_once = FAULT
        self.registrar.start()
        asked = Deferred.fromCoroutine(self.registrar.register())
        self.assertNoResult(asked)
        self.successResultOf(Deferred.fromCoroutine(self.registrar.stop()))
        self.assertEqual(self.successResultOf(asked).state, RegistrationState.REJECTED)

    def test_cancelled(self) -> None:
        self.register()
        self.clock.advance(60)
        asked = Deferred.fromCoroutine(self.registrar.register())
        asked.cancel()
        self.failureResultOf(asked)
        # Who asked went away; the request goes on.
        self.client.registers[1].callback(grant("new"))
        self.assertEqual(self.registrar.registration_id, "new")


class StopTests(RegistrarTests):
    def stop(self, *, disabled: bool = False) -> Deferred[None]:
        return Deferred.fromCoroutine(self.registrar.stop(disabled=disabled))

    def test_unregisters(self) -> None:
        self.register()
        stopped = self.stop()
        ((name, asked),) = self.client.unregisters
        self.assertEqual(name, MINE)
        self.assertNoResult(stopped)
        asked.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.journal.kept[-1].state, RegistrationState.UNREGISTERED)

    def test_is_left_to_the_next_run(self) -> None:
        self.register()
        self.successResultOf(Deferred.fromCoroutine(self.registrar.hand_over()))
        self.assertEqual((self.client.unregisters, self.clock.getDelayedCalls()), ([], []))
        kept = self.journal.kept[-1]
        self.assertEqual((kept.state, kept.registration_id), (RegistrationState.REGISTERED, MINE))
        self.client.at_once = grant("new")
        self.registrar = self.make(True)
        self.registrar.restore(kept)
        self.registrar.start()
        self.clock.advance(1)
        self.assertEqual((self.registrar.registration_id, self.losses), ("new", 0))

    def test_what_was_never_taken_up_stays_as_it_was_left(self) -> None:
        self.register()
        crashed = self.registrar.registration
        self.registrar = self.make(True)
        self.registrar.restore(crashed)
        before = len(self.journal.kept)
        self.successResultOf(Deferred.fromCoroutine(self.registrar.hand_over()))
        self.assertEqual((len(self.journal.kept), self.client.unregisters), (before, []))

    def test_what_is_not_registered_cannot_be_left(self) -> None:
        self.registrar.start()
        over = Deferred.fromCoroutine(self.registrar.hand_over())
        self.clock.advance(STOP_SECONDS)
        self.successResultOf(over)
        self.assertEqual((self.state, self.clock.getDelayedCalls()), (RegistrationState.UNREGISTERED, []))

    def test_for_two_seconds_at_most(self) -> None:
        self.register()
        stopped = self.stop()
        self.clock.advance(STOP_SECONDS - 0.01)
        self.assertNoResult(stopped)
        self.clock.advance(0.01)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.client.unregisters[0][1].called)

    def test_a_refusal_does_not_matter(self) -> None:
        self.register()
        stopped = self.stop()
        self.client.unregisters[0][1].errback(FAULT)
        self.successResultOf(stopped)
        self.assertIn("not unregistered", self.words()[-1])

    def test_a_late_grant_is_undone(self) -> None:
        self.registrar.start()
        stopped = self.stop()
        self.assertEqual(self.client.unregisters, [])
        self.client.registers[0].callback(grant("late"))
        self.assertNoResult(stopped)
        self.assertEqual(self.client.unregisters[0][0], "late")
        self.client.unregisters[0][1].callback(None)
        self.successResultOf(stopped)

    def test_a_request_under_way_is_cancelled(self) -> None:
        self.registrar.start()
        stopped = self.stop()
        self.clock.advance(STOP_SECONDS)
        self.successResultOf(stopped)
        self.assertEqual(self.results, ["cancelled"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_registered(self) -> None:
        self.client.at_once = FAULT
        self.registrar.start()
        self.successResultOf(self.stop())
        self.assertEqual((self.client.unregisters, self.clock.getDelayedCalls()), ([], []))

    def test_disabled_and_enabled(self) -> None:
        self.register()
        stopped = self.stop(disabled=True)
        self.client.unregisters[0][1].callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.state, RegistrationState.DISABLED)
        self.clock.advance(1)
        self.registrar.start()
        self.assertEqual((self.state, len(self.client.registers)), (RegistrationState.REGISTERING, 2))
