"""The guards around a connection, where the HTTP transport's tests do not reach."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived
from twisted.web.error import SchemeNotSupported
from zope.interface import implementer

from cubehook.net.agent import (
    LOOKUP_SECONDS,
    Exchange,
    GuardedEndpoint,
    SharedLookup,
    WebhookAgent,
    _Guard,
)
from cubehook.net.egress import BlockedError, EgressPolicy
from cubehook.net.failures import explain
from cubehook.net.journey import Phase
from cubehook.net.tls import verified
from cubehook.records import ErrorClass


class GuardTests(SynchronousTestCase):
    def test_an_address_is_checked_again_where_the_socket_is_made(self) -> None:
        reactor = MemoryReactorClock()
        guard = _Guard(reactor, EgressPolicy(), SharedLookup(MemoryReactorClock(), "hook.test"))
        with self.assertRaises(BlockedError):
            guard.connectTCP("127.0.0.1", 80, ClientFactory())
        self.assertEqual(reactor.tcpClients, [])
        guard.connectTCP("192.0.2.1", 80, ClientFactory())
        self.assertEqual(len(reactor.tcpClients), 1)

    def test_a_guard_does_nothing_else(self) -> None:
        guard = _Guard(MemoryReactorClock(), EgressPolicy(), SharedLookup(MemoryReactorClock(), "hook.test"))
        with self.assertRaises(TypeError):
            guard.listenTCP(80, ClientFactory())
        with self.assertRaises(TypeError):
            guard.installNameResolver(guard)


@implementer(IHostnameResolver)
class SlowNames:
    """A resolver that answers when told."""

    def __init__(self) -> None:
        self.asked: list[IResolutionReceiver] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: object = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        self.asked.append(resolutionReceiver)

    def answer(self, *hosts: str) -> None:
        receiver = self.asked[-1]
        for host in hosts:
            receiver.addressResolved(IPv4Address("TCP", host, 80))
        receiver.resolutionComplete()


class LookupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.names = SlowNames()
        self.reactor.nameResolver = self.names
        self.endpoint = GuardedEndpoint(self.reactor, EgressPolicy(), "hook.test", 80, 15.0)

    def connect(self) -> Deferred[Any]:
        return self.endpoint.connect(Factory.forProtocol(Protocol))

    def test_all_who_ask_meanwhile_share_the_answer(self) -> None:
        attempts = [self.connect() for _ in range(8)]
        self.assertEqual(1, len(self.names.asked))
        self.names.answer("192.0.2.1", "169.254.0.1")
        self.assertEqual(["192.0.2.1"] * 8, [client[0] for client in self.reactor.tcpClients])
        for attempt in attempts:
            attempt.cancel()
            self.failureResultOf(attempt)
        again = self.connect()
        self.assertEqual(2, len(self.names.asked), "an answer is not kept")
        again.cancel()
        self.failureResultOf(again)

    def test_what_is_denied_is_told_to_all(self) -> None:
        attempts = [self.connect() for _ in range(2)]
        self.names.answer("169.254.0.1")
        for attempt in attempts:
            self.failureResultOf(attempt, BlockedError)

    def test_one_that_gave_up_disturbs_nobody(self) -> None:
        first, second = self.connect(), self.connect()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        third = self.connect()
        self.names.answer("192.0.2.1")
        self.assertEqual((1, 2), (len(self.names.asked), len(self.reactor.tcpClients)))
        for attempt in (second, third):
            self.assertNoResult(attempt)

    def test_a_question_that_is_never_answered_is_asked_again(self) -> None:
        first = self.connect()
        self.reactor.advance(LOOKUP_SECONDS + 0.1)
        second = self.connect()
        self.assertEqual(2, len(self.names.asked))
        self.names.answer()
        self.failureResultOf(second, error.DNSLookupError)
        self.assertNoResult(first)


class AgentTests(SynchronousTestCase):
    def _agent(self) -> WebhookAgent:
        return WebhookAgent(MemoryReactorClock(), EgressPolicy(), timeout=5, concurrency=2)

    def test_an_origin_has_one_route(self) -> None:
        agent = self._agent()
        first = agent.target(b"http://hook.test/a")
        self.assertIs(agent.target(b"http://hook.test/a"), first)
        second = agent.target(b"http://hook.test/b?c=d#e")
        self.assertEqual((first.path, second.path), (b"/a", b"/b?c=d"))
        self.assertIs(second.route, first.route)
        self.assertIsNot(agent.target(b"http://hook.test:81/").route, first.route)
        self.assertIsNot(agent.target(b"https://hook.test/").route, first.route)

    def test_the_host_to_ask_for(self) -> None:
        agent = self._agent()
        for url, host in (
            (b"http://hook.test", b"hook.test"),
            (b"http://me:pass@hook.test:81/", b"hook.test:81"),
            (b"http://[2001:db8::1]:81/", b"[2001:db8::1]:81"),
        ):
            self.assertEqual(agent.target(url).host, host)
            self.assertTrue(agent.target(url).path.startswith(b"/"))

    def test_nothing_breaks_out_of_the_requests_head(self) -> None:
        for method, url in ((b"POST /\r\n", b"http://hook.test/"), (b"POST", b"http://hook.test/a b")):
            with self.assertRaises(ValueError):
                _ = self._agent().exchange().request(method, url)
        target = self._agent().target(b"http://hook.test/a\r\nX: y")
        self.assertNotIn(b"\n", target.path + target.host)

    def test_no_scheme_but_http(self) -> None:
        with self.assertRaises(SchemeNotSupported):
            self._agent().target(b"ftp://hook.test/")

    def test_closing_without_connections(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self._agent().close()))

    def test_the_platforms_authorities_are_loaded_once(self) -> None:
        self.assertIs(verified().context(), verified().context())


def wrapped(kind: Any, *causes: BaseException) -> Failure:
    return Failure(kind([Failure(cause) for cause in causes]))


def exchange_in(phase: Phase) -> Exchange:
    exchange = WebhookAgent(MemoryReactorClock(), EgressPolicy(), timeout=5, concurrency=2).exchange()
    exchange.journey.enter(Phase.CONNECTING)
    exchange.journey.enter(phase)
    return exchange


class ExplainTests(SynchronousTestCase):
    def _class(self, failure: Failure, phase: Phase = Phase.WAITING) -> ErrorClass | None:
        explained = explain(failure, exchange_in(phase))
        return explained[0] if explained is not None else None

    def test_causes_by_class(self) -> None:
        for cause, expected in (
            (error.ConnectionRefusedError(), ErrorClass.CONNECTION_REFUSED),
            (error.NoRouteError(), ErrorClass.CONNECTION_REFUSED),
            (error.ConnectBindError(), ErrorClass.CONNECTION_REFUSED),
            (error.ConnectError(), ErrorClass.CONNECTION_REFUSED),
            (error.TimeoutError(), ErrorClass.TIMEOUT),
            (error.TCPTimedOutError(), ErrorClass.TIMEOUT),
            (error.DNSLookupError(), ErrorClass.DNS),
            (error.UnknownHostError(), ErrorClass.DNS),
            (error.ConnectionLost(), ErrorClass.CONNECTION_LOST),
            (error.ConnectionDone(), ErrorClass.CONNECTION_LOST),
            (SSL.Error([("SSL routines", "", "some reason")]), ErrorClass.TLS),
            (SSL.SysCallError(-1, "Unexpected EOF"), ErrorClass.TLS),
            (SSL.ZeroReturnError(), ErrorClass.TLS),
            (BlockedError("a rule", "127.0.0.1"), ErrorClass.BLOCKED),
        ):
            self.assertEqual(self._class(Failure(cause)), expected, cause)
            for kind in (ResponseNeverReceived, ResponseFailed, RequestTransmissionFailed):
                self.assertEqual(self._class(wrapped(kind, cause)), expected, cause)

    def test_the_cause_goes_before_the_loss_of_the_connection(self) -> None:
        tls = SSL.Error([("SSL routines", "", "wrong version number")])
        failure = wrapped(ResponseNeverReceived, error.ConnectionLost(), tls)
        explained = explain(failure, exchange_in(Phase.TLS))
        self.assertEqual(explained and explained[0], ErrorClass.TLS)
        self.assertIn("does not speak TLS", explained[1] if explained else "")

    def test_a_connection_lost_in_the_handshake_is_tls(self) -> None:
        lost = wrapped(ResponseNeverReceived, error.ConnectionLost())
        self.assertEqual(self._class(lost, Phase.TLS), ErrorClass.TLS)

    def test_a_bug_is_not_the_receivers(self) -> None:
        self.assertIsNone(self._class(Failure(ZeroDivisionError())))

    def test_a_cancellation_is_raised_as_one(self) -> None:
        for failure in (
            Failure(CancelledError()),
            wrapped(ResponseNeverReceived, CancelledError()),
            Failure(error.ConnectingCancelledError(None)),
        ):
            with self.assertRaises(CancelledError):
                explain(failure, exchange_in(Phase.WAITING))
