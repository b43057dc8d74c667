"""
Which deliveries of one webhook may be sent next: a lane for each call, and a window of lanes in memory.

A delivery waits in the lane of its call until everything before it is over, so events of a call
keep their order and calls never wait for each other.  Only so many deliveries are in memory; the
rest is on disk and read back as room appears.  Why nothing is lost, repeated or overtaken by that
is argued in docs/decisions/0002-delivery-window.md; the names there are the names here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook.delivery.deadlines import Alarm
from cubehook.events import Micros
from cubehook.ids import Ids
from cubehook.interfaces import IDeliveryStore
from cubehook.records import Delivery, DeliveryStatus
from cubehook.steady import future_after_step, past_after_step

WINDOW = 2000
"""Deliveries of one webhook kept in memory, give or take a call."""

RECORD_SECONDS = 2.0
"""How long a commit is waited for before a lane goes on without."""

_READ_AGAIN = 5.0
"""Seconds to wait after the disk could not be read."""

_READ_SPACING = 1.0
"""Seconds between two reads that only look for what has become due, and between evictions in vain."""

_SOON: Micros = 1_000_000
"""A head that is due sooner than this is not worth evicting."""


class Lane:
    """A call's resident deliveries, oldest first; never empty while it is among the lanes."""

    __slots__ = ("call", "deliveries")

    def __init__(self, call: int, deliveries: deque[Delivery]) -> None:
        self.call = call
        self.deliveries = deliveries


class Window:
    """
    The pending deliveries of `webhook`, `size` of them in memory.

    Those at the heads of the lanes in `ready` may be sent, in that order.  Whoever takes a lane from there
    gives it back with `go_on` once its head was tried; until then nothing else of that call is ready.
    `changed` is called when lanes have become ready by themselves, because they fell due or were read.

    `ids` must be the one that numbers calls: a call's id tells whether it is older than what is on disk.
    Not open, it keeps nothing in memory: what is added is left to the disk.
    """

    _log = Logger()

    def __init__(
        self,
        webhook: str,
        store: IDeliveryStore,
        ids: Ids,
        now: Callable[[], Micros],
        reactor: IReactorTime,
        size: int,
        changed: Callable[[], None],
    ) -> None:
        self._webhook = webhook
        self._store = store
        self._ids = ids
        self._now = now
        self._changed = changed
        self._size = size
        self._low_water = size // 2
        self._open = False

        self.ready: deque[Lane] = deque()
        self.resident = 0
        """Deliveries in memory."""
        self.unrecordable: set[int] = set()
        """Deliveries that are over, which the store could not be told: reads skip them."""

        self._lanes: dict[int, Lane] = {}
        self._resting: list[tuple[Micros, int, Lane]] = []
        """A heap by when the head is due; the call's id keeps lanes from being compared."""
        self._alarm = Alarm(reactor, now, self.look)

        self._behind = True
        """Deliveries on disk may be due: new ones queue up behind them there."""
        self._disk_through = 0
        """No call with a greater id has anything on disk that is not resident."""
        self._disk_due: Micros | None = None
        """When to look on disk again for heads that were not due."""
        self._reading = False
        self._read_at: Micros = 0
        self._read_not_before: Micros = 0
        self._evict_not_before: Micros = 0
        self._touched: set[int] = set()
        """Calls of which the read under way may tell a stale or partial story."""
        self._owed: set[int] = set()
        """Resident calls of which something is on disk that is not in their lanes."""
        self._left = False
        """Something was left on disk since the read under way began."""

    def open(self) -> None:
        """Read what is pending, and keep in memory what is added."""
        self._open = True
        self._disk_through = self._ids.next(self._now())
        self._refill()

    def close(self) -> None:
        """
        Drop every lane, and read no more; the deliveries stay on disk.

        A read under way is left to end by itself: the store knows of it, and nothing waits for it here.
        """
        self._open = False
        self._alarm.cancel()
        self._lanes.clear()
        self._owed.clear()
        self.ready.clear()
        self._resting.clear()
        self.resident = 0

    @property
    def may_have_more(self) -> bool:
        """Whether something is ready, or may be once the disk was read."""
        return bool(self.ready) or self._behind

    def oldest(self) -> Micros | None:
        """When the oldest event in memory happened, of those that nobody asked for again; None if none."""
        heads = (lane.deliveries[0] for lane in self._lanes.values())
        return min((head.event.at for head in heads if not head.redelivery), default=None)

    def add(self, delivery: Delivery) -> None:
        """Take a new delivery, committed or handed to the store to be: into its lane, or leave it on disk."""
        call = delivery.event.call
        lane = self._lanes.get(call)
        if lane is not None:
            # A read may have seen it committed before we were told of it.
            if delivery.id > lane.deliveries[-1].id:
                lane.deliveries.append(delivery)
                self.resident += 1
        elif (
            self._open
            and call > self._disk_through
            and self.resident < self._size
            and not (self._behind and self._disk_answers())
        ):
            self._lanes[call] = lane = Lane(call, deque((delivery,)))
            self.resident += 1
            self.ready.append(lane)
        else:
            self._leave(call)
            self._refill()

    def send_again(self, deliveries: Iterable[Delivery]) -> None:
        """
        Hear of deliveries that were over and are pending again, and committed as that.

        They are on disk and come from there: those of a resident call once its lane has ended, since their
        place would be before what may be on its way already.
        """
        for delivery in deliveries:
            self.unrecordable.discard(delivery.id)
            call = delivery.event.call
            if call in self._lanes:
                self._owed.add(call)
            else:
                self._leave(call)
        self._refill()

    def _leave(self, call: int) -> None:
        """Something of `call`, which is not resident, is on disk and may be due."""
        self._behind = self._left = True
        if call > self._disk_through:
            self._disk_through = call
        if self._reading:
            self._touched.add(call)

    def _disk_answers(self) -> bool:
        """
        Whether what is on disk will soon be read.

        If not, the store cannot commit, and new calls go on from memory instead of behind the old.
        """
        return not self._reading or self._now() < self._read_at + int(RECORD_SECONDS * 1_000_000)

    def go_on(self, lane: Lane) -> None:
        """The head of `lane`, taken from `ready`, was tried: it rests until it is due again, or is over."""
        if self._lanes.get(lane.call) is not lane:
            return
        head = lane.deliveries[0]
        if head.status is DeliveryStatus.PENDING:
            self._rest(lane)
        else:
            lane.deliveries.popleft()
            self.resident -= 1
            if lane.deliveries:
                self.ready.append(lane)
            else:
                self._drop(lane)
        if self._behind:
            self._refill()

    def _drop(self, lane: Lane) -> None:
        call = lane.call
        del self._lanes[call]
        if call in self._owed:
            self._owed.discard(call)
            self._leave(call)
        elif self._reading:
            self._touched.add(call)

    def _rest(self, lane: Lane) -> None:
        due = lane.deliveries[0].due_at
        heappush(self._resting, (due, lane.call, lane))
        self._alarm.at(due)

    def look(self) -> None:
        """Make ready what has fallen due by now, here and on disk."""
        now = self._now()
        resting = self._resting
        while resting and resting[0][0] <= now:
            self.ready.append(heappop(resting)[2])
        self._changed()
        self._refill()
        if resting:
            self._alarm.at(resting[0][0])

    def clock_set(self, by: Micros) -> None:
        """The clock was set by so much; what rests rests no longer for that."""
        for _, _, lane in self._resting:
            head = lane.deliveries[0]
            head.due_at = future_after_step(head.due_at, by)
        self._resting = [(lane.deliveries[0].due_at, call, lane) for _, call, lane in self._resting]
        if self._disk_due is not None:
            self._disk_due = future_after_step(self._disk_due, by)
        self._read_at = past_after_step(self._read_at, by, self._now())
        self._read_not_before = future_after_step(self._read_not_before, by)
        self._evict_not_before = future_after_step(self._evict_not_before, by)
        self._alarm.cancel()
        if self._open:
            self.look()

    # Reading

    def _refill(self) -> None:
        """Read from disk if something there may be due and there is room for it."""
        if not self._open or self._reading:
            return
        now = self._now()
        if not self._behind:
            if self._disk_due is None:
                return
            look_at = max(self._disk_due, self._read_at + int(_READ_SPACING * 1_000_000))
            if now < look_at:
                self._alarm.at(look_at)
                return
        if now < self._read_not_before:
            self._alarm.at(self._read_not_before)
            return
        if self.resident > self._low_water:
            self._behind = True
            self._evict(now)
            if self.resident > self._low_water:
                return
        self._read_at = now
        self._reading = True
        read = Deferred.fromCoroutine(self._read(now))
        _ = read.addErrback(self._read_failed).addBoth(self._read_over)

    async def _read(self, now: Micros) -> None:
        store = self._store
        limit = self._size - self.resident + len(self.unrecordable)
        self._disk_due = None
        self._left = False
        self._touched.clear()
        deliveries = await store.pending(self._webhook, now, list(self._lanes), limit)
        if not self._open:
            return
        self._take_in(deliveries, now)
        self._behind = self._left or len(deliveries) >= limit
        self._changed()
        if self._behind:
            return
        self._disk_due = await store.next_due(self._webhook, now)
        if self._disk_due is None and not self._left and self._open:
            self._disk_through = 0

    def _take_in(self, deliveries: list[Delivery], now: Micros) -> None:
        """Make lanes of what was read, save of calls whose story changed during the read."""
        calls: dict[int, list[Delivery]] = {}
        for delivery in deliveries:
            call = delivery.event.call
            if call not in self._lanes and call not in self._touched and delivery.id not in self.unrecordable:
                calls.setdefault(call, []).append(delivery)
        for call, story in calls.items():
            story.sort(key=_by_id)
            self._lanes[call] = lane = Lane(call, deque(story))
            self.resident += len(story)
            if story[0].due_at <= now:
                self.ready.append(lane)
            else:
                self._rest(lane)

    def _read_failed(self, failure: Failure) -> None:
        if not self._open:
            return
        self._behind = True
        self._read_not_before = self._now() + int(_READ_AGAIN * 1_000_000)
        self._log.failure(
            "The pending deliveries of webhook {webhook} could not be read; next try in {seconds} s",
            failure,
            webhook=self._webhook,
            seconds=_READ_AGAIN,
        )

    def _read_over(self, _: None) -> None:
        self._reading = False
        self._touched.clear()
        if self._open:
            self._changed()
            self._refill()

    def _evict(self, now: Micros) -> None:
        """Leave resting calls to the disk, the longest waits first, until there is room to read."""
        if now < self._evict_not_before:
            self._alarm.at(self._evict_not_before)
            return
        self._resting.sort()
        while self._resting and self.resident > self._low_water and self._resting[-1][0] > now + _SOON:
            _, call, lane = self._resting.pop()
            self._drop(lane)
            self.resident -= len(lane.deliveries)
            self._disk_through = max(self._disk_through, call)
        # Sorted is a heap.
        self._evict_not_before = now + int(_READ_SPACING * 1_000_000)


def _by_id(delivery: Delivery) -> int:
    return delivery.id
