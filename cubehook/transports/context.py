"""What the service lends to the transport of one webhook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import ITransportContext
from cubehook.net.agent import GuardedEndpoint, WebhookAgent
from cubehook.net.egress import EgressPolicy
from cubehook.net.lookup import Addresses
from cubehook.net.tls import Tls, TlsOptions, verified


@implementer(ITransportContext)
class TransportContext:
    """
    Made once for each webhook and each of its transports.

    `timeout` and `concurrency` are the webhook's own, or `[delivery]`'s where it has none.
    """

    _log = Logger()

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
        proxy: str = "",
        no_proxy: Sequence[str] = (),
    ) -> None:
        self.reactor = reactor
        self.webhook = webhook
        self.state_dir = state_dir
        self.secrets = tuple(secrets)
        self.version = version
        self.egress = egress
        self._timeout = timeout
        self._concurrency = concurrency
        self._proxy = proxy
        self._no_proxy = no_proxy
        self._addresses: dict[str, Addresses] = {}

    def tls(self, options: TlsOptions) -> Tls:
        owner = f"webhook {self.webhook.id}"
        tls = Tls(options, self.state_dir, owner)
        if tls.insecure:
            self._log.warn(
                "{owner}: options.insecure is set, so any certificate is accepted: whoever is in between can "
                "read its events and headers, and answer for the receiver. Name the authority to trust in "
                "options.ca_file instead",
                owner=owner,
            )
        return tls

    async def addresses(self, host: str) -> list[str]:
        # Kept, so that all who ask at about the same time share one question.
        known = self._addresses.get(host)
        if known is None:
            known = self._addresses[host] = Addresses(self.reactor, self.egress, host)
        return await known.get()

    def agent(
        self, tls: Tls | None = None, proxy: str | None = None, no_proxy: Sequence[str] | None = None
    ) -> WebhookAgent:
        return WebhookAgent(
            self.reactor,
            self.egress,
            timeout=self._timeout,
            concurrency=self._concurrency,
            tls=tls,
            proxy=self._proxy if proxy is None else proxy,
            no_proxy=self._no_proxy if no_proxy is None else no_proxy,
        )

    def endpoint(self, host: str, port: int, tls: Tls | bool | None = None) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = GuardedEndpoint(
            self.reactor, self.egress, host, port, self._timeout
        )
        if not tls:
            return endpoint
        creator = (verified() if tls is True else tls).creator(host)
        wrapped: IStreamClientEndpoint = wrapClientTLS(creator, endpoint)
        return wrapped
