"""
The promises, kept under whatever receivers, disks and stops may do.

Each example is a small world on a fake clock: calls happen, receivers answer this or that, the store
is slow or away, and the service is stopped or killed and started again over what it had committed.
Judges stand at the receivers' doors and object the moment a promise is broken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cubehook import config
from cubehook.events import CallState
from cubehook.ids import Ids
from cubehook.interfaces import ITransport, Outbound, Sent
from cubehook.records import Attempt, Delivery, DeliveryStatus
from tests.delivery.fakes import FAILED, OK, PERMANENT, Desk, MemoryStore, held, webhook

RETRY = (0.5, 2.0, 7.0, 20.0)
BREAKER = config.Breaker(failures=3, share=0.6, minimum=5, window=10.0, first=0.5, longest=6.0)
TIMEOUT = 3.0
STEP = 0.05
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
        self.desk.start()

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
        released: list[bool] = []

        def release() -> None:
            if self.alive and not released:
                released.append(True)
                self.desk.dispatcher.enqueue(deliveries)

        _ = self.world.store.accept(deliveries).addCallback(lambda _: release())
        self.world.clock.callLater(COMMIT_WAIT, release)

    def ends(self, *, kill: bool) -> None:
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
        lifetime = world.expire.get(event.call_event.call_state)
        if lifetime is not None and outbound.at >= event.at + lifetime * 1_000_000:
            raise BrokenPromiseError("sent when it was worth nothing any more")
        for elder in world.made:
            if elder.webhook == self.hook and elder.event.call == event.call and elder.event.id < event.id:
                row = world.store.rows.get(elder.id)
                over = row is not None and row.status is not DeliveryStatus.PENDING
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


class ModelTests(SynchronousTestCase):
    def live(self, world: World, *, calls: int, seconds: float, ends: list[bool], outage: bool) -> None:
        """`ends`: for each life but the last, whether it is killed (else stopped)."""
        random, clock = world.random, world.clock
        happenings = []
        for call in range(calls):
            at = random.uniform(0, seconds)
            for sequence in range(1, random.choice((1, 2, 3, 3)) + 1):
                happenings.append((at, call, sequence))
                at += random.choice((0.0, 0.02, 0.5, 5.0))
        happenings.sort()
        deaths = sorted(random.uniform(0, seconds + 20) for _ in ends)
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
            if deaths and deaths[0] <= now:
                deaths.pop(0)
                life.ends(kill=ends.pop())
                life = world.born()
            for hook in world.hooks:
                resident = life.desk.dispatcher.status(hook).resident
                if not world.outage and resident > 2 * world.window + 3 * calls:
                    raise BrokenPromiseError(f"{resident} deliveries in a window of {world.window}")
            if not happenings and not deaths:
                rows = world.store.rows
                if all(
                    each.id in rows and rows[each.id].status is not DeliveryStatus.PENDING
                    for each in world.made
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
    )
    @settings(max_examples=100, deadline=None)
    def test_whatever_receivers_do_and_however_lives_end(
        self,
        seed: int,
        hooks: int,
        window: int,
        concurrency: int,
        calls: int,
        slow_disk: bool,
        ends: list[bool],
    ) -> None:
        world = World(Random(seed), hooks=hooks, window=window, concurrency=concurrency, slow_disk=slow_disk)
        self.live(world, calls=calls, seconds=20.0, ends=list(ends), outage=False)

    @given(
        seed=st.integers(0, 2**32),
        window=st.sampled_from((1, 2, 3, 5, 8, 40)),
        calls=st.integers(1, 25),
        slow_disk=st.booleans(),
    )
    @settings(max_examples=100, deadline=None)
    def test_while_the_store_is_away(self, seed: int, window: int, calls: int, slow_disk: bool) -> None:
        world = World(Random(seed), hooks=1, window=window, concurrency=2, slow_disk=slow_disk)
        self.live(world, calls=calls, seconds=20.0, ends=[], outage=True)
