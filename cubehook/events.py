"""
The words that every room speaks: calls, their legs, and the events they yield.

Times are `Micros`, whole microseconds since the Unix epoch in UTC; they become
text only in a payload.  Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeAlias

import msgspec

Micros: TypeAlias = int
"""Microseconds since the Unix epoch, UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CallState(enum.StrEnum):
    """The three states a webhook may hear of, in the order they occur."""

    ALERTING = "ALERTING"
    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"


class Outcome(enum.StrEnum):
    """How a call ended, as told on its DISCONNECTED event."""

    ANSWERED = "answered"
    MISSED = "missed"
    BUSY = "busy"
    ABANDONED = "abandoned"
    REJECTED = "rejected"
    FAILED = "failed"


class Direction(enum.StrEnum):
    """Cisco's `connDirectionType`, seen from the gateway."""

    INCOMING = "INCOMING"
    OUTGOING = "OUTGOING"


class Granularity(enum.StrEnum):
    """Whether an event tells of a whole call or of one leg of it."""

    CALL = "call"
    CONNECTION = "connection"


class NoticeType(enum.StrEnum):
    """What a webhook may ask to be told of the service itself."""

    CUBE_REGISTERED = "cube.registered"
    CUBE_LOST = "cube.lost"
    WEBHOOK_FAILING = "webhook.failing"
    WEBHOOK_RECOVERED = "webhook.recovered"
    WEBHOOK_DISABLED = "webhook.disabled"


class MediaStatistics(msgspec.Struct, frozen=True, omit_defaults=False):
    """What a `disconnected` told of a leg's media (`statsData`, `jitterData`)."""

    duration_seconds: float | None = None
    packets_sent: int | None = None
    bytes_sent: int | None = None
    packets_received: int | None = None
    bytes_received: int | None = None
    packets_lost: int | None = None
    packets_early: int | None = None
    packets_late: int | None = None
    round_trip_ms: int | None = None
    receive_delay_ms: int | None = None


LEFT = "LEFT"
"""The `Connection.state` of a leg that was handed off to another call: it left this one, it did not end."""


class Connection(msgspec.Struct, gc=False, omit_defaults=True):
    """
    One leg of a call as the tracker remembers it: Cisco's `connection`.

    Mutable, and owned by the tracker.  `state` is Cisco's connection state as the event
    elements told it, or `LEFT`.  Each of the three times is set once, and not set when the
    leg was already past it: they tell which states the leg has announced.  `dialled` counts
    where `direction` was not told: what the gateway told of the leg shows that it made it, so that
    it is not the caller's.
    """

    connection_id: str
    direction: Direction | None = None
    dialled: bool = False
    state: str = "IDLE"
    calling_number: str | None = None
    called_number: str | None = None
    interface: str | None = None
    route: str | None = None
    codec: str | None = None
    guid: str | None = None
    alerting_at: Micros | None = None
    connected_at: Micros | None = None
    disconnected_at: Micros | None = None
    disconnect_cause: int | None = None
    media: MediaStatistics | None = None

    @property
    def gone(self) -> bool:
        """True once the leg is no more in its call: it ended, or left for another call."""
        return self.disconnected_at is not None or self.state == LEFT


class Call(msgspec.Struct, gc=False, omit_defaults=True):
    """
    One call as the tracker remembers it and the store keeps it.

    `id` is ours, unique for ever (see `cubehook.ids`); `gateway_call_id` is Cisco's
    `callID`, unique on one gateway between two reloads only.  Each of `alerting_at`,
    `connected_at` and `disconnected_at` is set when the call's event of that state is told,
    and only then; `sequence` counts those events, `leg_sequence` the events of its legs.
    `connections` are in order of appearance.  Of an `inferred` end, `disconnected_at` is
    when it was inferred.
    """

    id: int
    cube: str
    gateway_call_id: str
    started_at: Micros
    last_heard_at: Micros
    guid: str | None = None
    direction: Direction | None = None
    calling_number: str | None = None
    called_number: str | None = None
    original_called_number: str | None = None
    redirected_to: str | None = None
    calling_withheld: bool = False
    alerting_at: Micros | None = None
    connected_at: Micros | None = None
    disconnected_at: Micros | None = None
    outcome: Outcome | None = None
    disconnect_cause: int | None = None
    inferred: bool = False
    sequence: int = 0
    leg_sequence: int = 0
    connections: list[Connection] = []

    @property
    def ended(self) -> bool:
        """True once the call is closed; a closed call yields no more events of its own."""
        return self.disconnected_at is not None

    @property
    def ring_seconds(self) -> float | None:
        """From the first ringing to the answer, else to the end; None if either is unknown."""
        if self.connected_at is None and self.inferred:
            return None
        return seconds_between(self.alerting_at, self.connected_at or self.disconnected_at)

    @property
    def talk_seconds(self) -> float | None:
        """From the first answer to the end; None if either is unknown, as of an inferred end."""
        return None if self.inferred else seconds_between(self.connected_at, self.disconnected_at)

    def connection(self, connection_id: str) -> Connection | None:
        """The leg with this `connID`, None if the call has none such."""
        for connection in self.connections:
            if connection.connection_id == connection_id:
                return connection
        return None


class ConnectionView(msgspec.Struct, frozen=True):
    """One leg as shown in the `full` payload; keys and order are the contract's."""

    connection_id: str
    direction: Direction | None
    state: str
    calling_number: str | None
    called_number: str | None
    interface: str | None
    disconnect_cause: int | None
    media: MediaStatistics | None


class CallEvent(msgspec.Struct, frozen=True, kw_only=True):
    """
    The `full` payload: keys and their order are the contract's section 3.

    Absent knowledge is None and its key is always there.
    """

    call_state: CallState
    called_number: str | None
    calling_number: str | None
    timestamp: str
    event_id: str
    sequence: int
    cube: str
    call_id: str
    guid: str | None
    direction: Direction | None
    original_called_number: str | None
    redirected_to: str | None
    calling_withheld: bool
    alerting_at: str | None
    connected_at: str | None
    disconnected_at: str | None
    ring_seconds: float | None
    talk_seconds: float | None
    outcome: Outcome | None
    disconnect_cause: int | None
    disconnect_text: str | None
    route: str | None
    codec: str | None
    inferred: bool
    connections: list[ConnectionView]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a webhook that asks for notices is sent about the service itself, in the form that Standard
    Webhooks suggests for payloads; keys in this order.

    `data` tells of the cube or the webhook: `{"cube": ID, ...}` or `{"webhook": ID, ...}`.
    """

    type: NoticeType
    timestamp: str
    event_id: str
    data: dict[str, str | int | float | bool | None]


class BasicPayload(msgspec.Struct, frozen=True):
    """The `basic` payload: exactly these four keys, in this order."""

    call_state: CallState
    called_number: str | None
    calling_number: str | None
    timestamp: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """
    A `CallEvent` with what our own rooms need to keep, order and route it; or a `Notice`.

    `id` and `call` are `cubehook.ids` numbers; `at` is the receipt of the
    notification that caused it.  A notice has no `granularity`; its `call` is a small number that stands for
    what it tells of, so that notices of one cube or webhook keep their order, and its `cube` is empty
    if it tells of a webhook.
    """

    id: int
    call: int
    cube: str
    granularity: Granularity | None
    at: Micros
    payload: CallEvent | Notice

    @property
    def call_event(self) -> CallEvent:
        """`payload`, for those who know that this is not a notice; TypeError if it is."""
        if not isinstance(self.payload, CallEvent):
            raise TypeError(f"a notice of {self.payload.type} tells of no call")
        return self.payload


def iso(at: Micros) -> str:
    """`at` in UTC as RFC 3339 with always six decimals and a `Z`."""
    second, micros = divmod(at, 1_000_000)
    return f"{_iso_second(second)}.{micros:06d}Z"


@lru_cache(maxsize=16)
def _iso_second(second: int) -> str:
    # One second is written many times over; arithmetic, for a platform's clock functions may be narrower.
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:19]


def seconds_between(start: Micros | None, end: Micros | None) -> float | None:
    """Seconds from `start` to `end` to the millisecond, never negative; None if either is unknown."""
    if start is None or end is None:
        return None
    return max(0, end - start) // 1000 / 1000


_encoder = msgspec.json.Encoder()


def full_body(event: CallEvent) -> bytes:
    """`event` as the UTF-8 JSON of the `full` payload."""
    return _encoder.encode(event)


def notice_body(notice: Notice) -> bytes:
    """`notice` as UTF-8 JSON."""
    return _encoder.encode(notice)


def basic_body(event: CallEvent) -> bytes:
    """`event` as the UTF-8 JSON of the `basic` payload."""
    return _encoder.encode(
        BasicPayload(event.call_state, event.called_number, event.calling_number, event.timestamp)
    )
