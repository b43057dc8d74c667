"""Webhooks and what is done with them: `/webhooks`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from cubehook import config
from cubehook.api import settings, views
from cubehook.api.errors import ConflictError, InvalidError, NotFoundError
from cubehook.api.exchanges import AttemptView, attempt_view
from cubehook.api.operations import Caller, IfMatch, Nothing, Tagged, operation
from cubehook.api.refusals import refusals
from cubehook.changes import SettingsError
from cubehook.delivery.means import Status
from cubehook.delivery.payload import RenderError, preview
from cubehook.events import CallState, Micros, iso
from cubehook.records import Attempt
from cubehook.text import printable

_NEW = config.Webhook(id="new")
"""What settings that are not kept yet are changes of."""

_WHERE = ("url", "transport", "options")
"""What decides where a webhook's headers, and whatever else is secret of it, are sent."""


class Webhooks(Protocol):
    """What the API needs of the service's webhooks; see `cubehook.webhooks.Webhooks`."""

    @property
    def known(self) -> Mapping[str, config.Webhook]:
        """Those there are, by their ids."""

    @property
    def disabled(self) -> Mapping[str, str]:
        """Why webhooks are disabled that were in use, by their ids."""

    @property
    def provisioned(self) -> frozenset[str]:
        """Those that the configuration file has."""

    def status(self, webhook: str) -> Status:
        """How the deliveries of one stand."""

    def create(self, webhook: config.Webhook) -> Awaitable[str | None]:
        """Have another webhook; the secret that was made for it."""

    def change(self, id: str, change: Callable[[config.Webhook], config.Webhook]) -> Awaitable[None]:
        """Let a webhook be otherwise."""

    def delete(self, id: str, check: Callable[[config.Webhook], None]) -> Awaitable[None]:
        """Have a webhook no more."""

    def check(self, webhook: config.Webhook, before: config.Webhook | None = None) -> None:
        """SettingsError unless it can be used."""

    def try_out(self, webhook: config.Webhook, state: CallState) -> Awaitable[Attempt]:
        """Send a sample now."""

    def rotate_secret(self, webhook: str) -> Awaitable[tuple[str, Micros | None]]:
        """
        A new signing secret for one, and until when the former signs too.

        ProvisionedError if the configuration file says what it is.
        """

    def enable(self, webhook: str) -> Awaitable[None]:
        """
        Send again to one that was disabled while it was in use; nothing happens to one that is sent to.

        ProvisionedError or RefusedError if its settings say that it is not enabled.
        """


class WebhooksPart:
    """The operations on webhooks; `counts` tells what was counted of one."""

    def __init__(self, webhooks: Webhooks, counts: Callable[[str], Mapping[str, int]]) -> None:
        self._webhooks = webhooks
        self._counts = counts

    @operation("GET", "/webhooks", query=views.WebhooksQuery, result=views.Webhooks)
    async def list_webhooks(self, caller: Caller, query: views.WebhooksQuery) -> views.Webhooks:
        """All webhooks, and how they stand."""
        known = self._webhooks.known
        ids = sorted(id for id in known if query.cursor is None or id > query.cursor)
        part = ids[: query.limit]
        return views.Webhooks(
            items=[self._view(id) for id in part], next=part[-1] if len(ids) > len(part) else None
        )

    @operation(
        "POST",
        "/webhooks",
        body=settings.NewWebhook,
        result=views.CreatedWebhook,
        errors=(ConflictError,),
        status=201,
        tagged=True,
    )
    async def create_webhook(self, caller: Caller, body: settings.NewWebhook) -> Tagged:
        """
        Make a webhook, and send it what happens from now on.

        Unless it has a `secret`, one is made for it and shown in this answer, and never again.
        """
        webhook = settings.made(config.Webhook, body)
        _see_that_nothing_is_masked(webhook)
        with refusals("webhook", body.id):
            secret = await self._webhooks.create(webhook)
            view = msgspec.structs.asdict(self._view(body.id))
            return Tagged(views.CreatedWebhook(**view, secret=secret), self._tag(body.id))

    @operation("GET", "/webhooks/{webhook}", result=views.Webhook, tagged=True)
    async def get_webhook(self, caller: Caller, webhook: str) -> Tagged:
        """One webhook, and how it stands."""
        self._known(webhook)
        return Tagged(self._view(webhook), self._tag(webhook))

    @operation(
        "PATCH",
        "/webhooks/{webhook}",
        body=settings.WebhookChanges,
        result=views.Webhook,
        errors=(ConflictError,),
        conditional=True,
        tagged=True,
    )
    async def change_webhook(self, caller: Caller, webhook: str, body: Any, if_match: IfMatch) -> Tagged:
        """
        Change a webhook; with `enabled` it is paused, and sent to again.

        What is secret is shown as `***`, and stays as it is where that is given.  Attempts under way
        come to their ends first.  One that was disabled because of its receiver is sent to again.
        """
        self._known(webhook)

        def change(now: config.Webhook) -> config.Webhook:
            if_match.check(settings.tag(now))
            return _changed(now, body)

        with refusals("webhook", webhook):
            await self._webhooks.change(webhook, change)
            return Tagged(self._view(webhook), self._tag(webhook))

    @operation(
        "DELETE",
        "/webhooks/{webhook}",
        result=Nothing,
        errors=(ConflictError,),
        status=204,
        conditional=True,
    )
    async def delete_webhook(self, caller: Caller, webhook: str, if_match: IfMatch) -> Nothing:
        """
        Remove a webhook: it is sent nothing more, and what is pending for it fails.

        Its history stays until it is past its retention.
        """
        self._known(webhook)
        with refusals("webhook", webhook):
            await self._webhooks.delete(webhook, lambda now: if_match.check(settings.tag(now)))
        return Nothing()

    @operation(
        "POST",
        "/webhooks/{webhook}/test",
        body=views.TestOf,
        result=AttemptView,
        errors=(ConflictError,),
        stores=False,
    )
    async def test_webhook(self, caller: Caller, webhook: str, body: views.TestOf) -> AttemptView:
        """
        Send a sample event to a webhook now, and tell how that went.

        It is kept nowhere else, and changes nothing of how the webhook stands.  One that is provisioned is
        tried at its own receiver only.
        """
        return await self._try_out(self._known(webhook), body.settings, body.state)

    @operation("POST", "/webhooks/test", body=views.TestOfNew, result=AttemptView, stores=False)
    async def test_settings(self, caller: Caller, body: views.TestOfNew) -> AttemptView:
        """Send a sample event to a webhook that is not made yet, and tell how that went."""
        return await self._try_out(_NEW, body.settings, body.state)

    @operation(
        "POST",
        "/webhooks/preview",
        body=views.TestOfNew,
        result=views.Previews,
        access="viewer",
        changes=lambda body: False,
    )
    async def preview_settings(self, caller: Caller, body: views.TestOfNew) -> views.Previews:
        """Show what a webhook with these settings would be sent, a sample of each kind of event."""
        webhook = _changed(_NEW, body.settings, "settings.")
        if body.state is not None:
            webhook = msgspec.structs.replace(webhook, states=(body.state,), notices=())
        try:
            shown = preview(webhook)
        except (RenderError, ValueError) as error:
            words = str(error).removeprefix(f"webhook {_NEW.id}: ")
            raise InvalidError(f"There is nothing to show: {words}") from None
        return views.Previews(items=[views.Preview(kind=kind, body=text) for kind, text in shown])

    @operation("POST", "/webhooks/{webhook}/rotate-secret", result=views.Secret, errors=(ConflictError,))
    async def rotate_secret(self, caller: Caller, webhook: str) -> views.Secret:
        """
        Give a webhook a new signing secret.

        Its deliveries are signed with the new and the former one for a while, so that the receiver
        can change over.
        """
        self._known(webhook)
        with refusals("webhook", webhook):
            secret, until = await self._webhooks.rotate_secret(webhook)
        return views.Secret(
            webhook=webhook, secret=secret, former_until=None if until is None else iso(until)
        )

    @operation("POST", "/webhooks/{webhook}/enable", result=views.Webhook, errors=(ConflictError,))
    async def enable_webhook(self, caller: Caller, webhook: str) -> views.Webhook:
        """
        Send again to a webhook that was disabled because its receiver wanted that or failed for days.

        What is pending for it is sent first.  So is it with one whose transport could not be made (`problem`
        says why), once that is mended.
        """
        self._known(webhook)
        with refusals("webhook", webhook):
            await self._webhooks.enable(webhook)
            return self._view(webhook)

    async def _try_out(self, kept: config.Webhook, changes: Any, state: CallState | None) -> AttemptView:
        webhook = kept if changes is None else _changed(kept, changes, "settings.")
        elsewhere = [name for name in _WHERE if getattr(webhook, name) != getattr(kept, name)]
        if elsewhere and kept.id in self._webhooks.provisioned:
            # Otherwise secrets of the file could be had by who may not even change where they go.
            raise ConflictError(
                f"[webhooks.{kept.id}] stands in the configuration file, and its headers and secrets go only "
                f"where that says ({', '.join(elsewhere)}): try another receiver as a new webhook"
            )
        with refusals("webhook", webhook.id, "" if changes is None else "settings."):
            return attempt_view(await self._webhooks.try_out(webhook, state or webhook.states[0]))

    def _known(self, webhook: str) -> config.Webhook:
        known = self._webhooks.known.get(webhook)
        if known is None:
            raise NotFoundError(f"There is no webhook {printable(webhook)}")
        return known

    def _tag(self, webhook: str) -> str:
        return settings.tag(self._known(webhook))

    def _view(self, webhook: str) -> views.Webhook:
        webhooks = self._webhooks
        return views.webhook_view(
            self._known(webhook),
            webhooks.status(webhook),
            webhooks.disabled.get(webhook),
            provisioned=webhook in webhooks.provisioned,
            counters=self._counts(webhook),
        )


def _changed(webhook: config.Webhook, body: Any, within: str = "") -> config.Webhook:
    """`webhook` with what `body` gives; `within` is where in the request's body that stands."""
    changed = settings.changed(webhook, body)
    _see_that_nothing_is_masked(changed, within)
    return changed


def _see_that_nothing_is_masked(webhook: config.Webhook, within: str = "") -> None:
    masked = settings.masks_in(webhook)
    if masked:
        with refusals("webhook", webhook.id, within):
            raise SettingsError(masked)
