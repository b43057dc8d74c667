"""
Identifiers that are unique for ever and sort by time.

An id is a positive 63-bit integer: 51 bits of microseconds since the Unix epoch,
then 12 bits that tell apart what was made in the same microsecond.  As text it is
thirteen characters of Crockford's base 32, which sort as the numbers do.
"""

from __future__ import annotations

from collections.abc import Callable

from cubehook.events import Micros

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 13
_LOW_BITS = 12
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


class Ids:
    """
    Makes ids, each greater than every one before it, also when the clock steps back.

    `random_bits(12)` makes the low bits, so that two makers differ that work at the same instant.
    """

    def __init__(self, random_bits: Callable[[int], int]) -> None:
        self._random_bits = random_bits
        self._last = 0

    def begin_after(self, number: int) -> None:
        """Make only ids greater than `number` from now on."""
        self._last = max(self._last, number)

    def next(self, now: Micros) -> int:
        """A new id for something that happens at `now`."""
        proposed = (now << _LOW_BITS) | self._random_bits(_LOW_BITS)
        self._last = proposed if proposed > self._last else self._last + 1
        return self._last


def id_text(number: int) -> str:
    """The text form of an id."""
    return (
        _ALPHABET[number >> 60]
        + _PAIRS[(number >> 50) & 1023]
        + _PAIRS[(number >> 40) & 1023]
        + _PAIRS[(number >> 30) & 1023]
        + _PAIRS[(number >> 20) & 1023]
        + _PAIRS[(number >> 10) & 1023]
        + _PAIRS[number & 1023]
    )


def parse_id(text: str) -> int:
    """The id that `text` names; ValueError if it is not the text of an id."""
    if len(text) != _LENGTH:
        raise ValueError(f"an id has {_LENGTH} characters, not {len(text)}")
    number = 0
    for character in text.upper():
        try:
            number = number << 5 | _VALUE[character]
        except KeyError:
            raise ValueError(f"{character!r} is not a character of an id") from None
    if number >= 1 << 63:
        raise ValueError("the first character of an id is at most 7")
    return number


def first_id(at: Micros) -> int:
    """The least id of anything that happened at `at` or later: for ranges by time."""
    return at << _LOW_BITS


def id_time(number: int) -> Micros:
    """When the thing with this id happened (as far as its maker's clock ran on)."""
    return number >> _LOW_BITS
