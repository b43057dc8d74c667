"""The store as other rooms see it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, update
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook.config import Cube, Retention, Webhook
from cubehook.events import Call, Event, Micros
from cubehook.ids import first_id, id_text
from cubehook.interfaces import IDeliveryStore, IJournal, StoreFullError
from cubehook.records import Attempt, Delivery, Notification, Registration, Trouble
from cubehook.rotation import SigningSecrets
from cubehook.store import migrate, queries, sealing, sqlite, stats, sweeping
from cubehook.store.access import Access
from cubehook.store.errors import StoreClosedError, StoreError
from cubehook.store.jobs import Jobs
from cubehook.store.provisioning import (
    KeptWebhook,
    Provisioned,
    delete_cube,
    delete_webhook,
    enable,
    fail_orphans,
    provision,
    put_cube,
    put_webhook,
    rotate,
)
from cubehook.store.reader import Reader
from cubehook.store.replay import Told, event_named, events_after
from cubehook.store.rows import Accepted, Item, Job, Recorded, Registered
from cubehook.store.schema import webhooks as webhooks_table
from cubehook.store.sweeping import Swept
from cubehook.store.writer import IReactor, Writer

PACE = 0.01
"""Seconds between commits under load; see `docs/decisions/0001-group-commit.md`."""

MAX_HELD_ITEMS = 200_000
MAX_HELD_BYTES = 256 * 1024 * 1024

READERS = 2

_CLOSE_PATIENCE = 10.0

_SWEEP_ROWS = 500
_SWEEP_NUMBERS = 2_000
_SWEEP_PAUSE = 0.02

_HASTEN_ROWS = 1_000

_ORPHAN_LANES = 500
_ORPHAN_CHUNKS_AT_START = 10

T = TypeVar("T")


def _ignore(*_: object) -> None:
    pass


@implementer(IJournal, IDeliveryStore)
class Store:
    """
    Calls, notifications, events, deliveries and attempts, kept in one SQLite file.

    What webhooks keep secret is sealed with the key file beside it (`cubehook.store.sealing`).
    Nothing is opened before `open`.  `on_degraded` hears when commits begin to fail, with the
    reason, and when they succeed again; `on_commit` how many seconds each took.  `pace`,
    `max_held_items` and `max_held_bytes` are the writer's: see `cubehook.store.writer.Writer`.
    """

    _log = Logger()

    def __init__(
        self,
        path: Path,
        reactor: IReactor,
        *,
        on_degraded: Callable[[bool, str], None] = _ignore,
        on_commit: Callable[[float], None] = _ignore,
        random_bytes: Callable[[int], bytes] = os.urandom,
        now: Callable[[], Micros] = lambda: time_ns() // 1000,
        pace: float = PACE,
        max_held_items: int = MAX_HELD_ITEMS,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._path = path
        self._reactor = reactor
        self._random_bytes = random_bytes
        self._now = now
        self._lock = sqlite.Lock(path)
        self._engine = sqlite.writer_engine(path)
        self._reader = Reader(sqlite.reader_engine(path, READERS), reactor, READERS)
        self._writer = Writer(
            self._engine,
            reactor,
            on_degraded=on_degraded,
            on_commit=on_commit,
            pace=pace,
            max_items=max_held_items,
            max_bytes=max_held_bytes,
            whereabouts=partial(sqlite.whereabouts, path),
        )
        self._sealer: sealing.Sealer | None = None
        self._begun = False
        self._open = False
        self.jobs = Jobs(self.read, self._do)
        """What is sent again, and how far that is: an `IJobStore`."""
        self.access = Access(self.read, self._do, reactor)
        """Who may use the API and the console, and the record of what they changed."""
        self.attempts_dropped = 0
        """Attempts whose log was given up because memory was full; their outcome was kept."""

    async def open(self) -> None:
        """
        Create or migrate the database and begin to write.

        Raises StoreError: the folder cannot be written, the file is not ours or of a newer
        version, another process has it open, or the key file is missing or that of another database.
        """
        self._begun = True
        await self._writer.start(self._prepare)
        self._reader.start()
        self._open = True

    def _prepare(self) -> None:
        folder = self._path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise StoreError(
                f"the state folder {folder} cannot be used: {error.strerror}; "
                "make it writable for this user, or set another state_dir"
            ) from error
        try:
            migrate.prepare(self._engine, self._path, self._now())
            self._sealer = sealing.unlock(self._engine, self._path)
        except BaseException as error:
            self._lock.release()
            if sqlite.is_trouble(error):
                raise StoreError(f"{self._path} cannot be opened: {sqlite.advice(error)}") from error
            raise

    async def close(self) -> None:
        """
        Commit what is held and close.

        While the database cannot be written this is tried for ten seconds; then what is held
        is given up, counted in the log, and fails with StoreClosedError.  Nothing happens to
        a store that is not open; one that is just opening is closed.
        """
        self._open = False
        if not self._begun:
            return
        self._begun = False
        await self._reader.stop()
        await self._writer.stop(_CLOSE_PATIENCE)
        self._lock.release()

    @property
    def degraded(self) -> bool:
        """Commits are failing or have taken over two seconds; work is held in memory."""
        return self._writer.degraded

    def stuck(self) -> str:
        """What is wrong with the writing in a way that only a new process mends, in words; else empty."""
        return self._writer.stuck(monotonic())

    @property
    def full(self) -> bool:
        """Memory holds as much as it may; `accept` would refuse."""
        return self._writer.full

    @property
    def held_items(self) -> int:
        """Items handed in and not yet committed."""
        return self._writer.held_items

    @property
    def held_bytes(self) -> int:
        """About how much memory they take."""
        return self._writer.held_bytes

    # The journal.

    def accept(
        self,
        notification: Notification | None,
        calls: Sequence[Call],
        events: Sequence[Event],
        deliveries: Sequence[Delivery],
    ) -> Deferred[None]:
        """See `IJournal.accept`."""
        if self._writer.full:
            return fail(
                StoreFullError(
                    f"{self._writer.held_items} items wait in memory until the database can be written"
                )
            )
        try:
            item = Accepted(notification, calls, events, deliveries)
        except Exception:
            return fail(Failure())
        return self._put(item)

    def registration(self, registration: Registration) -> Deferred[None]:
        """See `IJournal.registration`."""
        return self._put(Registered(registration))

    # Deliveries.

    def record(self, attempt: Attempt | None, delivery: Delivery) -> Deferred[None]:
        """
        See `IDeliveryStore.record`.

        While memory is full only how the delivery stands is kept, not the attempt's log.  That is
        little, and there is an end to it: the dispatcher finds nothing new to try meanwhile.
        """
        if self._writer.full and attempt is not None:
            attempt = None
            if not self.attempts_dropped % 1000:
                self._log.critical(
                    "Memory is full and the database cannot be written: the logs of attempts are dropped, "
                    "{count} so far; how deliveries stand is kept",
                    count=self.attempts_dropped + 1,
                )
            self.attempts_dropped += 1
        try:
            item = Recorded(attempt, delivery)
        except Exception:
            return fail(Failure())
        return self._put(item)

    async def pending(self, webhook: str, now: Micros, exclude: Sequence[int], limit: int) -> list[Delivery]:
        """See `IDeliveryStore.pending`; raises StoreError if the database cannot be read."""
        if self._writer.held_items:
            await self._put(Item())
        return await self._reader.run(
            partial(queries.pending, webhook=webhook, now=now, exclude=exclude, limit=limit)
        )

    async def next_due(self, webhook: str, after: Micros) -> Micros | None:
        """See `IDeliveryStore.next_due`; raises StoreError if the database cannot be read."""
        return await self._reader.run(partial(queries.next_due, webhook=webhook, after=after))

    async def disable_webhook(self, webhook: str, reason: str, at: Micros) -> None:
        """See `IDeliveryStore.disable_webhook`; returns when that is committed."""
        await self._do(
            lambda connection: connection.execute(
                update(webhooks_table)
                .where(webhooks_table.c.id == webhook)
                .values(disabled_reason=reason, disabled_at=at)
            )
        )

    async def enable_webhook(self, webhook: str) -> Trouble | None:
        """
        Forget that the webhook was disabled; returns when that is committed.

        What is returned is how it was held back then, which `save_trouble` kept.
        """
        return await self._do(partial(enable, id=webhook))

    async def save_trouble(self, webhook: str, trouble: Trouble | None) -> None:
        """See `IDeliveryStore.save_trouble`; returns when that is committed."""
        told = None if trouble is None else msgspec.json.encode(trouble).decode()
        await self._do(
            lambda connection: connection.execute(
                update(webhooks_table).where(webhooks_table.c.id == webhook).values(trouble=told)
            )
        )

    async def clock_set_back(self, webhooks: Collection[str], by: Micros, now: Micros) -> None:
        """
        Let what is pending for `webhooks` be due `by` microseconds earlier, if it is due after `now` only.

        The clock was set back by so much, or would let it wait for that long.
        """
        for webhook in webhooks:
            after: int | None = 0
            while after is not None:
                work = partial(
                    queries.hasten, webhook=webhook, after=after, most=_HASTEN_ROWS, by=by, now=now
                )
                after = await self._do(work)
                await self._pause()

    async def settle(self, delivery: int, status: str) -> None:
        """See `IDeliveryStore.settle`; returns when that is committed."""
        await self._do(partial(queries.settle, delivery=delivery, status=status))

    # Starting, and keeping house.

    async def provision(
        self, cubes: Sequence[Cube], webhooks: Sequence[Webhook], *, at: Micros, overlap: float
    ) -> Provisioned:
        """
        Put the configuration file's cubes and webhooks in; all that there are then.

        Those of an earlier file that are missing now are removed.  A webhook without a secret
        is given one, and keeps it; also the last one of the file, if that gives none any more.  A secret
        that is changed goes on signing for `overlap` seconds from `at`.  One that its receiver disabled
        stays so until its settings change.  Pending deliveries of webhooks that are no more become
        failed: here as far as that is quickly done, the rest by `sweep`.
        """
        provisioned = await self.provision_again(cubes, webhooks, at=at, overlap=overlap)
        for _ in range(_ORPHAN_CHUNKS_AT_START):
            if not await self._do(partial(fail_orphans, lanes=_ORPHAN_LANES)):
                break
        return provisioned

    async def provision_again(
        self, cubes: Sequence[Cube], webhooks: Sequence[Webhook], *, at: Micros, overlap: float
    ) -> Provisioned:
        """
        As `provision`, while the service runs: in one transaction.

        What is pending for webhooks that are no more is left to `fail_orphans`.
        """
        return await self._do(
            partial(
                provision,
                wanted_cubes=cubes,
                wanted_webhooks=webhooks,
                sealer=self._unlocked(),
                random_bytes=self._random_bytes,
                at=at,
                overlap=overlap,
            )
        )

    async def put_cube(self, cube: Cube) -> None:
        """
        Keep a cube that the configuration file does not know, new or changed; returns when that is committed.

        Raises ProvisionedError if the file has it.
        """
        await self._do(partial(put_cube, cube=cube))

    async def delete_cube(self, cube: str) -> None:
        """
        Forget a cube; its history stays.

        Raises MissingError if there is no such cube, ProvisionedError if the configuration file has it.
        """
        await self._do(partial(delete_cube, id=cube))

    async def put_webhook(
        self, webhook: Webhook, *, at: Micros, overlap: float, same_receiver: bool = False
    ) -> KeptWebhook:
        """
        Keep a webhook that the configuration file does not know, new or changed.

        It keeps its secret, or is given one, unless it has a new one; a former one goes on signing for
        `overlap` seconds from `at`.  It is enabled if its receiver disabled it; what trouble it had is
        forgotten unless it is sent to the `same_receiver`.  Raises ProvisionedError if the file has it.
        """
        return await self._do(
            partial(
                put_webhook,
                webhook=webhook,
                sealer=self._unlocked(),
                random_bytes=self._random_bytes,
                at=at,
                overlap=overlap,
                same_receiver=same_receiver,
            )
        )

    async def delete_webhook(self, webhook: str) -> None:
        """
        Forget a webhook; its history stays, and `fail_orphans` closes what is pending for it.

        Raises MissingError if there is no such webhook, ProvisionedError if the configuration file has it.
        """
        await self._do(partial(delete_webhook, id=webhook))

    async def fail_orphans(self) -> None:
        """Close as failed what is pending for webhooks that are no more."""
        while await self._do(partial(fail_orphans, lanes=_ORPHAN_LANES)):
            await self._pause()

    async def rotate_secret(self, webhook: str, at: Micros, overlap: float) -> SigningSecrets:
        """
        Give `webhook` a new signing secret; what it signs with from `at` on, the new one being `current`.

        The former goes on signing for `overlap` seconds, and none of those before it longer than that.
        Raises MissingError if there is no such webhook, ProvisionedError if the configuration file gives its
        secret.
        """
        return await self._do(
            partial(
                rotate,
                id=webhook,
                sealer=self._unlocked(),
                random_bytes=self._random_bytes,
                at=at,
                overlap=overlap,
            )
        )

    def _unlocked(self) -> sealing.Sealer:
        if self._sealer is None:
            raise StoreClosedError("the store is not open")
        return self._sealer

    async def open_calls(self) -> list[Call]:
        """Every call that has not ended, oldest first; one that cannot be read back is left out, loudly."""
        calls, unreadable = await self._reader.run(queries.open_calls)
        for id, why in unreadable.items():
            self._log.error(
                "The open call {call} in the database cannot be read back and will not be told of: {why}",
                call=id_text(id),
                why=why,
            )
        return calls

    async def ended_calls(self, since: Micros, most: int) -> list[Call]:
        """
        The last `most` calls of all cubes that ended at `since` or later, in the order they ended.

        One that cannot be read back is left out, loudly.
        """
        calls, unreadable = await self._reader.run(partial(queries.ended_calls, since=since, most=most))
        for id, why in unreadable.items():
            self._log.error(
                "The call {call} in the database cannot be read back; what still comes of it may be taken "
                "for a new call: {why}",
                call=id_text(id),
                why=why,
            )
        return calls

    async def pending_counts(self) -> dict[str, int]:
        """How many deliveries are pending, by webhook; of those without any nothing is said."""
        return await self._reader.run(queries.pending_counts)

    async def oldest_pending(self, webhooks: Collection[str]) -> dict[str, Micros]:
        """
        When the event of the oldest pending delivery of each of `webhooks` happened.

        Nothing is said of those that have none; deliveries that were asked for again do not count.
        """
        return await self._reader.run(partial(queries.oldest_pending, webhooks=webhooks))

    async def registrations(self) -> list[Registration]:
        """How each cube's registration stood last."""
        return await self._reader.run(queries.all_registrations)

    async def greatest_id(self) -> int:
        """The greatest id in use, 0 if there is none."""
        return await self._reader.run(queries.greatest_id)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """
        What `work` returns, run in a reading thread; all it reads is of one moment.

        Raises StoreError if the database cannot be read.
        """
        return await self._reader.run(work)

    async def caught_up(self) -> None:
        """Return once all that was handed in so far is committed, and so can be read."""
        if self._writer.held_items:
            await self._put(Item())

    async def events_after(self, after: int, most: int) -> list[Told]:
        """The `most` oldest events, notices too, whose ids are greater than `after`."""
        return await self._reader.run(partial(events_after, after=after, most=most))

    async def event_named(self, call: int, event_id: str) -> int | None:
        """The id of the call's event whose public id is `event_id`; None if it is not kept."""
        return await self._reader.run(partial(event_named, call=call, event_id=event_id))

    async def sample(self, minute: int, active: Mapping[str, int]) -> None:
        """
        Keep how many calls of every cube are in progress in a minute since the epoch, for `statistics`.

        Of several samples of one minute the greatest stays.
        """
        await self._do(partial(stats.keep_sample, minute=minute, active=active))

    async def sweep(self, retention: Retention, now: Micros) -> Swept:
        """
        Delete what `retention` no longer keeps at `now`; how much went.

        Works in short transactions with pauses, so that commits hardly notice.
        """
        await self.fail_orphans()
        counts: dict[str, int] = {}
        for part in sweeping.ranges(retention, now):
            counts[part.table.name] = 0
            after: int | None = 0
            while after is not None:
                gone, after = await self._do(
                    partial(sweeping.sweep_chunk, range_=part, after=after, rows=_SWEEP_ROWS)
                )
                counts[part.table.name] += gone
                await self._pause()
        before = now - retention.calls * 1_000_000
        if counts["calls"]:
            counts["numbers"] = await self._sweep_numbers(before)
        counts["samples"] = 0
        while gone := await self._do(partial(sweeping.sweep_samples_chunk, before=before)):
            counts["samples"] += gone
            await self._pause()
        counts["hourly"] = await self._do(partial(sweeping.sweep_hourly, retention=retention, now=now))
        counts["sessions"] = await self._do(partial(sweeping.sweep_sessions, now=now))
        changes = await self._do(partial(sweeping.sweep_registration_changes, before=before))
        return Swept(**counts, registration_changes=changes)

    async def _sweep_numbers(self, before: Micros) -> int:
        count = 0
        after: tuple[str, int] | None = ("", 0)
        while after is not None:
            gone, after = await self._do(
                partial(
                    sweeping.sweep_numbers_chunk,
                    before=first_id(max(0, before)),
                    after=after,
                    rows=_SWEEP_NUMBERS,
                )
            )
            count += gone
            await self._pause()
        return count

    async def _pause(self) -> None:
        await deferLater(self._reactor, _SWEEP_PAUSE, _ignore)

    def _put(self, item: Item) -> Deferred[Any]:
        if not self._open:
            return fail(StoreClosedError("the store is not open"))
        self._writer.put(item)
        return item.done

    async def _do(self, work: Callable[[Connection], T]) -> T:
        result: T = await self._put(Job(work))
        return result
