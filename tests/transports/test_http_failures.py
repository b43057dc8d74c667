"""The HTTP transport against everything that can go wrong between it and a receiver."""

from __future__ import annotations

import gzip
import re
import socket
import zlib
from pathlib import Path

import treq.client
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.ssl import TLSVersion
from twisted.trial.unittest import TestCase

from cubehook.config import Egress
from cubehook.interfaces import Sent
from cubehook.net import agent, body
from cubehook.net.certificates import TlsFileError
from cubehook.records import ErrorClass
from tests.transports.support import (
    OK,
    Authority,
    Conversation,
    Names,
    Receiver,
    Request,
    answering,
    deliver,
    http_transport,
    outbound,
    reactor,
)

SHORT = 0.15
"""Seconds; enough for loopback, short enough for a test that runs out of them."""


ANSWER = "waiting for the answer of the receiver"
BODY = "reading the answer of the receiver"


def silent(conversation: Conversation, request: Request) -> None:
    """Takes the request and never answers."""


class TimeoutTests(TestCase):
    def setUp(self) -> None:
        started = reactor.seconds()
        self.addCleanup(lambda: self.assertLess(reactor.seconds() - started, 10 * SHORT))

    def _assert_timed_out(self, sent: Sent, doing: str, *phases: str) -> None:
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TIMEOUT))
        self.assertEqual([*sent.phases], [*phases])
        self.assertGreater(sent.phases[phases[-1]], SHORT * 500_000)
        told = ", ".join(f"{phase} {took / 1_000_000:.2f} s" for phase, took in sent.phases.items())
        at = f" at {sent.remote_address}" if sent.remote_address is not None else ""
        beginning, _, rest = (sent.error or "").partition(" (")
        self.assertEqual(beginning, f"timed out after {SHORT} s while {doing}{at}")
        # The clock went on between the two.
        self.assertEqual(re.sub(r"[0-9.]+ s", "", rest), re.sub(r"[0-9.]+ s", "", told + ")"))

    async def test_a_name_that_is_never_resolved(self) -> None:
        sent = await deliver(self, "http://hook.test/", names=Names(**{"hook.test": None}), within=SHORT)
        self._assert_timed_out(sent, "resolving the host name of the receiver", "resolving")
        self.assertIsNone(sent.remote_address)

    def _deaf(self) -> int:
        """A port that nobody accepts connections on, and where no more can wait for that."""
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = socket.socket()
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        port: int = listening.getsockname()[1]
        return port

    async def test_a_host_that_does_not_answer_the_attempt_to_connect(self) -> None:
        port = self._deaf()
        names = Names(**{"hook.test": ["127.0.0.1"]})
        sent = await deliver(self, f"http://hook.test:{port}/", names=names, within=SHORT)
        self._assert_timed_out(sent, "connecting to the receiver", "resolving", "connecting")
        self.assertEqual(sent.remote_address, f"127.0.0.1:{port}")
        sent = await deliver(self, f"http://127.0.0.1:{port}/", timeout=SHORT)
        self.assertEqual(
            (sent.error_class, sent.error),
            (
                ErrorClass.TIMEOUT,
                f"the receiver did not answer the attempt to connect at 127.0.0.1:{port}",
            ),
        )

    async def test_no_answer(self) -> None:
        receiver = Receiver(self, silent)
        sent = await deliver(self, receiver.url, within=SHORT)
        self._assert_timed_out(sent, ANSWER, "connecting", "waiting")
        self.assertEqual(sent.remote_address, f"127.0.0.1:{receiver.port}")
        await receiver.conversations[0].gone()

    async def test_headers_without_an_end(self) -> None:
        receiver = Receiver(self, answering(b"HTTP/1.1 200 OK\r\nX: y\r\n"))
        sent = await deliver(self, receiver.url, within=SHORT)
        self._assert_timed_out(sent, ANSWER, "connecting", "waiting")

    async def test_a_body_that_stalls_is_a_failure_and_is_logged(self) -> None:
        receiver = Receiver(self, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX: y\r\n\r\nhalf"))
        sent = await deliver(self, receiver.url, within=SHORT)
        self._assert_timed_out(sent, BODY, "connecting", "waiting", "reading")
        self.assertEqual((sent.status, sent.response_body, sent.response_headers), (200, "half", {"X": "y"}))
        await receiver.conversations[0].gone()

    async def test_a_body_that_trickles_has_one_deadline(self) -> None:
        def trickle(conversation: Conversation, _: Request) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")

            def more() -> None:
                if not conversation.is_lost:
                    conversation.send(b".")
                    reactor.callLater(SHORT / 10, more)

            more()

        receiver = Receiver(self, trickle)
        sent = await deliver(self, receiver.url, within=SHORT)
        self._assert_timed_out(sent, BODY, "connecting", "waiting", "reading")
        await receiver.conversations[0].gone()
        # Let the receiver's last timer run out.
        settled: Deferred[None] = Deferred()
        reactor.callLater(SHORT / 5, settled.callback, None)
        await settled

    async def test_a_stalled_410_still_says_gone(self) -> None:
        receiver = Receiver(self, answering(b"HTTP/1.1 410 Gone\r\nContent-Length: 9\r\n\r\n"))
        sent = await deliver(self, receiver.url, within=SHORT)
        self.assertEqual((sent.gone, sent.error_class), (True, ErrorClass.TIMEOUT))

    async def test_a_tls_handshake_that_stalls(self) -> None:
        receiver = Receiver(self, silent)
        sent = await deliver(self, receiver.url.replace("http:", "https:"), within=SHORT)
        self._assert_timed_out(sent, "negotiating TLS with the receiver", "connecting", "tls")


class ConnectionTests(TestCase):
    async def test_refused(self) -> None:
        port = reactor.listenTCP(0, Receiver(self), interface="127.0.0.1")
        address = f"127.0.0.1:{port.getHost().port}"
        await port.stopListening()
        sent = await deliver(self, f"http://{address}/")
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.CONNECTION_REFUSED))
        self.assertEqual(sent.error, f"the receiver refused the connection at {address}")
        self.assertEqual((sent.status, sent.remote_address, [*sent.phases]), (None, address, ["connecting"]))

    async def test_every_address_that_was_tried_is_told(self) -> None:
        port = reactor.listenTCP(0, Receiver(self), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        names = Names(**{"hook.test": ["127.0.0.1", "127.0.0.2"]})
        sent = await deliver(self, f"http://hook.test:{number}/", names=names)
        self.assertEqual(sent.error_class, ErrorClass.CONNECTION_REFUSED)
        self.assertEqual(sent.remote_address, f"127.0.0.1:{number}, 127.0.0.2:{number}")
        self.assertEqual([*sent.phases], ["resolving", "connecting"])

    async def test_an_unknown_name(self) -> None:
        sent = await deliver(self, "http://nowhere.test/", names=Names())
        self.assertEqual(
            (sent.error_class, sent.error, sent.remote_address),
            (ErrorClass.DNS, "the host name of the receiver does not resolve to an address", None),
        )

    async def test_a_name_that_only_containers_have(self) -> None:
        receiver = Receiver(self)
        names = Names(my_app=["127.0.0.1"])
        sent = await deliver(self, f"http://my_app:{receiver.port}/", names=names)
        self.assertTrue(sent.delivered, sent.error)
        self.assertEqual(names.asked, ["my_app"])

    async def test_closed_at_once(self) -> None:
        receiver = Receiver(self, greet=Conversation.close)
        sent = await deliver(self, receiver.url)
        self.assertEqual(sent.error_class, ErrorClass.CONNECTION_LOST)
        self.assertIn("before it answered", sent.error or "")

    async def test_closed_instead_of_an_answer(self) -> None:
        for end, words in (
            (Conversation.close, "the receiver closed the connection before it answered"),
            (Conversation.abort, "the connection was reset before the receiver answered"),
        ):
            receiver = Receiver(self, lambda conversation, _, end=end: end(conversation))  # type: ignore[misc]
            sent = await deliver(self, receiver.url)
            self.assertEqual((sent.error_class, sent.error), (ErrorClass.CONNECTION_LOST, words))
            self.assertEqual(sent.remote_address, f"127.0.0.1:{receiver.port}")

    async def test_closed_in_the_middle_of_the_headers(self) -> None:
        def script(conversation: Conversation, _: Request) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\nContent-")
            conversation.close()

        sent = await deliver(self, Receiver(self, script).url)
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.CONNECTION_LOST))

    async def test_closed_in_the_middle_of_the_body(self) -> None:
        for framing, part in (
            (b"Content-Length: 9", b"half"),
            (b"Transfer-Encoding: chunked", b"4\r\nhalf\r\n"),
        ):

            def script(
                conversation: Conversation, _: Request, answer: bytes = framing + b"\r\n\r\n" + part
            ) -> None:
                conversation.send(b"HTTP/1.1 200 OK\r\n" + answer)
                conversation.close()

            sent = await deliver(self, Receiver(self, script).url)
            self.assertEqual(
                (sent.delivered, sent.error_class, sent.status, sent.response_body),
                (False, ErrorClass.CONNECTION_LOST, 200, "half"),
            )
            self.assertIn("in the middle of the answer's body", sent.error or "")


class AnswerTests(TestCase):
    async def test_what_is_not_http(self) -> None:
        for garbage in (
            b"\x00\x01\x02 {nonsense}\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/x.y 200 OK\r\n\r\n",
            b"HTTP/1.1 -200 OK\r\n\r\n",
            b"HTTP/1.1 99 OK\r\n\r\n",
            b"HTTP/1.1 1000 OK\r\n\r\n",
            b"HTTP/1.1 " + b"9" * 100 + b" OK\r\n\r\n",
            b"HTTP/1.1 " + b"9" * 10_000 + b" OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ):
            receiver = Receiver(self, answering(garbage))
            transport = await http_transport(self, receiver.url)
            sent = await transport.deliver(outbound())
            await receiver.conversations[0].gone()
            self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.HTTP), garbage)
            self.assertEqual(sent.error, "the receiver's answer is not valid HTTP")

    async def test_headers_by_the_megabyte(self) -> None:
        def script(conversation: Conversation, _: Request) -> None:
            conversation.send(b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyyyyyyyyyy\r\n" * 100_000)

        receiver = Receiver(self, script)
        sent = await deliver(self, receiver.url)
        self.assertEqual(
            (sent.delivered, sent.error_class, sent.error),
            (False, ErrorClass.HTTP, "the answer's headers have no end"),
        )
        await receiver.conversations[0].gone()

    async def test_interim_answers_by_the_megabyte(self) -> None:
        flood = b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000
        sent = await deliver(self, Receiver(self, answering(flood)).url)
        self.assertEqual(sent.error_class, ErrorClass.HTTP)

    async def test_many_headers_are_logged_up_to_a_limit(self) -> None:
        many = b"".join(b"X-%d: %b\r\n" % (number, b"y" * 90) for number in range(2000))
        sent = await deliver(
            self, Receiver(self, answering(b"HTTP/1.1 204 No Content\r\n" + many + b"\r\n")).url
        )
        self.assertTrue(sent.delivered)
        logged = sum(len(name) + len(value) for name, value in sent.response_headers.items())
        self.assertTrue(15_000 < logged <= 16 << 10, logged)

    async def test_a_body_larger_than_the_header_limit_is_no_header(self) -> None:
        size = agent.HEADERS + 100_000
        receiver = Receiver(
            self, answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        )
        transport = await http_transport(self, receiver.url)
        for _ in range(3):
            self.assertTrue((await transport.deliver(outbound())).delivered)
        self.assertEqual(len(receiver.conversations), 1)

    async def test_100_continue_is_passed_over(self) -> None:
        receiver = Receiver(self, answering(b"HTTP/1.1 100 Continue\r\n\r\n" + OK))
        sent = await deliver(self, receiver.url)
        self.assertEqual((sent.delivered, sent.status), (True, 200))

    async def test_http_1_0_without_a_length(self) -> None:
        def script(conversation: Conversation, _: Request) -> None:
            conversation.send(b"HTTP/1.0 200 OK\r\n\r\nfine")
            conversation.close()

        sent = await deliver(self, Receiver(self, script).url)
        self.assertEqual((sent.delivered, sent.response_body), (True, "fine"))

    async def test_a_chunked_body(self) -> None:
        receiver = Receiver(
            self,
            answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        )
        sent = await deliver(self, receiver.url)
        self.assertEqual((sent.delivered, sent.response_body), (True, "abc"))

    async def test_a_long_body_is_kept_in_part_and_the_connection_cut(self) -> None:
        size = body.READ + 500_000
        receiver = Receiver(
            self, answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        )
        sent = await deliver(self, receiver.url)
        self.assertEqual((sent.delivered, sent.response_body), (True, "x" * body.KEPT))
        await receiver.conversations[0].gone()

    async def test_an_endless_body_is_cut(self) -> None:
        receiver = Receiver(self, answering(b"HTTP/1.1 500 x\r\n\r\n" + b"x" * (2 * body.READ)))
        sent = await deliver(self, receiver.url)
        self.assertEqual((sent.status, len(sent.response_body or "")), (500, body.KEPT))

    async def test_compressed_bodies_are_logged_in_clear(self) -> None:
        for encoding, packed in (("gzip", gzip.compress(b"clear")), ("deflate", zlib.compress(b"clear"))):
            head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(packed)}\r\n\r\n"
            sent = await deliver(self, Receiver(self, answering(head.encode() + packed)).url)
            self.assertEqual(sent.response_body, "clear")
            self.assertEqual(sent.response_headers, {"Content-Encoding": encoding})

    async def test_a_decompression_bomb(self) -> None:
        # treq's own decoder puts no bound on what comes out of it: it must never see the encoding.
        self.patch(treq.client, "GzipDecoder", lambda response: self.fail("treq decodes"))
        bomb = gzip.compress(b"\0" * 50_000_000)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
        receiver = Receiver(self, answering(head + bomb))
        sent = await deliver(self, receiver.url)
        self.assertEqual((sent.delivered, sent.response_body), (True, "\0" * body.KEPT))
        await receiver.conversations[0].gone()


class EgressTests(TestCase):
    def _assert_blocked(self, sent: Sent, *words: str) -> None:
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.BLOCKED))
        for word in words:
            self.assertIn(word, sent.error or "")

    async def test_a_literal_address(self) -> None:
        receiver = Receiver(self)
        sent = await deliver(self, receiver.url, egress=Egress())
        self._assert_blocked(sent, "127.0.0.1", "add 127.0.0.0/8 to egress.allow")
        self.assertEqual(receiver.conversations, [])

    async def test_an_address_in_disguise(self) -> None:
        receiver = Receiver(self)
        for host in ("127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]", "localhost"):
            sent = await deliver(self, f"http://{host}:{receiver.port}/", egress=Egress())
            self.assertFalse(sent.delivered, host)
            self.assertIn(sent.error_class, (ErrorClass.BLOCKED, ErrorClass.DNS), host)
        self.assertEqual(receiver.conversations, [])

    async def test_a_name_for_a_denied_address(self) -> None:
        receiver = Receiver(self)
        names = Names(**{"hook.test": ["127.0.0.1", "169.254.169.254"]})
        sent = await deliver(self, f"http://hook.test:{receiver.port}/", egress=Egress(), names=names)
        self._assert_blocked(sent, "hook.test resolves to 169.254.169.254", "always denied")
        self.assertEqual(receiver.conversations, [])

    async def test_a_name_that_is_rebound(self) -> None:
        receiver = Receiver(self)
        names = Names(**{"hook.test": ["127.0.0.1"]})
        egress = Egress(allow=("127.0.0.1/32",))
        transport = await http_transport(
            self, f"http://hook.test:{receiver.port}/", egress=egress, names=names
        )
        self.assertTrue((await transport.deliver(outbound())).delivered)
        names.answers["hook.test"] = ["127.0.0.2"]
        receiver.conversations[0].finish()
        await receiver.conversations[0].gone()
        self._assert_blocked(await transport.deliver(outbound()), "hook.test resolves to 127.0.0.2")
        self.assertEqual(names.asked, ["hook.test", "hook.test"])

    async def test_of_several_addresses_only_the_allowed_are_tried(self) -> None:
        receiver = Receiver(self)
        names = Names(**{"hook.test": ["169.254.0.1", "127.0.0.2", "127.0.0.1"]})
        sent = await deliver(
            self,
            f"http://hook.test:{receiver.port}/",
            egress=Egress(allow=("127.0.0.1/32",)),
            names=names,
        )
        self.assertEqual((sent.delivered, sent.remote_address), (True, f"127.0.0.1:{receiver.port}"))


class TlsTests(TestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority.write(self.folder / "ca.pem")

    async def _deliver(self, receiver: Receiver, host: str = "hook.test", trust: bool = True) -> Sent:
        return await deliver(
            self,
            f"https://{host}:{receiver.port}/",
            names=Names(**{host: ["127.0.0.1"]}),
            state_dir=self.folder,
            ca_file="ca.pem" if trust else None,
        )

    def _assert_refused(self, sent: Sent, receiver: Receiver, words: str) -> None:
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TLS), sent.error)
        self.assertIn(words, sent.error or "")
        self.assertEqual(receiver.requests, [])

    async def test_a_certificate_of_a_trusted_authority(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("hook.test"))
        sent = await self._deliver(receiver)
        self.assertTrue(sent.delivered, sent.error)
        self.assertEqual(sent.remote_address, f"127.0.0.1:{receiver.port}")
        self.assertEqual(receiver.requests[0].headers["host"], f"hook.test:{receiver.port}")

    async def test_a_connection_is_used_again(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("127.0.0.1"))
        transport = await http_transport(self, receiver.url, state_dir=self.folder, ca_file="ca.pem")
        for _ in range(3):
            self.assertTrue((await transport.deliver(outbound())).delivered)
        self.assertEqual(len(receiver.conversations), 1)

    async def test_the_name_is_told_to_the_server(self) -> None:
        asked: list[bytes | None] = []
        options = self.authority.server("hook.test")
        options.getContext().set_tlsext_servername_callback(
            lambda connection: asked.append(connection.get_servername())
        )
        await self._deliver(Receiver(self, tls=options))
        self.assertEqual(asked, [b"hook.test"])

    async def test_an_address_in_the_certificate(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("127.0.0.1"))
        self.assertTrue((await self._deliver(receiver, "127.0.0.1")).delivered)
        receiver = Receiver(self, tls=self.authority.server("127.0.0.2"))
        self._assert_refused(
            await self._deliver(receiver, "127.0.0.1"), receiver, "certificate is not for 127.0.0.1"
        )

    async def test_a_host_that_no_certificate_can_be_for(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("127.0.0.1"))
        for host in ("2130706433", "127.1"):
            self._assert_refused(await self._deliver(receiver, host), receiver, f"is not for {host}")

    async def test_other_ways_to_write_a_name(self) -> None:
        asked: list[bytes | None] = []
        options = self.authority.server("hook.test", "my_hook.test")
        options.getContext().set_tlsext_servername_callback(
            lambda connection: asked.append(connection.get_servername())
        )
        receiver = Receiver(self, tls=options)
        for host in ("hook.test.", "HOOK.test", "my_hook.test"):
            sent = await self._deliver(receiver, host)
            self.assertTrue(sent.delivered, sent.error)
        self.assertEqual(
            [(name or b"").lower() for name in asked], [b"hook.test", b"hook.test", b"my_hook.test"]
        )

    async def test_an_address_is_not_told_as_a_name(self) -> None:
        asked: list[bytes | None] = []
        options = self.authority.server("127.0.0.1")
        options.getContext().set_tlsext_servername_callback(
            lambda connection: asked.append(connection.get_servername())
        )
        self.assertTrue((await self._deliver(Receiver(self, tls=options), "127.0.0.1")).delivered)
        self.assertEqual([name for name in asked if name], [])

    async def test_an_unknown_authority(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("hook.test"))
        self._assert_refused(
            await self._deliver(receiver, trust=False), receiver, "its authority is not known"
        )

    async def test_a_self_signed_certificate(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("hook.test", self_signed=True))
        self._assert_refused(await self._deliver(receiver), receiver, "self-signed")

    async def test_an_expired_certificate(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("hook.test", expired=True))
        self._assert_refused(await self._deliver(receiver), receiver, "it has expired")

    async def test_a_certificate_that_is_not_valid_yet(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("hook.test", early=True))
        self._assert_refused(await self._deliver(receiver), receiver, "it is not valid yet")

    async def test_a_certificate_for_another_name(self) -> None:
        for names in (("other.test",), ("*.hook.test",), ()):
            receiver = Receiver(self, tls=self.authority.server(*names))
            self._assert_refused(
                await self._deliver(receiver), receiver, "the receiver's certificate is not for hook.test"
            )

    async def test_a_server_without_tls(self) -> None:
        receiver = Receiver(self, greet=lambda conversation: conversation.send(b"HTTP/1.1 400 x\r\n\r\n"))
        self._assert_refused(await self._deliver(receiver), receiver, "does not speak TLS on this port")

    async def test_an_old_version_of_tls(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("hook.test", highest=TLSVersion.TLSv1_1))
        self._assert_refused(await self._deliver(receiver), receiver, "no TLS of version 1.2 or later")

    async def test_a_server_that_asks_for_a_client_certificate(self) -> None:
        receiver = Receiver(self, tls=self.authority.server("hook.test", ask_client=True))
        self._assert_refused(await self._deliver(receiver), receiver, "client certificate")

    async def test_closed_during_the_handshake(self) -> None:
        receiver = Receiver(self, greet=Conversation.close)
        self._assert_refused(await self._deliver(receiver), receiver, "while negotiating TLS")

    async def test_stop_does_not_wait_for_a_receiver_that_will_not_close(self) -> None:
        self.patch(agent, "CLOSE_TIMEOUT", SHORT)
        receiver = Receiver(self, tls=self.authority.server("127.0.0.1"))
        transport = await http_transport(self, receiver.url, state_dir=self.folder, ca_file="ca.pem")
        await transport.deliver(outbound())
        [conversation] = receiver.conversations
        conversation.pause()
        await Deferred.fromCoroutine(transport.stop()).addTimeout(10 * SHORT, reactor)

    async def test_an_authority_file_that_is_of_no_use(self) -> None:
        for name, content in (("absent.pem", None), ("empty.pem", b""), ("bad.pem", b"nonsense")):
            if content is not None:
                (self.folder / name).write_bytes(content)
            with self.assertRaises(TlsFileError) as caught:
                await http_transport(self, "https://hook.test/", state_dir=self.folder, ca_file=name)
            self.assertIn(f"options.ca_file: {self.folder / name}", str(caught.exception))


class CancelTests(TestCase):
    async def _cancel(self, delivery: Deferred[Sent]) -> None:
        self.assertFalse(delivery.called)
        delivery.cancel()
        self.assertTrue(delivery.called, "cancelling took time")
        with self.assertRaises(CancelledError):
            await delivery

    async def test_while_resolving(self) -> None:
        transport = await http_transport(self, "http://hook.test/", names=Names(**{"hook.test": None}))
        await self._cancel(Deferred.fromCoroutine(transport.deliver(outbound())))

    async def test_while_connecting(self) -> None:
        receiver = Receiver(self, silent)
        transport = await http_transport(
            self, f"http://hook.test:{receiver.port}/", names=Names(**{"hook.test": ["127.0.0.1"]})
        )
        await self._cancel(Deferred.fromCoroutine(transport.deliver(outbound())))

    async def test_while_waiting(self) -> None:
        receiver = Receiver(self, silent)
        transport = await http_transport(self, receiver.url)
        asked = receiver.next_request()
        delivery = Deferred.fromCoroutine(transport.deliver(outbound()))
        conversation = await asked
        await self._cancel(delivery)
        await conversation.gone()

    async def test_while_reading_the_body(self) -> None:
        receiver = Receiver(self, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"))
        transport = await http_transport(self, receiver.url)
        asked = receiver.next_request()
        delivery = Deferred.fromCoroutine(transport.deliver(outbound()))
        conversation = await asked
        await self._cancel(delivery)
        await conversation.gone()
