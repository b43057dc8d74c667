"""Received text made fit to show."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str, limit: int = 200) -> str:
    """`text` with control characters escaped, cut to `limit` characters: for logs and terminals."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", cut)
