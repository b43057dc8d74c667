"""When a call is over, and what its end means."""

from __future__ import annotations

from cubehook.calls.causes import NORMAL_CLEARING, unanswered_outcome
from cubehook.events import LEFT, Call, Connection, Direction, Outcome


def answered(call: Call) -> bool:
    """Whether anybody answered: CONNECTED was told, or a leg joined from another call already connected."""
    return call.connected_at is not None or any(leg.connected_at is not None for leg in call.connections)


def over(call: Call) -> bool:
    """
    Whether the call has ended: its incoming leg disconnected, or no leg is left.

    While another incoming leg is up (joined in a transfer) the call goes on.

    When no leg is known to be the caller's, he may still be there although no leg is, and see the
    gateway hunt on.  The call is then over only if somebody had answered, or if one of its legs may
    have been the caller's: one of unknown direction, not `dialled`, and not the only one seen, for
    that may as well be the first of a hunt.  See `legless` for the calls that this leaves open.
    """
    caller_gone = caller_left = someone_up = perhaps_caller = False
    for leg in call.connections:
        if not leg.gone:
            if leg.direction is Direction.INCOMING:
                return False
            someone_up = True
        elif leg.direction is Direction.INCOMING:
            if leg.state == LEFT:
                caller_left = True
            else:
                caller_gone = True
        elif leg.direction is None and not leg.dialled:
            perhaps_caller = True
    if caller_gone or someone_up:
        return caller_gone
    return answered(call) or caller_left or (perhaps_caller and len(call.connections) > 1)


def legless(call: Call) -> bool:
    """Whether every leg that was seen is gone, also where `over` still waits for a leg that was not."""
    return all(leg.gone for leg in call.connections)


def judged(call: Call, last: Connection | None) -> tuple[Outcome, int | None]:
    """
    How the call ended, and the cause of the leg that decided it.

    `last` is the leg whose end or leaving ended the call, None when the end is inferred.
    The first line that fits counts:

    | what was seen | outcome | cause of |
    |---|---|---|
    | anybody answered | answered | the last leg |
    | the caller hung up while an outgoing leg was up, or none existed | abandoned | the caller's leg |
    | outgoing legs ended; the latest whose cause does not mean failed | by its cause | that leg |
    | outgoing legs ended, all failed | failed | the latest of them |
    | the caller's leg ended with a cause | by its cause | the caller's leg |
    | nothing of the kind, and it rang | missed | none |
    | nothing of the kind | failed | none |

    Hung up is an end with cause 16, 31 or none; "by its cause" is `causes.unanswered_outcome`.  So in a
    hunt an answered leg wins, then what the last person called did, then what the network did.
    A leg of unknown direction counts as outgoing.
    """
    if answered(call):
        return Outcome.ANSWERED, None if last is None else _cause_of_end(call, last)
    rang = call.alerting_at is not None
    caller: Connection | None = None
    called: list[Connection] = []
    for leg in call.connections:
        if leg.direction is not Direction.INCOMING:
            called.append(leg)
        elif leg.disconnected_at is not None and leg.state != LEFT:
            caller = leg
    if (
        caller is not None
        and (caller.disconnect_cause is None or caller.disconnect_cause in NORMAL_CLEARING)
        and (not called or not all(leg.gone for leg in called))
    ):
        return Outcome.ABANDONED, caller.disconnect_cause
    failure: int | None = None
    for leg in sorted(called, key=_ended_at, reverse=True):
        if leg.disconnect_cause is not None:
            outcome = unanswered_outcome(leg.disconnect_cause, rang)
            if outcome is not Outcome.FAILED:
                return outcome, leg.disconnect_cause
            if failure is None:
                failure = leg.disconnect_cause
    if failure is not None:
        return Outcome.FAILED, failure
    if caller is not None and caller.disconnect_cause is not None:
        return unanswered_outcome(caller.disconnect_cause, rang), caller.disconnect_cause
    return Outcome.MISSED if rang else Outcome.FAILED, None


def leg_outcome(call: Call, leg: Connection) -> Outcome:
    """How one leg ended: as its call, if it is the caller's; else by its own answer, ringing and cause."""
    if leg.connected_at is not None:
        return Outcome.ANSWERED
    if leg.direction is Direction.INCOMING and call.outcome is not None:
        return call.outcome
    rang = leg.alerting_at is not None
    if leg.disconnect_cause is not None:
        return unanswered_outcome(leg.disconnect_cause, rang)
    return Outcome.MISSED if rang else Outcome.FAILED


def _cause_of_end(call: Call, last: Connection) -> int | None:
    if last.disconnect_cause is not None or last.state == LEFT:
        return last.disconnect_cause
    ended = [leg for leg in call.connections if leg.disconnect_cause is not None]
    return max(ended, key=_ended_at).disconnect_cause if ended else None


def _ended_at(leg: Connection) -> int:
    return leg.disconnected_at or 0
