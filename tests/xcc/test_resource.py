"""What gateways call, over real sockets: each row of the contract's section 6 that can be seen here."""

from __future__ import annotations

from typing import Any

import treq
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from cubehook.config import Cube
from cubehook.events import Micros
from cubehook.interfaces import IIntake, StoreFullError
from cubehook.net import ration
from cubehook.net.site import MAX_BODY, AccessSite
from cubehook.xcc import codec
from cubehook.xcc import messages as xcc
from cubehook.xcc.knocks import HEADER as KNOCK
from cubehook.xcc.knocks import Arrival, Knocks
from cubehook.xcc.resource import Gateway, XccResource
from cubehook.xcc.tracing import Tap
from tests.xcc.tap import EXCHANGE, FakeTap

reactor: Any = installed

HEADER = xcc.MsgHeader(transaction_id="546CF8:25", registration_id="4CA5E4:XCC:myapp:4")
ALERTING = xcc.NotifyXccConnectionData(
    msg_header=HEADER,
    call_data=xcc.CallData("25", "ACTIVE"),
    conn_data=xcc.ConnData("132", "ALERTING"),
    event=xcc.Alerting(),
)


@implementer(IIntake)
class Intake:
    """Takes everything; answers are given by the test."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, object, bytes]] = []
        self.answer: Deferred[None] | None = None

    def connection_data(
        self, cube: str, message: xcc.NotifyXccConnectionData, raw: bytes, at: Micros
    ) -> Deferred[None]:
        self.taken.append((cube, message, raw))
        return succeed(None) if self.answer is None else self.answer

    def authorize(
        self, cube: str, message: xcc.SolicitXccConnectionAuthorize, raw: bytes, at: Micros
    ) -> None:
        self.taken.append((cube, message, raw))


class Registrar:
    """Remembers what it heard."""

    def __init__(self, registration_id: str | None = None) -> None:
        self.registration_id = registration_id
        self.messages: list[xcc.FromGateway] = []

    def heard(self, message: xcc.FromGateway, at: Micros) -> codec.Message | None:
        self.messages.append(message)
        if isinstance(message, xcc.SolicitXccProbing):
            return xcc.ResponseXccProbing(msg_header=message.msg_header, sequence=message.sequence)
        return None


class Accumulating(Protocol):
    """All that the other side said until it closed."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Traffic:
    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def answered(self, cube: str, message: str, received_at: Micros) -> None:
        self.told.append((cube, message))

    def rejected(self, reason: str) -> None:
        self.told.append((reason,))


def cube(name: str, path: str, *, host: str = "192.0.2.1", allow: tuple[str, ...] = ()) -> Cube:
    return Cube(
        id=name,
        provider_url=f"http://{host}:8090/cisco_xcc",
        application_url=f"http://192.0.2.20:8090{path}",
        allow_from=allow,
    )


class ResourceTests(TestCase):
    def setUp(self) -> None:
        self.intake, self.traffic = Intake(), Traffic()
        self.taps: dict[str, Tap] = {}
        self.knocks = Knocks(lambda: 0.0)
        self.resource = XccResource(self.intake, self.traffic, lambda: 1, self.taps, self.knocks)
        self.registrar = Registrar()
        self.resource.serve([Gateway(cube("hq", "/xcc/hq"), self.registrar)])
        self.resource.release()
        site = AccessSite(self.resource.resource(), lambda request: None, lambda: 1, reactor)
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    async def post(self, body: bytes, path: str = "/xcc/hq", method: str = "POST") -> tuple[int, bytes, Any]:
        url = f"http://127.0.0.1:{self.port.getHost().port}{path}"
        response = await treq.request(method, url, data=body, persistent=False)
        return response.code, await response.content(), response.headers

    async def ask(self, head: bytes, body: bytes) -> bytes:
        """The first line of the answer to what a client of our own writes."""
        client = Accumulating()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port), client)
        assert client.transport is not None
        client.transport.write(head % len(body) + body)
        await client.lost
        return client.data.partition(b"\r\n")[0]

    async def test_notification_gets_an_empty_answer(self) -> None:
        raw = codec.write(ALERTING)
        code, body, headers = await self.post(raw)
        self.assertEqual((code, body), (200, b""))
        self.assertIsNone(headers.getRawHeaders("content-type"))
        self.assertEqual(self.intake.taken, [("hq", ALERTING, raw)])
        self.assertEqual(self.registrar.messages, [ALERTING])
        self.assertEqual(self.traffic.told, [("hq", "NotifyXccConnectionData")])

    async def test_who_is_turned_away_keeps_no_connection(self) -> None:
        self.resource.serve([Gateway(cube("hq", "/xcc/hq", allow=("192.0.2.0/24",)), self.registrar)])
        for path, status in ((b"/nowhere", b"404"), (b"/xcc/hq", b"403")):
            head = b"POST " + path + b" HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
            self.assertIn(status, await self.ask(head, b"xx"))

    async def test_knocks(self) -> None:
        knocks = self.knocks
        self.resource.serve([Gateway(cube("hq", "/xcc/hq", allow=("192.0.2.0/24",)), self.registrar)])

        async def ask(path: str, nonce: str, method: str = "GET") -> tuple[int, bytes]:
            url = f"http://127.0.0.1:{self.port.getHost().port}{path}"
            headers: dict[bytes | str, bytes | str] = {KNOCK: nonce}
            response = await treq.request(method, url, headers=headers, persistent=False)
            return response.code, await response.content()

        # One that is waited for arrives wherever it comes to, and counts as nothing that was refused.
        nonces = [knocks.expect() for _ in range(3)]
        answers = [await ask("/xcc/hq", nonces[0]), await ask("/xcc/hq/", nonces[1])]
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0][0], 405)
        self.assertEqual(knocks.arrival(nonces[0]), Arrival("127.0.0.1", ("hq",)))
        self.assertEqual(knocks.arrival(nonces[1]), Arrival("127.0.0.1", ()))
        self.assertEqual(self.traffic.told, [])
        # Nobody else's does, nor any other request.
        self.assertEqual([(await ask("/xcc/hq", "0" * 32))[0], (await ask("/", "1"))[0]], [403, 404])
        self.assertEqual((await ask("/xcc/hq", nonces[2], "POST"))[0], 403)
        self.assertIsNone(knocks.arrival(nonces[2]))

    async def test_answer_waits_for_the_intake(self) -> None:
        self.intake.answer = Deferred()
        answer = Deferred.fromCoroutine(self.post(codec.write(ALERTING)))
        await self.until(lambda: bool(self.intake.taken))
        self.assertFalse(answer.called)
        self.intake.answer.callback(None)
        self.assertEqual((await answer)[0], 200)

    async def until(self, condition: Any) -> None:
        for _ in range(10_000):
            if condition():
                return
            tick: Deferred[None] = Deferred()
            reactor.callLater(0, tick.callback, None)
            await tick
        self.fail("it never came")

    async def test_store_full_asks_to_try_later(self) -> None:
        self.intake.answer = fail(StoreFullError())
        code, body, _ = await self.post(codec.write(ALERTING))
        self.assertEqual(code, 503)
        self.assertIsInstance(codec.read(body), xcc.Fault)
        self.assertEqual(self.traffic.told, [("store_full",)])

    async def test_probe_is_answered(self) -> None:
        probe = xcc.SolicitXccProbing(msg_header=HEADER, sequence="7", interval_seconds=120.0)
        code, body, headers = await self.post(codec.write(probe))
        self.assertEqual(code, 200)
        self.assertEqual(headers.getRawHeaders("content-type"), ["application/soap+xml"])
        self.assertEqual(codec.read(body), xcc.ResponseXccProbing(msg_header=HEADER, sequence="7"))

    async def test_authorize_teaches_numbers(self) -> None:
        detail = xcc.ConnDetailData(calling_addr_data=xcc.AddrData("+12517676234", "E164"))
        message = xcc.SolicitXccConnectionAuthorize(
            msg_header=HEADER, call_data=xcc.CallData("25"), conn_detail_data=detail
        )
        await self.post(codec.write(message))
        self.assertEqual([taken[1] for taken in self.intake.taken], [message])

    async def refused(self, body: bytes, status: int, reason: str) -> None:
        with capturedLogs() as logs:
            code, answer, headers = await self.post(body)
        self.assertEqual(code, status)
        self.assertEqual(headers.getRawHeaders("content-type"), ["application/soap+xml"])
        self.assertIsInstance(codec.read(answer), xcc.Fault)
        self.assertEqual(self.traffic.told, [(reason,)])
        self.assertEqual([event["cube"] for event in logs if "cube" in event], ["hq"])
        self.assertEqual((self.intake.taken, self.registrar.messages), ([], []))

    async def test_malformed(self) -> None:
        await self.refused(b"<SOAP:Envelope", 400, "malformed")

    async def test_empty(self) -> None:
        await self.refused(b"", 400, "malformed")

    async def test_wrong_namespace(self) -> None:
        body = codec.write(ALERTING).replace(b"cisco_xcc/v1_0", b"cisco_xxx/v1_0")
        await self.refused(body, 400, "namespace")

    async def test_entities(self) -> None:
        body = b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + codec.write(ALERTING)[38:]
        await self.refused(body, 400, "forbidden")

    async def test_not_soap(self) -> None:
        await self.refused(b"<html><body>Sign in</body></html>", 400, "not_soap")

    async def test_too_large(self) -> None:
        await self.refused(b" " * (MAX_BODY + 1), 413, "too_large")

    async def test_our_own_request_is_not_for_us(self) -> None:
        await self.refused(codec.write(xcc.RequestXccUnRegister(msg_header=HEADER)), 400, "unsupported")

    async def test_unknown_notification(self) -> None:
        message = xcc.UnknownMessage(name="NotifyXccSomethingNew", msg_header=HEADER)
        code, body, _ = await self.post(codec.write(message))
        self.assertEqual((code, body), (200, b""))
        self.assertEqual(self.traffic.told, [("hq", "unknown")])

    async def test_unknown_question(self) -> None:
        message = xcc.UnknownMessage(name="SolicitXccSomethingNew", msg_header=HEADER)
        code, body, _ = await self.post(codec.write(message))
        self.assertEqual(code, 400)
        self.assertIsInstance(codec.read(body), xcc.Fault)

    async def test_unknown_path_names_the_near_one(self) -> None:
        with capturedLogs() as logs:
            code, _, _ = await self.post(codec.write(ALERTING), "/xcc/hq/")
        self.assertEqual(code, 404)
        self.assertEqual(self.traffic.told, [("path",)])
        self.assertEqual([event["known"] for event in logs if "known" in event], ["/xcc/hq"])

    async def test_double_slash_is_another_path(self) -> None:
        self.resource.serve([Gateway(cube("hq", "//xcc//hq"), self.registrar)])
        # treq on Python 3.13 asks for another path, with more slashes still.
        line = await self.ask(b"POST //xcc//hq HTTP/1.0\r\nContent-Length: %d\r\n\r\n", codec.write(ALERTING))
        self.assertEqual(line, b"HTTP/1.0 200 OK")
        self.assertEqual((await self.post(codec.write(ALERTING), "/xcc/hq"))[0], 404)

    async def test_root_and_query_are_paths_too(self) -> None:
        for path in ("/", "/app?cube=1"):
            self.resource.serve([Gateway(cube("hq", path), self.registrar)])
            self.assertEqual((await self.post(codec.write(ALERTING), path))[0], 200, path)

    async def test_strangers_fill_no_log_and_hide_no_gateway(self) -> None:
        self.patch(ration, "MOST", 3)
        self.resource.serve(
            [
                Gateway(cube("hq", "/xcc/hq"), self.registrar),
                Gateway(cube("far", "/xcc/far", allow=("192.0.2.0/24",)), self.registrar),
            ]
        )
        with capturedLogs() as logs:
            for path in ("/admin", "/XCC/HQ", "/xcc/far", "/xcc/hq", "/wp-login", "/xcc/far"):
                await self.post(b"<nonsense/>", path)
            self.resource.serve([Gateway(cube("near", "/xcc/near", host="127.0.0.1"), self.registrar)])
            await self.post(b"<nonsense/>", "/xcc/near")
        said = [
            formatEvent(event) for event in logs if event.get("log_namespace", "").startswith("cubehook.")
        ]
        self.assertEqual(len(said), 5, said)
        self.assertIn("too much to tell of what strangers sent", said[3])
        self.assertIn("Cube near: refused", said[4])
        self.assertEqual(len(self.traffic.told), 7)

    async def test_address_outside_allow_from(self) -> None:
        self.resource.serve([Gateway(cube("hq", "/xcc/hq", allow=("192.0.2.0/24",)), self.registrar)])
        self.assertEqual((await self.post(codec.write(ALERTING)))[0], 403)
        self.assertEqual((self.traffic.told, self.intake.taken), ([("address",)], []))

    async def test_address_inside_allow_from(self) -> None:
        allow = ("192.0.2.0/24", "127.0.0.1/8")
        self.resource.serve([Gateway(cube("hq", "/xcc/hq", allow=allow), self.registrar)])
        self.assertEqual((await self.post(codec.write(ALERTING)))[0], 200)

    async def test_get_is_explained(self) -> None:
        code, _, headers = await self.post(b"", method="GET")
        self.assertEqual((code, headers.getRawHeaders("allow")), (405, ["POST"]))

    async def test_cubes_that_share_a_path(self) -> None:
        other = Registrar("4CA5E4:XCC:myapp:4")
        self.resource.serve(
            [Gateway(cube("hq", "/xcc"), self.registrar), Gateway(cube("branch", "/xcc"), other)]
        )
        await self.post(codec.write(ALERTING), "/xcc")
        self.assertEqual([taken[0] for taken in self.intake.taken], ["branch"])

    async def test_cubes_that_share_a_path_and_have_no_registration(self) -> None:
        self.resource.serve(
            [
                Gateway(cube("hq", "/xcc"), self.registrar),
                Gateway(cube("branch", "/xcc", host="127.0.0.1"), Registrar()),
            ]
        )
        await self.post(codec.write(ALERTING), "/xcc")
        self.assertEqual([taken[0] for taken in self.intake.taken], ["branch"])

    async def test_requests_wait_until_the_service_is_ready(self) -> None:
        resource = XccResource(self.intake, self.traffic, lambda: 1)
        site = AccessSite(resource.resource(), lambda request: None, lambda: 1, reactor)
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        answer = Deferred.fromCoroutine(self.post(codec.write(ALERTING)))
        await self.until(lambda: bool(resource._held))
        self.assertEqual(self.intake.taken, [])
        resource.serve([Gateway(cube("hq", "/xcc/hq"), self.registrar)])
        resource.release()
        self.assertEqual((await answer)[0], 200)


class KnownTests(TestCase):
    def test_addresses_of_cubes(self) -> None:
        resource = XccResource(Intake(), Traffic(), lambda: 1)
        self.assertFalse(resource.knows("192.0.2.1"))
        resource.serve(
            [
                Gateway(cube("hq", "/xcc/hq"), Registrar()),
                Gateway(cube("v6", "/xcc/v6", host="[2001:DB8::1]"), Registrar()),
                Gateway(cube("net", "/xcc/net", host="192.0.2.9", allow=("198.51.100.0/24",)), Registrar()),
                Gateway(cube("name", "/xcc/name", host="gateway.example"), Registrar()),
            ]
        )
        for known in ("192.0.2.1", "2001:db8::1", "198.51.100.7"):
            self.assertTrue(resource.knows(known), known)
        # It may not speak as any cube, or is not known to be one's.
        for unknown in ("192.0.2.9", "192.0.2.2", "gateway.example", ""):
            self.assertFalse(resource.knows(unknown), unknown)


class TraceTests(ResourceTests):
    """What whoever listens in is told; and all that holds without holds with somebody listening, too."""

    def setUp(self) -> None:
        super().setUp()
        self.taps["hq"] = self.tap = FakeTap()

    async def test_both_ways(self) -> None:
        probe = codec.write(xcc.SolicitXccProbing(msg_header=HEADER, sequence="3"))
        _, body, _ = await self.post(probe)
        (way, peer, head, heard, at), (answered, exchange, to, answer_head, answer) = self.tap.told
        self.assertEqual((way, heard, at), ("received", probe, 1))
        self.assertRegex(peer, r"^127\.0\.0\.1:[0-9]+$")
        self.assertEqual(head[0], "POST /xcc/hq HTTP/1.1")
        self.assertIn(f"Content-Length: {len(probe)}", head)
        self.assertEqual((answered, exchange, to, answer), ("answered", EXCHANGE, peer, body))
        self.assertEqual(answer_head[0], "HTTP/1.1 200 OK")
        self.assertIn("Content-Type: application/soap+xml", answer_head)
        self.assertIn(f"Content-Length: {len(body)}", answer_head)

    async def test_answer_that_waits_is_told_when_it_is_made(self) -> None:
        self.intake.answer = Deferred()
        posted = Deferred.fromCoroutine(self.post(codec.write(ALERTING)))
        await deferLater(reactor, 0.05, lambda: None)
        self.assertEqual([each[0] for each in self.tap.told], ["received"])
        self.intake.answer.callback(None)
        await posted
        self.assertEqual([each[0] for each in self.tap.told], ["received", "answered"])

    async def test_what_is_refused_is_told_too(self) -> None:
        await self.post(b"no XML")
        await self.post(b"", method="GET")
        self.assertEqual(
            [each[3][0] for each in self.tap.told if each[0] == "answered"],
            ["HTTP/1.1 400 Bad Request", "HTTP/1.1 405 Method Not Allowed"],
        )
        await self.post(b"x" * (MAX_BODY + 1))
        self.assertIsNone(self.tap.told[-2][3])

    async def test_failure_of_ours_is_told(self) -> None:
        self.patch(self.registrar, "heard", lambda message, at: 1 / 0)
        await self.post(codec.write(ALERTING))
        self.intake.answer = fail(ZeroDivisionError("a bug"))
        self.patch(self.registrar, "heard", lambda message, at: None)
        await self.post(codec.write(ALERTING))
        self.assertEqual([each[0] for each in self.tap.told], ["received", "failed"] * 2)
        self.assertIn("cubehook.log", self.tap.told[1][2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    async def test_only_the_cube_that_is_meant(self) -> None:
        self.taps["branch"] = other = FakeTap()
        self.resource.serve(
            [
                Gateway(cube("hq", "/xcc/shared"), Registrar("4CA5E4:XCC:myapp:4")),
                Gateway(cube("branch", "/xcc/shared", host="192.0.2.2"), Registrar("x")),
                Gateway(cube("third", "/xcc/third"), Registrar()),
            ]
        )
        await self.post(codec.write(ALERTING), "/xcc/shared")
        self.assertEqual((len(self.tap.told), len(other.told)), (2, 0))
        # Whose this is nobody can tell.
        await self.post(b"no XML", "/xcc/shared")
        self.assertEqual((len(self.tap.told), len(other.told)), (4, 2))
        await self.post(codec.write(ALERTING), "/xcc/third")
        self.assertEqual((len(self.tap.told), len(other.told)), (4, 2))
