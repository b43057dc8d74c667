"""The Redis transport against the machine's Redis, and against servers of the tests' own."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis
from twisted.internet import reactor as installed
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.config import Webhook
from cubehook.interfaces import Outbound, Sent
from cubehook.plugins.cubehook_transports import redis as plugin
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
from cubehook.transports import libraries, redis_sender
from cubehook.transports.brokers import Phase
from cubehook.transports.registry import check_webhook
from tests.functional.harness import PATIENCE, free_port
from tests.transports.own_servers import (
    RedisServer,
    imported_by_a_service_without,
    loop_threads,
    skip_unless_listening,
)
from tests.transports.relay import Relay, Silent
from tests.transports.support import Authority, Receiver

reactor: Any = installed
PORT = 6379


class RedisCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.key = f"cubehook-test:{secrets.token_hex(4)}"
        self.addCleanup(lambda: self.assertEqual(loop_threads(), [], "the loop's thread stays"))

    def client(self, port: int = PORT, **settings: Any) -> Any:
        client = redis.Redis(host="127.0.0.1", port=port, decode_responses=True, **settings)
        self.addCleanup(client.close)
        return client

    def machine(self) -> Any:
        """A client of the machine's server, where this test's stream is gone after the test."""
        skip_unless_listening("Redis server", PORT)
        client = self.client()
        self.addCleanup(client.delete, self.key)
        return client

    def webhook(self, port: int = PORT, scheme: str = "redis", user: str = "", **options: object) -> Webhook:
        path = options.pop("path", "")
        return Webhook(
            id="bus",
            url=f"{scheme}://{user}127.0.0.1:{port}{path}",
            transport="redis",
            options={"stream": self.key, **options},
        )

    async def own(self, *arguments: str) -> RedisServer:
        server = RedisServer(self, Path(self.mktemp()).absolute(), *arguments)
        await server.start()
        return server

    def entries(self, client: Any) -> list[dict[str, str]]:
        return [fields for _, fields in client.xrange(self.key)]


class RedisTestCase(RedisCase, TransportCase):
    """Tests that make transports by hand."""

    plugin = plugin

    async def one(self, webhook: Webhook, **event: Any) -> Sent:
        """One delivery by a transport that was just started."""
        return await self.deliver(await self.started(webhook), call_outbound(**event))

    async def fails(self, webhook: Webhook, error_class: ErrorClass, *words: str, **event: Any) -> Sent:
        sent = await self.one(webhook, **event)
        self.assertEqual((sent.delivered, sent.error_class), (False, error_class), sent.error)
        for each in words:
            self.assertIn(each, sent.error or "")
        self.assertIn("127.0.0.1:", sent.error or "", "the words have no address")
        return sent

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = reactor.seconds() + PATIENCE
        while not condition():
            self.assertLess(reactor.seconds(), deadline)
            await deferLater(reactor, 0.01)

    async def added(self, relay: Relay, count: int) -> None:
        """Wait until that many entries were sent through `relay`."""
        found = b""
        while found.count(b"XADD\r\n") < count:
            found += await relay.sent.get().addTimeout(PATIENCE, reactor)

    def begin(self, transport: Any, outbound: Outbound) -> Deferred[Sent]:
        return Deferred.fromCoroutine(self.deliver(transport, outbound))


class ConformanceTests(
    RedisCase, TransportTests, UnresponsiveReceiverTests, RecoveringReceiverTests, EgressTests
):
    plugin = plugin

    async def accepting(self) -> Webhook:
        self.reader = self.machine()
        return self.webhook()

    async def arrived(self, count: int) -> Sequence[bytes]:
        return [fields["payload"].encode() for fields in self.entries(self.reader)]

    async def failing(self) -> Webhook:
        self.mended = RedisServer(self, Path(self.mktemp()).absolute())
        return self.webhook(self.mended.port)

    async def mend(self) -> None:
        await self.mended.start()
        self.reader = self.client(self.mended.port)

    async def hanging(self) -> Webhook:
        return self.webhook(Silent(self).port)


class EntryTests(RedisTestCase):
    async def test_what_an_entry_is(self) -> None:
        client = self.machine()
        outbound = call_outbound()
        webhook = self.webhook(stream=f"{self.key}:{{cube}}:{{state}}")
        transport = await self.started(msgspec.structs.replace(webhook, headers={"X-Team": "sales"}))
        self.addCleanup(client.delete, f"{self.key}:hq:ALERTING")
        sent = await self.deliver(transport, outbound)
        self.assertEqual(sent.error, None)
        [(entry, fields)] = client.xrange(f"{self.key}:hq:ALERTING")
        payload: Any = outbound.event.payload
        self.assertEqual(
            fields,
            {
                "webhook-id": outbound.id,
                "cubehook-state": "ALERTING",
                "cubehook-cube": "hq",
                "cubehook-call": payload.call_id,
                "cubehook-sequence": "1",
                "Content-Type": "application/json",
                "X-Team": "sales",
                "payload": outbound.body.decode(),
            },
        )
        self.assertEqual(list(fields)[-1], "payload")
        self.assertEqual(sent.response_body, entry)
        self.assertEqual(sent.request_headers["X-Team"], "***")
        self.assertEqual(sent.remote_address, f"127.0.0.1:{PORT}")
        self.assertEqual(sent.url, f"redis://127.0.0.1:{PORT}/0?stream={self.key}:hq:ALERTING")
        self.assertEqual(list(sent.phases), [Phase.CONNECTING, Phase.LOGGING_IN, Phase.CONFIRMING])
        again = await self.deliver(transport, call_outbound(redelivery=True))
        self.assertEqual(list(again.phases), [Phase.CONFIRMING])
        self.assertEqual(again.remote_address, f"127.0.0.1:{PORT}")

    async def test_the_database_of_the_url(self) -> None:
        server = await self.own()
        await self.delivered(await self.started(self.webhook(server.port, path="/3")), call_outbound())
        self.assertEqual(len(self.entries(self.client(server.port, db=3))), 1)
        await self.fails(self.webhook(server.port, path="/999"), ErrorClass.OTHER, "DB index is out of range")

    async def test_a_stream_is_kept_to_about_its_length(self) -> None:
        client = self.machine()
        transport = await self.started(self.webhook(max_length=10))
        for _ in range(150):
            await self.delivered(transport, call_outbound(body=b"{}"))
        # It is trimmed by whole nodes, of 100 entries unless configured otherwise.
        self.assertLess(client.xlen(self.key), 150)

    async def test_connections_are_bounded_and_kept(self) -> None:
        self.machine()
        self.patch(redis_sender, "CONNECTIONS", 3)
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        for _ in range(2):
            sendings = [Deferred.fromCoroutine(self.delivered(transport, call_outbound())) for _ in range(9)]
            await gatherResults(sendings, consumeErrors=True)
        self.assertLessEqual(relay.made, 3)

    async def test_replicas_that_are_missing(self) -> None:
        server = await self.own()
        webhook = self.webhook(server.port, replicas=1)
        await self.fails(webhook, ErrorClass.OTHER, "only 0 of 1 replicas had the event in time", timeout=1.0)

    async def test_replicas_that_are_there(self) -> None:
        server = await self.own("--repl-diskless-sync-delay", "0")
        await self.own("--replicaof", "127.0.0.1", str(server.port))
        primary = self.client(server.port)
        await self.until(lambda: "'online'" in str(primary.info("replication")))
        sent = await self.one(self.webhook(server.port, replicas=1))
        self.assertTrue(sent.delivered, sent.error)


class RefusalTests(RedisTestCase):
    async def test_a_key_that_holds_something_else(self) -> None:
        self.machine().set(self.key, "x")
        transport = await self.started(self.webhook())
        sent = await self.deliver(transport, call_outbound())
        self.assertIn(f"the key {self.key} holds something else than a stream", sent.error or "")
        self.assertFalse(sent.permanent)
        # Its connection is as good as before.
        self.assertEqual(list((await self.deliver(transport, call_outbound())).phases), [Phase.CONFIRMING])

    async def test_a_replica(self) -> None:
        server = await self.own("--replicaof", "127.0.0.1", str(free_port()))
        await self.fails(self.webhook(server.port), ErrorClass.OTHER, "it is a replica", "(READONLY)")

    async def test_memory_that_is_full(self) -> None:
        server = await self.own("--maxmemory", "1")
        await self.fails(self.webhook(server.port), ErrorClass.OTHER, "maxmemory (OOM)")

    async def test_passwords(self) -> None:
        server = await self.own("--requirepass", "s3:cret/")
        sent = await self.one(self.webhook(server.port, user=":s3%3Acret%2F@"))
        self.assertTrue(sent.delivered, sent.error)
        self.assertNotIn("cret", repr(sent))
        await self.fails(self.webhook(server.port), ErrorClass.OTHER, "asks for a password (NOAUTH)")
        sent = await self.fails(
            self.webhook(server.port, user=":wrong@"), ErrorClass.OTHER, "refuses the user or password"
        )
        self.assertNotIn("wrong", repr(sent))

    async def test_a_password_that_nobody_asks_for(self) -> None:
        server = await self.own()
        await self.fails(
            self.webhook(server.port, user=":secret@"),
            ErrorClass.OTHER,
            "has no password for the user default",
        )

    async def test_users(self) -> None:
        server = await self.own()
        admin = self.client(server.port)
        admin.execute_command("ACL", "SETUSER", "w@rum", "on", ">pa55word", "~cubehook-test:*", "+xadd")
        sent = await self.one(self.webhook(server.port, user="w%40rum:pa55word@"))
        self.assertTrue(sent.delivered, sent.error)
        self.assertNotIn("pa55word", repr(sent))
        webhook = self.webhook(server.port, user="w%40rum:pa55word@", stream="elsewhere")
        await self.fails(webhook, ErrorClass.OTHER, "lacks a permission (NOPERM)")
        admin.execute_command("ACL", "SETUSER", "w@rum", "-xadd")
        await self.fails(
            self.webhook(server.port, user="w%40rum:pa55word@"),
            ErrorClass.OTHER,
            "lacks a permission (NOPERM)",
        )

    async def test_a_node_of_a_cluster(self) -> None:
        server = await self.own("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
        await self.fails(self.webhook(server.port), ErrorClass.OTHER, "a cluster, which is not supported")

    async def test_what_a_server_says_only_now_and_then(self) -> None:
        for answer, words, hold in (
            (b"-LOADING Redis is loading the dataset in memory\r\n", "still loading its data", 0.0),
            (b"-BUSY Redis is busy running a script.\r\n", "busy with a script", 0.0),
            (b"-MISCONF Redis is configured to save RDB snapshots\r\n", "cannot save to its disk", None),
            (b"-NOREPLICAS Not enough good replicas to write.\r\n", "too few replicas", None),
            (b"-MOVED 3999 127.0.0.1:6381\r\n", "a cluster, which is not supported", None),
            (b"-MASTERDOWN Link with MASTER is down\r\n", "has lost its primary", 0.0),
            (b"-ERR max number of clients reached\r\n", "takes no more clients", 0.0),
            (b"-ERR unknown command 'XADD'\r\n", "streams need Redis 5", None),
            (b"-ERR some\x1b[31mthing\r\n", "it answered: some\\x1b[31mthing", None),
        ):
            sent = await self.fails(self.webhook(self._answering(answer)), ErrorClass.OTHER, words)
            self.assertEqual(sent.hold, hold, answer)
            self.assertFalse(sent.permanent)

    def _answering(self, answer: bytes) -> int:
        def greet(conversation: Any) -> None:
            def received(data: bytes) -> None:
                asked = data.count(b"CLIENT\r\n")
                conversation.send(b"+OK\r\n" * asked + answer * (b"XADD" in data))

            conversation.dataReceived = received

        return Receiver(self, greet=greet).port

    async def test_what_is_no_redis(self) -> None:
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$x\r\n", b"\x00\xff\r\n"):
            await self.fails(self.webhook(self._answering(answer)), ErrorClass.OTHER, "does not speak Redis")


class TlsTests(RedisTestCase):
    async def _server(self, *names: str) -> RedisServer:
        Authority().write(self.folder / "other.pem")
        authority = Authority()
        authority.write(self.folder / "ca.pem")
        (self.folder / "server.pem").write_bytes(authority.pem(*names))
        server = RedisServer(self, Path(self.mktemp()).absolute())
        file = str(self.folder / "server.pem")
        server.arguments = (
            *("--port", "0", "--tls-port", str(server.port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", file, "--tls-key-file", file, "--tls-ca-cert-file", file),
        )
        await server.start()
        return server

    async def test_verified_and_encrypted(self) -> None:
        server = await self._server("127.0.0.1")
        sent = await self.one(self.webhook(server.port, "rediss", ca_file="ca.pem"))
        self.assertTrue(sent.delivered, sent.error)
        # `ca_file` takes the place of what the platform trusts.
        for options in ({"ca_file": "other.pem"}, {}):
            await self.fails(self.webhook(server.port, "rediss", **options), ErrorClass.TLS, "not trusted: ")

    async def test_a_certificate_for_another_host(self) -> None:
        server = await self._server("elsewhere.example")
        webhook = self.webhook(server.port, "rediss", ca_file="ca.pem")
        await self.fails(webhook, ErrorClass.TLS, "not trusted: ", "not valid for")
        sent = await self.one(self.webhook(server.port, "rediss", insecure=True))
        self.assertTrue(sent.delivered, sent.error)
        self.assertIn("not verified", sent.note or "")

    async def test_a_server_without_tls(self) -> None:
        server = await self.own()
        sent = await self.one(self.webhook(server.port, "rediss"), timeout=1.0)
        self.assertFalse(sent.delivered)
        self.assertIn(sent.error_class, (ErrorClass.TLS, ErrorClass.CONNECTION_LOST, ErrorClass.TIMEOUT))

    async def test_a_handshake_that_hangs(self) -> None:
        webhook = self.webhook(Silent(self).port, "rediss")
        await self.fails(webhook, ErrorClass.TIMEOUT, "while logging in", timeout=0.3)


class NameTests(RedisTestCase):
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
        self.machine()
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


class OutageTests(RedisTestCase):
    async def test_a_restart_is_healed_by_the_next_attempt_and_all_is_kept(self) -> None:
        server = await self.own()
        transport = await self.started(self.webhook(server.port))
        sendings = [Deferred.fromCoroutine(self.delivered(transport, call_outbound())) for _ in range(4)]
        await gatherResults(sendings, consumeErrors=True)
        await server.kill()
        for _ in range(2):
            sent = await self.deliver(transport, call_outbound())
            self.assertIn(sent.error_class, (ErrorClass.CONNECTION_REFUSED, ErrorClass.CONNECTION_LOST))
            self.assertIn(f"127.0.0.1:{server.port}", sent.error or "")
        await server.start()
        for _ in range(4):
            await self.delivered(transport, call_outbound())
        self.assertEqual(len(self.entries(self.client(server.port))), 8)

    async def test_a_restart_between_two_events_is_not_noticed(self) -> None:
        server = await self.own()
        transport = await self.started(self.webhook(server.port))
        await self.delivered(transport, call_outbound())
        await server.kill()
        await server.start()
        await self.delivered(transport, call_outbound())

    async def test_a_connection_that_is_cut_fails_what_waits_at_once(self) -> None:
        self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        await self.delivered(transport, call_outbound())
        relay.holding = True
        waiting = self.begin(transport, call_outbound(timeout=30))
        await self.added(relay, 2)
        await relay.cut()
        self.assertEqual((await waiting).error_class, ErrorClass.CONNECTION_LOST)
        relay.holding = False
        await self.delivered(transport, call_outbound())

    async def test_a_lost_answer_is_a_failure_and_its_connection_is_left(self) -> None:
        client = self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        await self.delivered(transport, call_outbound())
        relay.holding = True
        sent = await self.deliver(transport, call_outbound(timeout=0.3))
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TIMEOUT))
        self.assertIn("127.0.0.1:", sent.error or "")
        relay.holding = False
        # An answer that comes late is not taken for that to another command.
        late = call_outbound()
        sent = await self.deliver(transport, late)
        self.assertTrue(sent.delivered, sent.error)
        [(entry, fields)] = client.xrange(self.key)[-1:]
        self.assertEqual((sent.response_body, fields["webhook-id"]), (entry, late.id))
        self.assertEqual(len(self.entries(client)), 3)

    async def test_a_server_that_hangs_costs_one_attempt_and_not_one_for_each_connection(self) -> None:
        self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        sendings = [Deferred.fromCoroutine(self.delivered(transport, call_outbound())) for _ in range(4)]
        await gatherResults(sendings, consumeErrors=True)
        made = relay.made
        self.assertGreater(made, 1)
        relay.stalled = True
        sent = await self.deliver(transport, call_outbound(timeout=0.2))
        self.assertEqual(sent.error_class, ErrorClass.TIMEOUT)
        relay.stalled = False
        await self.delivered(transport, call_outbound())
        self.assertEqual(relay.made, made + 1)

    async def test_cancelling_at_any_time_leaves_the_transport_usable(self) -> None:
        client = self.machine()
        relay = Relay(self, ("127.0.0.1", PORT))
        transport = await self.started(self.webhook(relay.port))
        for moment in range(12):
            waiting = Deferred.fromCoroutine(transport.deliver(call_outbound()))
            for _ in range(moment):
                await deferLater(reactor, 0.0005)
            waiting.cancel()
            with contextlib.suppress(CancelledError):
                await waiting
            outbound = call_outbound()
            sent = await self.deliver(transport, outbound)
            self.assertTrue(sent.delivered, sent.error)
            [(_, fields)] = client.xrange(self.key, sent.response_body, sent.response_body)
            self.assertEqual(fields["webhook-id"], outbound.id)

    async def test_cancelling_while_it_logs_in_leaves_no_half_made_connection(self) -> None:
        server = await self.own("--requirepass", "secret")
        relay = Relay(self, ("127.0.0.1", server.port))
        transport = await self.started(self.webhook(relay.port, user=":secret@"))
        relay.holding = True
        waiting = Deferred.fromCoroutine(transport.deliver(call_outbound()))
        await relay.sent.get()
        waiting.cancel()
        with self.assertRaises(CancelledError):
            await waiting
        relay.holding = False
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


class CheckTests(SynchronousTestCase):
    def _problems(self, url: str = "redis://bus", headers: Any = None, **options: object) -> list[str]:
        webhook = Webhook(id="bus", url=url, transport="redis", headers=headers or {}, options=options)
        return [key for key, _ in check_webhook(webhook, {"redis": plugin})]

    def test_urls(self) -> None:
        for url in (
            "redis://bus",
            "rediss://bus:6380/0",
            "redis://u:p@[::1]/15",
            "redis://:p@bus/",
        ):
            self.assertEqual(self._problems(url), [], url)
        for url in (
            "",
            "http://bus",
            "unix:///run/redis",
            "redis://bus/x",
            "redis://u@bus",
            "redis://bus?db=1",
        ):
            self.assertEqual(self._problems(url), ["url"], url)
        self.assertEqual(self._problems("redis://bus", ca_file="ca.pem"), ["url"])

    def test_options(self) -> None:
        for stream in ("calls", "{webhook}:{cube}:{state}", "a b", "{{tag}}"):
            self.assertEqual(self._problems(stream=stream), [], stream)
        for stream in ("", "{nobody}", "a\nb", "{"):
            self.assertEqual(self._problems(stream=stream), ["options.stream"], stream)
        self.assertEqual(self._problems(max_length=0), ["options.max_length"])
        self.assertEqual(self._problems(replicas=-1), ["options.replicas"])
        for name in ("payload", "webhook-id"):
            self.assertEqual(self._problems(headers={name: "x"}), [f"headers.{name}"])

    def test_a_service_that_does_not_use_it_imports_nothing_of_it(self) -> None:
        self.assertEqual(imported_by_a_service_without("redis", "cubehook.transports.redis_sender"), "[]")

    def test_without_the_library(self) -> None:
        self.patch(libraries, "find_spec", lambda name: None)
        webhook = Webhook(id="bus", url="redis://bus", transport="redis")
        [(key, expected)] = check_webhook(webhook, {"redis": plugin})
        self.assertEqual(key, "transport")
        self.assertIn("cubehook[redis]", expected)
        self.assertIn("cubehook[redis]", plugin.description)
