"""
The service's webhooks: makes their transports, and keeps the dispatcher in step with the store.

What is decided of a webhook while the service runs, such as a new secret, is kept by the store first and
then done here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook import config
from cubehook.changes import ExistsError, RefusedError, SettingsError, the
from cubehook.config import receiver
from cubehook.config_checks import webhook_problems
from cubehook.delivery.deadlines import Alarm
from cubehook.delivery.dispatcher import Dispatcher
from cubehook.delivery.means import Status
from cubehook.delivery.tryout import sample, try_out
from cubehook.events import CallState, Micros, iso
from cubehook.ids import first_id
from cubehook.interfaces import ITransport, ITransportPlugin
from cubehook.records import Attempt, Trouble
from cubehook.rotation import SigningSecrets
from cubehook.settings_plan import inherits
from cubehook.store.errors import ProvisionedError
from cubehook.store.provisioning import KeptWebhook, Provisioned, in_the_file, new_secret
from cubehook.store.store import Store
from cubehook.text import printable
from cubehook.transports.registry import check_webhook, find_transports
from cubehook.transports.unmade import Unmade
from cubehook.webhook_transports import Maker

LOOK_AGAIN: Micros = 600_000_000
"""How long the end of an overlap is slept for at most: the clock may be set, or the machine sleep."""

TRIES = 4
"""How many webhooks are tried out at once."""

T = TypeVar("T")


class Webhooks:
    """
    The webhooks that are delivered to, by their ids.

    `changed` is called when it may matter to others which there are, `gone` once nothing happens any more
    of one that was removed.  `cubes` are those there are.  Methods that return a Deferred do their work
    whether or not anyone waits for it.
    """

    _log = Logger()

    def __init__(
        self,
        settings: config.Config,
        reactor: Any,
        now: Callable[[], Micros],
        store: Store,
        dispatcher: Dispatcher,
        changed: Callable[[], None],
        *,
        next_id: Callable[[Micros], int] = first_id,
        cubes: Callable[[], Collection[str]] = frozenset,
        gone: Callable[[str], None] = lambda webhook: None,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._now = now
        self._store = store
        self._dispatcher = dispatcher
        self._changed = changed
        self._next_id = next_id
        self._cubes = cubes
        self._gone = gone
        self.provisioned = frozenset(webhook.id for webhook in settings.webhooks)
        """Those that the configuration file has, and that nobody else may change."""
        self._locks: dict[str, DeferredLock] = {}
        self._tries = DeferredSemaphore(TRIES)
        self._trying: set[Deferred[Attempt]] = set()
        self._plugins: dict[str, ITransportPlugin] = {}
        self._maker = Maker(settings, reactor, self._plugins)
        self._webhooks: dict[str, config.Webhook] = {}
        self._disabled: dict[str, str] = {}
        self._unmade: set[str] = set()
        """Those whose transports cannot be made: they are sent nothing, and events are kept for them."""
        self._secrets: dict[str, SigningSecrets] = {}
        self._signing: dict[str, tuple[str, ...]] = {}
        self._alarm = Alarm(reactor, now, self._look_at_overlaps)
        self._closed = False
        self.known: Mapping[str, config.Webhook] = MappingProxyType(self._webhooks)
        """As they are configured."""
        self.disabled: Mapping[str, str] = MappingProxyType(self._disabled)
        """Why webhooks are disabled that were in use."""

    @property
    def settings(self) -> config.Config:
        """The configuration that holds."""
        return self._settings

    def open(self, provisioned: Provisioned, pending: Mapping[str, int]) -> None:
        """Deliver to all there are, once the dispatcher starts."""
        plugins, problems = find_transports()
        self._plugins.update(plugins)
        for problem in problems:
            self._log.error("A transport plugin is left out: {problem}", problem=problem)
        for webhook in provisioned.webhooks:
            name = webhook.id
            disabled = provisioned.disabled.get(name)
            if disabled is not None:
                self._log.warn(
                    "Webhook {webhook} stays disabled: {reason}. Change its settings or run `cubehook enable "
                    "{webhook}` to send to it again",
                    webhook=name,
                    reason=printable(disabled),
                )
            self.add(
                webhook,
                provisioned.secrets[name],
                pending=pending.get(name, 0),
                trouble=provisioned.troubles.get(name),
                disabled=disabled,
            )

    @asynccontextmanager
    async def held(self, wanted: Iterable[str]) -> AsyncIterator[None]:
        """Let nobody change those that the configuration file has, or is to have, meanwhile."""
        with ExitStack() as locked:
            for name in sorted({*wanted, *self.provisioned}):
                lock = self._lock(name)
                await lock.acquire()
                locked.callback(lock.release)
            yield

    def check_provided(self, settings: config.Config, names: Collection[str], keys: Sequence[str]) -> None:
        """
        SettingsError unless `provide` can be done.

        What can be wrong is what only shows when a transport is made: a file that it needs is not there.
        """
        maker = Maker(settings, self._reactor, self._plugins)
        stays = {name: each for name, each in self._webhooks.items() if name not in self._gone_from(settings)}
        problems = {}
        for name, webhook in (stays | {webhook.id: webhook for webhook in settings.webhooks}).items():
            before = stays.get(name)
            if name in self._unmade and before is not None and receiver(webhook) == receiver(before):
                # What cannot be sent to yet need not be mended before anything else is changed.
                continue
            if name in names or inherits(webhook, keys):
                try:
                    _ = maker.make(webhook, (webhook.secret or new_secret(os.urandom),))
                except ValueError as error:
                    problems[f"webhooks.{name}"] = str(error)
        if problems:
            raise SettingsError(problems)

    def _gone_from(self, settings: config.Config) -> frozenset[str]:
        return self.provisioned - {webhook.id for webhook in settings.webhooks}

    def provide(
        self, settings: config.Config, keys: Sequence[str], provisioned: Provisioned | None = None
    ) -> None:
        """
        Have those that the file has now, as the store has them already; to be called while they are `held`.

        `keys` are those of `settings` that have changed: who has no value of its own takes over theirs.
        `provisioned` is None if the file has the webhooks that it had.  What is queued for one that stays
        is sent as it is now, in its order; what could not be sent to is tried again.
        """
        if self._closed:
            return
        for name in self._gone_from(settings) & self._webhooks.keys():
            self._removed(name)
        self._settings = settings
        self._maker = Maker(settings, self._reactor, self._plugins)
        self.provisioned = frozenset(webhook.id for webhook in settings.webhooks)
        made = set()
        if provisioned is not None:
            for webhook in provisioned.webhooks:
                if webhook.id in self.provisioned and self._stored(webhook, provisioned):
                    made.add(webhook.id)
        for name, webhook in self._webhooks.items():
            if name not in made and (name in self._unmade or inherits(webhook, keys)):
                self._sign(name)

    def _stored(self, webhook: config.Webhook, provisioned: Provisioned) -> bool:
        """Be as the store has it; whether anything was to be done."""
        name = webhook.id
        secrets, disabled = provisioned.secrets[name], provisioned.disabled.get(name)
        try:
            if name not in self._webhooks:
                self.add(webhook, secrets, disabled=disabled)
                self._log.info("Webhook {webhook} was added", webhook=name)
                return True
            known = self._secrets[name]
            if webhook == self._webhooks[name] and secrets.current == known.current:
                self._secrets[name] = secrets
                return False
            trouble = None
            if name in self._disabled:
                trouble = provisioned.troubles.get(name)
                _ = _whole(self._enable_in_store(name)).addErrback(self._not_enabled, name)
            _ = self.replace(webhook, secrets, trouble)
            self._log.info("Webhook {webhook} was changed", webhook=name)
        except ValueError as error:
            # It could be made a moment ago.
            self._log.critical("{error}; it stays as it was until that is mended", error=str(error))
        return True

    def close(self) -> None:
        """Change nothing more; the dispatcher is somebody else's to stop."""
        self._closed = True
        self._alarm.cancel()
        for each in list(self._trying):
            each.cancel()

    # Which there are

    def add(
        self,
        webhook: config.Webhook,
        secrets: SigningSecrets,
        *,
        pending: int = 0,
        trouble: Trouble | None = None,
        disabled: str | None = None,
    ) -> None:
        """
        Deliver to `webhook`, unless it was `disabled`; `pending` and `trouble` are those of `Dispatcher.add`.

        One whose transport cannot be made is sent nothing, as its status tells; its events wait.  Raises
        ValueError, for a person, if there is one of that id.
        """
        name = webhook.id
        if name in self._webhooks:
            raise ValueError(f"there is a webhook {name} already")
        sent = webhook if disabled is None else msgspec.structs.replace(webhook, enabled=False)
        signing = secrets.active(self._now())
        self._dispatcher.add(sent, self._transport_or_none(sent, signing), pending, trouble)
        self._webhooks[name] = webhook
        self._secrets[name] = secrets
        self._signing[name] = signing
        if disabled is not None:
            self._disabled[name] = disabled
        self._changed()
        self._set_alarm()

    def replace(
        self,
        webhook: config.Webhook,
        secrets: SigningSecrets | None = None,
        trouble: Trouble | None = None,
    ) -> Deferred[None]:
        """
        Deliver to `webhook` with these settings in the place of those it had; see `Dispatcher.replace`.

        It is enabled, if it was disabled while in use, and then held back as `trouble` tells.  It is signed
        with its `secrets`, if these changed.  KeyError if there is none of that id; ValueError if its
        transport cannot be made, and then nothing changes, unless that could not be made before either.
        """
        name = webhook.id
        secrets = secrets or self._secrets[name]
        replaced = self._deliver_to(webhook, secrets, trouble)
        self._disabled.pop(name, None)
        self._webhooks[name] = webhook
        self._secrets[name] = secrets
        self._changed()
        self._set_alarm()
        return replaced

    def remove(self, webhook: str) -> Deferred[None]:
        """Deliver nothing more to a webhook; see `Dispatcher.remove`.  KeyError if there is no such one."""
        removed = self._dispatcher.remove(webhook)
        for known in (self._webhooks, self._secrets, self._signing):
            del known[webhook]
        self._disabled.pop(webhook, None)
        self._unmade.discard(webhook)
        self._changed()
        return removed

    def status(self, webhook: str) -> Status:
        """How its deliveries stand; KeyError if there is no such webhook."""
        return self._dispatcher.status(webhook)

    # Changes that are kept

    def create(self, webhook: config.Webhook) -> Deferred[str | None]:
        """
        Have another webhook, and keep it: the secret that was made for it, None if it came with one.

        Nobody can be told the secret again.  Fails with ExistsError, ProvisionedError or SettingsError.
        """
        return _whole(self._create(webhook))

    async def _create(self, webhook: config.Webhook) -> str | None:
        name = webhook.id
        async with self._lock(name):
            if name in self._webhooks:
                raise ExistsError(f"There is a webhook {name} already")
            self.check(webhook)
            # What is pending for one of that id that is no more was not meant for this one.
            await self._store.fail_orphans()
            kept = await self._put(webhook)
            if not self._closed:
                self.add(_without_secret(webhook), kept.secrets)
                self._log.info("Webhook {webhook} was added", webhook=name)
            return kept.secrets.current if kept.new and webhook.secret is None else None

    def change(self, id: str, change: Callable[[config.Webhook], config.Webhook]) -> Deferred[None]:
        """
        Let a webhook be what `change` makes of what it is, and keep it; what that raises is raised.

        It is enabled, if it was disabled while in use.  A `secret` takes the place of the one it had, which
        goes on signing for a while.  Fails with MissingError if there is no such webhook, ProvisionedError if
        the configuration file has it, and SettingsError.
        """
        return _whole(self._change(id, change))

    async def _change(self, name: str, change: Callable[[config.Webhook], config.Webhook]) -> None:
        async with self._lock(name):
            old = the(name, self._webhooks)
            new = change(old)
            self._see_that_it_is_ours(name)
            if new == old:
                return
            # What cannot be sent to can be paused all the same, or have another name.
            bare = name in self._unmade and receiver(new) == receiver(old)
            self._check(new, old, with_transport=not bare)
            kept = await self._put(new, same_receiver=receiver(new) == receiver(old))
            if self._closed or name not in self._webhooks:
                return
            disabled = name in self._disabled
            _ = self.replace(_without_secret(new), kept.secrets, kept.trouble if disabled else None)
            self._log.info("Webhook {webhook} was changed", webhook=name)
            if disabled:
                await self._enable_in_store(name)

    async def _enable_in_store(self, name: str) -> None:
        """It is enabled by a change; its former receiver may have disabled it while that was kept."""
        await self._store.enable_webhook(name)

    def _not_enabled(self, failure: Failure, name: str) -> None:
        self._log.error(
            "That webhook {webhook} is enabled again was not stored: {error}",
            webhook=name,
            error=str(failure.value),
        )

    def delete(
        self, id: str, check: Callable[[config.Webhook], None] = lambda webhook: None
    ) -> Deferred[None]:
        """
        Have a webhook no more: what is pending for it fails, what happened stays in the store.

        What `check` raises of it is raised, and then nothing is done.  Attempts under way come to their ends.
        Fails with MissingError if there is no such webhook, ProvisionedError if the configuration file has
        it.
        """
        return _whole(self._delete(id, check))

    async def _delete(self, name: str, check: Callable[[config.Webhook], None]) -> None:
        async with self._lock(name):
            check(the(name, self._webhooks))
            self._see_that_it_is_ours(name)
            await self._store.delete_webhook(name)
            if not self._closed:
                self._removed(name)

    def _removed(self, name: str) -> None:
        removed = self.remove(name)
        self._log.info("Webhook {webhook} was removed", webhook=name)
        _ = removed.addCallback(lambda _: _whole(self._bury(name))).addErrback(self._not_buried)

    async def _bury(self, name: str) -> None:
        if name not in self._webhooks:
            self._gone(name)
        if not self._closed:
            await self._store.fail_orphans()

    def _not_buried(self, failure: Failure) -> None:
        # The next sweep does it.
        self._log.error(
            "What was pending for a removed webhook was not closed yet: {error}", error=str(failure.value)
        )

    def check(self, webhook: config.Webhook, before: config.Webhook | None = None) -> None:
        """
        SettingsError unless `webhook` can be used.

        Cubes that it named `before` need not be there any more.
        """
        self._check(webhook, before)

    def _check(
        self, webhook: config.Webhook, before: config.Webhook | None, *, with_transport: bool = True
    ) -> None:
        def of_transport(each: config.Webhook) -> list[tuple[str, str]]:
            return check_webhook(each, self._plugins) if with_transport else []

        cubes = {*self._cubes(), *(before.cubes if before else ())}
        problems = webhook_problems(webhook, cubes, of_transport)
        if not problems and with_transport:
            try:
                # What a file that it names lacks shows only now.
                self._transport(webhook, (webhook.secret or new_secret(os.urandom),))
            except ValueError as error:
                problems = {"transport": str(error)}
        if problems:
            raise SettingsError(problems)

    async def _put(self, webhook: config.Webhook, same_receiver: bool = False) -> KeptWebhook:
        overlap = self._settings.delivery.secret_overlap
        return await self._store.put_webhook(
            webhook, at=self._now(), overlap=overlap, same_receiver=same_receiver
        )

    def _lock(self, webhook: str) -> DeferredLock:
        return self._locks.setdefault(webhook, DeferredLock())

    def _see_that_it_is_ours(self, webhook: str) -> None:
        if webhook in self.provisioned:
            raise ProvisionedError(in_the_file("webhooks", webhook))

    # Trying out

    def try_out(self, webhook: config.Webhook, state: CallState) -> Deferred[Attempt]:
        """
        Send `webhook` a sample event now, whether or not there is such a webhook, and tell how that went.

        It is signed as the webhook of its id is, if there is one and `webhook` has no secret.  Nothing of it
        is kept.  SettingsError if it cannot be used.
        """
        self.check(webhook, self._webhooks.get(webhook.id))
        trying: Deferred[Attempt] = self._tries.run(
            lambda: Deferred.fromCoroutine(self._try_out(webhook, state))
        )
        self._trying.add(trying)

        def over(result: T) -> T:
            self._trying.discard(trying)
            return result

        return trying.addBoth(over)

    async def _try_out(self, webhook: config.Webhook, state: CallState) -> Attempt:
        now = self._now()
        if webhook.secret is not None:
            signing: tuple[str, ...] = (webhook.secret,)
        elif webhook.id in self._secrets:
            signing = self._secrets[webhook.id].active(now)
        else:
            signing = (new_secret(os.urandom),)
        return await try_out(
            webhook,
            self._transport(webhook, signing),
            sample(webhook, state, self._next_id(now), now),
            webhook.timeout or self._settings.delivery.timeout,
            self._now,
            self._reactor,
        )

    # Disabled and enabled

    def was_disabled(self, webhook: str, reason: str) -> None:
        """The dispatcher has disabled it, and the store been told."""
        self._disabled[webhook] = reason

    def enable(self, webhook: str) -> Deferred[None]:
        """
        Send again to one that was disabled while in use, or whose transport can be made by now.

        Nothing happens to others.  What was disabled is tried with one delivery before the rest.  Fails with
        MissingError if there is no such webhook, ProvisionedError or RefusedError if its settings disable it,
        RefusedError if its transport cannot be made.
        """
        return _whole(self._enable(webhook))

    async def _enable(self, name: str) -> None:
        if not the(name, self._webhooks).enabled:
            if name not in self.provisioned:
                raise RefusedError(f"webhook {name} is disabled by its settings: set its `enabled`")
            raise ProvisionedError(
                f"webhook {name} is disabled by its settings: set webhooks.{name}.enabled in the "
                "configuration file, and run `cubehook reload`"
            )
        if name not in self._disabled and name not in self._unmade:
            return
        try:
            self._transport(self._webhooks[name], self._secrets[name].active(self._now()))
        except ValueError as error:
            raise RefusedError(str(error)) from None
        trouble = await self._store.enable_webhook(name)
        if self._closed or name not in self._webhooks:
            return
        _ = self._deliver_to(self._webhooks[name], self._secrets[name], trouble)
        self._disabled.pop(name, None)
        self._changed()
        self._log.info("Webhook {webhook} is enabled again", webhook=name)

    # Secrets

    def rotate_secret(self, webhook: str) -> Deferred[tuple[str, Micros | None]]:
        """
        Give a webhook a new signing secret: that, and until when the former signs beside it (None: no more).

        Nobody can be told the secret again.  Fails as `Store.rotate_secret`.
        """
        return _whole(self._rotate(webhook))

    async def _rotate(self, name: str) -> tuple[str, Micros | None]:
        now = self._now()
        overlap = self._settings.delivery.secret_overlap
        secrets = await self._store.rotate_secret(name, now, overlap)
        until = secrets.former[0].until if secrets.former else None
        self._log.info(
            "Webhook {webhook} has a new signing secret; {former}",
            webhook=name,
            former="no former one signs" if until is None else f"the former signs too until {iso(until)}",
        )
        if not self._closed and name in self._webhooks:
            self._secrets[name] = secrets
            self._sign(name)
            self._set_alarm()
        return secrets.current, until

    def _look_at_overlaps(self) -> None:
        now = self._now()
        for name, secrets in self._secrets.items():
            signed, signing = self._signing[name], secrets.active(now)
            if signing != signed:
                self._sign(name)
            if len(signing) < len(signed):
                self._log.info("Webhook {webhook}: a former signing secret signs no more", webhook=name)
        self._set_alarm()

    def _set_alarm(self) -> None:
        now = self._now()
        ends = [end for each in self._secrets.values() if (end := each.next_end(now)) is not None]
        if ends:
            self._alarm.at(min(*ends, now + LOOK_AGAIN))

    def _sign(self, name: str) -> None:
        """Let a webhook's deliveries be signed with what signs now."""
        webhook = self._webhooks[name]
        if name in self._disabled:
            webhook = msgspec.structs.replace(webhook, enabled=False)
        try:
            _ = self._deliver_to(webhook, self._secrets[name])
        except ValueError as error:
            # It could be made before: a file that it needs is gone, for instance.
            self._log.error("{error}; it is delivered to as before until that is mended", error=str(error))

    # Transports

    def _deliver_to(
        self, webhook: config.Webhook, secrets: SigningSecrets, trouble: Trouble | None = None
    ) -> Deferred[None]:
        signing = secrets.active(self._now())
        make = self._transport_or_none if webhook.id in self._unmade else self._transport
        replaced = self._dispatcher.replace(webhook, make(webhook, signing), trouble=trouble)
        self._signing[webhook.id] = signing
        return replaced

    def _transport_or_none(self, webhook: config.Webhook, signing: tuple[str, ...]) -> ITransport:
        """A webhook's transport, or what stands in for it."""
        self._unmade.discard(webhook.id)
        try:
            return self._transport(webhook, signing)
        except ValueError as error:
            self._unmade.add(webhook.id)
            return Unmade(str(error).removeprefix(f"webhook {webhook.id}: "))

    def _transport(self, webhook: config.Webhook, signing: tuple[str, ...]) -> ITransport:
        return self._maker.make(webhook, signing)


def _without_secret(webhook: config.Webhook) -> config.Webhook:
    return msgspec.structs.replace(webhook, secret=None)


def _whole(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Fires with what `work` returns, which goes on if that is cancelled: a client may leave at any time."""
    told: Deferred[T] = Deferred()
    _ = Deferred.fromCoroutine(work).addCallbacks(told.callback, told.errback)
    return told
