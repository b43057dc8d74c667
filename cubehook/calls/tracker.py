"""
From connections to calls: at most one ALERTING, CONNECTED and DISCONNECTED for each call.

A gateway tells of legs (`connID`) of a call (`callID`); what it tells may come twice, in any order,
or not at all.  A `Tracker` keeps the calls of one gateway that are in progress and, for some
minutes, those that ended, so that what still comes of them is not taken for another call.

- The event element decides.  `connData/state` is believed in one place: a leg that joins a call by
  `handoffJoin` in state CONNECTED was answered where it came from.
- ALERTING is told at the first `alerting` of any leg unless the call is connected, CONNECTED at the first
  `connected` of any leg.  Nothing is told that did not come, save an inferred end.
- The caller and the number called are the incoming leg's as soon as that leg is known, else another leg's.
  A redirection does not change them: `redirected_to` tells of it.
- A call whose first sign is its end yields nothing: there is nothing to tell of it.  Its legs' ends are
  held for `ENDED_KEPT`, for when the end merely overtook the beginning.
- When the gateway begins its callIDs again, the old call of a callID is closed as inferred before the new
  one begins.  An inferred end has no talk time, since nobody knows it.

Times come in with each call, ids from `new_id`; there is no I/O and no clock here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

import msgspec

from cubehook.calls.details import guid_of, media_of
from cubehook.calls.numbers import Numbers
from cubehook.calls.outcome import answered, judged, leg_outcome, legless, over
from cubehook.calls.payload import call_event, leg_event
from cubehook.events import (
    LEFT,
    Call,
    CallEvent,
    CallState,
    Connection,
    Direction,
    Event,
    Granularity,
    Micros,
)
from cubehook.steady import past_after_step
from cubehook.xcc import messages as xcc

_SECOND = 1_000_000

ENDED_KEPT: Micros = 300 * _SECOND
"""
For how long after the last word of it an ended call is remembered.

A gateway does not use a callID again before it has restarted, which takes it about as long.  Until then
whatever comes with the callID is late word of the call, or shows that it was taken for over too soon.
"""

INFERRED_KEPT: Micros = 24 * 3600 * _SECOND
"""The same for a call that was closed for its silence: it may live on, and must not be told of again."""

LATE_LEGS: Micros = 30 * _SECOND
"""For how long after the end of a call the ends of its other legs are waited for."""

ENDED_KEPT_MOST = 4096
"""How many ended calls of one gateway are remembered, about 6 MB; the oldest are forgotten first."""

DISORDER: Micros = 5 * _SECOND
"""By how much the `created` of an incoming leg may come late; it is the first thing a call does."""

UNANSWERED_QUIET: Micros = 3600 * _SECOND
"""After how long without a word a call never answered is taken for lost.  Queues may ring for long."""

ANSWERED_QUIET: Micros = 24 * 3600 * _SECOND
"""The same for an answered call: XCC has no refresh, so people may talk all day without a word to us."""

LEGLESS_QUIET: Micros = 180 * _SECOND
"""
The same for a call with no leg left but a caller's that was never seen.

A hunt goes on at once, but if that is not told either, there is no word before the next leg is answered or
fails: a gateway lets it ring for three minutes at most (RFC 3261's timer C).
"""

LEGS_MOST = 200
"""How many legs of a call are remembered; of a call with more, those that failed first are forgotten."""

_LONGEST_ID = 64
_LONGEST_TEXT = 256

_ENDS = (xcc.Disconnected, xcc.HandoffLeave)
"""Events that end a leg's part in a call: no call begins with them."""
_ASIDE = (xcc.MediaForkingEvent, xcc.UnknownEvent)
"""Events that say nothing of a leg's state, nor that there is a call."""

_DIRECTIONS = {direction.value: direction for direction in Direction}


class Changes(msgspec.Struct):
    """
    What one piece of news changed.

    `calls` are to be saved, `events` told in their order.  `about` is the call the news was of
    (then it is also the first of `calls`), None if it was of none that is known.
    """

    calls: list[Call]
    events: list[Event]
    about: Call | None = None


class Tracker:
    """
    The calls of one gateway.

    `new_id(at)` makes ids for calls and events, each greater than the last.  `leg_events` tells
    whether legs yield events of their own (granularity `connection`); it may be set at any time.

    No method raises for anything a gateway may send.
    """

    def __init__(
        self, cube: str, new_id: Callable[[Micros], int], numbers: Numbers, leg_events: bool = False
    ) -> None:
        self.leg_events = leg_events
        self._cube = cube
        self._new_id = new_id
        self._numbers = numbers
        self._earlier_numbers: dict[int, Numbers] = {}
        self._open: dict[str, Call] = {}
        # Ended calls, and calls of which nothing but the end of a leg was seen (not `ended`, never saved).
        self._past: dict[str, Call] = {}

    @property
    def active(self) -> int:
        """How many calls are in progress."""
        return len(self._open)

    def open_calls(self) -> Collection[Call]:
        """The calls in progress; a live view, not to be changed."""
        return self._open.values()

    def complete_with(self, numbers: Numbers) -> None:
        """Complete numbers with `numbers` in calls that begin from now on; others are told as they began."""
        for call in (*self._open.values(), *self._past.values()):
            self._earlier_numbers.setdefault(call.id, self._numbers)
        self._numbers = numbers

    def restore(self, calls: Iterable[Call]) -> None:
        """
        Go on with `calls` as they were saved, in the order in which they ended.

        Those that ended within `ENDED_KEPT` belong here too, the last `ENDED_KEPT_MOST` of them: what
        still comes of them must not be taken for another call.  A call in progress goes before one
        that ended and had the same callID.
        """
        for call in calls:
            for leg in call.connections:
                _share_texts(call, leg)
            key = call.gateway_call_id
            if not call.ended:
                self._past.pop(key, None)
                self._open[key] = call
            elif key not in self._open:
                self._past.pop(key, None)
                self._past[key] = call
        for key in list(self._past)[:-ENDED_KEPT_MOST]:
            del self._past[key]

    def connection_data(self, message: xcc.NotifyXccConnectionData, at: Micros) -> Changes:
        """What follows from a notification received at `at`."""
        return self._heard(message.call_data.call_id, message.conn_data, message.event, at)

    def authorize(self, message: xcc.SolicitXccConnectionAuthorize, at: Micros) -> Changes:
        """What follows from a solicitation received at `at`: it tells of a leg what its `created` does."""
        call_id, detail = message.call_data.call_id, message.conn_detail_data
        conn = detail.conn_data
        if conn is None:
            call = self._open.get(call_id[:_LONGEST_ID])
            caller = None if call is None else _first_incoming(call)
            if caller is None:
                return Changes([], [])
            conn = xcc.ConnData(caller.connection_id)
        return self._heard(call_id, conn, xcc.Created(detail), at)

    def reloaded(self, at: Micros) -> Changes:
        """
        The gateway restarted: the calls it had are gone, and its callIDs begin again.

        The same is done for a gateway that is no longer configured, of which nobody will tell any more.
        """
        changes = Changes([], [])
        for call in list(self._open.values()):
            self._close(call, at, changes)
        for key in list(self._past):
            self._forget(key, at, changes)
        return changes

    def clock_set(self, by: Micros, at: Micros) -> None:
        """The clock that times come from was set by so much, and says `at`: no call was silent that long."""
        for call in (*self._open.values(), *self._past.values()):
            call.last_heard_at = past_after_step(call.last_heard_at, by, at)

    def sweep(self, at: Micros) -> Changes:
        """
        Close calls not heard of for too long, and forget ended ones; to be called about once a minute.

        With `leg_events`, the legs of an ended call that did not end within `LATE_LEGS` are closed too.
        """
        changes = Changes([], [])
        quiet_since = at - LEGLESS_QUIET
        for call in [call for call in self._open.values() if call.last_heard_at < quiet_since]:
            quiet = at - call.last_heard_at
            if quiet > ANSWERED_QUIET or (not answered(call) and (quiet > UNANSWERED_QUIET or legless(call))):
                self._close(call, at, changes)
                self._keep(call, at, changes)
        for key, call in list(self._past.items()):
            if _is_past(call, at):
                self._forget(key, at, changes)
            elif call.disconnected_at is not None and at - call.disconnected_at > LATE_LEGS:
                self._close_legs(call, at, changes)
        if self._earlier_numbers:
            kept = {call.id for call in (*self._open.values(), *self._past.values())}
            self._earlier_numbers = {id: each for id, each in self._earlier_numbers.items() if id in kept}
        return changes

    def _heard(self, call_id: str, conn: xcc.ConnData, event: xcc.ConnectionEvent, at: Micros) -> Changes:
        changes = Changes([], [])
        key = call_id[:_LONGEST_ID]
        conn_id = conn.conn_id[:_LONGEST_ID]
        call = self._open.get(key) or self._past.get(key)
        if call is not None and self._is_stale(call, conn_id, event, at):
            if key in self._open:
                self._close(call, at, changes)
            else:
                self._forget(key, at, changes)
            call = None
        if call is None:
            if isinstance(event, _ASIDE):
                return changes
            call = Call(self._new_id(at), self._cube, key, at, at)
            if isinstance(event, _ENDS):
                self._keep(call, at, changes)
            else:
                self._open[key] = call
        overtaken = not call.ended and key in self._past and not isinstance(event, _ASIDE + _ENDS)
        if overtaken:
            self._open[key] = self._past.pop(key)
        call.last_heard_at = at
        self._apply(call, conn_id, conn, event, at, changes)
        if overtaken:
            for leg in call.connections:
                if leg.disconnected_at is not None:
                    self._tell_leg(call, leg, CallState.DISCONNECTED, at, changes)
        if call.ended or key in self._open:
            changes.calls.insert(0, call)
            changes.about = call
        return changes

    def _is_stale(self, call: Call, conn_id: str, event: xcc.ConnectionEvent, at: Micros) -> bool:
        """Whether `call`, which has the callID of `event`, is not the call that `event` is of."""
        if call.gateway_call_id in self._past and _is_past(call, at):
            return True
        return isinstance(event, xcc.Created | xcc.Connected) and self._is_of_another_call(
            call, conn_id, event, at
        )

    def _is_of_another_call(
        self, call: Call, conn_id: str, event: xcc.Created | xcc.Connected, at: Micros
    ) -> bool:
        """
        Whether `event` cannot be of `call`, so that the gateway must have begun its callIDs again.

        A leg never changes its direction, and is created with one guid and one pair of numbers.  Legs of
        one call may differ in guid, but a call has one incoming leg, and its `created` is the first
        thing that happens in it.
        """
        detail = event.conn_detail_data
        direction = _direction(detail)
        leg = call.connection(conn_id)
        guid = guid_of(detail)
        if leg is not None:
            if guid is not None and guid == leg.guid:
                return False
            if direction is not None and leg.direction is not None and direction is not leg.direction:
                return True
            other_guid = guid is not None and leg.guid is not None
            if isinstance(event, xcc.Created):
                return other_guid or self._other_numbers(call, leg, detail)
            # What is told of a connected leg may differ from what it was created with.
            return other_guid and self._other_numbers(call, leg, detail)
        if direction is not Direction.INCOMING or isinstance(event, xcc.Connected):
            return False
        if guid is not None and any(other.guid == guid for other in call.connections):
            return False
        return _first_incoming(call) is not None or at - call.started_at > DISORDER

    def _numbers_of(self, call: Call) -> Numbers:
        return self._earlier_numbers.get(call.id, self._numbers)

    def _other_numbers(self, call: Call, leg: Connection, detail: xcc.ConnDetailData) -> bool:
        numbers = self._numbers_of(call)
        calling = numbers.number(detail.calling_addr_data)
        called = numbers.number(detail.called_addr_data)
        return _differ(calling, leg.calling_number) or _differ(called, leg.called_number)

    def _apply(
        self,
        call: Call,
        conn_id: str,
        conn: xcc.ConnData,
        event: xcc.ConnectionEvent,
        at: Micros,
        changes: Changes,
    ) -> None:
        if isinstance(event, _ASIDE):
            return
        leg = call.connection(conn_id)
        if leg is None:
            leg = _new_leg(call, conn_id, isinstance(event, _ENDS))
        told: CallState | None = None
        match event:
            case xcc.Created():
                self._learn(call, leg, event)
            case xcc.CallDelivery():
                leg.dialled = True
                if leg.state == "IDLE":
                    leg.state = "CALL_DELIVERY"
            case xcc.Alerting():
                if leg.alerting_at is None and leg.connected_at is None and not leg.gone:
                    leg.alerting_at = at
                    leg.state = "ALERTING"
                    told = CallState.ALERTING
                if call.alerting_at is None and call.connected_at is None and not call.ended:
                    call.alerting_at = at
                    self._tell(call, CallState.ALERTING, at, changes)
            case xcc.Connected():
                self._learn(call, leg, event)
                if leg.connected_at is None and not leg.gone:
                    leg.connected_at = at
                    leg.state = "CONNECTED"
                    told = CallState.CONNECTED
                if call.connected_at is None and not call.ended:
                    call.connected_at = at
                    self._tell(call, CallState.CONNECTED, at, changes)
            case xcc.Disconnected():
                if leg.disconnected_at is None:
                    leg.disconnected_at = at
                    told = CallState.DISCONNECTED
                    if leg.state != LEFT:
                        leg.state = "DISCONNECTED"
                if leg.disconnect_cause is None:
                    leg.disconnect_cause = event.disc_cause
                if leg.media is None:
                    leg.media = media_of(event)
                if leg.codec is None and event.media_data is not None:
                    leg.codec = _shared(event.media_data.coder_type)
            case xcc.HandoffLeave():
                if not leg.gone:
                    leg.state = LEFT
            case xcc.HandoffJoin():
                self._learn(call, leg, event)
                if leg.state == LEFT:
                    leg.state = "IDLE"
                if not leg.gone and leg.connected_at is None and _joins_connected(conn, event):
                    leg.connected_at = at
                    leg.state = "CONNECTED"
            case xcc.Redirected() | xcc.Transferred():
                self._redirect(call, event.redirect_addr_data)
        if leg.gone and call.gateway_call_id in self._open and over(call):
            self._end(call, leg, at, changes)
        if told is not None:
            self._tell_leg(call, leg, told, at, changes)

    def _learn(
        self, call: Call, leg: Connection, event: xcc.Created | xcc.Connected | xcc.HandoffJoin
    ) -> None:
        """Take from `event` what is not yet known of the leg and, unless it has ended, of the call."""
        detail = event.conn_detail_data
        if leg.direction is None:
            leg.direction = _direction(detail)
        if leg.guid is None:
            leg.guid = guid_of(detail)
        if leg.calling_number is None and not call.calling_withheld:
            leg.calling_number = self._numbers_of(call).number(detail.calling_addr_data)
        if leg.called_number is None:
            leg.called_number = self._numbers_of(call).number(detail.called_addr_data)
        if leg.interface is None:
            leg.interface = detail.conn_intf or detail.conn_intf_type
        if leg.route is None:
            leg.route = detail.route_name
        if leg.codec is None and detail.media_data is not None:
            leg.codec = detail.media_data.coder_type
        if not call.ended:
            self._learn_of_call(call, leg, event)
        _share_texts(call, leg)

    def _learn_of_call(
        self, call: Call, leg: Connection, event: xcc.Created | xcc.Connected | xcc.HandoffJoin
    ) -> None:
        detail = event.conn_detail_data
        if leg is _first_incoming(call):
            call.direction = Direction.INCOMING
            call.guid = leg.guid or call.guid
            call.called_number = leg.called_number or call.called_number
            if leg.calling_number is not None:
                call.calling_number = leg.calling_number
            elif isinstance(event, xcc.Created) or detail.calling_addr_data is not None:
                # Withheld is withheld, also where the gateway tells another leg who calls.
                call.calling_withheld = True
                call.calling_number = None
                for other in call.connections:
                    other.calling_number = None
        else:
            if call.direction is None and leg is call.connections[0]:
                call.direction = leg.direction
            call.guid = call.guid or leg.guid
            call.called_number = call.called_number or leg.called_number
            call.calling_number = call.calling_number or leg.calling_number
        if call.original_called_number is None:
            call.original_called_number = self._numbers_of(call).number(detail.orig_called_addr_data)
        if detail.redirect_addr_data is not None:
            redirected_to = self._numbers_of(call).number(detail.redirect_addr_data)
            call.redirected_to = redirected_to or call.redirected_to

    def _redirect(self, call: Call, target: xcc.AddrData | None) -> None:
        number = self._numbers_of(call).number(target)
        if number is not None and not call.ended:
            call.redirected_to = number
            call.original_called_number = call.original_called_number or call.called_number

    def _end(self, call: Call, last: Connection | None, at: Micros, changes: Changes) -> None:
        """The call is over: tell it, and keep it for what comes late."""
        del self._open[call.gateway_call_id]
        call.outcome, call.disconnect_cause = judged(call, last)
        call.disconnected_at = at
        self._tell(call, CallState.DISCONNECTED, at, changes)
        self._keep(call, at, changes)

    def _close(self, call: Call, at: Micros, changes: Changes) -> None:
        """The call must be over although nobody said so: tell it as inferred."""
        del self._open[call.gateway_call_id]
        call.outcome, call.disconnect_cause = judged(call, None)
        call.disconnected_at = at
        call.inferred = True
        legs = [leg for leg in call.connections if not leg.gone]
        for leg in legs:
            leg.disconnected_at = at
            leg.state = "DISCONNECTED"
        self._tell(call, CallState.DISCONNECTED, at, changes)
        for leg in legs:
            self._tell_leg(call, leg, CallState.DISCONNECTED, at, changes, inferred=True)
        changes.calls.append(call)

    def _keep(self, call: Call, at: Micros, changes: Changes) -> None:
        self._past[call.gateway_call_id] = call
        if len(self._past) > ENDED_KEPT_MOST:
            self._forget(next(iter(self._past)), at, changes)

    def _forget(self, key: str, at: Micros, changes: Changes) -> None:
        call = self._past.pop(key)
        if call.ended:
            self._close_legs(call, at, changes)

    def _close_legs(self, call: Call, at: Micros, changes: Changes) -> None:
        """Tell the ends of an ended call's legs that nobody told, if legs are told of."""
        if not self.leg_events:
            return
        legs = [leg for leg in call.connections if not leg.gone]
        for leg in legs:
            leg.disconnected_at = at
            leg.state = "DISCONNECTED"
            self._tell_leg(call, leg, CallState.DISCONNECTED, at, changes, inferred=True)
        if legs:
            changes.calls.append(call)

    def _tell(self, call: Call, state: CallState, at: Micros, changes: Changes) -> None:
        call.sequence += 1
        changes.events.append(self._event(call, Granularity.CALL, at, call_event(call, state, at)))

    def _tell_leg(
        self,
        call: Call,
        leg: Connection,
        state: CallState,
        at: Micros,
        changes: Changes,
        inferred: bool = False,
    ) -> None:
        """Tell `state` of the leg if legs are told of, and if its call is known by more than its end."""
        if not self.leg_events or not (call.ended or call.gateway_call_id in self._open):
            return
        call.leg_sequence += 1
        outcome = leg_outcome(call, leg) if state is CallState.DISCONNECTED else None
        payload = leg_event(call, leg, state, outcome, inferred, at)
        changes.events.append(self._event(call, Granularity.CONNECTION, at, payload))

    def _event(self, call: Call, granularity: Granularity, at: Micros, payload: CallEvent) -> Event:
        return Event(
            id=self._new_id(at),
            call=call.id,
            cube=self._cube,
            granularity=granularity,
            at=at,
            payload=payload,
        )


def _is_past(call: Call, at: Micros) -> bool:
    """Whether a call of the past has been kept long enough."""
    last = max(call.disconnected_at or 0, call.last_heard_at)
    return at - last > (INFERRED_KEPT if call.inferred else ENDED_KEPT)


def _new_leg(call: Call, conn_id: str, ends: bool) -> Connection:
    """
    A leg that was not seen before; `ends` tells that the first word of it is its end.

    If it is not, the call goes on: of the legs that are gone already, none was the caller's.
    """
    if len(call.connections) >= LEGS_MOST:
        spare = (n for n, old in enumerate(call.connections) if old.gone and old is not _first_incoming(call))
        del call.connections[next(spare, -1)]
    if not ends:
        for other in call.connections:
            if other.gone and other.direction is None:
                other.dialled = True
    leg = Connection(conn_id)
    call.connections.append(leg)
    return leg


def _first_incoming(call: Call) -> Connection | None:
    for leg in call.connections:
        if leg.direction is Direction.INCOMING:
            return leg
    return None


def _direction(detail: xcc.ConnDetailData) -> Direction | None:
    return _DIRECTIONS.get(detail.conn_direction_type or "")


def _joins_connected(conn: xcc.ConnData, event: xcc.HandoffJoin) -> bool:
    joined = event.conn_detail_data.conn_data
    return conn.state == "CONNECTED" or (joined is not None and joined.state == "CONNECTED")


def _differ(one: str | None, other: str | None) -> bool:
    """Whether both are known and they differ."""
    return one is not None and other is not None and one != other


@lru_cache(maxsize=1024)
def _shared(text: str | None) -> str | None:
    """`text`, one copy of it for all legs: interfaces, routes and codecs are few."""
    return None if text is None else text[:_LONGEST_TEXT]


def _share_texts(call: Call, leg: Connection) -> None:
    """Let go of copies of what the call or other legs also hold: calls are many."""
    if call.original_called_number == call.called_number:
        call.original_called_number = call.called_number
    if leg.guid == call.guid:
        leg.guid = call.guid
    if leg.calling_number == call.calling_number:
        leg.calling_number = call.calling_number
    if leg.called_number == call.called_number:
        leg.called_number = call.called_number
    leg.state = _shared(leg.state) or leg.state
    leg.interface = _shared(leg.interface)
    leg.route = _shared(leg.route)
    leg.codec = _shared(leg.codec)
