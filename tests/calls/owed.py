"""
What a call is owed, going by what the gateway was answered 200 for and what may have been taken unanswered.

Written from the contract and the protocol, not from the tracker: it is what the tracker and, after
kills, the whole service are measured by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

A, C, D = "ALERTING", "CONNECTED", "DISCONNECTED"

_DETAILED = ("created", "connected", "handoffJoin")
"""Events that tell the direction of their leg."""
_ENDS = ("disconnected", "handoffLeave")


class Word(msgspec.Struct, frozen=True):
    """One notification of a call."""

    leg: str
    event: str
    """The name of its event element."""
    answered: bool = True
    """Whether it was answered 200; if not, it may have been taken all the same, or not."""


def owed(words: Sequence[Word], caller: str) -> set[str]:
    """
    The states that a call is owed events for; `caller` is its incoming leg.

    `words` are all that were sent of it, in order.  No ringing is owed that came after an answer, and
    neither after the end.  Nothing is owed of a call that may seem to have
    ended while it lives on: see `may_seem_over`.
    """
    if any(may_seem_over(words[:n], caller) for n in _before_more(words)):
        return set()
    states = set()
    living = words[: _first(words, lambda word: word.leg == caller and word.event in _ENDS)]
    ringing = living[: _first(living, lambda word: word.event == "connected")]
    if any(word.event == "alerting" and word.answered for word in ringing):
        states.add(A)
    if any(word.event == "connected" and word.answered for word in living):
        states.add(C)
    if _end_is_plain(words, caller):
        states.add(D)
    return states


def may_seem_over(words: Sequence[Word], caller: str) -> bool:
    """
    Whether a call of which this was told may be taken for over although its caller is still there.

    It may if nothing tells which leg is the caller's, every leg that was surely seen has ended (perhaps),
    and either somebody had answered or one of several legs may have been the caller's: one whose
    direction was not told, and that was not delivered.  That takes two gaps: one hides the caller's leg,
    another the beginning of the leg taken for it, or of the next.
    """
    if any(word.leg == caller and word.event in _DETAILED and word.answered for word in words):
        return False
    sure = [word for word in words if word.answered]
    ended = {word.leg for word in words if word.event in _ENDS}
    if not ended or not {word.leg for word in sure} <= ended:
        return False
    if any(word.event == "connected" for word in words):
        return True
    known = {word.leg for word in sure if word.event in (*_DETAILED, "callDelivery")}
    return bool(ended - known) and len({word.leg for word in words}) > 1


def _first(words: Sequence[Word], fits: Callable[[Word], bool]) -> int:
    """The place of the first word that fits, the end if none does."""
    return next((n for n, word in enumerate(words) if fits(word)), len(words))


def _before_more(words: Sequence[Word]) -> Iterator[int]:
    """After how many words the next is one that does not end a leg: the call lives on."""
    return (n for n, word in enumerate(words) if n and word.event not in _ENDS)


def _end_is_plain(words: Sequence[Word], caller: str) -> bool:
    """
    Whether the end of the call was told so that it must be understood.

    The caller's leg ended, and that leg was known to be the caller's; or it was one of several legs of
    which none is (perhaps) left.  Nothing is to be told of a call of which only ends were seen.
    """
    if not any(word.leg == caller and word.event == "disconnected" and word.answered for word in words):
        return False
    if any(word.leg == caller and word.event in _DETAILED and word.answered for word in words):
        return True
    sure = [word for word in words if word.answered]
    ended = {word.leg for word in sure if word.event in _ENDS}
    return (
        any(word.event not in _ENDS for word in sure)
        and len({word.leg for word in sure}) > 1
        and {word.leg for word in words} <= ended
    )
