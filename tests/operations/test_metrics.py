"""What is counted of one cube or webhook, and forgotten with it."""

from __future__ import annotations

from prometheus_client import generate_latest
from twisted.trial.unittest import SynchronousTestCase

from cubehook.operations.metrics import Metrics


class ForgettingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = metrics = Metrics()
        for name in ("one", "two"):
            metrics.notification(name, "NotifyXccConnectionData").inc(3)
            metrics.notification(name, "SolicitXccProbing").inc()
            metrics.event(name, "ALERTING").inc(2)
            metrics.registrations.labels(name, "registered").inc()
            metrics.loss_windows.labels(name).inc()
            metrics.delivery(name, "delivered").inc(5)
            metrics.delivery(name, "retried").inc()
            metrics.delivery_time(name).observe(1.0)

    def shown(self) -> str:
        return generate_latest(self.metrics.registry).decode()

    def test_counts(self) -> None:
        self.assertEqual(self.metrics.of_cube("one"), {"notifications": 4, "events": 2, "loss_windows": 1})
        self.assertEqual(
            self.metrics.of_webhook("two"), {"delivered": 5, "retried": 1, "failed": 0, "expired": 0}
        )
        self.assertEqual(self.metrics.of_cube("nobody"), {"notifications": 0, "events": 0, "loss_windows": 0})

    def test_only_what_is_gone_is_forgotten(self) -> None:
        self.metrics.forget("cube", "one")
        self.assertNotIn('cube="one"', self.shown())
        self.assertIn('webhook="one"', self.shown())
        self.metrics.forget("webhook", "one")
        self.assertNotIn('"one"', self.shown())
        self.assertEqual(self.metrics.of_cube("two")["notifications"], 4)
        self.assertEqual(self.metrics.of_webhook("two")["delivered"], 5)

    def test_what_has_just_come_is_shown_as_nothing_yet(self) -> None:
        self.metrics.begin_cube("new")
        self.metrics.begin_webhook("new")
        for line in (
            'cubehook_events_total{cube="new",state="DISCONNECTED"} 0.0',
            'cubehook_loss_windows_total{cube="new"} 0.0',
            'cubehook_registrations_total{cube="new",result="registered"} 0.0',
            'cubehook_deliveries_total{outcome="failed",webhook="new"} 0.0',
        ):
            self.assertIn(line, self.shown())
        self.metrics.forget("cube", "new")
        self.metrics.forget("webhook", "new")
        self.assertNotIn('"new"', self.shown())

    def test_one_that_comes_back_is_counted_anew(self) -> None:
        self.metrics.forget("cube", "one")
        self.metrics.event("one", "ALERTING").inc()
        self.assertEqual(self.metrics.of_cube("one")["events"], 1)
        self.assertIn('cubehook_events_total{cube="one",state="ALERTING"} 1.0', self.shown())
