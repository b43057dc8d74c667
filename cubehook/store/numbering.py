"""How calls are found by a number of which only the end is known, or another way of writing.  Pure."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=512)
def search_key(number: str) -> str:
    """
    `number` backwards, without what only separates its digits: numbers that end alike begin alike here.

    Letters, of a SIP user's name, are kept in lower case.
    """
    return "".join(character for character in reversed(number.lower()) if character.isalnum())


def sought_key(text: str) -> str:
    """
    What the `search_key` of a number begins with that may be written as `text`; empty if that says nothing.

    Zeros in front are left out: with them a trunk or international prefix is dialled, where E.164 has none.
    """
    return search_key(text.strip()).rstrip("0")
