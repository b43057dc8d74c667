"""The HTTP transport against real receivers on loopback: what is sent, and how answers are judged."""

from __future__ import annotations

from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from cubehook.config import Webhook
from cubehook.delivery.signing import decode_secret, verify
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin, Sent
from cubehook.net import agent
from cubehook.records import ErrorClass
from cubehook.transports.http import HttpOptions, HttpPlugin, HttpTransport
from tests.transports.support import (
    AT,
    BODY,
    OTHER_SECRET,
    SECRET,
    Conversation,
    Names,
    Receiver,
    Request,
    answering,
    context_for,
    deliver,
    http_transport,
    outbound,
    reactor,
)


def answer(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class RequestTests(TestCase):
    async def test_the_request_is_the_contracts(self) -> None:
        receiver = Receiver(self)
        sent = await deliver(self, receiver.url)
        [request] = receiver.requests
        self.assertEqual(request.line, "POST /calls?from=hq HTTP/1.1")
        self.assertEqual(request.body, BODY)
        self.assertEqual(
            request.names,
            [
                "content-length",
                "host",
                "user-agent",
                "content-type",
                "webhook-id",
                "webhook-timestamp",
                "webhook-signature",
            ],
        )
        self.assertEqual(request.headers["host"], f"127.0.0.1:{receiver.port}")
        self.assertEqual(request.headers["user-agent"], "cubehook/1.2.3")
        self.assertEqual(request.headers["content-type"], "application/json")
        self.assertEqual(request.headers["webhook-id"], "0123456789ABC")
        self.assertEqual(request.headers["webhook-timestamp"], "1732377816")
        verify(
            [decode_secret(SECRET)],
            request.headers["webhook-id"],
            request.headers["webhook-timestamp"],
            request.headers["webhook-signature"],
            request.body,
            AT / 1e6,
        )
        self.assertTrue(sent.delivered)

    async def test_every_secret_of_a_rotation_signs(self) -> None:
        receiver = Receiver(self)
        await deliver(self, receiver.url, secrets=(SECRET, OTHER_SECRET))
        headers = receiver.requests[0].headers
        for secret in (SECRET, OTHER_SECRET):
            verify(
                [decode_secret(secret)],
                headers["webhook-id"],
                headers["webhook-timestamp"],
                headers["webhook-signature"],
                BODY,
                AT / 1e6,
            )

    async def test_own_headers_are_sent_and_masked(self) -> None:
        receiver = Receiver(self)
        own = {
            "Authorization": "Bearer s3cret-token",
            "X-Key": "k3y-value",
            "content-type": "application/vnd.calls+json",
            "USER-AGENT": "switchboard/2",
        }
        sent = await deliver(self, receiver.url, headers=own)
        received = receiver.requests[0]
        self.assertEqual(received.headers["authorization"], "Bearer s3cret-token")
        self.assertEqual(received.headers["x-key"], "k3y-value")
        self.assertEqual(received.headers["content-type"], "application/vnd.calls+json")
        self.assertEqual(received.headers["user-agent"], "switchboard/2")
        self.assertEqual(len(received.names), len(set(received.names)))
        shown = {name.lower(): value for name, value in sent.request_headers.items()}
        self.assertEqual({*shown, "content-length"}, set(received.names))
        self.assertEqual(shown["authorization"], "***")
        self.assertEqual(shown["x-key"], "***")
        self.assertEqual(shown["content-type"], "application/vnd.calls+json")
        self.assertNotIn("s3cret", repr(sent))
        self.assertNotIn("k3y", repr(sent))

    async def test_a_redelivery_is_marked(self) -> None:
        receiver = Receiver(self)
        transport = await http_transport(self, receiver.url)
        for redelivery, expected in ((True, "true"), (False, None)):
            sent = await transport.deliver(outbound(redelivery=redelivery))
            self.assertEqual(receiver.requests[-1].headers.get("cubehook-redelivery"), expected)
            self.assertEqual(sent.request_headers.get("cubehook-redelivery"), expected)
            self.assertEqual(receiver.requests[-1].headers["webhook-id"], "0123456789ABC")

    async def test_secrets_in_the_url_are_sent_and_masked(self) -> None:
        receiver = Receiver(self)
        url = f"http://127.0.0.1:{receiver.port}/calls?token=s3cret&from=hq"
        receiver.script = answering(answer("301 x", f"Location: {url}"))
        sent = await deliver(self, url)
        self.assertEqual(receiver.requests[0].line, "POST /calls?token=s3cret&from=hq HTTP/1.1")
        masked = url.replace("s3cret", "***")
        self.assertEqual((sent.url, sent.response_headers["Location"]), (masked, masked))
        self.assertIn(masked, sent.error or "")
        self.assertNotIn("s3cret", repr(sent))

    async def test_the_attempt_tells_everything(self) -> None:
        receiver = Receiver(
            self, answering(answer("201 Created", "X-One: a", "X-One: b", "X-Two: c", body="caf\u00e9 \x00"))
        )
        sent = await deliver(self, receiver.url, method="PUT")
        self.assertEqual(receiver.requests[0].line.split()[0], "PUT")
        self.assertEqual(
            (sent.delivered, sent.method, sent.url, sent.status, sent.remote_address),
            (True, "PUT", receiver.url, 201, f"127.0.0.1:{receiver.port}"),
        )
        self.assertEqual(sent.response_headers, {"X-One": "a, b", "X-Two": "c"})
        self.assertTrue((sent.response_body or "").startswith("caf"))
        self.assertEqual((sent.error_class, sent.error, sent.hold, sent.gone), (None, None, None, False))

    async def test_undecodable_answers_are_replaced(self) -> None:
        receiver = Receiver(self, answering(b"HTTP/1.1 200 OK\r\nX: \xff\r\nContent-Length: 2\r\n\r\n\xff!"))
        sent = await deliver(self, receiver.url)
        self.assertEqual((sent.response_headers["X"], sent.response_body), ("\ufffd", "\ufffd!"))

    async def test_another_transports_request_says_whom_it_asks(self) -> None:
        receiver = Receiver(self)
        webhook = Webhook(id="crm", url=receiver.url)
        lent = context_for(webhook).agent()
        client = HTTPClient(lent.exchange())
        answered = await client.post(receiver.url, data=b"x", reactor=reactor)
        self.assertEqual(await answered.text(), "ok")
        self.assertEqual(receiver.requests[0].headers["host"], f"127.0.0.1:{receiver.port}")
        self.assertEqual(receiver.requests[0].line, "POST /calls?from=hq HTTP/1.1")
        await lent.close()

    async def test_before_start_is_a_bug(self) -> None:
        webhook = Webhook(id="crm", url="http://127.0.0.1:1/")
        transport = HttpTransport(webhook, HttpOptions(), context_for(webhook))
        with self.assertRaises(RuntimeError):
            await transport.deliver(outbound())
        await transport.stop()


class VerdictTests(TestCase):
    async def _sent(self, *answered: str) -> Sent:
        return await deliver(self, Receiver(self, answering(answer(*answered))).url)

    async def test_every_2xx_is_success(self) -> None:
        for status in ("200 OK", "201 Created", "202 Accepted", "204 No Content", "299"):
            sent = await self._sent(status)
            self.assertTrue(sent.delivered, status)
            self.assertEqual(sent.status, int(status[:3]))

    async def test_other_statuses_fail_and_may_be_tried_again(self) -> None:
        for status in ("400 Bad Request", "401 Unauthorized", "404 Not Found", "500 Oops", "418 x", "999 x"):
            sent = await self._sent(status)
            self.assertEqual(
                (sent.delivered, sent.permanent, sent.gone, sent.hold, sent.error_class),
                (False, False, False, None, ErrorClass.HTTP),
                status,
            )
            self.assertIn(f"answered {status[:3]}", sent.error or "")

    async def test_the_first_line_of_the_answer_is_told(self) -> None:
        for body, told in (
            ("quota of 100/h exceeded\nsecond line", "quota of 100/h exceeded"),
            ("\r\n  \r\n\tlate \x1b[31m line", "late \\x1b[31m line"),
            ("{braces} and " + "y" * 500, "{braces} and " + "y" * 187 + "..."),
            (
                "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body></html>",
                "502 Bad Gateway",
            ),
            (" \t ", None),
            ("<" * 100_000, "<" * 200 + "..."),
            ("\n" * 5000 + "late", None),
        ):
            sent = await deliver(self, Receiver(self, answering(answer("500 x", body=body))).url)
            expected = "answered 500 Internal Server Error" + (f": {told}" if told else "")
            self.assertEqual(sent.error, expected)
        sent = await deliver(self, Receiver(self, answering(answer("200 OK", body="fine"))).url)
        self.assertIsNone(sent.error)

    async def test_the_words_are_ours_not_the_receivers(self) -> None:
        sent = await self._sent("404 {evil}")
        self.assertEqual(sent.error, "answered 404 Not Found")

    async def test_410_says_the_receiver_is_gone(self) -> None:
        sent = await self._sent("410 Gone")
        self.assertEqual((sent.delivered, sent.gone), (False, True))

    async def test_overload_holds_the_webhook_back(self) -> None:
        for status in (429, 502, 503, 504):
            self.assertEqual((await self._sent(f"{status} x")).hold, 0.0)
            self.assertEqual((await self._sent(f"{status} x", "Retry-After: 30")).hold, 30.0)
            self.assertEqual((await self._sent(f"{status} x", "Retry-After: soon")).hold, 0.0)

    async def test_retry_after_holds_with_any_failure(self) -> None:
        for status in ("400 x", "500 x", "302 x"):
            self.assertEqual((await self._sent(status, "Retry-After: 7")).hold, 7.0)
        self.assertIsNone((await self._sent("500 x", "Retry-After: soon")).hold)
        self.assertIsNone((await self._sent("200 OK", "Retry-After: 7")).hold)

    async def test_retry_after_as_a_date_counts_from_now(self) -> None:
        sent = await self._sent("503 x", "Retry-After: Sat, 23 Nov 2024 16:05:36 GMT")
        self.assertTrue(118 < (sent.hold or 0) <= 120)

    async def test_redirects_are_not_followed(self) -> None:
        elsewhere = Receiver(self)
        for status in (301, 302, 303, 307, 308):
            sent = await self._sent(f"{status} x", f"Location: {elsewhere.url}")
            self.assertFalse(sent.delivered)
            self.assertEqual(sent.error, f"answered {status} to {elsewhere.url}; redirects are not followed")
        self.assertEqual(elsewhere.requests, [])

    async def test_a_redirects_target_is_made_fit_to_show(self) -> None:
        sent = await self._sent("302 x", "Location: http://x/\x1b[31m" + "y" * 500)
        self.assertNotIn("\x1b", sent.error or "")
        self.assertLess(len(sent.error or ""), 300)
        self.assertEqual((await self._sent("302 x")).error, "answered 302; redirects are not followed")


class ConnectionTests(TestCase):
    async def test_a_connection_is_used_again(self) -> None:
        receiver = Receiver(self)
        transport = await http_transport(self, receiver.url)
        for _ in range(5):
            self.assertTrue((await transport.deliver(outbound())).delivered)
        self.assertEqual((len(receiver.requests), len(receiver.conversations)), (5, 1))

    async def test_a_new_connection_tells_of_its_making_a_kept_one_does_not(self) -> None:
        receiver = Receiver(self)
        names = Names(**{"hook.test": ["127.0.0.1"]})
        transport = await http_transport(self, f"http://hook.test:{receiver.port}/", names=names)
        phases = [[*(await transport.deliver(outbound())).phases] for _ in range(2)]
        self.assertEqual(phases, [["resolving", "connecting", "waiting", "reading"], ["waiting", "reading"]])

    async def test_each_phase_has_its_time(self) -> None:
        def script(conversation: Conversation, _: Request) -> None:
            reactor.callLater(0.1, conversation.send, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            reactor.callLater(0.2, conversation.send, b"ok")

        transport = await http_transport(self, Receiver(self, script).url)
        for _ in range(2):
            started = reactor.seconds()
            phases = (await transport.deliver(outbound())).phases
            took = (reactor.seconds() - started) * 1_000_000
            self.assertGreater(phases["waiting"], 90_000)
            self.assertGreater(phases["waiting"] + phases["reading"], 190_000)
            self.assertLessEqual(sum(phases.values()), took)

    async def test_a_kept_connection_that_breaks_is_told_as_one(self) -> None:
        receiver = Receiver(self)
        transport = await http_transport(self, receiver.url)
        await transport.deliver(outbound())
        receiver.script = lambda conversation, _: conversation.close()
        sent = await transport.deliver(outbound())
        self.assertEqual(
            sent.error, "the receiver closed the connection before it answered; it was kept from before"
        )
        self.assertEqual(sent.remote_address, f"127.0.0.1:{receiver.port}")

    async def test_as_many_connections_are_kept_as_requests_may_run(self) -> None:
        held: list[Conversation] = []

        def script(conversation: Conversation, request: Request) -> None:
            held.append(conversation)
            if len(held) == 4:
                for each in held:
                    each.send(b"HTTP/1.1 204 No Content\r\n\r\n")
                held.clear()

        receiver = Receiver(self, script)
        transport = await http_transport(self, receiver.url, concurrency=4)
        for _ in range(3):
            at_once = [Deferred.fromCoroutine(transport.deliver(outbound())) for _ in range(4)]
            for sent in await gatherResults(at_once):
                self.assertTrue(sent.delivered)
        self.assertEqual((len(receiver.requests), len(receiver.conversations)), (12, 4))

    async def test_after_a_failure_status_the_connection_is_used_again(self) -> None:
        receiver = Receiver(self, answering(answer("500 x", body="no")))
        transport = await http_transport(self, receiver.url)
        for _ in range(3):
            await transport.deliver(outbound())
        self.assertEqual(len(receiver.conversations), 1)

    async def test_webhooks_share_nothing(self) -> None:
        receiver = Receiver(self, answering(answer("200 OK", "Set-Cookie: a=b; Path=/", body="ok")))
        first = await http_transport(self, receiver.url)
        second = await http_transport(self, receiver.url)
        for transport in (first, second, first, second):
            await transport.deliver(outbound())
        self.assertEqual(len(receiver.conversations), 2)
        self.assertEqual([r.headers.get("cookie") for r in receiver.requests], [None] * 4)

    async def test_an_idle_connection_is_closed_after_a_while(self) -> None:
        self.patch(agent, "IDLE_TIMEOUT", 0.05)
        receiver = Receiver(self)
        transport = await http_transport(self, receiver.url)
        await transport.deliver(outbound())
        await receiver.conversations[0].gone()

    async def test_stop_closes_what_is_idle(self) -> None:
        receiver = Receiver(self)
        transport = await http_transport(self, receiver.url)
        await transport.deliver(outbound())
        await transport.stop()
        await receiver.conversations[0].gone()

    async def test_a_connection_closed_by_the_receiver_is_not_used_again(self) -> None:
        receiver = Receiver(self)
        transport = await http_transport(self, receiver.url)
        await transport.deliver(outbound())
        receiver.conversations[0].finish()
        await receiver.conversations[0].gone()
        self.assertTrue((await transport.deliver(outbound())).delivered)
        self.assertEqual(len(receiver.conversations), 2)


class CheckTests(SynchronousTestCase):
    def _check(self, **settings: Any) -> list[tuple[str, str]]:
        webhook = Webhook(**{"id": "crm", "url": "https://crm.example/calls", **settings})
        return HttpPlugin().check(webhook, HttpOptions())

    def test_good_settings(self) -> None:
        for url in (
            "http://192.0.2.1:8080/a?b=c",
            "https://crm.example",
            "http://[2001:db8::1]:80/",
            "http://my_app:3000/hook",
            "https://crm.example./calls",
            f"https://{'x' * 63}.example/",
            "https://crm.example/" + "x" * 500,
        ):
            self.assertEqual(self._check(url=url), [], url)
        for method in ("POST", "PUT", "PATCH"):
            self.assertEqual(self._check(method=method), [])
        self.assertEqual(self._check(headers={"Authorization": "Bearer x", "Content-Type": "text/x"}), [])

    def test_bad_urls(self) -> None:
        for url in (
            "",
            "crm.example",
            "ftp://crm.example/",
            "http:///calls",
            "http://crm.example:0/",
            "http://crm.example:99999/",
            "http://crm.example:x/",
            "https://user:pass@crm.example/",
            "http://[::1/",
            "http://crm.example/a b",
            "http://crm.example/a\r\nb",
            "http://b\u00fccher.example/",
            "http://a..b/",
            "http://./",
            "http://-a.example/",
            "http://*.example/",
            f"http://{'x' * 64}.example/",
            f"http://{'x.' * 127}example/",
        ):
            self.assertEqual([key for key, _ in self._check(url=url)], ["url"], url)

    def test_a_password_is_not_repeated(self) -> None:
        self.assertNotIn("hunter2", str(self._check(url="https://user:hunter2@crm.example/")))

    def test_bad_methods(self) -> None:
        for method in ("GET", "post", "DELETE", "", "POST /\r\n"):
            self.assertEqual([key for key, _ in self._check(method=method)], ["method"], method)

    def test_headers_that_are_not_the_webhooks_to_set(self) -> None:
        for name in (
            "webhook-id",
            "Webhook-Signature",
            "webhook-anything",
            "cubehook-redelivery",
            "Cubehook-X",
            "Proxy-Authorization",
            "Host",
            "content-length",
            "Transfer-Encoding",
            "Connection",
            "Accept-Encoding",
            "X Y",
            "X:Y",
            "X\r\nY",
            "",
        ):
            self.assertEqual([key for key, _ in self._check(headers={name: "v"})], [f"headers.{name}"])

    def test_header_values_that_would_break_out(self) -> None:
        for value in ("a\r\nX: b", "a\nb", "a\0b", "a\x7fb"):
            [(key, expected)] = self._check(headers={"X-Key": value})
            self.assertEqual(key, "headers.X-Key")
            self.assertNotIn(value, expected)

    def test_every_problem_is_told(self) -> None:
        keys = [key for key, _ in self._check(url="x", method="GET", headers={"Host": "a", "Te": "b"})]
        self.assertEqual(keys, ["url", "method", "headers.Host", "headers.Te"])

    def test_interfaces_are_kept(self) -> None:
        verifyObject(ITransportPlugin, HttpPlugin())
        webhook = Webhook(id="crm", url="http://[2001:db8::1]/")
        context = context_for(webhook)
        verifyObject(ITransportContext, context)
        verifyObject(ITransport, HttpPlugin().create(webhook, HttpOptions(), context))
