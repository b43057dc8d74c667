"""What all webhooks deliver with, and what is told and known of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from cubehook import config
from cubehook.delivery.breaker import State
from cubehook.delivery.payload import Renderer
from cubehook.events import Micros
from cubehook.ids import Ids
from cubehook.interfaces import IDeliveryStore
from cubehook.records import Attempt, Delivery

_log = Logger()

TOLD_AFTER = 60.0
"""Seconds of failure after which a webhook counts as failing in the eyes of an operator."""


class Observer(Protocol):
    """
    Is told what happens to deliveries: for logs and metrics.

    Called in the reactor's thread, after the fact; must be quick.  What it raises is logged.
    """

    def attempted(self, webhook: config.Webhook, delivery: Delivery, attempt: Attempt) -> None:
        """An attempt is over; `delivery` already stands as it stands after it."""

    def expired(self, webhook: config.Webhook, delivery: Delivery) -> None:
        """`delivery` was not delivered while that was worth something, and is over."""

    def held(self, webhook: config.Webhook, until: Micros, why: str) -> None:
        """Nothing is sent to `webhook` before `until`; may come again with a later time."""

    def released(self, webhook: config.Webhook) -> None:
        """`webhook` was held and is sent to again."""

    def failing(self, webhook: config.Webhook, since: Micros, why: str) -> None:
        """`webhook` has been failing for `TOLD_AFTER` seconds or more; told once until it recovers."""

    def recovered(self, webhook: config.Webhook, since: Micros) -> None:
        """`webhook`, of which `failing` or `disabled` was told, takes events again; it had failed `since`."""

    def disabled(self, webhook: config.Webhook, reason: str) -> None:
        """`webhook` wants nothing any more, or has failed for too long; what is pending stays pending."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a webhook's deliveries stand.

    `enabled` is False once its settings, its receiver or its failures have disabled it.
    `pending` are those that are not over, on disk or in memory; `resident` those in memory.
    `state` is the breaker's; `held_until` is None unless nothing is sent until then.  `failures` are those in
    a row, the first of them at `failing_since`.  `problem` says in words why nothing is sent at all,
    None if something may be.
    """

    enabled: bool
    pending: int
    resident: int
    in_flight: int
    state: State
    held_until: Micros | None
    failures: int
    failing_since: Micros | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Means:
    """What all webhooks deliver with."""

    store: IDeliveryStore
    ids: Ids
    now: Callable[[], Micros]
    random: Callable[[], float]
    reactor: IReactorTime
    observer: Observer
    renderer: Renderer

    def tell(self, webhook: config.Webhook, method: Callable[..., None], *arguments: object) -> None:
        """Call a method of the observer; it cannot do harm by failing."""
        try:
            method(webhook, *arguments)
        except Exception:
            _log.failure("An observer of webhook {webhook} failed; deliveries go on", webhook=webhook.id)


class Backlog:
    """How many deliveries of a webhook are pending, whichever lanes they are sent through."""

    __slots__ = ("pending",)

    def __init__(self, pending: int) -> None:
        self.pending = pending
