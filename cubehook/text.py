"""Received text made fit to show."""

from __future__ import annotations

import re

# Line breaks and terminals' commands; what turns the direction of the text that follows; and halves of
# surrogate pairs, which no file takes.
_UNFIT = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, limit: int = 200) -> str:
    """`text` with control characters escaped, cut to `limit` characters: for logs and terminals."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return _UNFIT.sub(lambda match: f"\\x{ord(match[0]):02x}", cut)
