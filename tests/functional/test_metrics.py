"""What `/metrics` tells is what happened: compared with what a gateway and a receiver counted themselves."""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from random import Random
from typing import Any

import treq
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor as installed

from cubehook.simulator.gateway import Settings, SimulatedGateway
from cubehook.simulator.provider import Probing
from cubehook.simulator.scenarios import Traffic
from cubehook.simulator.sink import Behaviour, Sink
from tests.functional.control import ask
from tests.functional.harness import ROOT, free_port
from tests.functional.test_main_job import SECRET, STATES, MainJobCase
from tests.operations.test_alerts import dashboard_expressions, names, rule_expressions

reactor: Any = installed

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

PROCESS = {
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
}

ONLY_WITH_TLS = {"cubehook_certificate_expiry_timestamp_seconds"}

SET_ON = "notices = []\nretry = [0.05, 0.05]\nbreaker = { failures = 10000, minimum = 10000 }"


class MetricsCase(MainJobCase):
    async def samples(self) -> Samples:
        """Everything that is shown, by name and labels."""
        status, text = await self.service.get("/metrics")
        self.assertEqual(status, 200)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def value(self, name: str, **labels: str) -> float | None:
        return (await self.samples()).get((name, frozenset(labels.items())))

    async def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The values of a metric by one of its labels, those that have all of `labels`."""
        return {
            dict(found)[label]: value
            for (each, found), value in (await self.samples()).items()
            if each == name and frozenset(labels.items()) <= found
        }


class LoadTests(MetricsCase):
    async def test_counters_are_what_the_other_sides_counted(self) -> None:
        now = lambda: time.time_ns() // 1000  # noqa: E731
        unsure = Sink(reactor, now, behaviour=Behaviour(status=500, share=0.3), received=self._received)
        port = free_port()
        await unsure.start(f"tcp:{port}:interface=127.0.0.1")
        self.addCleanup(unsure.stop)
        await self.begin(
            webhook=f"{SET_ON}\n"
            f'[webhooks.unsure]\nurl = "http://127.0.0.1:{port}/unsure"\n{SET_ON}\n'
            f'[webhooks.broken]\nurl = "http://127.0.0.1:SINK/status/500"\nsecret = "{SECRET}"\n{SET_ON}\n'
        )
        # Connections kept open, some repeated and swapped notifications, and probes between them.
        await self.gateway.stop()
        settings = Settings(
            remote_url=self.service.application_url("hq"),
            listen=f"tcp:{self.gateway_port}:interface=127.0.0.1",
            speed=20.0,
            connections=8,
            probing=Probing(response_timeout=5.0, keepalive=0.5, negative=1.0),
        )
        self.gateway = SimulatedGateway(reactor, settings, Random(1))
        await self.gateway.start()
        await self.gateway.when_registered()
        before = await self.samples()
        probes = self.gateway.counters.probes
        mix = {"answered": 5.0, "busy": 2.0, "no_answer": 2.0, "hunt": 2.0, "abandoned": 2.0}
        traffic = Traffic(mix=mix, rate=80.0, count=120, hold_seconds=5.0, duplicates=0.1, swaps=0.1)
        await self.gateway.make_calls(traffic)
        active = await self.value("cubehook_calls_active", cube="hq")
        await self.gateway.when_idle()
        counted = self.gateway.counters
        self.assertEqual((counted.calls, counted.failed, counted.lost_negative), (120, 0, 0))
        assert active is not None
        self.assertGreater(active, 0)

        async def drained() -> bool:
            pending = await self.by("cubehook_deliveries_pending", "webhook")
            return pending == {"crm": 0, "unsure": 0, "broken": 0}

        await self.poll(drained)
        after = await self.samples()

        def grown(name: str, **labels: str) -> float:
            key = (name, frozenset(labels.items()))
            return after.get(key, 0.0) - before.get(key, 0.0)

        data = "NotifyXccConnectionData"
        self.assertEqual(
            grown("cubehook_notifications_total", cube="hq", message=data), counted.notifications
        )
        messages = {dict(key[1]).get("message") for key in after if key[0] == "cubehook_notifications_total"}
        probed = grown("cubehook_notifications_total", cube="hq", message="SolicitXccProbing")
        self.assertLessEqual(abs(probed - (counted.probes - probes)), 1)
        answered = sum(
            value - before.get(key, 0.0)
            for key, value in after.items()
            if key[0] == "cubehook_notifications_total"
        )
        self.assertEqual(grown("cubehook_notification_seconds_count"), answered, messages)

        good = Counter(
            json.loads(each.body)["call_state"]
            for each in self.received
            if each.path == "/crm" and each.status == 200
        )
        events = {state: grown("cubehook_events_total", cube="hq", state=state) for state in good}
        self.assertEqual(events, dict(good))
        self.assertEqual(set(good), set(STATES))
        self.assertEqual(sum(good.values()), len({each.id for each in self.received}))

        total = sum(good.values())
        for path, webhook in (("/crm", "crm"), ("/unsure", "unsure"), ("/status/500", "broken")):
            statuses = Counter(each.status == 200 for each in self.received if each.path == path)
            outcomes = {
                outcome: grown("cubehook_deliveries_total", webhook=webhook, outcome=outcome)
                for outcome in ("delivered", "retried", "failed", "expired")
            }
            self.assertEqual(outcomes["delivered"], statuses[True], webhook)
            self.assertEqual(outcomes["retried"] + outcomes["failed"], statuses[False], webhook)
            self.assertEqual(outcomes["delivered"] + outcomes["failed"], total, webhook)
            delivered = grown("cubehook_delivery_seconds_count", webhook=webhook)
            self.assertEqual(delivered, statuses[True], webhook)
        self.assertEqual(grown("cubehook_deliveries_total", webhook="broken", outcome="retried"), 2 * total)

        rows = self.database().execute("SELECT status, count(*) FROM deliveries GROUP BY status").fetchall()
        ends = {"delivered": 0.0, "failed": 0.0}
        for (name, labels), value in after.items():
            if name == "cubehook_deliveries_total" and dict(labels)["outcome"] in ends:
                ends[dict(labels)["outcome"]] += value
        self.assertEqual({status: float(count) for status, count in rows}, ends)

        self.assertEqual(await self.value("cubehook_calls_active", cube="hq"), 0)
        self.assertEqual(await self.value("cubehook_registered", cube="hq"), 1)
        self.assertEqual(await self.value("cubehook_store_degraded"), 0)
        commits = grown("cubehook_store_commit_seconds_count")
        self.assertGreater(commits, 0)
        self.assertLess(commits, counted.notifications + len(self.received) + 50, "commits are of groups")
        shown = {name for name, _ in after}
        self.assertTrue(shown >= PROCESS)
        asked = names([*rule_expressions(), *dashboard_expressions()])
        self.assertEqual(asked - shown - ONLY_WITH_TLS, set(), "alert rules and dashboard ask for these")
        self.assertGreater(len(asked), 15)
        page = (ROOT / "docs" / "operations.md").read_text("utf-8")
        explained = {name for name in names([page]) if name.startswith("cubehook_")}
        ours = {re.sub("_(count|sum|bucket)$", "", name) for name in shown if name.startswith("cubehook_")}
        self.assertEqual(explained - ONLY_WITH_TLS, ours - ONLY_WITH_TLS, "docs/operations.md explains these")


class MeaningTests(MetricsCase):
    async def test_registrations_and_loss_windows_follow_the_gateway(self) -> None:
        await self.begin()
        results = await self.by("cubehook_registrations_total", "result", cube="hq")
        self.assertEqual(results.get("registered"), 1)
        self.assertEqual(await self.value("cubehook_registered", cube="hq"), 1)
        self.assertEqual(await self.value("cubehook_loss_windows_total", cube="hq"), 0)
        await self.gateway.shut_down_provider()

        async def lost() -> bool:
            return await self.value("cubehook_registered", cube="hq") == 0

        await self.poll(lost)
        self.gateway.start_provider()
        await self.gateway.when_registered()

        async def back() -> bool:
            return await self.value("cubehook_registered", cube="hq") == 1

        await self.poll(back)
        self.assertEqual(self.gateway.counters.registrations, 2)
        results = await self.by("cubehook_registrations_total", "result", cube="hq")
        self.assertEqual(results["registered"], 2)
        self.assertGreaterEqual((await self.value("cubehook_loss_windows_total", cube="hq")) or 0, 1)

    async def test_the_oldest_pending_delivery_grows_older_until_it_is_delivered(self) -> None:
        await self.begin(webhook="retry = [0.2, 0.2, 0.2, 0.2, 60]\nbreaker = { first = 0.2, longest = 0.2 }")
        await self.stop_sink()
        oldest = "cubehook_delivery_oldest_pending_seconds"
        self.assertEqual(await self.value(oldest, webhook="crm"), 0)
        self.call()

        async def old() -> bool:
            return ((await self.value(oldest, webhook="crm")) or 0) > 1.0

        await self.poll(old)
        await self.start_sink()
        await self.until(lambda: bool(self.received))

        async def none() -> bool:
            return await self.value(oldest, webhook="crm") == 0

        await self.poll(none)

    async def test_hostile_input_makes_no_series_and_what_is_removed_has_none(self) -> None:
        await self.begin(cube='allow_from = ["127.0.0.1"]')
        known = set(await self.samples())
        posted = 0
        for number in range(8):
            name = f"NotifyXccHostile{number}"
            envelope = (
                '<SOAP:Envelope xmlns:SOAP="http://www.w3.org/2003/05/soap-envelope"><SOAP:Body>'
                f'<{name} xmlns="http://www.cisco.com/schema/cisco_xcc/v1_0"><msgHeader>'
                f"<transactionID>x:{number}</transactionID></msgHeader></{name}></SOAP:Body></SOAP:Envelope>"
            )
            posted += await self.post(envelope.encode()) == 200
            await self.post(b"<nonsense%d/>" % number)
            await self.post(b"", path=f"/xcc/nobody{number}")
            await self.service.get(f"/nothing{number}")
            await treq.request(
                f"ODD{number}", f"http://127.0.0.1:{self.service.cubes_port}/xcc/hq", persistent=False
            )
        new = {
            (name, labels)
            for name, labels in set(await self.samples()) - known
            if not name.startswith(("python_", "process_"))
        }
        self.assertGreater(posted, 0)
        self.assertEqual(
            {name for name, _ in new}, {"cubehook_notifications_total", "cubehook_rejected_total"}
        )
        self.assertLess(len(new), 8, new)
        refused = await self.by("cubehook_rejected_total", "reason")
        self.assertEqual(refused["path"], 8)
        self.assertEqual(refused["method"], 8)

        made = {
            "id": "branch",
            "provider_url": f"http://127.0.0.1:{self.gateway_port}/cisco_xcc",
            "application_url": f"http://127.0.0.1:{self.service.cubes_port}/xcc/branch",
        }
        self.assertEqual((await ask(self.service, "POST", "/cubes", made)).status, 201)
        hook = {"id": "extra", "url": f"http://127.0.0.1:{self.sink_port}/extra"}
        self.assertEqual((await ask(self.service, "POST", "/webhooks", hook)).status, 201)

        async def there() -> bool:
            values = {dict(labels).get("cube") for _, labels in await self.samples()}
            return "branch" in values

        await self.poll(there)
        self.call()
        await self.until(lambda: any(each.path == "/extra" for each in self.received))
        self.assertEqual((await ask(self.service, "PATCH", "/cubes/branch", {"enabled": False})).status, 200)
        self.assertIsNone(await self.value("cubehook_registered", cube="branch"), "disabled is not lost")
        self.assertEqual((await ask(self.service, "DELETE", "/cubes/branch")).status, 204)
        self.assertEqual((await ask(self.service, "DELETE", "/webhooks/extra")).status, 204)
        left = {
            value
            for _, labels in await self.samples()
            for name, value in labels
            if name in ("cube", "webhook")
        }
        self.assertEqual(left, {"hq", "crm"})


class StoppingTests(MetricsCase):
    async def test_alive_but_not_ready_while_it_stops(self) -> None:
        await self.begin()
        self.assertEqual(await self.service.get("/readyz"), (200, "ready\n"))
        # Who takes the request to unregister and never answers is waited for, two seconds.
        await self.gateway.stop()
        with socket.create_server(("127.0.0.1", self.gateway_port)):
            await self.watch_it_stop()

    async def watch_it_stop(self) -> None:
        seen: list[tuple[int, str]] = []
        process = self.service.process
        assert process is not None
        process.send(15)

        async def refused() -> bool:
            try:
                code, text = await self.service.get("/readyz")
                alive, _ = await self.service.get("/healthz")
            except Exception:
                return True
            if code != 200:
                seen.append((code, text))
                self.assertEqual(alive, 200)
            return False

        await self.poll(refused)
        await process.ended()
        self.assertEqual(set(seen), {(503, "the service is stopping\n")})
