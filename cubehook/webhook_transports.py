"""Makes webhooks' transports: with the settings that hold, and so that they tell nobody a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cubehook import __version__, config
from cubehook.interfaces import ITransport, ITransportPlugin
from cubehook.net.egress import policy_from
from cubehook.net.urls import secrets_in
from cubehook.transports.context import TransportContext
from cubehook.transports.discreet import Discreet, Mask
from cubehook.transports.registry import create


class Maker:
    """Makes transports of `plugins`, by their names, as `settings` has `[delivery]` and `[egress]`."""

    def __init__(
        self, settings: config.Config, reactor: Any, plugins: Mapping[str, ITransportPlugin]
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._plugins = plugins
        self._egress = policy_from(settings.egress)

    def make(self, webhook: config.Webhook, signing: tuple[str, ...]) -> ITransport:
        """A webhook's transport, which signs with `signing`; ValueError, for a person, without one."""
        settings = self._settings
        context = TransportContext(
            reactor=self._reactor,
            webhook=webhook,
            egress=self._egress,
            state_dir=settings.state_dir,
            secrets=signing,
            version=__version__,
            timeout=webhook.timeout or settings.delivery.timeout,
            concurrency=webhook.concurrency or settings.delivery.concurrency,
            proxy=settings.egress.proxy,
            no_proxy=settings.egress.no_proxy,
        )
        hidden = [*signing, *secrets_in(settings.egress.proxy)]
        return Discreet(create(webhook, self._plugins, context), Mask(webhook, hidden))
