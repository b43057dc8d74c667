"""
Metrics under the contract's names (section 7), in a registry of our own.

Labels come from configuration and closed sets only, never from received text, so their number is
bounded.  Counting methods are called from the reactor's thread, save `commit`, which may come from any.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cubehook.events import CallState

_ANSWER_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_DELIVERY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3600.0, 86400.0)
_COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)

OUTCOMES = ("delivered", "retried", "failed", "expired")
"""How an attempt at a delivery, or the delivery without one, may end."""


class _Read(Collector):
    """A gauge whose values are read when Prometheus asks."""

    def __init__(
        self, name: str, text: str, label: str | None, read: Callable[[], Iterable[tuple[str, float]]]
    ) -> None:
        self._name = name
        self._text = text
        self._label = label
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for label, value in self._read():
            family.add_metric([label] if self._label else [], value)
        yield family


class Metrics:
    """Everything the service counts."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.notifications = Counter(
            "cubehook_notifications_total",
            "Messages that gateways sent us",
            ["cube", "message"],
            registry=registry,
        )
        self.notification_seconds = Histogram(
            "cubehook_notification_seconds",
            "Receipt of a gateway's message to our answer",
            buckets=_ANSWER_BUCKETS,
            registry=registry,
        )
        self.rejected = Counter(
            "cubehook_rejected_total",
            "Requests that gateways' listener refused, and connections that any did",
            ["reason"],
            registry=registry,
        )
        self.events = Counter(
            "cubehook_events_total", "Events of calls", ["cube", "state"], registry=registry
        )
        self.registrations = Counter(
            "cubehook_registrations_total",
            "Attempts to register with a gateway",
            ["cube", "result"],
            registry=registry,
        )
        self.loss_windows = Counter(
            "cubehook_loss_windows_total",
            "Times in which a gateway may have dropped notifications",
            ["cube"],
            registry=registry,
        )
        self.deliveries = Counter(
            "cubehook_deliveries_total",
            "Deliveries' attempts and ends: delivered, retried, failed, expired",
            ["webhook", "outcome"],
            registry=registry,
        )
        self.delivery_seconds = Histogram(
            "cubehook_delivery_seconds",
            "Receipt of the notification to the receiver's 2xx",
            ["webhook"],
            buckets=_DELIVERY_BUCKETS,
            registry=registry,
        )
        self.store_commit_seconds = Histogram(
            "cubehook_store_commit_seconds",
            "Duration of a group's commit",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self.reloads = Counter(
            "cubehook_reloads_total",
            "Times the configuration was read again: changed, unchanged, refused, failed",
            ["result"],
            registry=registry,
        )
        for result in ("changed", "unchanged", "refused", "failed"):
            self.reloads.labels(result)
        self._labels: dict[Counter | Histogram, tuple[str, ...]] = {
            self.notifications: ("cube", "message"),
            self.events: ("cube", "state"),
            self.registrations: ("cube", "result"),
            self.loss_windows: ("cube",),
            self.deliveries: ("webhook", "outcome"),
            self.delivery_seconds: ("webhook",),
        }
        self._messages: defaultdict[str, set[str]] = defaultdict(set)
        # Looking up a labelled child costs more than counting with it.
        self.notification = lru_cache(maxsize=4096)(self._notification)
        self.event = lru_cache(maxsize=4096)(self.events.labels)
        self.delivery = lru_cache(maxsize=4096)(self.deliveries.labels)
        self.delivery_time = lru_cache(maxsize=1024)(self.delivery_seconds.labels)

    def _notification(self, cube: str, message: str) -> Counter:
        self._messages[cube].add(message)
        return self.notifications.labels(cube, message)

    def begin_cube(self, cube: str) -> None:
        """Show a cube's counters as 0 before anything was counted, so that the first is an increase."""
        for state in CallState:
            self.event(cube, state)
        self.registrations.labels(cube, "registered")
        self.loss_windows.labels(cube)

    def begin_webhook(self, webhook: str) -> None:
        """Show a webhook's counters as 0 before anything was counted."""
        for outcome in OUTCOMES:
            self.delivery(webhook, outcome)

    def of_cube(self, cube: str) -> dict[str, int]:
        """What was counted of a cube since the start."""
        messages = self._messages.get(cube, ())
        return {
            "notifications": sum(_count(self.notification(cube, message)) for message in messages),
            "events": sum(_count(self.event(cube, state)) for state in CallState),
            "loss_windows": _count(self.loss_windows.labels(cube)),
        }

    def of_webhook(self, webhook: str) -> dict[str, int]:
        """How often attempts at a webhook's deliveries ended how since the start."""
        return {outcome: _count(self.delivery(webhook, outcome)) for outcome in OUTCOMES}

    def totals(self) -> dict[str, int]:
        """What was counted since the start, of all cubes and webhooks that there are."""
        ends = {
            outcome: _sum(self.deliveries, {"outcome": outcome})
            for outcome in ("delivered", "retried", "failed")
        }
        return {
            "notifications": _sum(self.notifications, {}),
            "events": _sum(self.events, {}),
            "deliveries": ends["delivered"],
            "failures": ends["retried"] + ends["failed"],
        }

    def forget(self, label: str, value: str) -> None:
        """Show nothing more of a cube or webhook that is no more: `label` is `cube` or `webhook`."""
        for metric, labels in self._labels.items():
            if label in labels:
                for found in {tuple(each[name] for name in labels) for each in _label_sets(metric)}:
                    if found[labels.index(label)] == value:
                        metric.remove(*found)
        for known in (self.notification, self.event, self.delivery, self.delivery_time):
            known.cache_clear()
        if label == "cube":
            self._messages.pop(value, None)

    def read(
        self, name: str, text: str, label: str, values: Callable[[], Iterable[tuple[str, float]]]
    ) -> None:
        """A gauge with one label, read by `values` whenever it is asked for."""
        self.registry.register(_Read(name, text, label, values))

    def read_one(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge without labels, read by `value` whenever it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(value)


def _label_sets(metric: Counter | Histogram) -> Iterable[dict[str, str]]:
    return [sample.labels for family in metric.collect() for sample in family.samples]


def _count(one: Counter) -> int:
    """What a counter without labels, or with all of them given, stands at."""
    return int(sum(sample.value for family in one.collect() for sample in family.samples))


def _sum(counter: Counter, labels: dict[str, str]) -> int:
    samples = [sample for family in counter.collect() for sample in family.samples]
    return int(sum(each.value for each in samples if labels.items() <= each.labels.items()))
