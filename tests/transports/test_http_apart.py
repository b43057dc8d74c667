"""Two webhooks to the same host have nothing in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.ssl import Certificate
from twisted.trial.unittest import TestCase

from cubehook.transports.http import HttpOptions, HttpTransport
from tests.transports.proxies import ConnectProxy
from tests.transports.support import (
    OTHER_SECRET,
    SECRET,
    Authority,
    Conversation,
    Receiver,
    Request,
    http_transport,
    outbound,
)

COOKIE = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=first; Path=/\r\nContent-Length: 2\r\n\r\nok"


class ApartTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority()
        self.authority.write(self.folder / "ca.pem")
        for name in ("one", "two"):
            certificate, key = self.authority.issue(name)
            (self.folder / f"{name}.pem").write_bytes(certificate + key)
        self.seen: list[tuple[Conversation, str | None, Request]] = []

    def _receiver(self, tls: Any = None) -> Receiver:
        def script(conversation: Conversation, request: Request) -> None:
            shown = None
            if tls is not None:
                transport: Any = conversation.transport
                shown = transport.getPeerCertificate()
                if shown is not None:
                    shown = Certificate(shown).getSubject().commonName.decode()
            self.seen.append((conversation, shown, request))
            conversation.send(COOKIE)

        return Receiver(self, script, tls=tls)

    def _optional_client(self) -> Any:
        options = self.authority.server("127.0.0.1", ask_client=True)
        options.requireCertificate = False
        return options

    async def _in_turn(self, *transports: HttpTransport) -> list[set[Conversation]]:
        """Three rounds, one after the other and all at once; the connections of each."""
        used: list[set[Conversation]] = [set() for _ in transports]
        for _ in range(2):
            for number, transport in enumerate(transports):
                before = len(self.seen)
                sent = await transport.deliver(outbound())
                self.assertTrue(sent.delivered, sent.error)
                used[number] |= {conversation for conversation, *_ in self.seen[before:]}
        at_once = [Deferred.fromCoroutine(transport.deliver(outbound())) for transport in transports * 2]
        for sent in await gatherResults(at_once):
            self.assertTrue(sent.delivered, sent.error)
        return used

    async def test_cookies_headers_and_signatures(self) -> None:
        receiver = self._receiver()
        first = await http_transport(
            self, receiver.url, headers={"Authorization": "Bearer one", "X-One": "1"}, secrets=(SECRET,)
        )
        second = await http_transport(
            self, receiver.url, headers={"Authorization": "Bearer two"}, secrets=(OTHER_SECRET,)
        )
        used = await self._in_turn(first, second)
        self.assertEqual([len(each) for each in used], [1, 1])
        self.assertFalse(used[0] & used[1])
        by_connection: dict[Conversation, set[tuple[str, str | None, str]]] = {}
        for conversation, _, request in self.seen:
            self.assertNotIn("cookie", request.headers)
            by_connection.setdefault(conversation, set()).add(
                (
                    request.headers["authorization"],
                    request.headers.get("x-one"),
                    request.headers["webhook-signature"],
                )
            )
        for told in by_connection.values():
            self.assertEqual(len(told), 1, "a connection carries one webhook's requests")
        said = set().union(*by_connection.values())
        self.assertEqual({one[:2] for one in said}, {("Bearer one", "1"), ("Bearer two", None)})
        self.assertEqual(len(said), 2)

    async def test_client_certificates(self) -> None:
        receiver = self._receiver(self._optional_client())
        transports = [
            await http_transport(
                self,
                receiver.url,
                state_dir=self.folder,
                options=HttpOptions(ca_file="ca.pem", client_certificate=certificate),
            )
            for certificate in ("one.pem", "two.pem", None)
        ]
        used = await self._in_turn(*transports)
        self.assertEqual(len(set().union(*used)), 3)
        self.assertEqual([shown for _, shown, _ in self.seen[:6]], ["one", "two", None] * 2)
        shown_by = {conversation: shown for conversation, shown, _ in self.seen}
        for conversation, shown, _ in self.seen:
            self.assertEqual(shown_by[conversation], shown)

    async def test_one_that_trusts_anybody_lends_its_connections_to_nobody(self) -> None:
        receiver = self._receiver(self.authority.server("other.test"))
        careless = await http_transport(self, receiver.url, options=HttpOptions(insecure=True))
        careful = await http_transport(self, receiver.url)
        self.assertTrue((await careless.deliver(outbound())).delivered)
        self.assertFalse((await careful.deliver(outbound())).delivered)
        self.assertEqual(len(self.seen), 1)

    async def test_proxies(self) -> None:
        receiver = self._receiver()
        proxies = ConnectProxy(self), ConnectProxy(self)
        transports = [
            await http_transport(self, receiver.url, proxy=proxy)
            for proxy in (proxies[0].url, proxies[1].url, "")
        ]
        used = await self._in_turn(*transports)
        self.assertEqual(len(set().union(*used)), 3)
        for proxy in proxies:
            self.assertEqual(set(proxy.asked_for), {f"CONNECT 127.0.0.1:{receiver.port} HTTP/1.1"})

    async def test_an_end_of_one_is_none_of_the_other(self) -> None:
        receiver = self._receiver()
        first = await http_transport(self, receiver.url)
        second = await http_transport(self, receiver.url)
        await self._in_turn(first, second)
        await first.stop()
        sent = await second.deliver(outbound())
        self.assertEqual((sent.delivered, [*sent.phases]), (True, ["waiting", "reading"]))
