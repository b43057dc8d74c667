"""Webhooks and what is done with them: `/webhooks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cubehook import config
from cubehook.api import views
from cubehook.api.errors import ConflictError, NotFoundError
from cubehook.api.operations import Caller, operation
from cubehook.delivery.means import Status
from cubehook.events import Micros, iso
from cubehook.store.errors import ProvisionedError
from cubehook.text import printable


class Webhooks(Protocol):
    """What the API needs of the service's webhooks."""

    @property
    def webhooks(self) -> Mapping[str, config.Webhook]:
        """Those there are, by their ids."""

    @property
    def disabled_webhooks(self) -> Mapping[str, str]:
        """Why webhooks are disabled that were in use, by their ids."""

    def webhook_status(self, webhook: str) -> Status:
        """How the deliveries of one stand."""

    async def rotate_secret(self, webhook: str) -> tuple[str, Micros | None]:
        """
        A new signing secret for one, and until when the former signs too.

        ProvisionedError if the configuration file says what it is.
        """

    async def enable_webhook(self, webhook: str) -> None:
        """
        Send again to one that was disabled while it was in use; nothing happens to one that is sent to.

        ProvisionedError if the configuration file says that it is not enabled.
        """


class WebhooksPart:
    """The operations on webhooks."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    @operation("GET", "/webhooks", query=views.WebhooksQuery, result=views.Webhooks)
    async def list_webhooks(self, caller: Caller, query: views.WebhooksQuery) -> views.Webhooks:
        """All webhooks, and how they stand."""
        known = self._webhooks.webhooks
        ids = sorted(id for id in known if query.cursor is None or id > query.cursor)
        part = ids[: query.limit]
        return views.Webhooks(
            items=[self._view(id) for id in part], next=part[-1] if len(ids) > len(part) else None
        )

    @operation("GET", "/webhooks/{webhook}", result=views.Webhook)
    async def get_webhook(self, caller: Caller, webhook: str) -> views.Webhook:
        """One webhook, and how it stands."""
        self._known(webhook)
        return self._view(webhook)

    @operation("POST", "/webhooks/{webhook}/rotate-secret", result=views.Secret, errors=(ConflictError,))
    async def rotate_secret(self, caller: Caller, webhook: str) -> views.Secret:
        """
        Give a webhook a new signing secret.

        Its deliveries are signed with the new and the former one for a while, so that the receiver
        can change over.
        """
        self._known(webhook)
        try:
            secret, until = await self._webhooks.rotate_secret(webhook)
        except ProvisionedError as error:
            raise ConflictError(str(error)) from None
        return views.Secret(
            webhook=webhook, secret=secret, former_until=None if until is None else iso(until)
        )

    @operation("POST", "/webhooks/{webhook}/enable", result=views.Webhook, errors=(ConflictError,))
    async def enable_webhook(self, caller: Caller, webhook: str) -> views.Webhook:
        """
        Send again to a webhook that was disabled because its receiver wanted that or failed for days.

        What is pending for it is sent first.
        """
        self._known(webhook)
        try:
            await self._webhooks.enable_webhook(webhook)
        except ProvisionedError as error:
            raise ConflictError(str(error)) from None
        return self._view(webhook)

    def _known(self, webhook: str) -> None:
        if webhook not in self._webhooks.webhooks:
            raise NotFoundError(f"There is no webhook {printable(webhook)}")

    def _view(self, webhook: str) -> views.Webhook:
        webhooks = self._webhooks
        return views.webhook_view(
            webhooks.webhooks[webhook],
            webhooks.webhook_status(webhook),
            webhooks.disabled_webhooks.get(webhook),
        )
