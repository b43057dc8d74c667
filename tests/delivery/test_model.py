"""
The promises, kept under whatever receivers, disks and stops may do.

Each example is a small world on a fake clock: calls happen, receivers answer this or that, the store
is slow or away, people have things sent again, and the service is stopped or killed and started again
over what it had committed.
Judges stand at the receivers' doors and object the moment a promise is broken.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cubehook import config
from cubehook.delivery.redelivery import Redelivery
from cubehook.events import CallState, Micros
from cubehook.ids import Ids, first_id
from cubehook.interfaces import DeliveryPendingError, ITransport, Outbound, Sent
from cubehook.records import Attempt, Delivery, DeliveryStatus, Job, JobState
from tests.delivery.fakes import BASE, FAILED, OK, PERMANENT, Desk, MemoryStore, held, webhook
from tests.delivery.memory_jobs import MemoryJobs

RETRY = (0.5, 2.0, 7.0, 20.0)
BREAKER = config.Breaker(failures=3, share=0.6, minimum=5, window=10.0, first=0.5, longest=6.0)
TIMEOUT = 3.0
STEP = 0.05
OVER = (DeliveryStatus.DELIVERED, DeliveryStatus.FAILED, DeliveryStatus.EXPIRED)
COMMIT_WAIT = 2.0
LONG_ENOUGH = 4000.0


class BrokenPromiseError(Exception):
    """A promise was not kept."""


class World:
    """Everything that outlives one life of the service, and the judges' memory."""

    def __init__(self, random: Random, *, hooks: int, window: int, concurrency: int, slow_disk: bool) -> None:
        self.random = random
        self.clock = Clock()
        latency: Callable[[], float] = (lambda: random.choice((0.0, 0.01, 0.1, 0.4))) if slow_disk else float
        self.store = MemoryStore(self.clock, latency)
        self.ids = Ids(lambda bits: 0)
        self.window = window
        self.concurrency = concurrency
        self.hooks = [f"hook{number}" for number in range(hooks)]
        self.dead_until = {hook: random.choice((0.0, 0.0, 15.0, 60.0)) for hook in self.hooks}
        self.expire = random.choice(({}, {CallState.ALERTING: 4.0}))
        self.made: list[Delivery] = []
        self.known: dict[tuple[str, str], Delivery] = {}
        """What was made, by webhook and event."""
        self.sends: Counter[int] = Counter()
        """How often each delivery was sent."""
        self.jobs = Jobs(self)
        self.outage = False
        self.life: Life | None = None

    def webhook(self, id: str) -> config.Webhook:
        return webhook(
            id,
            concurrency=self.concurrency,
            retry=RETRY,
            jitter=0.1,
            timeout=TIMEOUT,
            breaker=BREAKER,
            expire=self.expire,
        )

    def born(self) -> Life:
        self.life = Life(self)
        return self.life


class Jobs(MemoryJobs):
    """The store's part in sending again, with the judges' memory of it."""

    def __init__(self, world: World) -> None:
        super().__init__(world.store, rows=world.random.choice((1, 3, 50)))
        self.world = world
        self.webhooks = set(world.hooks)
        self.last: dict[int, tuple[int, int]] = {}
        """Of each delivery sent again: the job that last asked for it, and how often it was sent by then."""
        self.meant: dict[int, tuple[set[int], int]] = {}
        """The deliveries that each job meant when it was kept, and how many had been handed over then."""

    def _add(self, job: Job) -> None:
        super()._add(job)
        meant = {row.id for row in self._meant(job, first_id(job.since) - 1) if row.status in job.statuses}
        self.meant[job.id] = meant, len(self.handed)

    def _again(self, id: int, now: Micros, job: int) -> Delivery:
        again = super()._again(id, now, job)
        self.last[id] = (job, self.world.sends[id])
        assert self.world.life is not None
        self.world.life.settled.discard((again.webhook, again.event.payload.event_id))
        return again


class Life:
    """One life of the service: from a start until it stops or is killed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive = True
        self.settled: set[tuple[str, str]] = set()
        """(webhook, event) of what this life delivered or gave up."""
        self.desk = Desk(
            *[(world.webhook(hook), Receiver(self, hook)) for hook in world.hooks],  # type: ignore[arg-type]
            window=world.window,
            clock=world.clock,
            store=world.store,
            ids=world.ids,
            chance=world.random.random,
        )
        self.desk.notes.attempted = self.attempted  # type: ignore[method-assign]
        self.desk.notes.expired = self.expired  # type: ignore[method-assign]
        self.redelivery = Redelivery(
            world.jobs, self.desk.dispatcher, world.ids, self.desk.now, world.clock, lambda: 30 * 86_400
        )
        self.desk.start()
        _ = Deferred.fromCoroutine(self.redelivery.resume())

    def attempted(self, webhook: config.Webhook, delivery: Delivery, attempt: Attempt) -> None:
        if delivery.spent > min(delivery.attempts, len(RETRY) + 1):
            raise BrokenPromiseError("tried too often")
        if delivery.status is not DeliveryStatus.PENDING:
            self.settled.add((webhook.id, delivery.event.payload.event_id))

    def expired(self, webhook: config.Webhook, delivery: Delivery) -> None:
        self.settled.add((webhook.id, delivery.event.payload.event_id))

    def happens(self, call: int, sequence: int) -> None:
        """As the intake: commit, then enqueue, but enqueue after a while all the same."""
        deliveries = self.desk.dispatcher.deliveries_for(self.desk.event(call, sequence))
        self.world.made += deliveries
        self.world.known |= {(each.webhook, each.event.payload.event_id): each for each in deliveries}
        released: list[bool] = []

        def release() -> None:
            if self.alive and not released:
                released.append(True)
                self.desk.dispatcher.enqueue(deliveries)

        _ = self.world.store.accept(deliveries).addCallback(lambda _: release())
        self.world.clock.callLater(COMMIT_WAIT, release)

    def asks(self, hook: str) -> None:
        """Somebody has one delivery sent again, or many, or thinks better of that."""
        world, random, redelivery = self.world, self.world.random, self.redelivery
        what = random.choice(("one", "one", "job", "job", "cancel"))
        asked: Coroutine[Any, Any, object]
        if what == "one":
            over = [row.id for row in world.store.rows.values() if row.status is not DeliveryStatus.PENDING]
            if not over:
                return
            asked = redelivery.one(random.choice(over), "somebody")
        elif what == "job":
            moments = [BASE, self.desk.now(), random.randint(BASE, self.desk.now())]
            since, until = sorted(random.sample(moments, 2))
            statuses = random.sample(OVER, random.choice((1, 3)))
            asked = redelivery.start(hook, since, until + 1, statuses, "somebody", random.choice((1, 9, 100)))
        elif world.jobs.kept:
            asked = redelivery.cancel(random.choice(list(world.jobs.kept)))
        else:
            return
        _ = Deferred.fromCoroutine(asked).addErrback(
            lambda failure: failure.trap(DeliveryPendingError, CancelledError)
        )

    def ends(self, *, kill: bool) -> None:
        self.redelivery.stop()
        stopping = Deferred.fromCoroutine(
            self.desk.dispatcher.stop(self.world.random.choice((0.0, 1.0, 5.0)))
        )
        if kill:
            # Nothing of the old process may act any more; what it had not committed is gone.
            self.alive = False
            self.world.store.crash()
            self.world.made = [each for each in self.world.made if each.id in self.world.store.rows]
        while not stopping.called or not self.world.store.idle:
            self.world.clock.advance(STEP)
        self.alive = False


@implementer(ITransport)
class Receiver:
    """A receiver of any temper, with a judge at its door."""

    def __init__(self, life: Life, hook: str) -> None:
        self.life = life
        self.world = life.world
        self.hook = hook
        self.calls: set[int] = set()
        self.silent_until = 0.0
        self.trial: bool | None = None

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        if self.calls and self.life.alive:
            raise BrokenPromiseError("stopped with attempts under way")

    async def deliver(self, outbound: Outbound) -> Sent:
        if not self.life.alive:
            raise BrokenPromiseError("sent by the dead")
        self.judge(outbound)
        self.world.sends[self.world.known[self.hook, outbound.id].id] += 1
        self.calls.add(outbound.event.call)
        try:
            sent = await self.answer(outbound)
        finally:
            self.calls.discard(outbound.event.call)
        if sent.hold is not None and self.life.alive:
            self.silent_until = max(self.silent_until, self.world.clock.seconds() + sent.hold)
        return sent

    def judge(self, outbound: Outbound) -> None:
        world, event = self.world, outbound.event
        if event.call in self.calls:
            raise BrokenPromiseError("two attempts of a call at once")
        if len(self.calls) >= world.concurrency:
            raise BrokenPromiseError("too many attempts at once")
        if (self.hook, outbound.id) in self.life.settled:
            raise BrokenPromiseError("sent again in one life")
        if world.clock.seconds() < self.silent_until - 1e-6:
            raise BrokenPromiseError("sent while held back")
        again = world.jobs.last
        mine = world.known[self.hook, outbound.id].id
        if outbound.redelivery is not (mine in again):
            raise BrokenPromiseError("a redelivery that is not marked, or a mark that is wrong")
        lifetime = world.expire.get(event.call_event.call_state)
        if (
            lifetime is not None
            and not outbound.redelivery
            and outbound.at >= event.at + lifetime * 1_000_000
        ):
            raise BrokenPromiseError("sent when it was worth nothing any more")
        for elder in world.made:
            if elder.webhook == self.hook and elder.event.call == event.call and elder.event.id < event.id:
                row = world.store.rows.get(elder.id)
                over = row is not None and row.status is not DeliveryStatus.PENDING
                if elder.id in again:
                    # It was over once.  Of one job, the elder goes first all the same.
                    job = again[elder.id][0]
                    over = over or not job or mine not in again or again[mine][0] != job
                if not over and not (
                    world.outage and (self.hook, elder.event.payload.event_id) in self.life.settled
                ):
                    raise BrokenPromiseError("sent before its elder was over")

    async def answer(self, outbound: Outbound) -> Sent:
        random, clock = self.world.random, self.world.clock
        dead = clock.seconds() < self.world.dead_until[self.hook]
        temper = random.choice(
            ("refuse", "hang", "503") if dead else ("ok",) * 6 + ("500", "422", "429", "hang")
        )
        if temper == "hang":
            return await Deferred()
        if random.random() < 0.7:
            await deferLater(clock, random.choice((0.01, 0.1, 1.0, 2.5)))
        return {
            "ok": OK,
            "422": PERMANENT,
            "429": held(random.choice((0.5, 3.0))),
            "503": held(0.0),
        }.get(temper, FAILED)


def check_end(world: World) -> None:
    check_redeliveries(world)
    rows = world.store.rows
    for each in world.made:
        if rows[each.id].status is DeliveryStatus.PENDING:
            raise BrokenPromiseError(
                f"left behind: {each.id} of {each.webhook}, {rows[each.id].attempts} attempts"
            )
    attempts: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in world.store.attempts:
        attempts[attempt.delivery].append(attempt)
    for row in rows.values():
        numbers = [attempt.number for attempt in attempts[row.id]]
        if numbers != list(range(1, row.attempts + 1)):
            raise BrokenPromiseError(f"attempts recorded: {numbers}, counted: {row.attempts}")
        delivered = bool(numbers) and attempts[row.id][-1].delivered
        if not numbers and row.status is not DeliveryStatus.EXPIRED:
            raise BrokenPromiseError("over without an attempt")
        if (row.status is DeliveryStatus.DELIVERED) != delivered:
            raise BrokenPromiseError("its status is not that of its last attempt")


def check_redeliveries(world: World) -> None:
    jobs = world.jobs
    for id, (_, sends) in jobs.last.items():
        if world.sends[id] <= sends:
            raise BrokenPromiseError(f"not sent again: {id}")
    for job in jobs.kept.values():
        if job.state is JobState.RUNNING:
            raise BrokenPromiseError("a job stands still")
        handed = [id for by, id in jobs.handed if by == job.id]
        if handed != sorted(set(handed)):
            raise BrokenPromiseError("one job takes a delivery twice, or the younger first")
        if job.done != len(handed):
            raise BrokenPromiseError(f"{len(handed)} handed over, {job.done} counted")
        meant, before = jobs.meant[job.id]
        if job.state is JobState.DONE and not meant <= {id for _, id in jobs.handed[before:]}:
            raise BrokenPromiseError("a job forgets what it meant")


class ModelTests(SynchronousTestCase):
    def live(
        self, world: World, *, calls: int, seconds: float, ends: list[bool], outage: bool, asked: int
    ) -> None:
        """
        `ends`: for each life but the last, whether it is killed (else stopped).  `asked`: how often
        somebody wants something sent again.
        """
        random, clock = world.random, world.clock
        happenings = []
        for call in range(calls):
            at = random.uniform(0, seconds)
            for sequence in range(1, random.choice((1, 2, 3, 3)) + 1):
                happenings.append((at, call, sequence))
                at += random.choice((0.0, 0.02, 0.5, 5.0))
        happenings.sort()
        deaths = sorted(random.uniform(0, seconds + 20) for _ in ends)
        asks = sorted(random.uniform(0, seconds + 40) for _ in range(asked))
        if outage:
            start = random.uniform(0, seconds)

            def away() -> None:
                world.store.away = world.outage = True

            clock.callLater(start, away)
            clock.callLater(start + random.uniform(0.1, 20), world.store.back)
        ids: dict[int, int] = {}
        life = world.born()
        while True:
            now = clock.seconds()
            while happenings and happenings[0][0] <= now:
                _, call, sequence = happenings.pop(0)
                life.happens(ids.setdefault(call, life.desk.call()), sequence)
            if asks and asks[0] <= now:
                asks.pop(0)
                life.asks(random.choice(world.hooks))
            if deaths and deaths[0] <= now:
                deaths.pop(0)
                life.ends(kill=ends.pop())
                life = world.born()
            for hook in world.hooks:
                resident = life.desk.dispatcher.status(hook).resident
                if not world.outage and resident > 2 * world.window + 3 * calls:
                    raise BrokenPromiseError(f"{resident} deliveries in a window of {world.window}")
            if not happenings and not deaths and not asks:
                rows = world.store.rows
                if (
                    all(
                        each.id in rows and rows[each.id].status is not DeliveryStatus.PENDING
                        for each in world.made
                    )
                    and all(job.state is not JobState.RUNNING for job in world.jobs.kept.values())
                    and world.store.idle
                ):
                    break
                if now > LONG_ENOUGH:
                    break
            clock.advance(STEP if now < seconds + 100 else 1.0)
        check_end(world)
        self.assertEqual(
            [0] * len(world.hooks), [life.desk.dispatcher.status(hook).pending for hook in world.hooks]
        )
        life.ends(kill=False)
        self.assertEqual([], self.flushLoggedErrors())

    @given(
        seed=st.integers(0, 2**32),
        hooks=st.integers(1, 2),
        window=st.sampled_from((1, 2, 3, 5, 8, 40)),
        concurrency=st.integers(1, 3),
        calls=st.integers(1, 25),
        slow_disk=st.booleans(),
        ends=st.lists(st.booleans(), max_size=3),
        asked=st.sampled_from((0, 3, 12)),
    )
    @settings(max_examples=100)
    def test_whatever_receivers_do_and_however_lives_end(
        self,
        seed: int,
        hooks: int,
        window: int,
        concurrency: int,
        calls: int,
        slow_disk: bool,
        ends: list[bool],
        asked: int,
    ) -> None:
        world = World(Random(seed), hooks=hooks, window=window, concurrency=concurrency, slow_disk=slow_disk)
        self.live(world, calls=calls, seconds=20.0, ends=list(ends), outage=False, asked=asked)

    @given(
        seed=st.integers(0, 2**32),
        window=st.sampled_from((1, 2, 3, 5, 8, 40)),
        calls=st.integers(1, 25),
        slow_disk=st.booleans(),
        asked=st.sampled_from((0, 3, 12)),
    )
    @settings(max_examples=100)
    def test_while_the_store_is_away(
        self, seed: int, window: int, calls: int, slow_disk: bool, asked: int
    ) -> None:
        world = World(Random(seed), hooks=1, window=window, concurrency=2, slow_disk=slow_disk)
        self.live(world, calls=calls, seconds=20.0, ends=[], outage=True, asked=asked)
