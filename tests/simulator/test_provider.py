"""The provider's answers and the prober's states: pure, with times handed in."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.simulator.provider import Prober, ProberState, Probing, Provider
from cubehook.xcc import codec
from cubehook.xcc import messages as xcc

SECOND = 1_000_000
URL = "http://192.0.2.20:8090/xcc/hq"
PROBING = Probing(exchange_max_failures=2, max_failures=3, keepalive=30, negative=5)


class ProberTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.prober = Prober(PROBING)
        self.prober.registered(0)

    def probe(self, good: bool, now: int) -> None:
        self.prober.probe()
        self.prober.probed(good, now)

    def make_negative(self) -> None:
        for _ in range(3):
            self.prober.exchanged(False, 1 * SECOND)
        self.assertIs(self.prober.state, ProberState.NEGATIVE)

    def test_registered_is_steady_and_a_probe_is_due_after_the_keepalive(self) -> None:
        self.assertIs(self.prober.state, ProberState.STEADY)
        self.assertEqual(self.prober.due, 30 * SECOND)

    def test_any_good_exchange_restarts_the_timer(self) -> None:
        self.prober.exchanged(True, 20 * SECOND)
        self.assertEqual(self.prober.due, 50 * SECOND)

    def test_failed_exchange_does_not_restart_the_timer(self) -> None:
        self.prober.exchanged(False, 20 * SECOND)
        self.assertEqual(self.prober.due, 30 * SECOND)
        self.assertEqual(self.prober.failures, 1)

    def test_silence_is_keepalive_and_an_event_makes_it_steady_again(self) -> None:
        self.probe(True, 30 * SECOND)
        self.assertIs(self.prober.state, ProberState.KEEPALIVE)
        self.assertEqual(self.prober.due, 60 * SECOND)
        self.prober.exchanged(True, 40 * SECOND)
        self.assertIs(self.prober.state, ProberState.STEADY)

    def test_nothing_is_due_while_a_probe_is_under_way(self) -> None:
        self.prober.probe()
        self.assertIsNone(self.prober.due)
        self.prober.exchanged(True, 31 * SECOND)
        self.assertIsNone(self.prober.due)

    def test_more_failures_than_allowed_make_it_negative(self) -> None:
        for _ in range(2):
            self.prober.exchanged(False, 1 * SECOND)
        self.assertIs(self.prober.state, ProberState.STEADY)
        self.prober.exchanged(False, 2 * SECOND)
        self.assertIs(self.prober.state, ProberState.NEGATIVE)
        self.assertEqual(self.prober.due, 7 * SECOND)
        self.assertEqual(self.prober.interval, 5)

    def test_good_exchange_between_failures_forgives_them(self) -> None:
        for good in (False, False, True, False, False):
            self.prober.exchanged(good, 1 * SECOND)
        self.assertIs(self.prober.state, ProberState.STEADY)
        self.assertEqual(self.prober.failures, 2)

    def test_failed_probes_count_as_failed_exchanges(self) -> None:
        for number in range(1, 4):
            self.probe(False, number * 30 * SECOND)
            self.assertEqual(self.prober.failures, number)
        self.assertIs(self.prober.state, ProberState.NEGATIVE)

    def test_one_good_answer_ends_the_negative_state(self) -> None:
        self.make_negative()
        self.probe(False, 6 * SECOND)
        self.probe(False, 11 * SECOND)
        self.probe(True, 16 * SECOND)
        self.assertIs(self.prober.state, ProberState.STEADY)
        self.assertEqual((self.prober.failures, self.prober.due), (0, 46 * SECOND))
        # And the count of failed probes begins again.
        self.make_negative()
        self.probe(False, 20 * SECOND)
        self.probe(False, 25 * SECOND)
        self.assertIs(self.prober.state, ProberState.NEGATIVE)

    def test_too_many_failed_probes_end_the_registration(self) -> None:
        self.make_negative()
        for number in range(3):
            self.assertIs(self.prober.state, ProberState.NEGATIVE)
            self.probe(False, (6 + number) * SECOND)
        self.assertIs(self.prober.state, ProberState.UNREGISTERED)
        self.assertIsNone(self.prober.due)

    def test_unregistered_ignores_what_still_comes(self) -> None:
        self.prober.probe()
        self.prober.unregistered()
        self.prober.probed(True, SECOND)
        self.prober.exchanged(True, SECOND)
        self.assertIs(self.prober.state, ProberState.UNREGISTERED)
        self.assertIsNone(self.prober.due)

    def test_probe_of_an_earlier_registration_says_nothing_of_this_one(self) -> None:
        self.prober.probe()
        self.prober.registered(5 * SECOND)
        self.prober.probed(False, 6 * SECOND)
        self.assertEqual((self.prober.failures, self.prober.due), (0, 35 * SECOND))

    def test_sequence_counts_and_begins_anew_with_a_registration(self) -> None:
        self.probe(True, SECOND)
        self.probe(True, SECOND)
        self.assertEqual(self.prober.sequence, 2)
        self.prober.registered(SECOND)
        self.prober.probe()
        self.assertEqual(self.prober.sequence, 1)

    @settings(max_examples=150)
    @given(st.lists(st.sampled_from(["good", "bad", "probe good", "probe bad", "register"]), max_size=40))
    def test_a_registered_application_is_always_probed_in_the_end(self, story: list[str]) -> None:
        prober = Prober(PROBING)
        prober.registered(0)
        for number, word in enumerate(story):
            now = number * SECOND
            if word == "register":
                prober.registered(now)
            elif prober.state is ProberState.UNREGISTERED:
                self.assertIsNone(prober.due)
            elif word.startswith("probe"):
                prober.probe()
                prober.probed(word == "probe good", now)
            else:
                prober.exchanged(word == "good", now)
            if prober.state is not ProberState.UNREGISTERED:
                self.assertIsNotNone(prober.due)
                self.assertEqual(
                    prober.state is ProberState.NEGATIVE, prober.failures > PROBING.exchange_max_failures
                )


class FakeCalls:
    """Knows call 25 with its leg 132, waiting to be authorized."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []

    def release_call(self, call_id: str, cause: int) -> bool:
        self.done.append(("call", call_id, cause))
        return call_id == "25"

    def release_connection(self, call_id: str, connection_id: str, cause: int) -> bool:
        self.done.append(("connection", call_id, connection_id, cause))
        return (call_id, connection_id) == ("25", "132")

    def authorize(self, call_id: str, connection_id: str, cause: int | None) -> bool:
        self.done.append(("authorize", call_id, connection_id, cause))
        return (call_id, connection_id) == ("25", "132")


class ProviderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls = FakeCalls()
        self.provider = Provider(URL, PROBING, self.calls, 0x4CA5E3)

    def ask(self, message: codec.Message) -> tuple[int, Any]:
        status, body, self.refused = self.provider.answer(codec.write(message), 7)
        return status, codec.read(body)

    def register(self, url: str = URL, name: str | None = "cubehook", **changes: Any) -> tuple[int, Any]:
        return self.ask(
            xcc.RequestXccRegister(
                msg_header=xcc.MsgHeader("A:1"),
                application_data=xcc.ApplicationData(url, name),
                provider_data=xcc.ProviderData("http://192.0.2.1:8090/cisco_xcc"),
                **changes,
            )
        )

    def registered(self) -> xcc.MsgHeader:
        _, answer = self.register(connection_events_filter=("CREATED", "ALERTING"))
        return xcc.MsgHeader("A:2", answer.msg_header.registration_id)

    def test_register(self) -> None:
        status, answer = self.register(connection_events_filter=("CREATED", "ALERTING"))
        self.assertEqual(status, 200)
        self.assertEqual(
            answer,
            xcc.ResponseXccRegister(
                msg_header=xcc.MsgHeader("A:1", "4CA5E4:XCC:cubehook:1"), provider_status="IN_SERVICE"
            ),
        )
        assert self.provider.registration is not None
        self.assertEqual(self.provider.registration.events, {"CREATED", "ALERTING"})
        self.assertIs(self.provider.prober.state, ProberState.STEADY)

    def test_every_registration_has_an_id_of_its_own_also_after_a_reload(self) -> None:
        ids = []
        for _ in range(3):
            ids.append(self.registered().registration_id)
            ids.append(self.registered().registration_id)
            self.provider.reload()
            self.assertIsNone(self.provider.registration)
        self.assertEqual(len(set(ids)), 6)
        self.assertEqual([str(one).rpartition(":")[2] for one in ids], ["1", "2"] * 3)

    def test_url_must_be_equal_to_the_letter(self) -> None:
        for url in (URL + "/", URL.upper(), URL.replace("192.0.2.20", "app"), URL + "?x"):
            status, fault = self.register(url)
            self.assertEqual((status, fault.code, fault.subcode), (500, "Receiver", "SERVICE EXCEPTION"))
            self.assertEqual(fault.detail["operation"], "RequestXccRegister")
            self.assertEqual(fault.detail["transactionID"], "A:1")
        self.assertIsNone(self.provider.registration)

    def test_provider_that_is_shut_down_refuses(self) -> None:
        self.provider.in_service = False
        status, fault = self.register(name="a\x85b")
        self.assertEqual((status, fault.reason), (500, "The provider is shut down"))
        self.assertEqual(self.refused, rf"the registration of a\x85b at {URL}: The provider is shut down")

    def test_name_cannot_break_the_id(self) -> None:
        _, answer = self.register(name="<a>:&\u00e9")
        self.assertEqual(answer.msg_header.registration_id, "4CA5E4:XCC:a:1")
        _, answer = self.register(name="<>")
        self.assertEqual(answer.msg_header.registration_id, "4CA5E5:XCC:app:2")

    def test_unregister(self) -> None:
        header = self.registered()
        self.assertEqual(self.ask(xcc.RequestXccUnRegister(header)), (200, xcc.ResponseXccUnRegister(header)))
        self.assertIsNone(self.provider.registration)
        self.assertIs(self.provider.prober.state, ProberState.UNREGISTERED)

    def test_unknown_registration_gets_a_fault(self) -> None:
        header = self.registered()
        for unknown in (None, "4CA5E4:XCC:cubehook:9", str(header.registration_id).lower()):
            for message in (
                xcc.RequestXccUnRegister(xcc.MsgHeader("A:3", unknown)),
                xcc.RequestXccCallRelease(msg_header=xcc.MsgHeader("A:3", unknown), call_id="25"),
            ):
                status, fault = self.ask(message)
                self.assertEqual((status, fault.reason), (500, "The registration ID is not known"))
        self.assertIsNotNone(self.provider.registration)
        self.assertEqual(self.calls.done, [])

    def test_control_update_changes_what_it_names(self) -> None:
        header = self.registered()
        update = xcc.RequestXccControlUpdate(msg_header=header, connection_events_filter=("DISCONNECTED",))
        self.assertEqual(self.ask(update), (200, xcc.ResponseXccControlUpdate(header)))
        blocking = xcc.RequestXccControlUpdate(
            msg_header=header, blocking_event_timeout_sec=9, blocking_timeout_handle="RELEASE"
        )
        self.assertEqual(self.ask(blocking)[0], 200)
        registration = self.provider.registration
        assert registration is not None
        self.assertEqual(registration.events, {"DISCONNECTED"})
        self.assertEqual((registration.blocking_timeout, registration.blocking_handle), (9, "RELEASE"))
        self.assertEqual(registration.id, header.registration_id)

    def test_values_that_do_not_exist_get_a_parser_error(self) -> None:
        header = self.registered()
        for message in (
            xcc.RequestXccControlUpdate(msg_header=header, connection_events_filter=("CREATED", "NONSENSE")),
            xcc.RequestXccControlUpdate(msg_header=header, blocking_timeout_handle="NONSENSE"),
            xcc.RequestXccCallRelease(msg_header=header, call_id="25", disc_cause=189),
        ):
            status, fault = self.ask(message)
            self.assertEqual((status, fault.code, fault.subcode), (400, "Sender", "XML PARSER ERROR"))
            self.assertEqual(fault.reason, "The value for an XML tag is not valid")

    def test_releases_act_on_calls(self) -> None:
        header = self.registered()
        for message, answer in (
            (
                xcc.RequestXccCallRelease(msg_header=header, call_id="25", disc_cause=17),
                xcc.ResponseXccCallRelease,
            ),
            (
                xcc.RequestXccConnectionRelease(msg_header=header, call_id="25", conn_id="132"),
                xcc.ResponseXccConnectionRelease,
            ),
            (
                xcc.RequestXccConnectionAuthorizeDone(
                    msg_header=header, call_id="25", conn_id="132", action=xcc.Release(21)
                ),
                xcc.ResponseXccConnectionAuthorizeDone,
            ),
            (
                xcc.RequestXccConnectionAuthorizeDone(
                    msg_header=header, call_id="25", conn_id="132", action=xcc.ContinueProcessing()
                ),
                xcc.ResponseXccConnectionAuthorizeDone,
            ),
        ):
            self.assertEqual(self.ask(message), (200, answer(header)))
        self.assertEqual(
            self.calls.done,
            [
                ("call", "25", 17),
                ("connection", "25", "132", 16),
                ("authorize", "25", "132", 21),
                ("authorize", "25", "132", None),
            ],
        )

    def test_unknown_calls_get_a_fault(self) -> None:
        header = self.registered()
        for message in (
            xcc.RequestXccCallRelease(msg_header=header, call_id="26"),
            xcc.RequestXccConnectionRelease(msg_header=header, call_id="25", conn_id="1"),
        ):
            status, fault = self.ask(message)
            self.assertEqual((status, fault.reason), (500, "The call or connection ID is not known"))

    def test_malformed_requests_get_a_parser_error(self) -> None:
        for body in (b"", b"<x", b"<x/>", codec.write(xcc.Fault(code="Sender", reason="x"))):
            status, answer, refused = self.provider.answer(body, 7)
            self.assertRegex(refused, "^(a request|Fault): [A-Z]")
            fault = codec.read(answer)
            assert isinstance(fault, xcc.Fault)
            self.assertEqual((status, fault.subcode), (400, "XML PARSER ERROR"))

    def test_what_is_no_request_or_not_simulated_is_unsupported(self) -> None:
        header = self.registered()
        for message in (
            xcc.ResponseXccUnRegister(header),
            xcc.RequestXccCallMediaForking(msg_header=header, call_id="25", action=xcc.DisableMediaForking()),
        ):
            status, fault = self.ask(message)
            self.assertEqual(status, 400)
            self.assertEqual(fault.reason, "An unsupported operation request has been received")

    def test_forgotten_registration_is_still_probed(self) -> None:
        self.registered()
        self.provider.forget()
        self.assertIsNone(self.provider.registration)
        self.assertIsNotNone(self.provider.prober.due)
