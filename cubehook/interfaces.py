"""
The interfaces between rooms, and the one that strangers implement: transports.

Every method says what it promises, what it raises and whether it may wait.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from cubehook.config import Webhook
from cubehook.events import Call, Event, Micros
from cubehook.records import (
    Attempt,
    Delivery,
    DeliveryStatus,
    ErrorClass,
    Job,
    JobState,
    Notification,
    Registration,
    Trouble,
)

if TYPE_CHECKING:
    from cubehook.net.agent import WebhookAgent
    from cubehook.net.egress import EgressPolicy
    from cubehook.net.tls import Tls, TlsOptions
    from cubehook.xcc.messages import NotifyXccConnectionData, SolicitXccConnectionAuthorize


class Outbound(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a transport is given to send: one event, its body already rendered.

    `id` is the event's id, the same on every retry: what a receiver knows repeats by.  `attempt` is 1 on
    the first.  `event.payload` is a `CallEvent`, or a `Notice` for a webhook that asks for notices.  `body`
    is what the webhook's `payload` says, in UTF-8, and is sent as it is; `content_type` tells its kind.
    """

    id: str
    event: Event
    body: bytes
    content_type: str
    attempt: int
    at: Micros
    """When this attempt starts: the time a signature covers."""
    timeout: float
    """Seconds within which the whole exchange must be over."""
    redelivery: bool = False
    """The event was delivered or given up before, and is sent again because someone asked for that."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """
    How one attempt went, as a transport tells it.

    `delivered`: the receiver has confirmed it; for a protocol without confirmation, the event was handed
    over as far as can be known, and the transport's description says how far that is.

    Where it was not delivered, these decide what happens next; without any, the event is tried again by
    the webhook's schedule, and the webhook held back if its attempts fail too often:

    - `permanent`: trying this event again cannot succeed (too large, refused for what it holds).  It is
      given up at once, the call's next event goes on, and the receiver does not count as failing.
    - `hold`: seconds for which the receiver asked not to be sent anything, None if it did not ask;
      0 holds it back without saying how long.
    - `gone`: the receiver wants nothing any more (HTTP 410).  The webhook is disabled.

    The rest is for the log of attempts and whoever reads it: text, fit to be shown, without secrets
    (`cubehook.net.urls.masked_url`), at most 64 KiB of `response_body`.  A failure has an `error_class`, and
    an `error` in words that name what happened and where.  `phases`: how long each phase took that the
    exchange went through, by its name, in their order.
    """

    delivered: bool
    permanent: bool = False
    gone: bool = False
    hold: float | None = None
    phases: dict[str, Micros] = {}
    method: str | None = None
    url: str | None = None
    request_headers: dict[str, str] = {}
    status: int | None = None
    response_headers: dict[str, str] = {}
    response_body: str | None = None
    remote_address: str | None = None
    error_class: ErrorClass | None = None
    error: str | None = None
    note: str | None = None
    """What else is to be known of the way it went: a proxy, a certificate that was not verified."""


class ITransport(Interface):
    """
    Delivers events to the receiver of one webhook.

    One instance serves one webhook, from its creation to its `stop`; when the webhook's settings change,
    another takes its place.  The order is `start`, then `deliver` any number of times, then `stop`.
    A webhook that is disabled has one that is never started, and never stopped.

    Everything is called in the reactor's thread and must not block it; what blocks goes to
    `reactor.getThreadPool()`.  Methods are coroutines, or return a Deferred.

    What is not waited for any longer is cancelled: the Deferred being awaited fails with CancelledError,
    which must end the method at once.
    """

    async def start() -> None:
        """
        Get ready.

        A receiver that is away is no reason to raise, nor to wait for it: `deliver` will tell.  Nothing is
        sent meanwhile; other webhooks do not wait.  ValueError, in words for the operator, is for a setting
        that can never work: the webhook is sent nothing until its settings change.  Anything else that
        is raised is logged, and `start` called again after a second, then at growing intervals up to a
        minute; so it must be able to begin anew.  May be cancelled, when the service stops.
        """

    async def deliver(outbound: Outbound) -> Sent:
        """
        Try once to deliver, within `outbound.timeout` seconds, and tell how it went.

        Must not raise for anything the receiver or the network does; an exception is taken for a bug of the
        transport, logged with its traceback, and the event tried again.  Never retries by itself: a
        connection that was lost since the last event is made again, an event that failed is told.

        May be under way several times at once, up to the webhook's `concurrency`, but never twice for one
        call: a call's next event comes once this one's fate is decided, so whoever sends in the order
        of calling keeps the order that receivers are promised.

        Cancelled two seconds past its timeout, and then counted as failed; or when the service stops, and
        then repeated at the next start.  After a failure or a cancellation the next `deliver` must find the
        transport fit for use.
        """

    async def stop() -> None:
        """
        Let go of everything: connections, files, timers, threads.

        Called once, with no `deliver` under way, if `start` was called; also when that failed or was
        cancelled.  Has five seconds, then it is cancelled.
        """


class ITransportPlugin(IPlugin):
    """
    What a plugin module offers to `twisted.plugin`: a maker of transports.

    Every module in `cubehook.plugins`, and in a folder `cubehook/plugins` (without `__init__.py`) anywhere on
    Python's path, is imported when a configuration is read, and each object in it that provides this
    interface is a transport.  Importing must do no I/O and must not import the reactor.  One that
    cannot be imported or does not keep to this interface is named in the log and by `cubehook transports`,
    and left out; nothing else is affected.

    Stability, also of all that a transport is given and gives: within a major version (of 0, within a
    minor one) nothing here is taken away or changes its meaning; `Outbound`, `Sent` and `ITransportContext`
    may gain fields, attributes and methods, and enumerations (states, notices, error classes) members.
    """

    name = Attribute(
        "str: what a webhook writes as `transport`: small letters, digits, `_` and `-`, at most 64, unique; "
        "cubehook's own cannot be taken"
    )
    description = Attribute("str: one line for `cubehook transports`")
    options = Attribute(
        "type[msgspec.Struct]: the keys a webhook may write under `options`, with their types, defaults and "
        "docstring, and what `msgspec.Meta(description=...)` says of each; forbid_unknown_fields=True"
    )

    def check(webhook: Webhook, options: Any) -> list[tuple[str, str]]:
        """
        What is wrong with a webhook's settings: (key, what was expected) pairs, empty if none.

        Called when a configuration is read, without a reactor, perhaps by another user on another machine:
        pure and quick, no files, no network.  A key is that of the webhook (`url`, `options.path`); what
        was expected is told in words that repeat no value.  `options` is an instance of `self.options`, the
        types of which were checked.  Settings that this transport does not use may be left alone.
        """

    def create(webhook: Webhook, options: Any, context: ITransportContext) -> ITransport:
        """A transport for `webhook`, whose settings passed `check`; opens nothing yet."""


class ITransportContext(Interface):
    """What the service lends to the transport of one webhook."""

    reactor: Any = Attribute(
        "the reactor: IReactorTime, IReactorCore, IReactorTCP, IReactorUDP, IReactorThreads; to be used "
        "rather than imported"
    )
    webhook: Webhook = Attribute("the webhook, as configured")
    state_dir: Path = Attribute("pathlib.Path: the folder relative paths start from")
    secrets: tuple[str, ...] = Attribute(
        "tuple[str, ...]: the webhook's signing secrets, `whsec_...`, newest first; several during a rotation"
    )
    version: str = Attribute("str: cubehook's version, for a User-Agent")
    egress: EgressPolicy = Attribute(
        "EgressPolicy: `check(address)` raises BlockedError for what may not be reached; to be asked by "
        "libraries that open their sockets themselves, of every address before they connect to it"
    )

    async def addresses(host: str) -> list[str]:
        """
        The addresses that `host`, a name or an address, stands for and the egress policy lets through.

        For what `agent` and `endpoint` do not do, such as UDP; to be asked for each attempt, since
        names move.  Never empty: raises `cubehook.net.egress.BlockedError` or Twisted's DNSLookupError.
        Takes as long as the name servers do; may be cancelled.
        """

    def tls(options: TlsOptions) -> Tls:
        """
        TLS as the webhook's `options` want it; to be called in `start`.

        A transport's struct of options inherits the keys from `TlsOptions`, and its plugin's `check`
        calls `check_tls`.  TlsFileError for files that cannot be used; let it pass out of `start`, which is
        tried again.  `insecure` is warned of.
        """

    def agent(
        tls: Tls | None = None, proxy: str | None = None, no_proxy: Sequence[str] | None = None
    ) -> WebhookAgent:
        """
        A new agent for HTTP, with a pool of its own, egress checked, TLS verified.

        `proxy` (its URL, empty for none) and `no_proxy` are those of `[egress]` unless given.  The transport
        owns the agent and must `close` it in `stop`.
        """

    def endpoint(host: str, port: int, tls: Tls | bool | None = None) -> IStreamClientEndpoint:
        """
        Connects to `host`, a name or an address, if and where the egress policy lets it.

        `tls`: True for TLS with a verified certificate for `host`, or what the method `tls` made.
        `connect` fails with `cubehook.net.egress.BlockedError` or Twisted's own errors, and gives up after
        the webhook's timeout.  TLS begins after that: a certificate that is refused ends the connection,
        with `cubehook.net.tls.UntrustedError` as the reason.  No proxy is asked.
        """


class IDeliveryStore(Interface):
    """What the dispatcher needs of the store."""

    def record(attempt: Attempt | None, delivery: Delivery) -> Deferred[None]:
        """
        Keep `attempt`, if one was made, and the delivery's standing (`status`, `attempts`, `spent`,
        `due_at`).

        Values are taken at the call.  Fires when committed, however late that is; errbacks
        if it never will be, and the delivery stays on disk as it was.
        """

    async def pending(webhook: str, now: Micros, exclude: Sequence[int], limit: int) -> list[Delivery]:
        """
        Committed pending deliveries of `webhook` for the calls whose oldest pending delivery
        is due at `now` or before, whole calls at a time, oldest due first, except the calls
        (ids) in `exclude`; `limit` deliveries, more only to complete a call, fewer only
        when there are no more.

        Reads what was written: everything handed to `accept` and `record` before the call
        is committed first, however long that takes.  Reads no delivered history: the cost
        depends on what is pending.
        """

    async def next_due(webhook: str, after: Micros) -> Micros | None:
        """The earliest `due_at` later than `after` of the webhook's pending deliveries, or None."""

    async def disable_webhook(webhook: str, reason: str, at: Micros) -> None:
        """Remember that the webhook is disabled and why."""

    async def save_trouble(webhook: str, trouble: Trouble | None) -> None:
        """Remember that the webhook is held back and why, or that it is not any more."""

    async def settle(delivery: int, status: str) -> None:
        """Close a pending delivery that will not be tried (its webhook is gone)."""


class IJournal(Interface):
    """What the intake and registrations need of the store."""

    degraded = Attribute("bool: commits are failing, work is held in memory")
    full = Attribute("bool: memory holds as much as it may; `accept` would refuse")

    def accept(
        notification: Notification | None,
        calls: Sequence[Call],
        events: Sequence[Event],
        deliveries: Sequence[Delivery],
    ) -> Deferred[None]:
        """
        Commit everything that one notification changed, in one transaction.

        Calls are copied at the call.  Fires after the commit has reached the disk.
        Errbacks with `StoreFullError` at once if no more can be held in memory.
        """

    def registration(registration: Registration) -> Deferred[None]:
        """Keep a cube's registration, and add the change to its history."""


class IIntake(Interface):
    """Takes what a gateway tells of calls."""

    def connection_data(
        cube: str, message: NotifyXccConnectionData, raw: bytes, at: Micros
    ) -> Deferred[None]:
        """
        Understand, keep and pass on one notification.

        Fires when it is safe to answer the gateway: after the commit, or, when the store
        cannot commit, after at most two seconds.  Errbacks with `StoreFullError` when the
        gateway must be told to try later.  The work is done whether or not anyone waits.
        """

    def authorize(cube: str, message: SolicitXccConnectionAuthorize, raw: bytes, at: Micros) -> None:
        """Learn a call's numbers from a solicitation; its answer waits for nothing."""


class IRedelivery(Interface):
    """
    Sends again what is over, because someone asked for that: one delivery, or a webhook's of some time.

    What is sent again is pending again: it keeps its id, its event and its log of attempts, is tried by
    the webhook's whole schedule, never expires, and is marked as a redelivery.

    Everything may wait for the store.  `asked_by` says who asks, for the log and for whoever looks at a job.
    What was asked for is done whether or not the asker still waits.  Each raises one of
    `RedeliveryError`'s kinds, whose text tells a person why it cannot be, or StoreError.
    """

    async def preview(
        webhook: str,
        since: Micros,
        until: Micros,
        statuses: Collection[DeliveryStatus],
        *,
        missed: bool = False,
    ) -> int:
        """
        How many deliveries `start` would send again now.

        NotFoundError (the webhook), BadRangeError.  A webhook that is disabled is no obstacle.
        """

    async def start(
        webhook: str,
        since: Micros,
        until: Micros,
        statuses: Collection[DeliveryStatus],
        asked_by: str,
        per_second: float = 50.0,
        *,
        missed: bool = False,
    ) -> Job:
        """
        Send again the deliveries of `webhook`, for events from `since` up to but without `until`, that
        are over with one of `statuses`; at most `per_second` of them a second.  Returns the job once it
        is kept.

        With `missed` it also sends the events of calls that are such as the webhook wants now, and of which
        it has no delivery: it was paused or disabled when they happened, or had not been made.

        Oldest first, so in order within each call.  The job goes on by itself, also after a restart; of
        one webhook the jobs go one after the other.  It hands nothing over while the webhook is held back,
        disabled, or has 1,000 deliveries pending.  Deliveries made after it began are not its concern, and
        none is sent again twice by one job.

        NotFoundError (the webhook), WebhookDisabledError, BadRangeError.
        """

    async def one(delivery: int, asked_by: str) -> Delivery:
        """
        Send one delivery again; how it then stands.

        NotFoundError (the delivery or its webhook), WebhookDisabledError, DeliveryPendingError,
        EventNotKeptError.
        """

    async def cancel(job: int) -> Job:
        """
        Let a job hand over nothing more; how it then stands, unchanged if it had ended before.

        What it has handed over is sent all the same.  NotFoundError (the job).
        """

    async def jobs(webhook: str | None = None, before: int | None = None, limit: int = 50) -> list[Job]:
        """
        Up to `limit` jobs, newest first; of `webhook` and with ids less than `before` where these are given.

        A running one's `reason` says what it waits for, if it waits.
        """

    async def job(job: int) -> Job:
        """One job, as in `jobs`; NotFoundError."""


class Handed(NamedTuple):
    """A job after a step, and the deliveries that this step made pending again, ids ascending."""

    job: Job
    deliveries: list[Delivery]


class IJobStore(Interface):
    """
    What sending again needs of the store.

    A job means the deliveries of its webhook that have one of its statuses, with ids from the first of
    `since` up to but without the first of `until`, and less than its own.  One with `missed` means events,
    with such ids: those with such deliveries, and those that are wanted and have none.  Methods raise
    StoreError if the database cannot be read; what is written waits until it can be.
    """

    async def knows_webhook(webhook: str) -> bool:
        """Whether there is such a webhook, be it one that cannot be sent to."""

    async def webhook_of(delivery: int) -> str:
        """Whose delivery that is; NotFoundError."""

    async def count(job: Job) -> int:
        """How many deliveries, or events, `job`, kept or not, means, and has an event for."""

    async def find(job: Job, after: int, most: int) -> tuple[list[int], int | None]:
        """
        Up to `most` deliveries, or events, that `job` means, ids greater than `after` and ascending; and the
        id through which was looked, None at the end.

        Looks at so many rows that it takes no time worth the name, so it may find none before the end.
        """

    async def hand_over(job: int, ids: Sequence[int], through: int | None, now: Micros) -> Handed:
        """
        Make deliveries found for `job` pending again, as redeliveries that are due now, and note that in it.

        Those of events that have none are made.  All in one transaction.  Not those that are not meant any
        more; those without an event
        are counted as skipped.  `through` is where the job goes on, None if it is done.  Does nothing to a
        job that is not running or has gone that far already.  NotFoundError.
        """

    async def send_again(delivery: int, now: Micros) -> Delivery:
        """
        As `hand_over`, of one delivery, whatever way it was over.

        NotFoundError, DeliveryPendingError, EventNotKeptError.
        """

    async def add(job: Job) -> None:
        """Keep a new job."""

    async def end(job: int, state: JobState, reason: str | None, at: Micros) -> Job:
        """End a job if it is running; how it then stands.  NotFoundError."""

    async def get(job: int) -> Job:
        """A job as it is kept; NotFoundError."""

    async def page(webhook: str | None, before: int | None, limit: int) -> list[Job]:
        """See `IRedelivery.jobs`."""

    async def running() -> list[Job]:
        """Those that are running, oldest first."""


class RedeliveryError(Exception):
    """Something cannot be sent again; the text tells a person what, why, and what to do."""


class NotFoundError(RedeliveryError):
    """There is no such webhook, delivery or job."""


class WebhookDisabledError(RedeliveryError):
    """The webhook is sent nothing until it is enabled again."""


class DeliveryPendingError(RedeliveryError):
    """The delivery is not over: it will be tried anyway."""


class EventNotKeptError(RedeliveryError):
    """What the delivery carried was deleted as `retention` says, or cannot be read back."""


class BadRangeError(RedeliveryError):
    """
    The deliveries meant, or the pace, cannot be so.

    `problems` tells what was expected, by the argument's name: `since`, `until`, `statuses`, `per_second`.
    """

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = problems


class StoreFullError(Exception):
    """The store is away and memory holds as much as it may."""
