"""The HTTP transport through HTTP proxies, good and bad."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook import __version__
from cubehook.config import Egress, Webhook
from cubehook.interfaces import Sent
from cubehook.net import proxy as room
from cubehook.records import ErrorClass
from cubehook.transports.http import HttpOptions, HttpPlugin
from tests.transports.proxies import ESTABLISHED, Client, ConnectProxy, Misbehave
from tests.transports.support import (
    OK,
    Authority,
    Conversation,
    Names,
    Receiver,
    Request,
    context_for,
    deliver,
    http_transport,
    outbound,
    reactor,
)

SHORT = 0.15
CREDENTIALS = "Basic " + b64encode("us:er:pä@ss".encode()).decode()
USER = "us%3Aer:p%C3%A4%40ss@"


class TunnelTests(TestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority.write(self.folder / "ca.pem")

    async def test_http_is_tunnelled_too(self) -> None:
        receiver, proxy = Receiver(self), ConnectProxy(self, names={"hook.test": "127.0.0.1"})
        names = Names()
        sent = await deliver(
            self,
            f"http://hook.test:{receiver.port}/calls",
            proxy=proxy.url,
            names=names,
            headers={"Authorization": "Bearer s3cret"},
        )
        self.assertTrue(sent.delivered, sent.error)
        self.assertEqual(receiver.requests[0].line, "POST /calls HTTP/1.1")
        self.assertEqual(receiver.requests[0].headers["host"], f"hook.test:{receiver.port}")
        [asked] = proxy.requests
        self.assertEqual(asked.line, f"CONNECT hook.test:{receiver.port} HTTP/1.1")
        self.assertEqual(
            asked.headers,
            {"host": f"hook.test:{receiver.port}", "user-agent": f"cubehook/{__version__}"},
        )
        self.assertEqual(names.asked, [], "the proxy resolves")
        self.assertEqual((sent.remote_address, sent.note), (proxy.address, f"through the proxy {proxy.url}"))
        self.assertEqual([*sent.phases], ["connecting", "proxy", "waiting", "reading"])

    async def test_https_is_verified_for_the_receivers_name(self) -> None:
        for certified, delivered in (("hook.test", True), ("127.0.0.1", False)):
            receiver = Receiver(self, tls=self.authority.server(certified))
            proxy = ConnectProxy(self, names={"hook.test": "127.0.0.1"})
            sent = await deliver(
                self,
                f"https://hook.test:{receiver.port}/",
                proxy=proxy.url,
                state_dir=self.folder,
                ca_file="ca.pem",
            )
            self.assertEqual(sent.delivered, delivered, sent.error)
            if not delivered:
                self.assertEqual(sent.error_class, ErrorClass.TLS)
                self.assertIn("is not for hook.test", sent.error or "")
                self.assertEqual(receiver.requests, [])
            else:
                self.assertEqual([*sent.phases], ["connecting", "proxy", "tls", "waiting", "reading"])

    async def test_a_tunnel_is_used_again(self) -> None:
        receiver, proxy = Receiver(self, tls=self.authority.server("127.0.0.1")), ConnectProxy(self)
        transport = await http_transport(
            self, receiver.url, proxy=proxy.url, state_dir=self.folder, ca_file="ca.pem"
        )
        for _ in range(3):
            sent = await transport.deliver(outbound())
            self.assertTrue(sent.delivered, sent.error)
        self.assertEqual([*sent.phases], ["waiting", "reading"])
        self.assertEqual((len(proxy.requests), len(receiver.conversations)), (1, 1))
        await transport.stop()
        await proxy.clients[0].gone()

    async def test_an_answer_in_pieces_and_after_interim_ones(self) -> None:
        receiver, proxy = Receiver(self), ConnectProxy(self)

        for established in (
            b"HTTP/1.1 100 Continue\r\n\r\n" + ESTABLISHED,
            b"HTTP/1.0 200 OK\r\nVia: 1.0 x\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 204\r\n\r\n",
        ):
            proxy.established = established
            sent = await deliver(self, receiver.url, proxy=proxy.url)
            self.assertTrue(sent.delivered, sent.error)

        async def in_pieces(client: Client) -> None:
            for number in range(len(ESTABLISHED)):
                client.answer(ESTABLISHED[number : number + 1])
                await deferLater(reactor, 0.001)

        def slowly(client: Client) -> None:
            if in_turn.asked_for[-1].startswith("CONNECT"):
                sending.append(Deferred.fromCoroutine(in_pieces(client)))
            else:
                client.answer(OK)

        sending: list[Deferred[None]] = []
        in_turn = ConnectProxy(self, slowly)
        sent = await deliver(self, receiver.url, proxy=in_turn.url)
        await sending[0]
        self.assertTrue(sent.delivered, sent.error)

    async def test_an_ipv6_target_is_written_with_brackets(self) -> None:
        proxy = ConnectProxy(self, lambda client: client.answer(b"HTTP/1.1 502 x\r\n\r\n"))
        await deliver(self, "http://[2001:db8::1]:81/", proxy=proxy.url)
        self.assertEqual(proxy.asked_for, ["CONNECT [2001:db8::1]:81 HTTP/1.1"])

    async def test_credentials_go_to_the_proxy_and_nowhere_else(self) -> None:
        receiver, proxy = Receiver(self), ConnectProxy(self, credentials=CREDENTIALS)
        url = proxy.url.replace("http://", "http://" + USER)
        sent = await deliver(self, receiver.url, proxy=url)
        self.assertTrue(sent.delivered, sent.error)
        self.assertEqual(sent.note, f"through the proxy {proxy.url}")
        self.assertNotIn("proxy-authorization", receiver.requests[0].headers)
        refused = await deliver(self, receiver.url, proxy=url.replace("%40", "x"))
        self.assertEqual(refused.error_class, ErrorClass.CONNECTION_REFUSED)
        for shown in (repr(sent), repr(refused)):
            for secret in ("us%3Aer", "us:er", "%C3%A4", CREDENTIALS[6:]):
                self.assertNotIn(secret, shown)


class FailureTests(TestCase):
    async def _sent(self, misbehave: Misbehave, within: float = 5.0) -> tuple[Sent, ConnectProxy]:
        self.receiver = Receiver(self)
        proxy = ConnectProxy(self, misbehave)
        sent = await deliver(self, self.receiver.url, proxy=proxy.url, within=within)
        self.assertFalse(sent.delivered)
        self.assertEqual((sent.status, sent.remote_address), (None, proxy.address))
        self.assertEqual(self.receiver.conversations, [])
        if proxy.clients:
            await proxy.clients[0].gone()
        return sent, proxy

    async def test_the_proxys_answers(self) -> None:
        for status, error_class, words in (
            ("403 x", ErrorClass.CONNECTION_REFUSED, "answered 403 Forbidden: its rules forbid it"),
            (
                "407 x",
                ErrorClass.CONNECTION_REFUSED,
                "answered 407 Proxy Authentication Required: it asks for a user and password, "
                "or does not accept those of its URL",
            ),
            (
                "502 x",
                ErrorClass.CONNECTION_REFUSED,
                "answered 502 Bad Gateway: it could not connect to the receiver",
            ),
            (
                "504 x",
                ErrorClass.TIMEOUT,
                "answered 504 Gateway Timeout: it could not connect to the receiver in time",
            ),
            ("302 Found", ErrorClass.CONNECTION_REFUSED, "answered 302 Found"),
            ("599", ErrorClass.CONNECTION_REFUSED, "answered 599"),
        ):
            answer = f"HTTP/1.1 {status}\r\nRetry-After: 5\r\nLocation: http://x/\r\n\r\n".encode()
            sent, proxy = await self._sent(lambda client, answer=answer: client.answer(answer))  # type: ignore[misc]
            self.assertEqual(
                (sent.error_class, sent.error, sent.hold, sent.response_headers),
                (error_class, f"the proxy {proxy.url} {words}", None, {}),
            )
            self.assertEqual([*sent.phases], ["connecting", "proxy"])

    async def test_of_a_proxys_addresses_the_one_that_answered_is_told(self) -> None:
        proxy = ConnectProxy(self, lambda client: client.answer(b"HTTP/1.1 403 x\r\n\r\n"))
        names = Names(**{"proxy.test": ["127.0.0.2", "127.0.0.1"]})
        port = proxy.address.partition(":")[2]
        sent = await deliver(self, "http://hook.test/", proxy=f"http://proxy.test:{port}", names=names)
        self.assertEqual(sent.remote_address, proxy.address)
        self.assertIn(f"the proxy http://proxy.test:{port} answered 403", sent.error or "")
        self.assertEqual([*sent.phases], ["resolving", "connecting", "proxy"])

    async def test_what_is_not_http(self) -> None:
        for garbage in (
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"\x15\x03\x01\x00\x02\x02",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 000 x\r\n\r\n",
            b"HTTP/1.1 2000 x\r\n\r\n",
            b"HTTP/1.1 -20 x\r\n\r\n",
            b"HTTP/1.1 2\xb20 x\r\n\r\n",
            b"\r\n\r\nHTTP/1.1 200 x\r\n\r\n",
        ):
            sent, proxy = await self._sent(lambda client, answer=garbage: client.answer(answer))  # type: ignore[misc]
            self.assertEqual(
                (sent.error_class, sent.error),
                (ErrorClass.HTTP, f"the proxy {proxy.url} answered what is not HTTP"),
                garbage,
            )

    async def test_headers_and_interim_answers_without_an_end(self) -> None:
        for flood in (
            b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyy\r\n" * 100_000,
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * (room.HEAD + 1),
            b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
        ):
            sent, proxy = await self._sent(lambda client, answer=flood: client.answer(answer))  # type: ignore[misc]
            self.assertEqual(
                (sent.error_class, sent.error),
                (ErrorClass.HTTP, f"the proxy {proxy.url} answered with headers without end"),
            )

    async def test_closed_instead_of_an_answer(self) -> None:
        sent, proxy = await self._sent(Client.close)
        self.assertEqual(
            (sent.error_class, sent.error),
            (ErrorClass.CONNECTION_LOST, f"the proxy {proxy.url} closed the connection instead of an answer"),
        )

    async def test_no_answer(self) -> None:
        def trickle(client: Client) -> None:
            client.answer(b"HTTP/1.1 200 OK\r\nX: y")

        for misbehave in (lambda client: None, trickle):
            sent, proxy = await self._sent(misbehave, within=SHORT)
            self.assertEqual(sent.error_class, ErrorClass.TIMEOUT)
            self.assertRegex(
                sent.error or "",
                rf"^timed out after {SHORT} s while waiting for the proxy {proxy.url} to connect "
                rf"at {proxy.address} \(connecting 0\.\d\d s, proxy 0\.1\d s\)$",
            )

    async def test_no_answer_where_nobody_else_keeps_the_time(self) -> None:
        proxy = ConnectProxy(self, lambda client: None)
        agent = context_for(Webhook(id="crm"), proxy=proxy.url, timeout=SHORT).agent()
        with self.assertRaisesRegex(room.ProxyError, f"did not connect within {SHORT} s"):
            await agent.exchange().request(b"POST", b"http://hook.test/")
        await proxy.clients[0].gone()
        await agent.close()

    async def test_cancelled_while_the_proxy_connects(self) -> None:
        asked: Deferred[Client] = Deferred()
        proxy = ConnectProxy(self, asked.callback)
        transport = await http_transport(self, "http://hook.test/", proxy=proxy.url)
        delivery = Deferred.fromCoroutine(transport.deliver(outbound()))
        client = await asked
        delivery.cancel()
        with self.assertRaises(CancelledError):
            await delivery
        await client.gone()

    async def test_a_proxy_that_is_not_there(self) -> None:
        port = reactor.listenTCP(0, Receiver(self), interface="127.0.0.1")
        address = f"127.0.0.1:{port.getHost().port}"
        await port.stopListening()
        sent = await deliver(self, "http://hook.test/", proxy=f"http://{address}")
        self.assertEqual(
            (sent.error_class, sent.error, sent.remote_address),
            (
                ErrorClass.CONNECTION_REFUSED,
                f"the proxy http://{address} refused the connection at {address}",
                address,
            ),
        )

    async def test_a_proxy_whose_name_is_unknown_or_never_resolved(self) -> None:
        sent = await deliver(self, "http://hook.test/", proxy="http://proxy.test:3128", names=Names())
        self.assertEqual(
            (sent.error_class, sent.error),
            (
                ErrorClass.DNS,
                "the host name of the proxy http://proxy.test:3128 does not resolve to an address",
            ),
        )
        names = Names(**{"proxy.test": None})
        sent = await deliver(
            self, "http://hook.test/", proxy="http://proxy.test:3128", names=names, within=SHORT
        )
        self.assertEqual(sent.error_class, ErrorClass.TIMEOUT)
        self.assertIn("while resolving the host name of the proxy http://proxy.test:3128", sent.error or "")

    async def test_a_receiver_that_fails_is_not_taken_for_the_proxy(self) -> None:
        def script(conversation: Conversation, _: Request) -> None:
            conversation.close()

        proxy = ConnectProxy(self)
        sent = await deliver(self, Receiver(self, script).url, proxy=proxy.url)
        self.assertEqual(
            (sent.error_class, sent.error),
            (ErrorClass.CONNECTION_LOST, "the receiver closed the connection before it answered"),
        )
        silent = Receiver(self, lambda conversation, request: None)
        sent = await deliver(self, silent.url, proxy=proxy.url, within=SHORT)
        self.assertIn("the answer of the receiver, through the proxy", sent.error or "")


class ChoiceTests(TestCase):
    """Which way a webhook goes: its own settings, then those of `[egress]`."""

    async def _ways(self, options: HttpOptions, **settings: Any) -> tuple[bool, bool]:
        receiver = Receiver(self)
        ours, theirs = ConnectProxy(self), ConnectProxy(self)
        if options.proxy == "own":
            options = HttpOptions(proxy=ours.url, no_proxy=options.no_proxy)
        sent = await deliver(self, receiver.url, options=options, proxy=theirs.url, **settings)
        self.assertTrue(sent.delivered, sent.error)
        return bool(ours.requests), bool(theirs.requests)

    async def test_the_webhooks_own_before_the_global_one(self) -> None:
        for options, no_proxy, expected in (
            (HttpOptions(), (), (False, True)),
            (HttpOptions(proxy=""), (), (False, False)),
            (HttpOptions(proxy="own"), (), (True, False)),
            (HttpOptions(), ("127.0.0.0/8",), (False, False)),
            (HttpOptions(proxy="own"), ("127.0.0.0/8",), (False, False)),
            (HttpOptions(no_proxy=()), ("*",), (False, True)),
            (HttpOptions(no_proxy=("127.0.0.1",)), (), (False, False)),
            (HttpOptions(proxy="own", no_proxy=("192.0.2.1",)), ("*",), (True, False)),
        ):
            self.assertEqual(await self._ways(options, no_proxy=no_proxy), expected, (options, no_proxy))

    async def test_webhooks_with_other_credentials_share_no_tunnel(self) -> None:
        receiver = Receiver(self)
        proxy = ConnectProxy(self)
        first, second = [
            await http_transport(self, receiver.url, proxy=proxy.url.replace("http://", f"http://{user}@"))
            for user in ("one:1", "two:2")
        ]
        for transport in (first, second, first, second):
            self.assertTrue((await transport.deliver(outbound())).delivered)
        self.assertEqual(
            [asked.headers["proxy-authorization"] for asked in proxy.requests],
            ["Basic " + b64encode(pair).decode() for pair in (b"one:1", b"two:2")],
        )
        self.assertEqual((len(receiver.requests), len(receiver.conversations)), (4, 2))


class EgressTests(TestCase):
    async def _blocked(self, url: str, egress: Egress, proxy: ConnectProxy) -> str:
        sent = await deliver(self, url, proxy=proxy.url, egress=egress)
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.BLOCKED), sent.error)
        return sent.error or ""

    async def test_the_proxy_itself_is_judged(self) -> None:
        proxy = ConnectProxy(self)
        error = await self._blocked("http://192.0.2.1/", Egress(), proxy)
        self.assertIn("127.0.0.1 may not be reached: loopback is denied", error)
        sent = await deliver(
            self,
            "http://192.0.2.1/",
            proxy="http://proxy.test:1",
            names=Names(**{"proxy.test": ["169.254.169.254"]}),
        )
        self.assertIn("proxy.test resolves to 169.254.169.254", sent.error or "")
        self.assertEqual(proxy.clients, [])

    async def test_denied_addresses_are_not_asked_for_in_any_form(self) -> None:
        proxy = ConnectProxy(self)
        egress = Egress(allow=("127.0.0.1/32",), deny=("10.0.0.0/8",))
        for host in (
            "10.1.2.3",
            "0x0a010203",
            "167838211",
            "10.1.515",
            "012.1.2.3",
            "[::ffff:10.1.2.3]",
            "[64:ff9b::10.1.2.3]",
            "10.1.2.3.",
        ):
            self.assertIn(
                "10.0.0.0/8 is in egress.deny", await self._blocked(f"http://{host}/", egress, proxy)
            )
        for host in ("169.254.169.254", "2852039166", "[fe80::1]", "0", "127.0.0.2", "127.2"):
            await self._blocked(f"http://{host}/", egress, proxy)
        self.assertEqual(proxy.clients, [])

    async def test_names_of_the_proxys_own_machine(self) -> None:
        proxy = ConnectProxy(self, interface="127.0.0.2")
        for host in ("localhost", "LOCALHOST.", "a.localhost", "ip6-localhost"):
            error = await self._blocked(f"http://{host}/", Egress(allow=("127.0.0.2/32",)), proxy)
            self.assertIn(f"{host.lower()} resolves to 127.0.0.1: loopback is denied", error.lower())
        self.assertEqual(proxy.clients, [])
        proxy.names["localhost"] = "127.0.0.1"
        receiver = Receiver(self)
        sent = await deliver(self, f"http://localhost:{receiver.port}/", proxy=proxy.url)
        self.assertTrue(sent.delivered, sent.error)


class CheckTests(SynchronousTestCase):
    def _check(self, **options: Any) -> list[tuple[str, str]]:
        webhook = Webhook(id="crm", url="https://crm.example/calls")
        return HttpPlugin().check(webhook, HttpOptions(**options))

    def test_good_settings(self) -> None:
        for proxy in ("", "http://proxy.example:3128", "http://user:p%40ss@[2001:db8::1]:3128/"):
            self.assertEqual(self._check(proxy=proxy), [], proxy)
        self.assertEqual(self._check(no_proxy=("*", "10.0.0.0/8", ".example.com")), [])

    def test_bad_ones_are_named_and_no_password_told(self) -> None:
        for proxy in ("proxy:3128", "https://u:hunter2@proxy/", "http://u:hunter2@/", "http://u:hunter2@p/x"):
            [(key, expected)] = self._check(proxy=proxy)
            self.assertEqual(key, "options.proxy")
            self.assertNotIn("hunter2", expected)
        self.assertEqual(
            self._check(no_proxy=("ok.example", "http://x/", "10.0.0.1/8", "10.0.0.0/33")),
            [
                ("options.no_proxy", f"hosts, domains, addresses, networks or *; of entry {told}")
                for told in (
                    "2: it is none of these",
                    "3: its address lies inside 10.0.0.0/8; write that, or the address alone",
                    "4: it is none of these",
                )
            ],
        )
