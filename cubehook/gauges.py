"""What `/metrics` tells by looking when it is asked, not by counting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from cubehook.calls.tracker import Tracker
from cubehook.cubes import Cubes
from cubehook.delivery.breaker import State
from cubehook.delivery.dispatcher import Dispatcher
from cubehook.operations.backlog import Backlog
from cubehook.operations.certificates import Certificates
from cubehook.operations.metrics import Metrics
from cubehook.reloading import Reloader
from cubehook.store.store import Store
from cubehook.webhooks import Webhooks


def add_gauges(
    metrics: Metrics,
    *,
    trackers: Mapping[str, Tracker],
    cubes: Cubes,
    webhooks: Webhooks,
    dispatcher: Dispatcher,
    backlog: Backlog,
    certificates: Certificates,
    reloader: Reloader,
    store: Store,
) -> None:
    """Let `metrics` tell how all of these stand."""

    def each_webhook(value: Callable[[str], float]) -> Iterable[tuple[str, float]]:
        return [(webhook, value(webhook)) for webhook in webhooks.known]

    metrics.read(
        "cubehook_calls_active",
        "Calls in progress",
        "cube",
        lambda: [(cube, tracker.active) for cube, tracker in trackers.items()],
    )
    metrics.read(
        "cubehook_registered",
        "1 while the gateway has us registered; cubes that are disabled have none",
        "cube",
        cubes.registered,
    )
    metrics.read(
        "cubehook_deliveries_pending",
        "Deliveries that are not over yet",
        "webhook",
        lambda: each_webhook(lambda webhook: dispatcher.status(webhook).pending),
    )
    metrics.read(
        "cubehook_delivery_oldest_pending_seconds",
        "How long ago the oldest event happened that is not delivered yet, 0 if there is none",
        "webhook",
        lambda: backlog.ages(webhooks.known),
    )
    metrics.read(
        "cubehook_webhook_held",
        "1 while a webhook is sent nothing because its receiver asked for that or fails",
        "webhook",
        lambda: each_webhook(lambda webhook: dispatcher.status(webhook).state is not State.CLOSED),
    )
    metrics.read(
        "cubehook_webhook_disabled",
        "1 while a webhook is sent nothing because its receiver wanted that, or failed for days",
        "webhook",
        lambda: each_webhook(lambda webhook: webhook in webhooks.disabled),
    )
    metrics.read(
        "cubehook_certificate_expiry_timestamp_seconds",
        "When a certificate ends, in seconds since the epoch",
        "certificate",
        certificates.timestamps,
    )
    metrics.read_one(
        "cubehook_config_loaded_timestamp_seconds",
        "When the configuration that holds was read",
        lambda: reloader.loaded_at / 1e6,
    )
    metrics.read_one(
        "cubehook_config_last_reload_successful",
        "0 if the configuration file could not be used when it was read again last",
        lambda: float(reloader.succeeded),
    )
    metrics.read_one("cubehook_store_degraded", "1 while commits fail", lambda: float(store.degraded))
