"""Visits over real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed
from twisted.trial.unittest import TestCase

from cubehook.doctor import visiting
from cubehook.doctor.visiting import Visit, VisitError, question, visit, way
from cubehook.net.tls import verified
from cubehook.records import ErrorClass
from tests.functional.harness import free_port
from tests.transports.support import Authority, Conversation, Receiver, Request, answering

reactor: Any = installed

ANSWER = b"HTTP/1.1 404 Not Found\r\nServer: cisco-IOS\r\nDATE: then\r\nContent-Length: 3\r\n\r\nno\n"


class Visits(TestCase):
    async def get(self, url: str, **headers: str) -> Visit:
        return await visit(reactor, way(reactor, url), question(url, headers))

    async def error(self, url: str, *, verify: bool = False) -> VisitError:
        creator = verified().creator("127.0.0.1") if verify else None
        with self.assertRaises(VisitError) as caught:
            await visit(reactor, way(reactor, url, creator), question(url))
        error: VisitError = caught.exception
        return error

    async def test_question_and_answer(self) -> None:
        receiver = Receiver(self, answering(ANSWER))
        seen = await self.get(receiver.url, Knock="abc")
        self.assertEqual((seen.status, seen.body), (404, b"no\n"))
        self.assertEqual((seen.headers["server"], seen.headers["date"]), ("cisco-IOS", "then"))
        self.assertEqual(seen.address, f"127.0.0.1:{receiver.port}")
        (request,) = receiver.requests
        self.assertEqual(request.line, "GET /calls?from=hq HTTP/1.1")
        self.assertEqual(request.headers["host"], f"127.0.0.1:{receiver.port}")
        self.assertEqual(request.headers["knock"], "abc")
        await receiver.conversations[0].gone()

    async def test_nothing_is_sent_unless_asked(self) -> None:
        receiver = Receiver(self)
        seen = await visit(reactor, way(reactor, receiver.url))
        self.assertIsNone(seen.status)
        await receiver.conversations[0].gone()
        self.assertEqual(receiver.requests, [])

    async def test_answer_that_ends_with_the_connection(self) -> None:
        def script(conversation: Conversation, _: Request) -> None:
            conversation.send(b"HTTP/1.0 200 OK\r\n\r\n")
            conversation.close()

        seen = await self.get(Receiver(self, script).url)
        self.assertEqual((seen.status, seen.body), (200, b""))

    async def test_body_that_comes_later(self) -> None:
        def script(conversation: Conversation, _: Request) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\no")
            reactor.callLater(0.01, conversation.send, b"k\n")

        self.assertEqual((await self.get(Receiver(self, script).url)).body, b"ok\n")

    async def test_no_web_server(self) -> None:
        receiver = Receiver(self, greet=lambda conversation: conversation.send(b"220 mail.example ESMTP\r\n"))
        error = await self.error(receiver.url)
        self.assertIn("not as a web server does", str(error))
        receiver = Receiver(self, answering(b"HTTP/1.1 2OO\r\n\r\n"))
        self.assertIsNone((await self.get(receiver.url)).status)

    async def test_headers_without_end(self) -> None:
        error = await self.error(Receiver(self, answering(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9000)).url)
        self.assertIs(error.error_class, ErrorClass.HTTP)

    async def test_nobody_listens(self) -> None:
        port = free_port()
        error = await self.error(f"http://127.0.0.1:{port}/")
        self.assertIs(error.error_class, ErrorClass.CONNECTION_REFUSED)
        name = f"127.0.0.1:{port}"
        self.assertEqual(error.of(name), f"{name} cannot be reached: it refused the connection")

    async def test_unknown_name(self) -> None:
        error = await self.error("http://nowhere.invalid/")
        self.assertIs(error.error_class, ErrorClass.DNS)
        self.assertIn("does not resolve", str(error))

    async def test_connection_that_is_closed(self) -> None:
        receiver = Receiver(self, lambda conversation, _: conversation.close())
        error = await self.error(receiver.url)
        self.assertIn("closed the connection while its answer was awaited", str(error))

    async def test_silence(self) -> None:
        self.patch(visiting, "SECONDS", 0.1)
        error = await self.error(Receiver(self, lambda conversation, request: None).url)
        self.assertIs(error.error_class, ErrorClass.TIMEOUT)
        self.assertIn("0.1 s went by while its answer was awaited", str(error))

    async def test_silence_where_tls_is_expected(self) -> None:
        self.patch(visiting, "SECONDS", 0.1)
        error = await self.error(Receiver(self).url.replace("http:", "https:"))
        self.assertIn("while TLS was negotiated", str(error))

    async def test_certificate(self) -> None:
        receiver = Receiver(self, tls=Authority().server("router.example"))
        seen = await self.get(receiver.url)
        assert seen.certificate is not None
        self.assertEqual(seen.status, 200)
        error = await self.error(receiver.url, verify=True)
        self.assertIs(error.error_class, ErrorClass.TLS)
        self.assertIn("is not trusted", str(error))
