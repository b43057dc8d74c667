"""
Sending to one webhook: attempts, what becomes of them, and when it is sent nothing.

What may be sent next is the business of its window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook import config
from cubehook.delivery.answers import malformed
from cubehook.delivery.deadlines import Deadlines
from cubehook.delivery.holding import Holding, answer
from cubehook.delivery.means import Backlog, Means, Status
from cubehook.delivery.payload import RenderError
from cubehook.delivery.schedule import wait_after
from cubehook.delivery.window import RECORD_SECONDS, WINDOW, Lane, Window
from cubehook.events import Micros, Notice
from cubehook.ids import id_text
from cubehook.interfaces import ITransport, Outbound, Sent
from cubehook.records import Attempt, Delivery, DeliveryStatus, ErrorClass, Trouble
from cubehook.text import printable

TIMEOUT_MARGIN = 2.0
"""Seconds past its own timeout after which a transport is cancelled."""

_TRIED_AGAIN: Micros = 1_000_000
"""How soon a delivery may be tried again whose attempt spent nothing."""

_TURN = 100
"""Attempts started before the reactor gets a turn, should the transport never wait."""

_START_AGAIN = 1.0
"""Seconds until a transport that did not start is started again; twice as many each time."""

_LONGEST_START_AGAIN = 60.0

_STOP_SECONDS = 5.0
"""How long a transport may take to stop."""


class _Flight:
    """One attempt, from its start until its lane goes on."""

    __slots__ = (
        "body",
        "delivery",
        "exchange",
        "healthy",
        "landed",
        "lane",
        "left",
        "overdue",
        "started_at",
        "trial",
    )

    def __init__(self, lane: Lane, started_at: Micros, *, trial: bool, healthy: bool) -> None:
        self.lane = lane
        self.trial = trial
        """It decides whether the webhook is sent to again."""
        self.healthy = healthy
        """The receiver had answered well when it began."""
        self.delivery = lane.deliveries[0]
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

    `gone` is called once the receiver answered that it wants nothing any more.  `backlog` is counted
    on.  `trouble` is what an earlier life, or earlier lanes, left.  The transport belongs to this object from
    here on: `open` starts it, `close` stops it.
    """

    _log = Logger()

    def __init__(
        self,
        webhook: config.Webhook,
        transport: ITransport,
        defaults: config.Delivery,
        means: Means,
        gone: Callable[[], None],
        backlog: Backlog,
        window: int = WINDOW,
        trouble: Trouble | None = None,
    ) -> None:
        self.webhook = webhook
        self._transport = transport
        self._means = means
        self._gone = gone
        self.backlog = backlog
        self._timeout = defaults.timeout if webhook.timeout is None else webhook.timeout
        self._retry = defaults.retry if webhook.retry is None else webhook.retry
        self._jitter = defaults.jitter if webhook.jitter is None else webhook.jitter
        self.longest_attempt = self._timeout + TIMEOUT_MARGIN
        """Seconds after which an attempt is cancelled."""
        self._rendering = means.renderer.of(webhook)
        self._expire = {state: int(seconds * 1_000_000) for state, seconds in webhook.expire.items()}
        self.wanted = webhook.enabled
        """Whether new events may be meant for this webhook."""
        self._problem: str | None = "not started" if webhook.enabled else "disabled"
        """None while deliveries may be read and sent."""
        self._closing = False
        self._idle: Deferred[None] | None = None
        self._starting: Deferred[None] | None = None

        self._window = Window(
            webhook.id, means.store, means.ids, means.now, means.reactor, window, changed=self._pump
        )
        self._holding = Holding(webhook, defaults, means, trouble, self._hold_over)
        self._flights: Deadlines[_Flight] = Deadlines(
            means.reactor, self.longest_attempt, self._flight_overdue
        )
        self._recording: Deadlines[_Flight] = Deadlines(means.reactor, RECORD_SECONDS, self._record_overdue)
        self._pumping = False
        self._next_turn: IDelayedCall | None = None

    # Opening and closing

    async def open(self) -> None:
        """Start the transport, again and again if need be, then read and send what is pending."""
        wait = _START_AGAIN
        while True:
            try:
                await self._transport.start()
                break
            except CancelledError:
                raise
            except Exception as error:
                self._problem = f"its transport did not start: {error}"
                if isinstance(error, ValueError):
                    self._log.error(
                        "Webhook {webhook} is sent nothing: its transport did not start: {why}; deliveries "
                        "stay pending until its settings are changed",
                        webhook=self.webhook.id,
                        why=printable(str(error)),
                    )
                    return
                self._log.failure(
                    "Webhook {webhook} is sent nothing: its transport did not start; deliveries stay "
                    "pending; next try in {wait:g} s",
                    webhook=self.webhook.id,
                    wait=wait,
                )
            await deferLater(self._means.reactor, wait)
            wait = min(2.0 * wait, _LONGEST_START_AGAIN)
        if self._closing:
            return
        self._problem = None
        self._holding.open()
        self._window.open()

    def start(self) -> None:
        """As `open`, owned by this object, which cancels it in `close`; nothing if it was started before."""
        if self._starting is not None:
            return
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
        self._window.close()
        self._holding.close()
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        if self._flights or self._recording:
            self._idle = Deferred()
            await self._idle
        self._flights.take_all()
        self._recording.take_all()
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

    def status(self) -> Status:
        breaker = self._holding.breaker
        return Status(
            enabled=self.wanted,
            pending=self.backlog.pending,
            resident=self._window.resident,
            in_flight=len(self._flights),
            state=breaker.state,
            held_until=breaker.held_until,
            failures=breaker.failures,
            failing_since=breaker.failing_since,
            problem=self._problem,
        )

    @property
    def oldest(self) -> Micros | None:
        """When the oldest event that is pending in memory happened; None if none is."""
        return self._window.oldest()

    @property
    def trouble(self) -> Trouble | None:
        """Why it is held back, for lanes that take its place; None if it is not."""
        return self._holding.trouble

    def add(self, delivery: Delivery) -> None:
        """Take a new delivery, committed or handed to the store to be."""
        self.backlog.pending += 1
        self._window.add(delivery)
        self._pump()

    def clock_set(self, by: Micros) -> None:
        """The clock was set by so much."""
        self._holding.clock_set(by)
        self._window.clock_set(by)

    def send_again(self, deliveries: Sequence[Delivery]) -> None:
        """Hear of deliveries that were over and are pending again, and committed as that."""
        self.backlog.pending += len(deliveries)
        self._window.send_again(deliveries)
        self._pump()

    # Sending

    def _pump(self) -> None:
        """Start what may be started."""
        if self._pumping or self._problem is not None:
            return
        self._pumping = True
        turn = _TURN
        breaker = self._holding.breaker
        ready = self._window.ready
        try:
            while ready and len(self._flights) < breaker.limit:
                if not turn:
                    if self._next_turn is None:
                        self._next_turn = self._means.reactor.callLater(0, self._take_turn)
                    break
                turn -= 1
                self._send(ready.popleft())
        finally:
            self._pumping = False

    def _take_turn(self) -> None:
        self._next_turn = None
        self._pump()

    def _send(self, lane: Lane) -> None:
        breaker = self._holding.breaker
        flight = _Flight(lane, self._means.now(), trial=breaker.on_trial, healthy=not breaker.failures)
        if self._expire and self._expired(flight.delivery, flight.started_at):
            flight.landed = True
            self._over_without_attempt(flight)
            return
        self._flights.add(flight)
        flight.exchange = exchange = Deferred.fromCoroutine(self._deliver(flight))
        _ = exchange.addBoth(self._over, flight).addErrback(self._bug)

    async def _deliver(self, flight: _Flight) -> Sent:
        delivery = flight.delivery
        event = delivery.event
        try:
            body, content_type = self._rendering.render(event)
        except RenderError as error:
            return Sent(delivered=False, permanent=True, error_class=ErrorClass.OTHER, error=str(error))
        flight.body = body
        return await self._transport.deliver(
            Outbound(
                id=event.payload.event_id,
                event=event,
                body=body,
                content_type=content_type,
                attempt=delivery.attempts + 1,
                at=flight.started_at,
                timeout=self._timeout,
                redelivery=delivery.redelivery,
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
        if isinstance(result, Failure):
            problem: str | None = f"it raised {type(result.value).__name__}: {result.getErrorMessage()}"
        else:
            problem = malformed(result)
        if problem is None:
            assert isinstance(result, Sent)
            self._landed(flight, result)
        elif flight.overdue:
            self._landed(flight, self._timed_out())
        else:
            error = f"the transport has a bug: {problem}"
            failure = result if isinstance(result, Failure) else Failure(TypeError(error))
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
        delivery.error_class = sent.error_class
        delivery.answered = sent.status
        if sent.delivered:
            delivery.status = DeliveryStatus.DELIVERED
            self._holding.breaker.succeeded(now)
        elif sent.gone:
            delivery.due_at = now
        else:
            self._failed(flight, sent, now)
        if delivery.status is not DeliveryStatus.PENDING:
            self.backlog.pending -= 1
        attempt = Attempt(
            id=self._means.ids.next(now),
            delivery=delivery.id,
            number=delivery.attempts,
            started_at=flight.started_at,
            duration=max(0, now - flight.started_at),
            delivered=sent.delivered,
            phases=sent.phases,
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
            note=sent.note,
        )
        recorded = self._record(attempt, delivery)
        holding, tell, observer = self._holding, self._means.tell, self._means.observer
        if sent.gone and not sent.delivered:
            self._disable(f"its receiver {answer(sent)}: it wants no more events", now)
        elif not sent.delivered:
            reason = holding.out_of_patience(sent, now)
            if reason is not None:
                self._disable(reason, now)
        elif flight.trial and holding.breaker.on_trial:
            holding.release()
        tell(self.webhook, observer.attempted, delivery, attempt)
        if delivery.status is DeliveryStatus.EXPIRED:
            tell(self.webhook, observer.expired, delivery)
        self._await_record(flight, recorded)
        self._pump()

    def _record(self, attempt: Attempt | None, delivery: Delivery) -> Deferred[None]:
        try:
            return self._means.store.record(attempt, delivery)
        except Exception:
            return fail(Failure())

    def _await_record(self, flight: _Flight, recorded: Deferred[None]) -> None:
        self._recording.add(flight)
        _ = recorded.addCallbacks(
            self._recorded, self._record_refused, (flight,), errbackArgs=(flight,)
        ).addErrback(self._bug)

    def _over_without_attempt(self, flight: _Flight) -> None:
        """Close a delivery that is not worth an attempt any more."""
        delivery = flight.delivery
        delivery.status = DeliveryStatus.EXPIRED
        self.backlog.pending -= 1
        recorded = self._record(None, delivery)
        self._means.tell(self.webhook, self._means.observer.expired, delivery)
        self._await_record(flight, recorded)

    def _expired(self, delivery: Delivery, at: Micros) -> bool:
        """Whether `delivery` is worth nothing at `at`; what someone asked for again never is."""
        payload = delivery.event.payload
        if delivery.redelivery or isinstance(payload, Notice):
            return False
        lifetime = self._expire.get(payload.call_state)
        return lifetime is not None and at >= delivery.event.at + lifetime

    def _failed(self, flight: _Flight, sent: Sent, now: Micros) -> None:
        """
        Decide when to try again, or to give up, and whether to hold the webhook back.

        An attempt spends one of the schedule's, so that an event the receiver chokes on is given up
        in the end; but not the trial of a receiver in trouble, nor the first that is told to come later.
        """
        delivery = flight.delivery
        told_later = sent.hold is not None
        wait: float | None = None
        if not sent.permanent:
            if not flight.trial and not (told_later and (delivery.attempts == 1 or not flight.healthy)):
                delivery.spent += 1
                wait = wait_after(delivery.spent, self._retry, self._jitter, self._means.random())
            else:
                wait = 0.0
        self._holding.failed(sent, now, trial=flight.trial)
        if wait is None:
            delivery.status = DeliveryStatus.FAILED
            self._log.warn(
                "Webhook {webhook}: delivery {delivery} is given up after attempt {attempts}: {why}",
                webhook=self.webhook.id,
                delivery=id_text(delivery.id),
                attempts=delivery.attempts,
                why=printable(sent.error or answer(sent)),
            )
            return
        due = now + (int(wait * 1_000_000) or _TRIED_AGAIN)
        delivery.due_at = max(due, self._holding.breaker.held_until or 0)
        if self._expire and self._expired(delivery, delivery.due_at):
            delivery.status = DeliveryStatus.EXPIRED

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
            self._window.unrecordable.add(delivery.id)
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
        self._window.go_on(flight.lane)
        self._pump()
        self._tell_idle()

    # Holding back

    def _hold_over(self) -> None:
        # What was held back falls due at the end of the hold, and one of it is to be the trial.
        self._window.look()
        self._holding.over(something_to_try=self._window.may_have_more)
        self._pump()

    def _disable(self, reason: str, now: Micros) -> None:
        if self._problem is not None:
            return
        self._problem = reason
        self.wanted = False
        self._window.close()
        self._log.error(
            "Webhook {webhook} is disabled: {reason}. Its pending deliveries wait until it is enabled again",
            webhook=self.webhook.id,
            reason=printable(reason),
        )
        self._gone()
        disabling = Deferred.fromCoroutine(self._means.store.disable_webhook(self.webhook.id, reason, now))
        _ = disabling.addErrback(self._bug)
        self._holding.disabled(now)
        self._means.tell(self.webhook, self._means.observer.disabled, reason)

    def _cancelled_or_bug(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._bug(failure)

    def _bug(self, failure: Failure) -> None:
        self._log.failure("Webhook {webhook}: something went wrong", failure, webhook=self.webhook.id)
