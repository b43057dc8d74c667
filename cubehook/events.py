"""
The words that every room speaks: calls, their legs, and the events they yield.

Times are `Micros`, whole microseconds since the Unix epoch in UTC; they become
text only in a payload.  Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
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


class Connection(msgspec.Struct, gc=False):
    """
    One leg of a call as the tracker remembers it: Cisco's `connection`.

    Mutable, and owned by the tracker; other rooms read it only through
    `Call.snapshot` and `CallEvent.connections`.
    """

    connection_id: str
    direction: Direction | None = None
    state: str = "IDLE"
    calling_number: str | None = None
    called_number: str | None = None
    original_called_number: str | None = None
    calling_withheld: bool = False
    interface: str | None = None
    route: str | None = None
    codec: str | None = None
    guid: str | None = None
    created_at: Micros = 0
    alerting_at: Micros | None = None
    connected_at: Micros | None = None
    disconnected_at: Micros | None = None
    disconnect_cause: int | None = None
    media: MediaStatistics | None = None
    left: bool = False
    """The leg left this call by a handoff or transfer; it did not end."""


class Call(msgspec.Struct):
    """
    One call as the tracker remembers it and the store keeps it.

    `id` is ours, unique for ever (see `cubehook.ids`); `gateway_call_id` is Cisco's
    `callID`, unique on one gateway between two reloads only.  `announced` holds the
    states already told, so that no event is told twice; `sequence` and
    `leg_sequence` number the events of the call and of its legs.
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
    announced: list[CallState] = []
    connections: dict[str, Connection] = {}
    leg_announced: dict[str, list[CallState]] = {}

    @property
    def ended(self) -> bool:
        """True once the call is closed; a closed call yields no more events."""
        return self.disconnected_at is not None


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


class BasicPayload(msgspec.Struct, frozen=True):
    """The `basic` payload: exactly these four keys, in this order."""

    call_state: CallState
    called_number: str | None
    calling_number: str | None
    timestamp: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """
    A `CallEvent` with what our own rooms need to keep, order and route it.

    `id` and `call` are `cubehook.ids` numbers; `at` is the receipt of the
    notification that caused it.
    """

    id: int
    call: int
    cube: str
    granularity: Granularity
    at: Micros
    payload: CallEvent


def iso(at: Micros) -> str:
    """`at` in UTC as RFC 3339 with always six decimals and a `Z`."""
    moment = _EPOCH + timedelta(microseconds=at)
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


def seconds_between(start: Micros | None, end: Micros | None) -> float | None:
    """Seconds from `start` to `end` to the millisecond, never negative; None if either is unknown."""
    if start is None or end is None:
        return None
    return max(0, end - start) // 1000 / 1000


_encoder = msgspec.json.Encoder()


def full_body(event: CallEvent) -> bytes:
    """`event` as the UTF-8 JSON of the `full` payload."""
    return _encoder.encode(event)


def basic_body(event: CallEvent) -> bytes:
    """`event` as the UTF-8 JSON of the `basic` payload."""
    return _encoder.encode(
        BasicPayload(event.call_state, event.called_number, event.calling_number, event.timestamp)
    )
