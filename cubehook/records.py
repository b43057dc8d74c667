"""
What the rooms hand each other to be kept: notifications, deliveries, attempts, registrations.

Values only; `cubehook.store` writes them and reads them back.
"""

from __future__ import annotations

import enum

import msgspec

from cubehook.events import CallState, Event, Granularity, Micros


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a gateway about a call, as it came."""

    id: int
    cube: str
    call: int | None
    """The id of our call, None when the message concerns none."""
    at: Micros
    message: str
    """What it was: the event element's name (`created`, `alerting`, ...)."""
    body: bytes
    """The SOAP envelope as received."""


class DeliveryStatus(enum.StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"


class ErrorClass(enum.StrEnum):
    """Why an attempt failed, in the contract's words; `OTHER` is for transports that are not HTTP."""

    CONNECTION_REFUSED = "connection_refused"
    DNS = "dns"
    TIMEOUT = "timeout"
    TLS = "tls"
    CONNECTION_LOST = "connection_lost"
    BLOCKED = "blocked"
    HTTP = "http"
    OTHER = "other"


class Delivery(msgspec.Struct, kw_only=True):
    """
    One event on its way to one webhook.

    Mutable, and owned by the dispatcher once it is made.  `id` is greater than that of every
    delivery of an earlier event, so ids order a call's deliveries to a webhook.
    """

    id: int
    webhook: str
    event: Event
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0
    spent: int = 0
    """How many attempts count against the schedule: not those that only tried a receiver in trouble."""
    redelivery: bool = False
    """It was over once, and is sent again because someone asked for that."""
    error_class: ErrorClass | None = None
    """Of its last attempt, if that failed."""
    answered: int | None = None
    """The status that its last attempt was answered with."""
    due_at: Micros
    """When the next attempt may start; the event's own time for a delivery never tried."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why a webhook is held back, as kept over a restart."""

    failing_since: Micros
    """When the first of its failures in a row happened."""
    held_until: Micros
    openings: int
    """How often in a row its breaker has opened: the next time it stays open longer."""
    told: bool
    """A notice told of it, so that its end is to be told too."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """
    One try of a delivery, whole, as the log shows it.

    Secrets are already masked in `request_headers`.  Bodies are text as sent and as
    received (undecodable bytes replaced), the response's at most 64 KiB.
    """

    id: int
    delivery: int
    number: int
    """1 for the first try."""
    started_at: Micros
    duration: Micros
    delivered: bool
    phases: dict[str, Micros] = {}
    """How long each phase of the exchange took, in the order they were gone through, such as `connecting`."""
    method: str | None = None
    url: str | None = None
    request_headers: dict[str, str] = {}
    request_body: str | None = None
    status: int | None = None
    response_headers: dict[str, str] = {}
    response_body: str | None = None
    remote_address: str | None = None
    error_class: ErrorClass | None = None
    error: str | None = None
    """What went wrong, in words."""
    note: str | None = None
    """What else is to be known of the way it went: a proxy, a certificate that was not verified."""


class JobState(enum.StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Wants(msgspec.Struct, frozen=True, kw_only=True):
    """
    Which events of calls a webhook is sent: of `cubes`, which is every one if it is empty.

    For `kept` is known what was sent to it: deliveries are deleted after that.
    """

    granularity: Granularity
    states: tuple[CallState, ...]
    cubes: tuple[str, ...]
    kept: Micros


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """
    A webhook's deliveries being sent again, as an operator asked.

    Those of events from `since` up to but without `until`, that had one of `statuses`; `total` were counted
    when it began, `done` have been handed over to be sent, `skipped` could not be, since their events are no
    longer kept.  With `missed` it also means the events that its webhook wants and has no delivery of.
    `reason` says why it failed, or what it waits for.
    """

    id: int
    """Greater than that of every delivery it concerns."""
    webhook: str
    since: Micros
    until: Micros
    statuses: tuple[DeliveryStatus, ...]
    per_second: float
    total: int
    asked_by: str
    state: JobState = JobState.RUNNING
    done: int = 0
    skipped: int = 0
    cursor: int = 0
    """Deliveries, or with `missed` events, up to this id were looked at."""
    missed: Wants | None = None
    reason: str | None = None
    ended_at: Micros | None = None


class RegistrationState(enum.StrEnum):
    """The contract's states of a cube's registration (section 5)."""

    REGISTERED = "registered"
    REGISTERING = "registering"
    UNREGISTERED = "unregistered"
    SILENT = "silent"
    REJECTED = "rejected"
    DISABLED = "disabled"


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """How a cube's registration stands, and in words why."""

    cube: str
    state: RegistrationState
    since: Micros
    registration_id: str | None = None
    last_message_at: Micros | None = None
    last_probe_at: Micros | None = None
    """Since the service started; no store keeps it."""
    failure_count: int = 0
    last_error: str | None = None
    reason: str = ""
    """The last change in a voice engineer's words."""
