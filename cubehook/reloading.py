"""
Reads the configuration again while the service runs, and lets what differs hold.

A file that cannot be used changes nothing.  What has been understood is first put into the store, with the
ports that it needs open; what follows cannot fail for a reason that the file is to blame for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from cubehook import config
from cubehook.changes import ReloadError, SettingsError
from cubehook.config_reader import ConfigErrors, load
from cubehook.cubes import Cubes
from cubehook.events import Micros
from cubehook.listeners import ListenError, Listeners
from cubehook.settings_plan import Plan, Reloaded, plan
from cubehook.store.errors import StoreError
from cubehook.store.store import Store
from cubehook.text import printable
from cubehook.webhooks import Webhooks

NOT_CHANGED = "nothing was changed"

SETTLED = 1.0
"""Seconds without a change after which a file counts as written to its end."""

LOOK_SECONDS = 0.1
"""One that was written later is looked at again after so many."""

LOOKS = 50
"""A file that differs every time for so many times is not used."""


class Watcher(Protocol):
    """Is told of each time that the configuration is read again; must be quick, and not raise."""

    def reloading(self) -> None:
        """It is about to be read."""

    def reloaded(self) -> None:
        """What was read holds, or nothing was changed."""


class Reloader:
    """
    Reads the file of `settings` again, those that hold at first, from `begin` to `close`.

    `adopt` is given what the rooms that are not told here are to go by, and tells what they warn of.
    `count` hears how each time went: `changed`, `unchanged`, `refused`, `failed`.
    """

    _log = Logger()

    def __init__(
        self,
        settings: config.Config,
        now: Callable[[], Micros],
        reactor: IReactorTime,
        *,
        cubes: Cubes,
        webhooks: Webhooks,
        store: Store,
        listeners: Listeners,
        adopt: Callable[[Plan], Sequence[str]],
        count: Callable[[str], None],
        read: Callable[[Path], Deferred[config.Config]] = lambda path: deferToThread(load, path),
    ) -> None:
        self._file = settings.source
        self._now = now
        self._reactor = reactor
        self._cubes = cubes
        self._webhooks = webhooks
        self._store = store
        self._listeners = listeners
        self._adopt = adopt
        self._count = count
        self._read = read
        self._lock = DeferredLock()
        # Until `begin`, nobody's turn comes.
        _ = self._lock.acquire()
        self._begun = self._closed = False
        self.watchers: list[Watcher] = []
        self.loaded_at = now()
        """When what holds was read."""
        self.succeeded = True
        """Whether the file could be used the last time."""

    @property
    def asked(self) -> bool:
        """Whether somebody waits already for a reading that is not yet begun."""
        return bool(self._lock.waiting)

    def begin(self) -> None:
        """What `settings` say holds: it can be changed."""
        if not self._begun:
            self._begun = True
            self._lock.release()

    def close(self) -> None:
        """Read nothing more."""
        self._closed = True
        self.begin()

    def reload(self) -> Deferred[Reloaded]:
        """
        Read the file again, after whoever asked for that before; what has changed.

        Goes on if nobody waits for it.  Fails with ReloadError if the file cannot be used, with StoreError if
        the store cannot be written: nothing is changed then.
        """
        told: Deferred[Reloaded] = Deferred()
        _ = Deferred.fromCoroutine(self._in_turn()).addCallbacks(told.callback, told.errback)
        return told

    async def _in_turn(self) -> Reloaded:
        async with self._lock:
            if self._closed:
                raise ReloadError(f"The service is stopping; {NOT_CHANGED}")
            for watcher in self.watchers:
                watcher.reloading()
            try:
                done = await self._reload()
            except (ReloadError, StoreError) as error:
                self._refused(error)
                raise
            except Exception:
                self._count("failed")
                self._log.failure("The configuration could not be read again, or not wholly be let hold")
                raise
            finally:
                self._tell_over()
        self._done(done)
        return done

    def _tell_over(self) -> None:
        # Who stops is not ready again.
        if not self._closed:
            for watcher in self.watchers:
                watcher.reloaded()

    def _refused(self, error: Exception) -> None:
        self.succeeded = False
        self._count("refused")
        for line in str(error).splitlines():
            self._log.error("Not reloaded: {line}", line=line.strip())

    def _done(self, done: Reloaded) -> None:
        self.succeeded = True
        self.loaded_at = self._now()
        self._count("changed" if done.changed else "unchanged")
        words = done.words() or ["nothing has changed"]
        self._log.info("{file} was reloaded: {words}", file=done.file, words="; ".join(words))
        for line in done.warning_words():
            self._log.warn("{file}: {words}", file=done.file, words=line)

    async def _reload(self) -> Reloaded:
        wanted = await self._wanted()
        ids = [webhook.id for webhook in wanted.webhooks]
        try:
            async with self._cubes.held(wanted.cubes), self._webhooks.held(ids):
                return await self._carry_out(plan(self._webhooks.settings, wanted))
        except SettingsError as error:
            raise ReloadError(f"{self._file}: {NOT_CHANGED}, as it cannot be used", error.problems) from None

    async def _wanted(self) -> config.Config:
        if self._file is None:
            raise ReloadError(
                f"The service was started without a configuration file, so there is none to read again; "
                f"{NOT_CHANGED}"
            )
        try:
            return await self._settled(self._file)
        except ConfigErrors as errors:
            problems: dict[str, str] = {}
            for problem in errors.problems:
                words = f"expected {problem.expected}; found {problem.found}"
                key = problem.key or "file"
                problems[key] = f"{problems[key]}; {words}" if key in problems else words
            count = len(errors.problems)
            mistakes = f"{count} error{'s' if count != 1 else ''}"
            file = printable(str(errors.path))
            raise ReloadError(f"{file} has {mistakes}; {NOT_CHANGED}", problems) from None

    async def _settled(self, file: Path) -> config.Config:
        """
        What is in the file once nobody is writing to it.

        Whoever saves a file often empties it first: for a moment it has half of what is meant, or nothing.
        """
        seen = _look(file)
        if seen is not None and abs(time.time() - seen.st_mtime) < SETTLED:
            await deferLater(self._reactor, LOOK_SECONDS)
        for _ in range(LOOKS):
            before, seen = seen, _look(file)
            if _same(before, seen):
                found: config.Config | ConfigErrors
                try:
                    found = await self._read(file)
                except ConfigErrors as errors:
                    found = errors
                before, seen = seen, _look(file)
                if _same(before, seen):
                    if isinstance(found, ConfigErrors):
                        raise found
                    if seen is not None and not seen.st_size:
                        raise ReloadError(f"{file} is empty; {NOT_CHANGED}")
                    return found
            await deferLater(self._reactor, LOOK_SECONDS)
        raise ReloadError(f"{file} is being written to all the time; {NOT_CHANGED}")

    async def _carry_out(self, plan: Plan) -> Reloaded:
        if self._closed:
            raise ReloadError(f"The service is stopping; {NOT_CHANGED}")
        settings, webhooks, store = plan.settings, self._webhooks, self._store
        webhooks.check_provided(settings, {*plan.webhooks.added, *plan.webhooks.changed}, plan.keys)
        provisions = bool(plan.cubes or plan.webhooks)
        if provisions and store.degraded:
            raise ReloadError(f"The database cannot be written at the moment; {NOT_CHANGED}")
        if plan.webhooks.added:
            # What is pending for one of that id that is no more was not meant for this one.
            await store.fail_orphans()
        if plan.listen:
            await self._listen(settings.listen)
        provisioned = None
        if provisions:
            at, overlap = self._now(), settings.delivery.secret_overlap
            try:
                provisioned = await store.provision_again(
                    settings.cubes, settings.webhooks, at=at, overlap=overlap
                )
            except StoreError:
                if plan.listen:
                    await self._listen(webhooks.settings.listen)
                raise
        if self._closed:
            raise ReloadError("The service is stopping; what was changed holds when it is started again")
        warnings = self._adopt(plan)
        webhooks.provide(settings, plan.keys, provisioned if plan.webhooks else None)
        if plan.cubes:
            await self._cubes.provide(settings.cubes)
        return plan.told(warnings)

    async def _listen(self, listen: config.Listen) -> None:
        try:
            await self._listeners.change(listen)
        except ListenError as error:
            raise ReloadError(
                f"{self._file}: {NOT_CHANGED}, as a port cannot be opened", {error.key: str(error)}
            ) from None


def _look(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        # Reading it will say why.
        return None


def _same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    """Whether nobody has written to a file between two looks at it."""
    if one is None or other is None:
        return one is other
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (other.st_ino, other.st_size, other.st_mtime_ns)
