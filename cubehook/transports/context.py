"""What the service lends to the transport of one webhook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from OpenSSL.SSL import Context
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import ITransportContext
from cubehook.net.agent import WebhookAgent
from cubehook.net.egress import EgressPolicy


@implementer(ITransportContext)
class TransportContext:
    """
    Made once for each webhook and each of its transports.

    `timeout` and `concurrency` are the webhook's own, or `[delivery]`'s where it has none.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        webhook: Webhook,
        egress: EgressPolicy,
        state_dir: Path,
        secrets: Sequence[str],
        version: str,
        timeout: float,
        concurrency: int,
    ) -> None:
        self.reactor = reactor
        self.webhook = webhook
        self.state_dir = state_dir
        self.secrets = tuple(secrets)
        self.version = version
        self._egress = egress
        self._timeout = timeout
        self._concurrency = concurrency

    def agent(self, tls: Callable[[], Context] | None = None) -> WebhookAgent:
        return WebhookAgent(
            self.reactor, self._egress, timeout=self._timeout, concurrency=self._concurrency, tls=tls
        )
