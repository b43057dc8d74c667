"""The NATS transport against the machine's JetStream, and against servers of the tests' own."""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import nats
import nats.js.api
import nkeys  # type: ignore[import-untyped]
from nats.aio.client import Client
from twisted.internet import reactor as installed
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.config import Webhook
from cubehook.interfaces import Outbound, Sent
from cubehook.plugins.cubehook_transports import nats as plugin
from cubehook.records import ErrorClass
from cubehook.testing import (
    EgressTests,
    NamedReactor,
    Names,
    RecoveringReceiverTests,
    TransportTests,
    UnresponsiveReceiverTests,
    call_outbound,
)
from cubehook.testing.conformance import TransportCase
from cubehook.testing.watching import Leftovers
from cubehook.transports import libraries, nats_sender
from cubehook.transports.brokers import Phase
from cubehook.transports.registry import check_webhook
from tests.functional.harness import PATIENCE
from tests.transports.own_servers import (
    NatsServer,
    imported_by_a_service_without,
    loop_threads,
    skip_unless_listening,
)
from tests.transports.relay import Relay, Silent
from tests.transports.support import Authority, Receiver

reactor: Any = installed
PORT = 4222
T = TypeVar("T")
KINDS = (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)


def with_client(port: int, work: Callable[[Client], Awaitable[T]], **settings: Any) -> Deferred[T]:
    """Do `work` with a client of its own, in a thread and loop of its own."""

    async def whole() -> T:
        client = await nats.connect(f"nats://127.0.0.1:{port}", error_cb=give_up, **settings)
        try:
            return await work(client)
        finally:
            await client.close()

    return deferToThread(asyncio.run, whole())


async def give_up(error: Exception) -> None:
    """Raised through `connect`, which would try for minutes."""
    raise error


async def add_stream(client: Client, name: str, **settings: Any) -> None:
    await client.jetstream().add_stream(
        nats.js.api.StreamConfig(name=name, subjects=[f"{name}.>"], **settings)
    )


async def messages(client: Client, stream: str, count: int) -> list[Any]:
    """All that is in the stream, once there are `count`."""
    jetstream = client.jetstream()
    for _ in range(1000):
        state = (await jetstream.stream_info(stream)).state
        if state.messages >= count:
            break
        await asyncio.sleep(0.01)
    if not state.messages:
        return []
    return [await jetstream.get_msg(stream, seq) for seq in range(state.first_seq, state.last_seq + 1)]


class NatsCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.name = f"cubehook-test-{secrets.token_hex(4)}"
        self.addCleanup(lambda: self.assertEqual(loop_threads(), [], "the loop's thread stays"))

    async def machine(self) -> None:
        """A stream of this test's own on the machine's server."""
        skip_unless_listening("NATS server", PORT)
        await with_client(PORT, lambda client: add_stream(client, self.name))
        self.addCleanup(with_client, PORT, lambda client: client.jetstream().delete_stream(self.name))

    def webhook(self, port: int = PORT, scheme: str = "nats", user: str = "", **options: object) -> Webhook:
        return Webhook(
            id="bus",
            url=f"{scheme}://{user}127.0.0.1:{port}",
            transport="nats",
            options={"subject": f"{self.name}.{{cube}}.{{state}}", **options},
        )

    async def stored(self, count: int, port: int = PORT) -> list[Any]:
        return await with_client(port, lambda client: messages(client, self.name, count))


class NatsTestCase(NatsCase, TransportCase):
    """Tests that make transports by hand."""

    plugin = plugin

    async def own(self, config: str = "", jetstream: bool = True, stream: bool = True) -> NatsServer:
        server = NatsServer(self, Path(self.mktemp()).absolute(), config, jetstream)
        await server.start()
        if stream:
            await with_client(server.port, lambda client: add_stream(client, self.name))
        return server

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = reactor.seconds() + PATIENCE
        while not condition():
            self.assertLess(reactor.seconds(), deadline)
            await deferLater(reactor, 0.01)

    async def published(self, relay: Relay, count: int) -> None:
        """Wait until that many messages were sent through `relay`."""
        found = b""
        while found.count(b"HPUB ") < count:
            found += await relay.sent.get().addTimeout(PATIENCE, reactor)

    def go_on(self, relay: Relay) -> None:
        relay.holding = False
        for leg in relay.legs:
            leg.release()

    async def one(self, webhook: Webhook, **event: Any) -> Sent:
        """One delivery by a transport that was just started."""
        return await self.deliver(await self.started(webhook), call_outbound(**event))

    async def fails(self, webhook: Webhook, error_class: ErrorClass, *words: str, **settings: Any) -> Sent:
        sent = await self.one(webhook, **settings)
        self.assertEqual((sent.delivered, sent.error_class), (False, error_class), sent.error)
        for each in words:
            self.assertIn(each, sent.error or "")
        self.assertIn("127.0.0.1:", sent.error or "", "the words have no address")
        return sent


class ConformanceTests(
    NatsCase, TransportTests, UnresponsiveReceiverTests, RecoveringReceiverTests, EgressTests
):
    plugin = plugin

    async def accepting(self) -> Webhook:
        await self.machine()
        self.accepting_port = PORT
        return self.webhook()

    async def arrived(self, count: int) -> Sequence[bytes]:
        return [message.data for message in await self.stored(count, self.accepting_port)]

    async def failing(self) -> Webhook:
        self.mended = NatsServer(self, Path(self.mktemp()).absolute())
        self.accepting_port = self.mended.port
        return self.webhook(self.mended.port)

    async def mend(self) -> None:
        await self.mended.start()
        await with_client(self.mended.port, lambda client: add_stream(client, self.name))

    async def hanging(self) -> Webhook:
        return self.webhook(Silent(self).port)


class PublishTests(NatsTestCase):
    async def test_what_a_message_is(self) -> None:
        await self.machine()
        webhook = self.webhook(expected_stream=self.name)
        webhook = msgspec.structs.replace(webhook, headers={"Authorization": "Bearer hidden"})
        outbound = call_outbound(cube="a.b* >c")
        transport = await self.started(webhook)
        sent = await self.deliver(transport, outbound)
        self.assertEqual(sent.error, None)
        [message] = await self.stored(1)
        self.assertEqual(message.subject, f"{self.name}.a_b_c.ALERTING")
        self.assertEqual(message.data, outbound.body)
        payload: Any = outbound.event.payload
        self.assertEqual(
            message.headers,
            {
                "webhook-id": outbound.id,
                "Nats-Msg-Id": outbound.id,
                "Nats-Expected-Stream": self.name,
                "Content-Type": "application/json",
                "cubehook-state": "ALERTING",
                "cubehook-cube": "a.b* >c",
                "cubehook-call": payload.call_id,
                "cubehook-sequence": "1",
                "Authorization": "Bearer hidden",
            },
        )
        self.assertEqual(sent.url, f"nats://127.0.0.1:{PORT}/{self.name}.a_b_c.ALERTING")
        self.assertEqual(sent.remote_address, f"127.0.0.1:{PORT}")
        self.assertEqual(sent.request_headers["Authorization"], "***")
        self.assertEqual(sent.request_headers["Nats-Msg-Id"], outbound.id)
        self.assertEqual(msgspec.json.decode(sent.response_body or ""), {"stream": self.name, "sequence": 1})
        self.assertEqual(list(sent.phases), [Phase.CONNECTING, Phase.LOGGING_IN, Phase.CONFIRMING])
        again = await self.deliver(transport, call_outbound())
        self.assertEqual(list(again.phases), [Phase.CONFIRMING])
        self.assertEqual(again.remote_address, f"127.0.0.1:{PORT}")

    async def test_a_repeat_is_kept_once_and_one_that_was_asked_for_twice(self) -> None:
        await self.machine()
        transport = await self.started(self.webhook())
        outbound = call_outbound()
        await self.delivered(transport, outbound)
        sent = await self.deliver(transport, msgspec.structs.replace(outbound, attempt=2))
        self.assertTrue(sent.delivered)
        self.assertTrue(msgspec.json.decode(sent.response_body or "")["duplicate"])
        self.assertEqual(len(await self.stored(1)), 1)
        await self.delivered(transport, msgspec.structs.replace(outbound, redelivery=True))
        second = (await self.stored(2))[1]
        self.assertEqual(second.headers["webhook-id"], outbound.id)
        self.assertEqual(second.headers["cubehook-redelivery"], "true")

    async def test_one_connection_for_all_and_one_attempt_to_make_it(self) -> None:
        await self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        sendings = [Deferred.fromCoroutine(self.delivered(transport, call_outbound())) for _ in range(8)]
        await gatherResults(sendings, consumeErrors=True)
        self.assertEqual(relay.made, 1)
        self.assertEqual(len(await self.stored(8)), 8)

    async def test_cancelling_the_one_that_connects_leaves_the_others_be(self) -> None:
        await self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        relay.holding = True
        transport = await self.started(self.webhook(relay.port))
        first = Deferred.fromCoroutine(transport.deliver(call_outbound()))
        second = Deferred.fromCoroutine(self.delivered(transport, call_outbound()))
        await self.until(lambda: relay.made == 1)
        first.cancel()
        with self.assertRaises(CancelledError):
            await first
        self.go_on(relay)
        await second
        self.assertEqual(relay.made, 1)


class RefusalTests(NatsTestCase):
    async def test_no_stream_takes_the_subject(self) -> None:
        server = await self.own(stream=False)
        await self.fails(
            self.webhook(server.port),
            ErrorClass.OTHER,
            f"no stream takes the subject {self.name}.hq.ALERTING: create one",
        )

    async def test_jetstream_is_not_enabled(self) -> None:
        server = await self.own(jetstream=False, stream=False)
        await self.fails(self.webhook(server.port), ErrorClass.OTHER, "JetStream is not enabled")

    async def test_another_stream_takes_it_than_expected(self) -> None:
        await self.machine()
        await self.fails(
            self.webhook(expected_stream="orders"), ErrorClass.OTHER, "is not orders, which is expected"
        )
        self.assertEqual(await self.stored(0), [])

    async def test_a_message_larger_than_the_server_takes_is_permanent(self) -> None:
        server = await self.own("max_payload: 1024")
        body = b"x" * 1000
        sent = await self.fails(self.webhook(server.port), ErrorClass.OTHER, "max_payload", body=body)
        self.assertTrue(sent.permanent)

    async def test_a_message_larger_than_the_stream_takes_is_permanent(self) -> None:
        server = await self.own(stream=False)
        await with_client(server.port, lambda client: add_stream(client, self.name, max_msg_size=500))
        sent = await self.fails(
            self.webhook(server.port), ErrorClass.OTHER, "message size exceeds", body=b"x" * 1000
        )
        self.assertTrue(sent.permanent)

    async def test_a_full_stream_is_a_failing_receiver(self) -> None:
        server = await self.own(stream=False)
        discard = nats.js.api.DiscardPolicy.NEW
        await with_client(
            server.port, lambda client: add_stream(client, self.name, max_msgs=1, discard=discard)
        )
        transport = await self.started(self.webhook(server.port))
        await self.delivered(transport, call_outbound())
        sent = await self.deliver(transport, call_outbound())
        self.assertFalse(sent.permanent)
        self.assertIn("maximum messages exceeded", sent.error or "")

    async def test_a_plain_subscriber_is_no_stream(self) -> None:
        server = await self.own(jetstream=False, stream=False)
        client = Subscriber(server.port, f"{self.name}.>")
        self.addCleanup(client.stop)
        await client.start()
        await self.fails(
            self.webhook(server.port),
            ErrorClass.TIMEOUT,
            f"is there a stream that takes {self.name}.hq.ALERTING?",
            timeout=0.3,
        )

    async def test_what_is_no_nats_server(self) -> None:
        skip_unless_listening("Redis server", 6379)
        for port, words in ((6379, "not answer"), (await self._garbage(), "no NATS server")):
            sent = await self.one(self.webhook(port), timeout=0.5)
            self.assertFalse(sent.delivered, words)

    async def _garbage(self) -> int:
        server = Receiver(self, greet=lambda conversation: conversation.send(b"HTTP/1.1 400\r\n\r\n"))
        return server.port


class LoginTests(NatsTestCase):
    async def test_user_and_password(self) -> None:
        server = await self.own(
            'authorization { users = [{user: "w@rum", password: "s3:cret/"}] }', stream=False
        )
        await with_client(
            server.port, lambda client: add_stream(client, self.name), user="w@rum", password="s3:cret/"
        )
        sent = await self.one(self.webhook(server.port, user="w%40rum:s3%3Acret%2F@"))
        self.assertTrue(sent.delivered, sent.error)
        self.assertNotIn("cret", repr(sent))
        for user in ("", "w%40rum:wrong@", "token@"):
            sent = await self.fails(
                self.webhook(server.port, user=user), ErrorClass.OTHER, "the server refuses the user"
            )
            self.assertNotIn("wrong", repr(sent))

    async def test_a_token(self) -> None:
        server = await self.own('authorization { token: "t0ken" }', stream=False)
        await with_client(server.port, lambda client: add_stream(client, self.name), token="t0ken")
        sent = await self.one(self.webhook(server.port, user="t0ken@"))
        self.assertTrue(sent.delivered, sent.error)
        self.assertNotIn("t0ken", repr(sent))
        await self.fails(self.webhook(server.port, user="other@"), ErrorClass.OTHER, "the server refuses")

    async def test_permissions_that_are_missing_are_told_at_once(self) -> None:
        users = ", ".join(
            (
                '{user: "a", password: "a", permissions: {publish: ["elsewhere"], subscribe: ">"}}',
                '{user: "b", password: "b", permissions: {publish: ">", subscribe: ["elsewhere"]}}',
                '{user: "c", password: "c"}',
            )
        )
        server = await self.own(f"authorization {{ users = [{users}] }}", stream=False)
        await with_client(server.port, lambda client: add_stream(client, self.name), user="c", password="c")
        for user, words in (("a", "may not publish to"), ("b", "may not subscribe to _INBOX.>")):
            webhook = self.webhook(server.port, user=f"{user}:{user}@")
            await self.fails(webhook, ErrorClass.OTHER, words, timeout=20)

    async def test_a_credentials_file(self) -> None:
        operator, account, user = map(nkeys_pair, KINDS)
        system = nkeys_pair(KINDS[1])
        operator_jwt = signed({"type": "operator"}, operator, operator)
        storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
        limits = {"conn": -1, "subs": -1, "data": -1, "payload": -1, "leaf": -1, "imports": -1}
        account_jwt = signed({"type": "account", "limits": limits | storage}, account, operator)
        user_jwt = signed({"type": "user", "subs": -1, "data": -1, "payload": -1}, user, account)
        system_jwt = signed({"type": "account", "limits": limits}, system, operator)
        server = await self.own(
            f"operator: {operator_jwt}\nresolver: MEMORY\nsystem_account: {system.public_key.decode()}\n"
            f"resolver_preload: {{ {account.public_key.decode()}: {account_jwt}\n"
            f"{system.public_key.decode()}: {system_jwt} }}\n"
            f'jetstream {{ store_dir: "{self.folder}/store" }}\n',
            jetstream=False,
            stream=False,
        )
        file = self.folder / "bus.creds"
        file.write_text(credentials(user_jwt, user))
        await with_client(
            server.port, lambda client: add_stream(client, self.name), user_credentials=str(file)
        )
        webhook = self.webhook(server.port, credentials_file="bus.creds")
        sent = await self.one(webhook)
        self.assertTrue(sent.delivered, sent.error)
        # Read for each connection: mended without a restart.
        whole = file.read_text()
        file.write_text("nothing")
        await self.fails(webhook, ErrorClass.OTHER, "bus.creds does not hold a NATS USER JWT")
        file.unlink()
        await self.fails(webhook, ErrorClass.OTHER, "bus.creds cannot be read: No such file")
        file.write_text(whole.replace(user.seed.decode(), nkeys_pair(KINDS[2]).seed.decode()))
        await self.fails(webhook, ErrorClass.OTHER, "the server refuses")


class TlsTests(NatsTestCase):
    async def _server(self, *names: str, expired: bool = False) -> NatsServer:
        self.authority = Authority()
        folder = self.folder
        self.authority.write(folder / "ca.pem")
        (folder / "server.pem").write_bytes(self.authority.pem(*names, expired=expired))
        file = folder / "server.pem"
        return await self.own(f'tls {{ cert_file: "{file}", key_file: "{file}" }}', stream=False)

    async def test_verified_and_encrypted(self) -> None:
        server = await self._server("127.0.0.1")
        await self._stream(server)
        sent = await self.one(self.webhook(server.port, "tls", ca_file="ca.pem"))
        self.assertTrue(sent.delivered, sent.error)

    async def _stream(self, server: NatsServer) -> None:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        await with_client(server.port, lambda client: add_stream(client, self.name), tls=context)

    async def test_certificates_that_are_not_good(self) -> None:
        server = await self._server("elsewhere.example")
        webhook = self.webhook(server.port, "tls", ca_file="ca.pem")
        await self.fails(webhook, ErrorClass.TLS, "not trusted: ", "not valid for")
        await self.fails(self.webhook(server.port, "tls"), ErrorClass.TLS, "not trusted: ")
        await self._stream_insecurely(server)
        sent = await self.one(self.webhook(server.port, "tls", insecure=True))
        self.assertTrue(sent.delivered, sent.error)

    async def _stream_insecurely(self, server: NatsServer) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await with_client(server.port, lambda client: add_stream(client, self.name), tls=context)

    async def test_no_secret_is_told_to_a_server_without_tls(self) -> None:
        heard = b""
        info = b'INFO {"server_id":"x","version":"2.9.10","proto":1,"max_payload":1048576,"headers":true'

        def greet(conversation: Any) -> None:
            conversation.send(info + b',"auth_required":true,"nonce":"abc"}\r\n')
            receive = conversation.dataReceived

            def received(data: bytes) -> None:
                nonlocal heard
                heard += data
                receive(data)
                if b"PING" in data:
                    conversation.send(b"PONG\r\n")

            conversation.dataReceived = received

        port = Receiver(self, greet=greet).port
        for user in ("u:pa55word@", "t0ken@", ""):
            await self.fails(self.webhook(port, "tls", user=user), ErrorClass.TLS, "the server offers no TLS")
        (self.folder / "bus.creds").write_text(credentials("a.b.c", nkeys_pair(KINDS[2])))
        webhook = self.webhook(port, "tls", credentials_file="bus.creds")
        await self.fails(webhook, ErrorClass.TLS, "the server offers no TLS")
        for secret in (b"pa55word", b"t0ken", b"sig", b"PUB"):
            self.assertNotIn(secret, heard)

    async def test_a_handshake_that_hangs(self) -> None:
        def greet(conversation: Any) -> None:
            conversation.send(b'INFO {"tls_required":true,"max_payload":1048576}\r\n')

        port = Receiver(self, greet=greet).port
        await self.fails(self.webhook(port, "tls"), ErrorClass.TIMEOUT, "while logging in", timeout=0.3)


class NameTests(NatsTestCase):
    """Names are resolved by the reactor that is lent, and held to the egress policy."""

    def setUp(self) -> None:
        super().setUp()
        self.names = Names(bus=["127.0.0.1"], silent=None, evil=["169.254.169.254"])

    @property
    def reactor(self) -> Any:
        return NamedReactor(self.names)

    def named(self, host: str) -> Webhook:
        webhook = self.webhook()
        return msgspec.structs.replace(webhook, url=webhook.url.replace("127.0.0.1", host))

    async def test_names(self) -> None:
        await self.machine()
        for host, error_class, words in (
            ("nowhere", ErrorClass.DNS, "does not resolve"),
            ("evil", ErrorClass.BLOCKED, "evil resolves to 169.254.169.254: cloud metadata"),
            ("silent", ErrorClass.TIMEOUT, "while connecting"),
        ):
            sent = await self.one(self.named(host), timeout=0.5)
            self.assertEqual((sent.delivered, sent.error_class), (False, error_class), sent.error)
            self.assertIn(words, sent.error or "")
            self.assertIn(f"{host}:{PORT}", sent.error or "")
        sent = await self.one(self.named("bus"))
        self.assertTrue(sent.delivered, sent.error)
        self.assertEqual(sent.remote_address, f"127.0.0.1:{PORT}")


class OutageTests(NatsTestCase):
    async def test_a_restart_is_healed_by_the_next_attempt_and_all_is_kept(self) -> None:
        server = await self.own()
        transport = await self.started(self.webhook(server.port))
        await self.delivered(transport, call_outbound())
        await server.kill()
        sent = await self.deliver(transport, call_outbound())
        self.assertFalse(sent.delivered)
        self.assertIn(sent.error_class, (ErrorClass.CONNECTION_REFUSED, ErrorClass.CONNECTION_LOST))
        self.assertIn(f"127.0.0.1:{server.port}", sent.error or "")
        await server.start()
        await self.delivered(transport, call_outbound())
        self.assertEqual(len(await self.stored(2, server.port)), 2)

    async def test_a_connection_that_is_cut_fails_what_waits_at_once(self) -> None:
        await self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        await self.delivered(transport, call_outbound())
        relay.holding = True
        waiting = [self._begin(transport, call_outbound(timeout=30)) for _ in range(3)]
        await self.published(relay, 4)
        await relay.cut()
        for sent in await gatherResults(waiting, consumeErrors=True):
            self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.CONNECTION_LOST))
        relay.holding = False
        await self.delivered(transport, call_outbound())

    async def test_a_connection_that_is_cut_is_noticed_also_if_the_library_says_nothing(self) -> None:
        # As it does when it fails in the middle of closing, which depends on what is under way.
        async def silent(client: Client, error: Exception) -> None:
            pass

        self.patch(Client, "_process_op_err", silent)
        await self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        await self.delivered(transport, call_outbound())
        relay.holding = True
        waiting = self._begin(transport, call_outbound(timeout=30))
        await self.published(relay, 2)
        await relay.cut()
        sent = await waiting.addTimeout(5, reactor)
        self.assertEqual(sent.error_class, ErrorClass.CONNECTION_LOST)
        self.assertIn("was lost before", sent.error or "")
        relay.holding = False
        await self.delivered(transport, call_outbound())

    def _begin(self, transport: Any, outbound: Outbound) -> Deferred[Sent]:
        return Deferred.fromCoroutine(self.deliver(transport, outbound))

    async def test_a_lost_acknowledgement_is_a_failure_and_the_repeat_is_kept_once(self) -> None:
        await self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        await self.delivered(transport, call_outbound())
        relay.holding = True
        outbound = call_outbound(timeout=0.3)
        sent = await self.deliver(transport, outbound)
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TIMEOUT))
        self.assertEqual(len(await self.stored(2)), 2, "it has come, but nobody knows")
        relay.holding = False
        await relay.cut()
        again = msgspec.structs.replace(outbound, attempt=2, timeout=5.0)
        if not (await self.deliver(transport, again)).delivered:
            # It went before the end of the connection was seen.
            await self.delivered(transport, again)
        self.assertEqual(len(await self.stored(2)), 2)

    async def test_a_server_that_hangs_is_left_for_a_new_connection(self) -> None:
        self.patch(nats_sender, "PROBE_SECONDS", 0.2)
        await self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        await self.delivered(transport, call_outbound())
        relay.stalled = True
        other = self._begin(transport, call_outbound(timeout=30))
        sent = await self.deliver(transport, call_outbound(timeout=0.2))
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TIMEOUT))
        given_up = await other
        self.assertEqual(given_up.error_class, ErrorClass.CONNECTION_LOST)
        self.assertIn("the server did not answer in time", given_up.error or "")
        relay.stalled = False
        await self.delivered(transport, call_outbound())
        self.assertEqual(relay.made, 2)

    async def test_a_server_that_is_only_slow_is_kept(self) -> None:
        server = await self.own(jetstream=False, stream=False)
        subscriber = Subscriber(server.port, f"{self.name}.>")
        self.addCleanup(subscriber.stop)
        await subscriber.start()
        relay = Relay(self, ("127.0.0.1", server.port))
        transport = await self.started(self.webhook(relay.port))
        for _ in range(2):
            sent = await self.deliver(transport, call_outbound(timeout=0.1))
            self.assertEqual(sent.error_class, ErrorClass.TIMEOUT)
        self.assertEqual(relay.made, 1)

    async def test_cancelling_leaves_the_transport_usable(self) -> None:
        await self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        await self.delivered(transport, call_outbound())
        relay.holding = True
        waiting = Deferred.fromCoroutine(transport.deliver(call_outbound(timeout=30)))
        await self.published(relay, 2)
        waiting.cancel()
        self.assertTrue(waiting.called)
        with self.assertRaises(CancelledError):
            await waiting
        self.go_on(relay)
        await self.delivered(transport, call_outbound())

    async def test_a_process_that_is_stopped_is_noticed_and_stopping_does_not_wait_for_it(self) -> None:
        server = await self.own()
        leftovers = await Leftovers.watch(reactor)
        transport = await self.started(self.webhook(server.port))
        await self.delivered(transport, call_outbound())
        server.pause()
        sent = await self.deliver(transport, call_outbound(timeout=0.2))
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TIMEOUT))
        before = reactor.seconds()
        await self.stop(transport)
        self.assertLess(reactor.seconds() - before, 5.0)
        self.assertEqual(await leftovers.none(), [])
        server.go_on()

    async def test_the_library_never_connects_again_by_itself(self) -> None:
        await self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        await self.delivered(transport, call_outbound())
        await relay.cut()
        await deferLater(reactor, 0.3)  # nothing tells of what does not happen
        self.assertEqual(relay.made, 1)
        await self.delivered(transport, call_outbound())
        self.assertEqual(relay.made, 2)


class CheckTests(SynchronousTestCase):
    def _problems(self, url: str = "nats://bus", headers: Any = None, **options: object) -> list[str]:
        webhook = Webhook(id="bus", url=url, transport="nats", headers=headers or {}, options=options)
        return [key for key, _ in check_webhook(webhook, {"nats": plugin})]

    def test_urls(self) -> None:
        for url in ("nats://bus", "tls://bus:4223", "nats://u:p@[::1]:4222/", "nats://token@bus"):
            self.assertEqual(self._problems(url), [], url)
        for url in (
            "",
            "http://bus",
            "nats://",
            "nats://bus/x",
            "nats://bus:0",
            "nats://:p@bus",
            "nats://bus?x=1",
        ):
            self.assertEqual(self._problems(url), ["url"], url)
        self.assertEqual(self._problems("nats://bus", ca_file="ca.pem"), ["url"])
        self.assertEqual(self._problems("nats://u:p@bus", credentials_file="x.creds"), ["url"])

    def test_subjects(self) -> None:
        for subject in ("calls", "calls.{cube}.{state}", "{webhook}.{{x}}.{call}", "$", "a.b.c"):
            problems = self._problems(subject=subject)
            self.assertEqual(problems, ["options.subject"] if subject == "$" else [], subject)
        for subject in (
            "",
            "calls.",
            ".calls",
            "a..b",
            "a b",
            "a.*",
            "a.>",
            "$JS.API.{cube}",
            "_INBOX.x",
            "{nobody}",
            "a\r\nPUB x 0",
            "é",
        ):
            self.assertEqual(self._problems(subject=subject), ["options.subject"], subject)

    def test_the_rest(self) -> None:
        self.assertEqual(self._problems(expected_stream="a.b"), ["options.expected_stream"])
        self.assertEqual(self._problems(credentials_file=""), ["options.credentials_file"])
        self.assertEqual(self._problems(headers={"Nats-Rollup": "all"}), ["headers.Nats-Rollup"])
        self.assertEqual(self._problems(headers={"X-Team": "sales"}), [])

    def test_a_service_that_does_not_use_it_imports_nothing_of_it(self) -> None:
        self.assertEqual(
            imported_by_a_service_without("nats", "nkeys", "nacl", "cubehook.transports.nats_sender"), "[]"
        )

    def test_without_the_library(self) -> None:
        self.patch(libraries, "find_spec", lambda name: None)
        webhook = Webhook(id="bus", url="nats://bus", transport="nats")
        [(key, expected)] = check_webhook(webhook, {"nats": plugin})
        self.assertEqual(key, "transport")
        self.assertIn("cubehook[nats]", expected)
        self.assertIn("cubehook[nats]", plugin.description)


class Subscriber:
    """A subscriber that says nothing, in a thread of its own."""

    def __init__(self, port: int, subject: str) -> None:
        self._port = port
        self._subject = subject
        self._end: Callable[[], object] = lambda: None
        self._running: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        started: Deferred[None] = Deferred()

        async def work(client: Client) -> None:
            await client.subscribe(self._subject)
            await client.flush()
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._end = lambda: loop.call_soon_threadsafe(ended.set)
            reactor.callFromThread(started.callback, None)
            await ended.wait()

        self._running = with_client(self._port, work)
        return started

    async def stop(self) -> None:
        self._end()
        if self._running is not None:
            await self._running


def nkeys_pair(kind: int) -> Any:
    return nkeys.from_seed(nkeys.encode_seed(secrets.token_bytes(32), kind))


def signed(claims: dict[str, Any], subject: Any, issuer: Any) -> str:
    """A JWT as NATS wants it (version 2)."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=").decode()

    whole = {
        "jti": secrets.token_hex(8),
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "name": "test",
        "sub": subject.public_key.decode(),
        "nats": {"version": 2, **claims},
    }
    text = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(whole)}"
    return f"{text}.{base64.urlsafe_b64encode(issuer.sign(text.encode())).rstrip(b'=').decode()}"


def credentials(jwt: str, user: Any) -> str:
    """A .creds file as NATS's own tools write it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
