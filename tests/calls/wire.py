"""Notifications written tersely, and a gateway that says them to a tracker."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cubehook.calls.numbers import Numbers
from cubehook.calls.tracker import ENDED_KEPT, Changes, Tracker
from cubehook.events import Call, Event, Granularity, Micros
from cubehook.ids import Ids
from cubehook.xcc import messages as xcc

NOW: Micros = 1_732_377_816_200_940
SECOND: Micros = 1_000_000

CALLER = "+12517676234"
CALLED = "+12512501663"
GUID = "694646BC1D2311E7A8D2826ACB31D85A"
OTHER_GUID = "9364550FD96211E28F0D9C9C52CD806F"

_DIRECTIONS = {"in": "INCOMING", "out": "OUTGOING", None: None}


def address(text: str | None) -> xcc.AddrData | None:
    return None if text is None else xcc.AddrData(text, "URI" if ":" in text else "E164")


def detail(
    direction: str | None,
    calling: str | None = CALLER,
    called: str | None = CALLED,
    guid: str | None = GUID,
    **more: object,
) -> xcc.ConnDetailData:
    return xcc.ConnDetailData(
        guid=guid,
        calling_addr_data=address(calling),
        called_addr_data=address(called),
        conn_direction_type=_DIRECTIONS[direction],
        **more,  # type: ignore[arg-type]
    )


def created(direction: str | None, *args: str | None, **more: object) -> xcc.Created:
    return xcc.Created(detail(direction, *args, **more))  # type: ignore[arg-type]


def connected(direction: str | None, *args: str | None, **more: object) -> xcc.Connected:
    return xcc.Connected(detail(direction, *args, **more))  # type: ignore[arg-type]


def joined(direction: str | None, *args: str | None, **more: object) -> xcc.HandoffJoin:
    return xcc.HandoffJoin(detail(direction, *args, **more))  # type: ignore[arg-type]


def disconnected(cause: int | None = 16, **more: object) -> xcc.Disconnected:
    return xcc.Disconnected(cause, **more)  # type: ignore[arg-type]


def redirected(number: str | None) -> xcc.Redirected:
    return xcc.Redirected(address(number))


alerting = xcc.Alerting()
delivered = xcc.CallDelivery()
left = xcc.HandoffLeave()
forking = xcc.MediaForkingEvent("FORK_STARTED")


def notification(
    event: xcc.ConnectionEvent, call: str = "25", conn: str = "1", state: str | None = None
) -> xcc.NotifyXccConnectionData:
    return xcc.NotifyXccConnectionData(
        msg_header=xcc.MsgHeader("546CF8:25", "4CA5E4:XCC:myapp:4"),
        call_data=xcc.CallData(call, "ACTIVE"),
        conn_data=xcc.ConnData(conn, state),
        event=event,
    )


class Gateway:
    """
    Says notifications to a tracker, a second apart, and keeps what comes of them.

    Connections are named by one character, `i` for the incoming leg by habit.
    """

    def __init__(self, region: str | None = None, leg_events: bool = False) -> None:
        self.now = NOW
        self._ids = Ids(lambda bits: 0)
        self._numbers = Numbers(region)
        self.tracker = self._tracker(leg_events)
        self.events: list[Event] = []
        self.saved: dict[int, bytes] = {}

    def _tracker(self, leg_events: bool) -> Tracker:
        return Tracker("hq", self._ids.next, self._numbers, leg_events)

    def take(self, changes: Changes) -> list[Event]:
        self.events += changes.events
        for call in changes.calls:
            self.saved[call.id] = msgspec.json.encode(call)
        return changes.events

    def hear(
        self, conn: str, event: xcc.ConnectionEvent, call: str = "25", state: str | None = None
    ) -> list[str]:
        """The states that the notification led to; times go on by a second."""
        self.now += SECOND
        changes = self.tracker.connection_data(notification(event, call, conn, state), self.now)
        assert changes.about is (changes.calls[0] if changes.calls else None)
        return [event.call_event.call_state.value for event in self.take(changes)]

    def play(self, *steps: tuple[str, xcc.ConnectionEvent], call: str = "25") -> list[str]:
        return [state for conn, event in steps for state in self.hear(conn, event, call)]

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

    def sweep(self, after: float = 0) -> list[Event]:
        self.wait(after)
        return self.take(self.tracker.sweep(self.now))

    def reload(self) -> list[Event]:
        return self.take(self.tracker.reloaded(self.now))

    def restart(self) -> None:
        """A new tracker that knows what the store does: what is open, and what ended a short while ago."""
        self.tracker = self.restarted()
        calls = sorted(self.calls(), key=lambda call: (call.ended, call.disconnected_at))
        since = self.now - ENDED_KEPT
        self.tracker.restore(c for c in calls if c.disconnected_at is None or c.disconnected_at >= since)

    def restarted(self) -> Tracker:
        """A new tracker that knows nothing yet."""
        return self._tracker(self.tracker.leg_events)

    def calls(self) -> list[Call]:
        """Every call ever saved, as the store has it, oldest first."""
        return [msgspec.json.decode(self.saved[id], type=Call) for id in sorted(self.saved)]

    def call(self) -> Call:
        (call,) = self.calls()
        return call

    def told(self, granularity: Granularity = Granularity.CALL) -> Iterator[Event]:
        return (event for event in self.events if event.granularity is granularity)


RINGING = (
    ("i", created("in")),
    ("o", created("out")),
    ("o", delivered),
    ("o", alerting),
    ("i", alerting),
)
TALKING = (*RINGING, ("o", connected("out")), ("i", connected("in")))
