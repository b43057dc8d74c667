"""
The pending deliveries of one webhook: a lane for each call, and a window of lanes in memory.

A delivery waits in the lane of its call until everything before it is over, so events of a call
keep their order and calls never wait for each other.  Only so many deliveries are in memory; the
rest is on disk and read back as room appears.  Why nothing is lost, repeated or overtaken by that
is argued in docs/decisions/0002-delivery-window.md; the names there are the names here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook import config
from cubehook.delivery.breaker import Breaker
from cubehook.delivery.deadlines import Deadlines
from cubehook.delivery.payload import CONTENT_TYPE, Renderer
from cubehook.delivery.schedule import LONGEST_HOLD, wait_after
from cubehook.events import Micros
from cubehook.ids import Ids, id_text
from cubehook.interfaces import IDeliveryStore, ITransport, Outbound, Sent
from cubehook.records import Attempt, Delivery, DeliveryStatus, ErrorClass
from cubehook.text import printable

WINDOW = 2000
"""Deliveries of one webhook kept in memory, give or take a call."""

RECORD_SECONDS = 2.0
"""How long a lane waits for its attempt to be committed before it goes on without."""

TIMEOUT_MARGIN = 2.0
"""Seconds past its own timeout after which a transport is cancelled."""

OWN_HOLD = 60.0
"""Seconds; the longest hold of a receiver that asked for one without saying how long."""

FAILING_SPACING = 0.05
"""Seconds between attempts at a receiver that fails again and again."""

_TURN = 100
"""Attempts started before the reactor gets a turn, should the transport never wait."""

_READ_AGAIN = 5.0
"""Seconds to wait after the disk could not be read."""

_READ_SPACING = 1.0
"""Seconds between two reads that only look for what has become due, and between evictions in vain."""

_SOON: Micros = 1_000_000
"""A head that is due sooner than this is not worth evicting."""

_STOP_SECONDS = 5.0
"""How long a transport may take to stop."""


class Observer(Protocol):
    """
    Is told what happens to deliveries: for logs and metrics.

    Called in the reactor's thread, after the fact; must be quick.  What it raises is logged.
    """

    def attempted(self, webhook: config.Webhook, delivery: Delivery, attempt: Attempt) -> None:
        """An attempt is over; `delivery` already stands as it stands after it."""

    def held(self, webhook: config.Webhook, until: Micros, why: str) -> None:
        """Nothing is sent to `webhook` before `until`; may come again with a later time."""

    def released(self, webhook: config.Webhook) -> None:
        """`webhook` was held and is sent to again."""

    def disabled(self, webhook: config.Webhook, reason: str) -> None:
        """`webhook` wants nothing any more; its pending deliveries stay pending."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a webhook's deliveries stand.

    `pending` is exact for what is `resident` and a lower bound for what is on disk since
    before the start.  `held_until` is None unless the webhook is held.  `problem` says in
    words why nothing is sent, None if something may be.
    """

    pending: int
    resident: int
    in_flight: int
    held_until: Micros | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Means:
    """What all webhooks deliver with."""

    store: IDeliveryStore
    ids: Ids
    now: Callable[[], Micros]
    random: Callable[[], float]
    reactor: IReactorTime
    observer: Observer
    renderer: Renderer


class _Lane:
    """A call's resident deliveries, oldest first; never empty while it is among the lanes."""

    __slots__ = ("call", "deliveries")

    def __init__(self, call: int, deliveries: deque[Delivery]) -> None:
        self.call = call
        self.deliveries = deliveries


class _Flight:
    """One attempt, from its start until its lane goes on."""

    __slots__ = ("body", "delivery", "exchange", "landed", "lane", "left", "overdue", "started_at")

    def __init__(self, lane: _Lane, delivery: Delivery, started_at: Micros) -> None:
        self.lane = lane
        self.delivery = delivery
        self.started_at = started_at
        self.body = b""
        self.exchange: Deferred[Sent] | None = None
        self.overdue = False
        self.landed = False
        """The transport is done, or given up on: what it still says is ignored."""
        self.left = False
        """The lane has gone on."""


class Lanes:
    """
    Delivers to one webhook.

    `gone` is called once the receiver answered that it wants nothing any more.  The transport
    belongs to this object from here on: `open` starts it, `close` stops it.
    """

    _log = Logger()

    def __init__(
        self,
        webhook: config.Webhook,
        transport: ITransport,
        defaults: config.Delivery,
        means: Means,
        gone: Callable[[], None],
        window: int = WINDOW,
    ) -> None:
        self.webhook = webhook
        self._transport = transport
        self._means = means
        self._gone = gone
        self._timeout = defaults.timeout if webhook.timeout is None else webhook.timeout
        self._retry = defaults.retry if webhook.retry is None else webhook.retry
        self._jitter = defaults.jitter if webhook.jitter is None else webhook.jitter
        self.longest_attempt = self._timeout + TIMEOUT_MARGIN
        """Seconds after which an attempt is cancelled."""
        self._breaker = Breaker(defaults.concurrency if webhook.concurrency is None else webhook.concurrency)

        self.wanted = webhook.enabled
        """Whether new events may be meant for this webhook."""
        self._problem: str | None = "not started" if webhook.enabled else "disabled"
        """None while deliveries may be read and sent."""
        self._closing = False
        self._idle: Deferred[None] | None = None
        self._starting: Deferred[None] | None = None

        self._lanes: dict[int, _Lane] = {}
        self._ready: deque[_Lane] = deque()
        self._resting: list[tuple[Micros, int, _Lane]] = []
        """A heap by when the head is due; the call's id keeps lanes from being compared."""
        self._flights: Deadlines[_Flight] = Deadlines(
            means.reactor, self.longest_attempt, self._flight_overdue
        )
        self._recording: Deadlines[_Flight] = Deadlines(means.reactor, RECORD_SECONDS, self._record_overdue)
        self._spacing: IDelayedCall | None = None
        self._pumping = False
        self._next_turn: IDelayedCall | None = None

        self._window = window
        self._low_water = window // 2
        self._resident = 0
        self._on_disk = 0
        self._behind = True
        """Deliveries on disk may be due: new ones queue up behind them there."""
        self._disk_through = 0
        """No call with a greater id has anything on disk that is not resident."""
        self._disk_due: Micros | None = None
        """When to look on disk again for heads that were not due."""
        self._reading = False
        self._read_done: Deferred[None] | None = None
        self._read_at: Micros = 0
        self._read_not_before: Micros = 0
        self._evict_not_before: Micros = 0
        self._touched: set[int] = set()
        """Calls of which the read under way may tell a stale or partial story."""
        self._left = False
        """Something was left on disk since the read under way began."""
        self._unrecordable: set[int] = set()
        """Deliveries that are over, which the store could not be told."""

        self._timer: IDelayedCall | None = None
        self._timer_at: Micros = 0

    # Opening and closing

    async def open(self) -> None:
        """Start the transport, then read and send what is pending."""
        try:
            await self._transport.start()
        except CancelledError:
            raise
        except Exception as error:
            self._problem = f"its transport did not start: {error}"
            self._log.failure(
                "Webhook {webhook} is sent nothing: its transport did not start; deliveries stay pending",
                webhook=self.webhook.id,
            )
            return
        if self._closing:
            return
        self._problem = None
        self._disk_through = self._means.ids.next(self._means.now())
        self._refill()

    def start(self) -> None:
        """As `open`, owned by this object: `close` cancels it if it is still under way."""
        self._starting = Deferred.fromCoroutine(self.open())
        _ = self._starting.addErrback(self._cancelled_or_bug)

    async def close(self) -> None:
        """
        Start nothing more, wait for the attempts under way and their records, stop the transport.

        `abort` cuts the waiting short.  Call once.
        """
        self._closing = True
        self._problem = "stopped"
        if self._starting is not None:
            self._starting.cancel()
        if self._read_done is not None:
            self._read_done.cancel()
        for timer in (self._timer, self._spacing, self._next_turn):
            if timer is not None:
                timer.cancel()
        self._timer = self._spacing = self._next_turn = None
        if self._flights or self._recording:
            self._idle = Deferred()
            await self._idle
        self._flights.take_all()
        self._recording.take_all()
        self._forget()
        if self._starting is None:
            return
        try:
            stopping = Deferred.fromCoroutine(self._transport.stop())
            await stopping.addTimeout(_STOP_SECONDS, self._means.reactor)
        except Exception:
            self._log.failure("The transport of webhook {webhook} did not stop", webhook=self.webhook.id)

    def abort(self) -> None:
        """
        Cancel the attempts under way and wait for no record.

        What is cancelled stays pending, and is not counted as an attempt.
        """
        for flight in self._flights.take_all():
            flight.landed = True
            if flight.exchange is not None:
                flight.exchange.cancel()
        self._recording.take_all()
        self._tell_idle()

    def _tell_idle(self) -> None:
        if self._idle is not None and not self._flights and not self._recording:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def _forget(self) -> None:
        """Drop every lane; the deliveries stay on disk."""
        self._on_disk += self._resident
        self._lanes.clear()
        self._ready.clear()
        self._resting.clear()
        self._resident = 0

    def status(self) -> Status:
        return Status(
            pending=self._resident + self._on_disk,
            resident=self._resident,
            in_flight=len(self._flights),
            held_until=self._breaker.held_until,
            problem=self._problem,
        )

    # New deliveries

    def add(self, delivery: Delivery) -> None:
        """Take a new delivery, committed or handed to the store to be: into its lane, or leave it on disk."""
        call = delivery.event.call
        lane = self._lanes.get(call)
        if lane is not None:
            # A read may have seen it committed before we were told of it.
            if delivery.id > lane.deliveries[-1].id:
                lane.deliveries.append(delivery)
                self._resident += 1
        elif (
            self._problem is None
            and call > self._disk_through
            and self._resident < self._window
            and not (self._behind and self._disk_answers())
        ):
            self._lanes[call] = lane = _Lane(call, deque((delivery,)))
            self._resident += 1
            self._ready.append(lane)
            self._pump()
        else:
            self._on_disk += 1
            self._behind = self._left = True
            if call > self._disk_through:
                self._disk_through = call
            if self._reading:
                self._touched.add(call)
            else:
                self._refill()

    def _disk_answers(self) -> bool:
        """
        Whether what is on disk will soon be read.

        If not, the store cannot commit, and new calls go on from memory instead of behind the old.
        """
        return not self._reading or self._means.now() < self._read_at + int(RECORD_SECONDS * 1_000_000)

    # Sending

    def _pump(self) -> None:
        """Start what may be started."""
        if self._pumping or self._problem is not None:
            return
        self._pumping = True
        turn = _TURN
        breaker = self._breaker
        try:
            while self._ready and len(self._flights) < breaker.limit and self._spacing is None:
                if not turn:
                    if self._next_turn is None:
                        self._next_turn = self._means.reactor.callLater(0, self._take_turn)
                    break
                turn -= 1
                if breaker.failing:
                    self._spacing = self._means.reactor.callLater(FAILING_SPACING, self._spaced)
                self._send(self._ready.popleft())
        finally:
            self._pumping = False

    def _take_turn(self) -> None:
        self._next_turn = None
        self._pump()

    def _spaced(self) -> None:
        self._spacing = None
        self._pump()

    def _send(self, lane: _Lane) -> None:
        flight = _Flight(lane, lane.deliveries[0], self._means.now())
        self._flights.add(flight)
        flight.exchange = exchange = Deferred.fromCoroutine(self._deliver(flight))
        _ = exchange.addBoth(self._over, flight).addErrback(self._bug)

    async def _deliver(self, flight: _Flight) -> Sent:
        delivery = flight.delivery
        event = delivery.event
        flight.body = body = self._means.renderer.render(event, self.webhook.payload)
        return await self._transport.deliver(
            Outbound(
                id=event.payload.event_id,
                event=event,
                body=body,
                content_type=CONTENT_TYPE,
                attempt=delivery.attempts + 1,
                at=flight.started_at,
                timeout=self._timeout,
            )
        )

    def _flight_overdue(self, flight: _Flight) -> None:
        flight.overdue = True
        assert flight.exchange is not None
        flight.exchange.cancel()
        if not flight.landed:
            # It ignores being cancelled; its lane must not wait for it.
            self._landed(flight, self._timed_out())

    def _timed_out(self) -> Sent:
        return Sent(
            delivered=False,
            error_class=ErrorClass.TIMEOUT,
            error=f"the transport did not end within {self._timeout:g} s and was cancelled",
        )

    def _over(self, result: Sent | Failure, flight: _Flight) -> None:
        if flight.landed:
            return
        if isinstance(result, Sent):
            self._landed(flight, result)
        elif flight.overdue:
            self._landed(flight, self._timed_out())
        else:
            if isinstance(result, Failure):
                error = f"the transport raised {type(result.value).__name__}: {result.getErrorMessage()}"
                failure = result
            else:
                error = f"the transport returned a {type(result).__name__}"
                failure = Failure(TypeError(error))
            self._log.failure(
                "The transport of webhook {webhook} has a bug; delivery {delivery} is tried again",
                failure,
                webhook=self.webhook.id,
                delivery=id_text(flight.delivery.id),
            )
            self._landed(flight, Sent(delivered=False, error_class=ErrorClass.OTHER, error=error))

    def _landed(self, flight: _Flight, sent: Sent) -> None:
        """Judge how the attempt went, record it, and let the lane go on once that is committed."""
        flight.landed = True
        self._flights.discard(flight)
        now = self._means.now()
        delivery = flight.delivery
        delivery.attempts += 1
        if sent.delivered:
            delivery.status = DeliveryStatus.DELIVERED
            self._breaker.answered()
        elif sent.gone:
            delivery.due_at = now
        else:
            self._failed(delivery, sent, now)
        attempt = Attempt(
            id=self._means.ids.next(now),
            delivery=delivery.id,
            number=delivery.attempts,
            started_at=flight.started_at,
            duration=max(0, now - flight.started_at),
            delivered=sent.delivered,
            method=sent.method,
            url=sent.url,
            request_headers=sent.request_headers,
            request_body=flight.body.decode("utf-8", "replace"),
            status=sent.status,
            response_headers=sent.response_headers,
            response_body=sent.response_body,
            remote_address=sent.remote_address,
            error_class=sent.error_class,
            error=sent.error,
        )
        try:
            recorded = self._means.store.record(attempt, delivery)
        except Exception:
            recorded = fail(Failure())
        if sent.gone and not sent.delivered:
            self._disable(sent, now)
        elif self._breaker.on_trial and (sent.delivered or sent.hold is None):
            self._release()
        self._tell(self._means.observer.attempted, delivery, attempt)
        self._recording.add(flight)
        _ = recorded.addCallbacks(
            self._recorded, self._record_refused, (flight,), errbackArgs=(flight,)
        ).addErrback(self._bug)
        self._pump()

    def _failed(self, delivery: Delivery, sent: Sent, now: Micros) -> None:
        wait = None
        if sent.permanent:
            self._breaker.answered()
        else:
            self._breaker.failed()
            wait = wait_after(delivery.attempts, self._retry, self._jitter, self._means.random())
        hold = None
        if sent.hold is not None:
            hold = self._hold_seconds(sent.hold, wait)
            self._hold(now + int(hold * 1_000_000), sent)
        if wait is None:
            delivery.status = DeliveryStatus.FAILED
            self._log.warn(
                "Webhook {webhook}: delivery {delivery} is given up after attempt {attempts}: {why}",
                webhook=self.webhook.id,
                delivery=id_text(delivery.id),
                attempts=delivery.attempts,
                why=printable(sent.error or _answer(sent)),
            )
        else:
            delivery.due_at = now + int(max(wait, hold or 0.0) * 1_000_000)

    def _recorded(self, _: None, flight: _Flight) -> None:
        self._go_on(flight)

    def _record_refused(self, failure: Failure, flight: _Flight) -> None:
        delivery = flight.delivery
        self._log.failure(
            "Webhook {webhook}: an attempt of delivery {delivery} could not be recorded",
            failure,
            webhook=self.webhook.id,
            delivery=id_text(delivery.id),
        )
        if delivery.status is not DeliveryStatus.PENDING:
            self._unrecordable.add(delivery.id)
            settled = Deferred.fromCoroutine(self._means.store.settle(delivery.id, delivery.status.value))
            _ = settled.addErrback(self._bug)
        self._go_on(flight)

    def _record_overdue(self, flight: _Flight) -> None:
        self._go_on(flight)

    def _go_on(self, flight: _Flight) -> None:
        if flight.left:
            return
        flight.left = True
        self._recording.discard(flight)
        lane = flight.lane
        if self._lanes.get(lane.call) is lane:
            if flight.delivery.status is DeliveryStatus.PENDING:
                self._rest(lane)
            else:
                lane.deliveries.popleft()
                self._resident -= 1
                if lane.deliveries:
                    self._ready.append(lane)
                else:
                    self._drop(lane)
            self._pump()
            if self._behind:
                self._refill()
        self._tell_idle()

    def _drop(self, lane: _Lane) -> None:
        del self._lanes[lane.call]
        if self._reading:
            self._touched.add(lane.call)

    # Waiting

    def _rest(self, lane: _Lane) -> None:
        due = lane.deliveries[0].due_at
        heappush(self._resting, (due, lane.call, lane))
        self._wake_at(due)

    def _wake_at(self, at: Micros) -> None:
        """See to it that `_wake` runs at `at` or before."""
        if self._closing or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        # A millisecond more, so that rounding never wakes us too early.
        seconds = max(0.0, (at - self._means.now()) / 1_000_000) + 0.001
        self._timer = self._means.reactor.callLater(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._problem is not None:
            return
        now = self._means.now()
        resting = self._resting
        while resting and resting[0][0] <= now:
            self._ready.append(heappop(resting)[2])
        held_until = self._breaker.held_until
        if held_until is not None:
            if now < held_until:
                self._wake_at(held_until)
            elif self._ready or self._behind:
                self._breaker.try_once()
            else:
                self._release()
        self._pump()
        self._refill()
        if resting:
            self._wake_at(resting[0][0])

    # Holding back

    def _hold_seconds(self, asked: float, wait: float | None) -> float:
        """How long to hold, for what a transport said (any float) and the delivery's own wait."""
        if asked > 0.0:
            return min(asked, LONGEST_HOLD)
        if wait is None:
            wait = self._retry[0] if self._retry else 0.0
        return min(wait, OWN_HOLD)

    def _hold(self, until: Micros, sent: Sent) -> None:
        if self._problem is not None:
            return
        if self._breaker.held_until is None and not self._breaker.on_trial:
            self._log.warn(
                "Webhook {webhook} is held back: its receiver {why}",
                webhook=self.webhook.id,
                why=_answer(sent),
            )
        until = self._breaker.hold(until)
        self._wake_at(until)
        self._tell(self._means.observer.held, until, f"its receiver {_answer(sent)}")

    def _release(self) -> None:
        self._breaker.release()
        self._log.info("Webhook {webhook} is sent to again", webhook=self.webhook.id)
        self._tell(self._means.observer.released)

    def _disable(self, sent: Sent, now: Micros) -> None:
        if self._problem is not None:
            return
        self._problem = reason = f"its receiver {_answer(sent)}: it wants no more events"
        self.wanted = False
        self._forget()
        self._log.error(
            "Webhook {webhook} is disabled: {reason}. Its pending deliveries wait until it is enabled again",
            webhook=self.webhook.id,
            reason=reason,
        )
        self._gone()
        disabling = Deferred.fromCoroutine(self._means.store.disable_webhook(self.webhook.id, reason, now))
        _ = disabling.addErrback(self._bug)
        self._tell(self._means.observer.disabled, reason)

    # The window

    def _refill(self) -> None:
        """Read from disk if something there may be due and there is room for it."""
        if self._problem is not None or self._reading:
            return
        now = self._means.now()
        if not self._behind:
            if self._disk_due is None:
                return
            look_at = max(self._disk_due, self._read_at + int(_READ_SPACING * 1_000_000))
            if now < look_at:
                self._wake_at(look_at)
                return
        if now < self._read_not_before:
            self._wake_at(self._read_not_before)
            return
        if self._resident > self._low_water:
            self._behind = True
            self._evict(now)
            if self._resident > self._low_water:
                return
        self._read_at = now
        self._reading = True
        self._read_done = Deferred.fromCoroutine(self._read(now))
        _ = self._read_done.addErrback(self._read_failed).addBoth(self._read_over)

    async def _read(self, now: Micros) -> None:
        store = self._means.store
        limit = self._window - self._resident + len(self._unrecordable)
        self._disk_due = None
        self._left = False
        self._touched.clear()
        deliveries = await store.pending(self.webhook.id, now, list(self._lanes), limit)
        if self._problem is not None:
            return
        self._take_in(deliveries, now)
        self._behind = self._left or len(deliveries) >= limit
        self._pump()
        if self._behind:
            return
        self._disk_due = await store.next_due(self.webhook.id, now)
        if self._disk_due is None and not self._left and self._problem is None:
            self._disk_through = 0
            self._on_disk = 0

    def _take_in(self, deliveries: list[Delivery], now: Micros) -> None:
        """Make lanes of what was read, save of calls whose story changed during the read."""
        calls: dict[int, list[Delivery]] = {}
        for delivery in deliveries:
            call = delivery.event.call
            if (
                call not in self._lanes
                and call not in self._touched
                and delivery.id not in self._unrecordable
            ):
                calls.setdefault(call, []).append(delivery)
        for call, story in calls.items():
            story.sort(key=_by_id)
            self._lanes[call] = lane = _Lane(call, deque(story))
            self._resident += len(story)
            self._on_disk = max(0, self._on_disk - len(story))
            if story[0].due_at <= now:
                self._ready.append(lane)
            else:
                self._rest(lane)

    def _read_failed(self, failure: Failure) -> None:
        self._behind = True
        if self._closing and failure.check(CancelledError):
            return
        self._read_not_before = self._means.now() + int(_READ_AGAIN * 1_000_000)
        self._log.failure(
            "The pending deliveries of webhook {webhook} could not be read; next try in {seconds} s",
            failure,
            webhook=self.webhook.id,
            seconds=_READ_AGAIN,
        )

    def _read_over(self, _: None) -> None:
        self._reading = False
        self._touched.clear()
        if self._problem is None:
            self._pump()
            self._refill()

    def _evict(self, now: Micros) -> None:
        """Leave resting calls to the disk, the longest waits first, until there is room to read."""
        if now < self._evict_not_before:
            self._wake_at(self._evict_not_before)
            return
        self._resting.sort()
        while self._resting and self._resident > self._low_water and self._resting[-1][0] > now + _SOON:
            _, call, lane = self._resting.pop()
            self._drop(lane)
            self._resident -= len(lane.deliveries)
            self._on_disk += len(lane.deliveries)
            self._disk_through = max(self._disk_through, call)
        # Sorted is a heap.
        self._evict_not_before = now + int(_READ_SPACING * 1_000_000)

    # Telling

    def _tell(self, method: Callable[..., None], *arguments: object) -> None:
        try:
            method(self.webhook, *arguments)
        except Exception:
            self._log.failure(
                "An observer of webhook {webhook} failed; deliveries go on", webhook=self.webhook.id
            )

    def _cancelled_or_bug(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._bug(failure)

    def _bug(self, failure: Failure) -> None:
        self._log.failure("Webhook {webhook}: something went wrong", failure, webhook=self.webhook.id)


def _by_id(delivery: Delivery) -> int:
    return delivery.id


def _answer(sent: Sent) -> str:
    return f"answered {sent.status}" if sent.status is not None else "asked for it"
