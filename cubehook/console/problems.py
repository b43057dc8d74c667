"""What is wrong with a form, field by field, as its template shows it.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PART = re.compile(r"[.\[]")


class Problems(dict[str, str]):
    """What is wrong by field; None for a field with which nothing is."""

    def __missing__(self, name: str) -> None:
        return None


def by_field(problems: Mapping[str, str]) -> Problems:
    """What the API says is wrong, by the first part of its key: `headers.X-Key` belongs to `headers`."""
    found = Problems()
    for key, words in problems.items():
        name = _PART.split(key, maxsplit=1)[0]
        within = key.removeprefix(name)
        # Which of several it is, the words tell better than a number.
        told = f"{within[1:]}: {words}" if within.startswith(".") else words
        found[name] = f"{found[name]}; {told}" if name in found else told
    return found
