"""`/healthz`, `/readyz` and `/metrics`, over a real socket."""

from __future__ import annotations

import re
from typing import Any

import treq
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor as installed
from twisted.trial.unittest import TestCase

from cubehook.net.site import AccessSite
from cubehook.operations.health import HealthResource
from cubehook.operations.metrics import Metrics

reactor: Any = installed

CONTRACT = {
    "cubehook_notifications_total": {"cube", "message"},
    "cubehook_notification_seconds_count": set(),
    "cubehook_rejected_total": {"reason"},
    "cubehook_events_total": {"cube", "state"},
    "cubehook_registrations_total": {"cube", "result"},
    "cubehook_loss_windows_total": {"cube"},
    "cubehook_deliveries_total": {"webhook", "outcome"},
    "cubehook_delivery_seconds_count": {"webhook"},
    "cubehook_store_commit_seconds_count": set(),
    "cubehook_calls_active": {"cube"},
    "cubehook_store_degraded": set(),
    "process_resident_memory_bytes": set(),
}
"""Names of the contract (section 7) that are made here, with their labels."""


class HealthTests(TestCase):
    def setUp(self) -> None:
        self.problems: list[str] = []
        self.metrics = Metrics()
        self.looked = 0

        async def look() -> None:
            self.looked += 1

        resource = HealthResource(self.metrics, lambda: self.problems, look).resource()
        site = AccessSite(resource, lambda request: None, lambda: 1, reactor)
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, Any]:
        url = f"http://127.0.0.1:{self.port.getHost().port}{path}"
        response = await treq.request(method, url, persistent=False)
        return response.code, await response.text(), response.headers

    async def test_alive(self) -> None:
        code, text, headers = await self.ask("/healthz")
        self.assertEqual((code, text), (200, "ok\n"))
        self.assertEqual(headers.getRawHeaders("cache-control"), ["no-store"])
        self.assertEqual((await self.ask("/healthz", "HEAD"))[:2], (200, ""))

    async def test_ready_or_why_not(self) -> None:
        self.assertEqual((await self.ask("/readyz"))[:2], (200, "ready\n"))
        self.problems += ["the disk is full", "it is Monday"]
        self.assertEqual((await self.ask("/readyz"))[:2], (503, "the disk is full\nit is Monday\n"))
        self.assertEqual((await self.ask("/readyz", "HEAD"))[:2], (503, ""))
        # It is alive all the same.
        self.assertEqual((await self.ask("/healthz"))[0], 200)

    async def test_other_paths_and_methods(self) -> None:
        self.assertEqual((await self.ask("/elsewhere"))[0], 404)
        self.assertEqual((await self.ask("/healthz", "POST"))[0], 405)

    async def test_metrics_have_the_names_of_the_contract(self) -> None:
        metrics = self.metrics
        metrics.notification("hq", "NotifyXccConnectionData").inc()
        metrics.rejected.labels("path").inc()
        metrics.event("hq", "ALERTING").inc()
        metrics.registrations.labels("hq", "registered").inc()
        metrics.loss_windows.labels("hq").inc()
        metrics.delivery("crm", "delivered").inc()
        metrics.delivery_time("crm").observe(0.1)
        metrics.read("cubehook_calls_active", "Calls", "cube", lambda: [("hq", 3.0)])
        metrics.read_one("cubehook_store_degraded", "Degraded", lambda: 1.0)
        self.assertEqual((await self.ask("/metrics", "HEAD"))[:2], (200, ""))
        self.assertEqual(self.looked, 1)
        metrics.read_one("cubehook_looked", "Looks", lambda: self.looked)
        code, text, headers = await self.ask("/metrics")
        self.assertIn("cubehook_looked 2.0", text)
        self.assertEqual(code, 200)
        self.assertIn("text/plain", headers.getRawHeaders("content-type")[0])
        samples = {
            sample.name: sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        found = {name: set(samples[name].labels) for name in CONTRACT if name in samples}
        self.assertEqual(found, CONTRACT)
        self.assertEqual(
            (samples["cubehook_calls_active"].value, samples["cubehook_store_degraded"].value), (3, 1)
        )
        self.assertEqual(samples["cubehook_events_total"].labels, {"cube": "hq", "state": "ALERTING"})
        self.assertEqual(
            samples["cubehook_deliveries_total"].labels, {"webhook": "crm", "outcome": "delivered"}
        )
        self.assertIsNone(re.search("_created", text))
