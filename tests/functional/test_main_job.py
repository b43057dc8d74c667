"""The whole way, through the real service: a gateway registers us, calls happen, webhooks arrive."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import treq
from standardwebhooks import Webhook as Verifier
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cubehook.delivery.signing import decode_secret
from cubehook.simulator.gateway import Settings, SimulatedGateway
from cubehook.simulator.provider import ProberState, Probing
from cubehook.simulator.scenarios import Script, script
from cubehook.simulator.sink import Behaviour, Received, Sink
from cubehook.xcc import codec
from cubehook.xcc import messages as xcc
from tests.functional.control import ask
from tests.functional.harness import PATIENCE, Service, free_port

reactor: Any = installed
SECRET = "whsec_" + "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdA=="
WELL = {ProberState.STEADY, ProberState.KEEPALIVE}
STATES = ["ALERTING", "CONNECTED", "DISCONNECTED"]


class MainJobCase(TestCase):
    """A gateway and a sink in this process, the service in its own."""

    timeout = 120
    placed = 0
    response_timeout = 5.0
    """Seconds that the gateway waits for an answer."""
    secrets: Sequence[str] = (SECRET,)
    """What the sink verifies with, any of them."""
    env: Mapping[str, str] = {}
    """What the service's environment has besides."""
    state_dir = "state"
    before = ""
    """Python that is run in the service's process before it."""

    async def begin(
        self, *, payload: str = "basic", webhook: str = "", cube: str = "", persistent: bool = True
    ) -> None:
        folder = Path(self.mktemp())
        self.received: list[Received] = []
        self._watchers: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self.sink_port, self.gateway_port = free_port(), free_port()
        self.service = Service(
            self,
            folder,
            cubes=f'[cubes.hq]\nprovider_url = "http://127.0.0.1:{self.gateway_port}/cisco_xcc"\n'
            f"application_url = APPLICATION_URL\n{cube}\n",
            webhooks=f'[webhooks.crm]\nurl = "http://127.0.0.1:{self.sink_port}/crm"\n'
            f'payload = "{payload}"\nsecret = "{SECRET}"\n{webhook.replace("SINK", str(self.sink_port))}\n',
        )
        self.service.env |= self.env
        self.service.before = self.before
        self.service.state_dir = self.state_dir
        url = self.service.application_url("hq")
        self.service.cubes = self.service.cubes.replace("APPLICATION_URL", f'"{url}"')
        self.gateway = SimulatedGateway(
            reactor,
            Settings(
                remote_url=url,
                listen=f"tcp:{self.gateway_port}:interface=127.0.0.1",
                speed=20.0,
                persistent=persistent,
                probing=Probing(response_timeout=self.response_timeout, negative=1.0),
            ),
            Random(1),
        )
        self.configure()
        self.addCleanup(self._stop_gateway)
        self.sink: Sink | None = None
        await self.start_sink()
        await self.gateway.start()
        await self.service.start()
        await self.gateway.when_registered().addTimeout(PATIENCE, reactor)

    def configure(self) -> None:
        """Change how things are set before they start."""

    async def start_sink(self, behaviour: Behaviour | None = None) -> None:
        self.sink = Sink(
            reactor,
            lambda: time.time_ns() // 1000,
            secrets=list(map(decode_secret, self.secrets)),
            behaviour=behaviour or Behaviour(),
            received=self._received,
        )
        await self.sink.start(f"tcp:{self.sink_port}:interface=127.0.0.1")
        self.addCleanup(self.stop_sink)

    async def stop_sink(self) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            await sink.stop()

    async def _stop_gateway(self) -> None:
        await self.gateway.stop()

    def _received(self, received: Received) -> None:
        self.received.append(received)
        for watcher in list(self._watchers):
            condition, waiting = watcher
            if condition():
                self._watchers.remove(watcher)
                waiting.callback(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition`, which depends on what was received, holds."""
        if not condition():
            waiting: Deferred[None] = Deferred()
            self._watchers.append((condition, waiting))
            await waiting.addTimeout(PATIENCE, reactor)

    async def poll(self, condition: Callable[[], Any]) -> Any:
        """Wait for something that only asking can tell."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = await condition()
            if found:
                return found
            await deferLater(reactor, 0.05, lambda: None)
        return self.fail("it never came to be")

    def accepted(self) -> list[dict[str, Any]]:
        """Bodies of what the sink took, first times only."""
        return [
            json.loads(received.body)
            for received in self.received
            if received.status == 200 and not received.repeat
        ]

    def states(self) -> list[str]:
        return [body["call_state"] for body in self.accepted()]

    def database(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.service.folder / "state" / "cubehook.db", timeout=10)
        self.addCleanup(connection.close)
        return connection

    def call(self, scenario: str = "answered", hold: float = 2.0) -> Script:
        self.placed += 1
        made = script(scenario, Random(self.placed), hold)
        self.gateway.place_call(made)
        return made

    async def notify(self, event: xcc.ConnectionEvent, connection: str = "1", **header: str) -> int:
        """POST one notification by hand; the status of the answer."""
        message = xcc.NotifyXccConnectionData(
            msg_header=xcc.MsgHeader("1:1", header.get("registration_id", "4CA5E4:XCC:cubehook:4")),
            call_data=xcc.CallData("900", "ACTIVE"),
            conn_data=xcc.ConnData(connection),
            event=event,
        )
        return await self.post(codec.write(message))

    async def post(self, body: bytes, path: str = "/xcc/hq") -> int:
        response = await treq.post(
            f"http://127.0.0.1:{self.service.cubes_port}{path}", data=body, persistent=False
        )
        await response.content()
        return int(response.code)


def created(direction: str, guid: str = "9364550FD96211E28F0D9C9C52CD806F") -> xcc.Created:
    return xcc.Created(
        xcc.ConnDetailData(
            guid=guid,
            calling_addr_data=xcc.AddrData("+12517676234", "E164"),
            called_addr_data=xcc.AddrData("+12512501663", "E164"),
            conn_direction_type=direction,
        )
    )


class CallTests(MainJobCase):
    async def test_an_answered_call(self) -> None:
        await self.begin()
        made = self.call()
        await self.until(lambda: len(self.received) == 3)
        self.assertEqual(self.states(), STATES)
        for body in self.accepted():
            self.assertEqual(list(body), ["call_state", "called_number", "calling_number", "timestamp"])
            self.assertEqual(body["calling_number"].lstrip("+"), str(made.calling).lstrip("+"))
            self.assertEqual(body["called_number"].lstrip("+"), made.called.lstrip("+"))
            self.assertRegex(body["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        await self.gateway.when_idle()
        self.assertEqual((self.gateway.counters.failed, self.gateway.counters.lost_negative), (0, 0))

    async def test_headers_satisfy_the_standards_own_verifier(self) -> None:
        await self.begin(webhook='headers = { Authorization = "Bearer t0p" }')
        self.call()
        await self.until(lambda: len(self.received) == 3)
        for received in self.received:
            Verifier(SECRET).verify(received.body, received.headers)
            self.assertEqual(received.headers["content-type"], "application/json")
            self.assertRegex(received.headers["user-agent"], r"^cubehook/\d")
            self.assertEqual(received.headers["authorization"], "Bearer t0p")
        self.assertEqual(len({received.id for received in self.received}), 3)

    async def test_full_payload(self) -> None:
        await self.begin(payload="full")
        made = self.call("busy")
        await self.until(lambda: "DISCONNECTED" in self.states())
        body = self.accepted()[-1]
        self.assertEqual((body["outcome"], body["disconnect_cause"]), ("busy", 17))
        self.assertEqual((body["guid"], body["cube"]), (made.guids[0], "hq"))
        self.assertEqual(
            [each["sequence"] for each in self.accepted()], list(range(1, len(self.received) + 1))
        )

    async def test_granularity_connection(self) -> None:
        await self.begin(payload="full", webhook='granularity = "connection"')
        self.call()
        await self.until(lambda: self.states().count("DISCONNECTED") == 2)
        self.assertEqual(sorted(self.states()), sorted(STATES * 2))

    async def test_chosen_states_only(self) -> None:
        await self.begin(webhook='states = ["DISCONNECTED"]')
        self.call()
        await self.until(lambda: len(self.received) == 1)
        await self.gateway.when_idle()
        self.assertEqual(self.states(), ["DISCONNECTED"])

    async def test_jsonl_beside_http(self) -> None:
        second = '[webhooks.file]\ntransport = "jsonl"\noptions = { path = "calls.jsonl" }\n'
        await self.begin(webhook=second)
        self.call()
        await self.until(lambda: len(self.received) == 3)
        file = self.service.folder / "state" / "calls.jsonl"

        async def written() -> bool:
            return file.exists() and file.read_text().count("\n") == 3

        await self.poll(written)
        self.assertEqual([json.loads(line)["call_state"] for line in file.read_text().splitlines()], STATES)

    async def test_logs_tell_of_events_attempts_and_requests(self) -> None:
        await self.begin()
        self.call()
        await self.until(lambda: len(self.received) == 3)
        assert self.service.process is not None
        await self.service.process.stop()
        folder = self.service.folder / "state" / "log"
        events = (folder / "events.log").read_text()
        self.assertEqual((events.count(" event "), events.count(" delivered 200 ")), (3, 3))
        self.assertGreaterEqual((folder / "access.log").read_text().count('"POST /xcc/hq" 200'), 9)
        self.assertIn("Cube hq is registered", (folder / "cubehook.log").read_text())


class RegistrationTests(MainJobCase):
    async def test_a_connection_for_each_message(self) -> None:
        await self.begin(persistent=False)
        self.call()
        await self.until(lambda: len(self.received) == 3)
        await self.gateway.when_idle()
        self.assertEqual((self.states(), self.gateway.counters.failed), (STATES, 0))

    async def test_many_connections_at_once_find_a_place(self) -> None:
        await self.begin()
        assert self.service.process is not None
        assert self.service.process.transport is not None
        pid = self.service.process.transport.pid
        # A stopped process accepts none: all must wait in the listener's queue.
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(200):
                waiting = socket.create_connection(("127.0.0.1", self.service.cubes_port), timeout=5.0)
                self.addCleanup(waiting.close)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def test_probes_are_answered(self) -> None:
        await self.begin()
        self.gateway.probe_now()

        async def probed() -> bool:
            return self.gateway.counters.probes >= 1 and self.gateway.prober.state in WELL

        await self.poll(probed)
        self.assertEqual(self.gateway.counters.probes_failed, 0)

    async def test_a_probe_that_says_we_are_not_registered(self) -> None:
        await self.begin()
        message = xcc.SolicitXccProbing(
            msg_header=xcc.MsgHeader("1:1", "4CA5E4:XCC:cubehook:4"), sequence="1", registered=False
        )
        before = self.gateway.counters.registrations
        self.assertEqual(await self.post(codec.write(message)), 200)

        async def again() -> bool:
            return self.gateway.counters.registrations > before

        await self.poll(again)

    async def test_a_provider_that_is_shut_and_opened_again(self) -> None:
        await self.begin()
        await self.gateway.shut_down_provider()
        self.assertIsNone(self.gateway.registration)
        self.gateway.start_provider()
        await self.gateway.when_registered().addTimeout(PATIENCE, reactor)
        self.call()
        await self.until(lambda: len(self.received) == 3)
        self.assertEqual(self.states(), STATES)

    async def test_it_subscribes_to_nothing_that_holds_calls(self) -> None:
        await self.begin()
        registration = self.gateway.registration
        assert registration is not None
        self.assertEqual(registration.events & {"AUTHORIZE_CALL", "ADDRESS_ANALYZE"}, set())
        self.assertIn("ALERTING", registration.events)

    async def test_a_refused_registration_says_what_to_compare(self) -> None:
        await self.begin()
        await self.gateway.stop()
        url = self.service.application_url("hq")
        self.gateway = SimulatedGateway(
            reactor,
            Settings(remote_url=url + "/", listen=f"tcp:{self.gateway_port}:interface=127.0.0.1"),
            Random(1),
        )
        await self.gateway.start()
        process = self.service.process
        assert process is not None
        await process.stop()
        process = await self.service.start()
        found = await process.wait_for("Cube hq is rejected: (.*)")
        self.assertIn(url, found[1])
        self.assertIn("remote-url", found[1])
        self.assertIn("trailing slash", found[1])


class RestartTests(MainJobCase):
    async def _restart(self, number: int) -> None:
        """Both numbers come on every event, also when the service was restarted during the call."""
        await self.begin()
        await self.notify(created("INCOMING"), "1")
        await self.notify(created("OUTGOING"), "2")
        await self.notify(xcc.Alerting(), "2")
        await self.until(lambda: len(self.received) == 1)
        assert self.service.process is not None
        self.service.process.send(number)
        await self.service.process.ended()
        await self.service.start()
        await self.notify(xcc.Disconnected(disc_cause=16), "1")
        await self.until(lambda: "DISCONNECTED" in self.states())
        self.assertEqual(self.states(), ["ALERTING", "DISCONNECTED"])
        for body in self.accepted():
            self.assertEqual(
                (body["calling_number"], body["called_number"]), ("+12517676234", "+12512501663")
            )

    async def test_orderly(self) -> None:
        await self._restart(signal.SIGTERM)

    async def test_kill(self) -> None:
        await self._restart(signal.SIGKILL)

    async def test_what_still_comes_of_a_call_that_ended(self) -> None:
        await self.begin()
        end = xcc.Disconnected(disc_cause=16)
        for event in (created("INCOMING"), xcc.Alerting(), end):
            await self.notify(event)
        await self.until(lambda: "DISCONNECTED" in self.states())
        assert self.service.process is not None
        await self.service.process.kill()
        await self.service.start()
        for event in (created("INCOMING"), xcc.Alerting(), end):
            self.assertEqual(await self.notify(event), 200)
        calls = self.database().execute("select count(*), min(ended) from calls").fetchone()
        self.assertEqual(calls, (1, 1))
        self.assertEqual(self.states(), ["ALERTING", "DISCONNECTED"])

    async def test_the_open_calls_of_a_cube_that_is_no_more(self) -> None:
        await self.begin(payload="full")
        await self.notify(created("INCOMING"))
        await self.notify(xcc.Alerting())
        await self.until(lambda: self.states() == ["ALERTING"])
        assert self.service.process is not None
        await self.service.process.stop()
        self.service.cubes = self.service.cubes.replace("cubes.hq", "cubes.other")
        await self.service.start()
        await self.until(lambda: "DISCONNECTED" in self.states())
        last = self.accepted()[-1]
        self.assertEqual((last["inferred"], last["cube"], last["sequence"]), (True, "hq", 2))
        open_calls = self.database().execute("select count(*) from calls where not ended").fetchone()
        self.assertEqual(open_calls, (0,))

    async def test_stopping_unregisters(self) -> None:
        await self.begin()
        assert self.service.process is not None
        await self.service.process.stop()
        self.assertIsNone(self.gateway.registration)

    async def test_a_reload_of_the_gateway(self) -> None:
        await self.begin(payload="full")
        self.call(hold=10_000)
        await self.until(lambda: self.states() == STATES[:2])
        self.gateway.reload()
        await self.gateway.when_registered().addTimeout(PATIENCE, reactor)
        self.call()
        # callIDs begin again: what went before is over whether or not the reload was told.
        await self.until(lambda: self.states().count("DISCONNECTED") == 2)
        calls: dict[str, list[dict[str, Any]]] = {}
        for body in self.accepted():
            calls.setdefault(body["call_id"], []).append(body)
        first, second = calls.values()
        self.assertEqual([body["inferred"] for body in first], [False, False, True])
        self.assertEqual([body["inferred"] for body in second], [False, False, False])


class ReceiverTests(MainJobCase):
    async def test_down_for_a_while(self) -> None:
        await self.begin(
            payload="full", webhook="retry = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]"
        )
        await self.stop_sink()
        for _ in range(5):
            self.call()
        await self.gateway.when_idle()
        self.assertEqual((self.gateway.counters.notifications, self.gateway.counters.failed), (45, 0))
        self.assertEqual(self.received, [])
        await self.start_sink()
        await self.until(lambda: len(self.accepted()) == 15)
        calls: dict[str, list[str]] = {}
        for body in self.accepted():
            calls.setdefault(body["call_id"], []).append(body["call_state"])
        self.assertEqual(list(calls.values()), [STATES] * 5)

    async def test_pending_deliveries_survive_a_restart(self) -> None:
        await self.begin(webhook="retry = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]")
        await self.stop_sink()
        self.call()
        await self.gateway.when_idle()
        assert self.service.process is not None
        await self.service.process.kill()
        await self.service.start()
        _, metrics = await self.service.get("/metrics")
        self.assertIn('cubehook_deliveries_pending{webhook="crm"} 3.0', metrics)
        await self.start_sink()
        await self.until(lambda: len(self.accepted()) == 3)
        self.assertEqual(self.states(), STATES)

        async def none_left() -> bool:
            return 'cubehook_deliveries_pending{webhook="crm"} 0.0' in (await self.service.get("/metrics"))[1]

        await self.poll(none_left)

    async def test_gone_disables_the_webhook_for_good(self) -> None:
        await self.begin()
        await self.stop_sink()
        await self.start_sink(Behaviour(status=410))
        self.call()
        await self.gateway.when_idle()
        await self.until(lambda: len(self.received) >= 1)
        assert self.service.process is not None
        await self.service.process.wait_for("(?i)disabled")
        await self.service.process.stop()
        count = len(self.received)
        await self.service.start()
        self.assertIn("stays disabled", self.service.process.text)
        self.assertEqual(len(self.received), count)


class BadInputTests(MainJobCase):
    async def test_rows_that_concern_routers(self) -> None:
        await self.begin()
        self.assertEqual(await self.post(b"<SOAP:Envelope"), 400)
        self.assertEqual(await self.post(b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'), 400)
        self.assertEqual(await self.post(b" " * ((1 << 20) + 1)), 413)
        self.assertEqual(await self.post(b"<html/>"), 400)
        unknown = codec.write(xcc.UnknownMessage(name="NotifyXccNew", msg_header=xcc.MsgHeader()))
        self.assertEqual(await self.post(unknown.replace(b"cisco_xcc", b"cisco_xyz")), 400)
        self.assertEqual(await self.post(b"", "/elsewhere"), 404)
        self.assertEqual(await self.post(unknown), 200)
        _, metrics = await self.service.get("/metrics")
        for reason in ("malformed", "forbidden", "too_large", "not_soap", "namespace", "path"):
            self.assertIn(f'cubehook_rejected_total{{reason="{reason}"}} 1.0', metrics)
        self.assertIn('cubehook_notifications_total{cube="hq",message="unknown"} 1.0', metrics)
        rows = self.database().execute("select count(*) from notifications").fetchone()
        self.assertEqual(rows, (0,))
        log = (self.service.folder / "state" / "log" / "cubehook.log").read_text()
        self.assertEqual(log.count("Cube hq: refused what 127.0.0.1 sent: "), 5)
        # Nobody else is disturbed.
        self.call()
        await self.until(lambda: self.states() == STATES)

    async def test_an_address_that_may_not_speak_for_the_cube(self) -> None:
        await self.begin(cube='allow_from = ["192.0.2.0/24"]')
        self.assertEqual(await self.notify(created("INCOMING")), 403)
        _, metrics = await self.service.get("/metrics")
        self.assertIn('cubehook_rejected_total{reason="address"} 1.0', metrics)
        rows = self.database().execute("select count(*) from notifications").fetchone()
        self.assertEqual(rows, (0,))

    async def test_a_registration_id_that_is_not_current(self) -> None:
        await self.begin()
        before = self.gateway.counters.registrations
        await self.notify(created("INCOMING"), "1", registration_id="1:XCC:other:9")
        await self.notify(xcc.Alerting(), "1", registration_id="1:XCC:other:9")
        await self.until(lambda: self.states() == ["ALERTING"])

        async def again() -> bool:
            return self.gateway.counters.registrations > before

        await self.poll(again)

    async def test_the_same_notification_twice(self) -> None:
        await self.begin()
        for event in (created("INCOMING"), xcc.Alerting(), xcc.Disconnected(disc_cause=16)):
            self.assertEqual(await self.notify(event), 200)
            self.assertEqual(await self.notify(event), 200)
        await self.until(lambda: "DISCONNECTED" in self.states())
        self.assertEqual(self.states(), ["ALERTING", "DISCONNECTED"])

    async def test_events_out_of_order(self) -> None:
        await self.begin()
        detail = created("INCOMING").conn_detail_data
        for event in (
            xcc.Connected(detail),
            xcc.Alerting(),
            created("INCOMING"),
            xcc.Disconnected(disc_cause=16),
        ):
            self.assertEqual(await self.notify(event), 200)
        await self.until(lambda: "DISCONNECTED" in self.states())
        self.assertEqual(self.states(), ["CONNECTED", "DISCONNECTED"])

    async def test_a_locked_database(self) -> None:
        """Answered within about two seconds, delivered, said loudly, and written once it can be."""
        await self.begin()
        blocker = self.database()
        blocker.isolation_level = None
        blocker.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        self.assertEqual(await self.notify(created("INCOMING")), 200)
        self.assertGreater(time.monotonic() - began, 1.5)
        self.assertLess(time.monotonic() - began, 4.0)
        began = time.monotonic()
        self.assertEqual(await self.notify(xcc.Alerting()), 200)
        self.assertLess(time.monotonic() - began, 1.8)
        await self.until(lambda: self.states() == ["ALERTING"])
        code, text = await self.service.get("/readyz")
        self.assertEqual(code, 503)
        self.assertIn("store cannot be written", text)
        self.assertIn("cubehook_store_degraded 1.0", (await self.service.get("/metrics"))[1])
        self.assertEqual((await self.service.get("/healthz"))[0], 200)
        refused = await ask(self.service, "POST", "/tokens", {"name": "now"})
        self.assertEqual(refused.status, 503)
        self.assertEqual((await ask(self.service, "POST", "/cubes/hq/trace", {"minutes": 0})).status, 200)
        blocker.execute("ROLLBACK")

        async def ready() -> bool:
            return (await self.service.get("/readyz"))[0] == 200

        await self.poll(ready)

        # The attempt may be written in a later group than what came before.
        async def delivered() -> bool:
            return blocker.execute("select status from deliveries").fetchall() == [("delivered",)]

        await self.poll(delivered)
        self.assertEqual(blocker.execute("select count(*) from notifications").fetchone(), (2,))
        self.assertEqual((await ask(self.service, "POST", "/tokens", {"name": "now"})).status, 201)
        rows = blocker.execute("select action from audit order by id").fetchall()
        self.assertEqual(rows[-2:], [("trace_cube",), ("create_token",)])

    async def test_a_full_disk(self) -> None:
        """As when the database is locked; the logs cannot be written either."""
        await self.begin()
        assert self.service.process is not None
        assert self.service.process.transport is not None
        pid = self.service.process.transport.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        # No file of this process may grow past its first byte: for a program, the disk is full.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
        self.assertEqual(await self.notify(created("INCOMING")), 200)
        self.assertEqual(await self.notify(xcc.Alerting()), 200)
        await self.until(lambda: self.states() == ["ALERTING"])
        code, text = await self.service.get("/readyz")
        self.assertEqual(code, 503)
        self.assertIn("store cannot be written", text)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

        async def ready() -> bool:
            return (await self.service.get("/readyz"))[0] == 200

        await self.poll(ready)
        self.assertEqual(await self.notify(xcc.Disconnected(disc_cause=16)), 200)
        await self.until(lambda: self.states() == ["ALERTING", "DISCONNECTED"])
        count = self.database().execute("select count(*) from notifications").fetchone()
        self.assertEqual(count, (3,))
        log = (self.service.folder / "state" / "log" / "cubehook.log").read_text()
        self.assertIn("The store is written again", log)
