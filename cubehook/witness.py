"""Hears what the rooms tell of their work; passes it on to metrics, logs, and webhooks that want notices."""

from __future__ import annotations

from collections.abc import Callable

from cubehook import config
from cubehook.events import CallEvent, Event, Micros, NoticeType, iso
from cubehook.notices import about_webhook
from cubehook.operations.logs import Logs
from cubehook.operations.metrics import Metrics
from cubehook.records import Attempt, Delivery, DeliveryStatus
from cubehook.webhooks import Webhooks


class Witness:
    """
    The `cubehook.xcc.resource.Traffic` and the `cubehook.delivery.means.Observer` of the service.

    `webhooks` are asked for when something is told of one, `pending` for how much one waits for, and `notify`
    takes notices.  Each of `hearers` hears of every event.
    """

    def __init__(
        self,
        metrics: Metrics,
        logs: Logs,
        now: Callable[[], Micros],
        *,
        next_id: Callable[[Micros], int],
        webhooks: Callable[[], Webhooks],
        pending: Callable[[str], int],
        notify: Callable[[Event], None],
    ) -> None:
        self._metrics = metrics
        self._logs = logs
        self._now = now
        self._next_id = next_id
        self._webhooks = webhooks
        self._pending = pending
        self._notify = notify
        self.hearers: list[Callable[[Event], None]] = []

    def happened(self, event: Event) -> None:
        """An event was told, and is kept."""
        payload = event.payload
        if isinstance(payload, CallEvent):
            self._metrics.event(event.cube, payload.call_state).inc()
        self._logs.event(event)
        for hear in self.hearers:
            hear(event)

    def answered(self, cube: str, message: str, received_at: Micros) -> None:
        """See `cubehook.xcc.resource.Traffic`."""
        self._metrics.notification(cube, message).inc()
        self._metrics.notification_seconds.observe(max(0, self._now() - received_at) / 1e6)

    def rejected(self, reason: str) -> None:
        """See `cubehook.xcc.resource.Traffic`."""
        self._metrics.rejected.labels(reason).inc()

    def attempted(self, webhook: config.Webhook, delivery: Delivery, attempt: Attempt) -> None:
        """See `cubehook.delivery.means.Observer`."""
        self._logs.attempt(webhook, delivery, attempt)
        outcome = "retried" if delivery.status is DeliveryStatus.PENDING else delivery.status.value
        self._metrics.delivery(webhook.id, outcome).inc()
        if attempt.delivered and not delivery.redelivery:
            took = attempt.started_at + attempt.duration - delivery.event.at
            self._metrics.delivery_time(webhook.id).observe(max(0, took) / 1e6)

    def expired(self, webhook: config.Webhook, delivery: Delivery) -> None:
        """See `cubehook.delivery.means.Observer`."""
        self._logs.expired(webhook, delivery, self._now())
        if not delivery.attempts:
            self._metrics.delivery(webhook.id, delivery.status.value).inc()

    def held(self, webhook: config.Webhook, until: Micros, why: str) -> None:
        """See `cubehook.delivery.means.Observer`; the log has it already."""

    def released(self, webhook: config.Webhook) -> None:
        """See `cubehook.delivery.means.Observer`; the log has it already."""

    def failing(self, webhook: config.Webhook, since: Micros, why: str) -> None:
        """See `cubehook.delivery.means.Observer`."""
        self._tell_of(NoticeType.WEBHOOK_FAILING, webhook, failing_since=iso(since), last_error=why)

    def recovered(self, webhook: config.Webhook, since: Micros) -> None:
        """See `cubehook.delivery.means.Observer`."""
        self._tell_of(NoticeType.WEBHOOK_RECOVERED, webhook, failing_since=iso(since))

    def disabled(self, webhook: config.Webhook, reason: str) -> None:
        """See `cubehook.delivery.means.Observer`."""
        webhooks = self._webhooks()
        if webhook.id in webhooks.known:
            webhooks.was_disabled(webhook.id, reason)
        self._tell_of(NoticeType.WEBHOOK_DISABLED, webhook, reason=reason)

    def _tell_of(self, type: NoticeType, webhook: config.Webhook, **data: str) -> None:
        if webhook.id not in self._webhooks().known:
            return
        pending = self._pending(webhook.id)
        self._notify(about_webhook(type, webhook, self._now(), self._next_id, **data, pending=pending))
