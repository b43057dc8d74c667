"""Received and sent bodies, laid out for reading.  Nothing is decoded that could change what is shown."""

from __future__ import annotations

import re

import msgspec

from cubehook.text import printable

MOST = 1 << 17
"""Characters that are laid out; a longer text is shown as it came."""

_DEEPEST = 64

# A tag may hold `>` in an attribute's value.
_MARKUP = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|<(?:\"[^\"]*\"|'[^']*'|[^'\"<>])*>|[^<]+|<",
    re.DOTALL,
)


def readable(text: str) -> str:
    """`text` with its lines and tabs, and every other control character made visible."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(printable(part, len(part)) for part in line.split("\t")) for line in lines)


def pretty_xml(text: str) -> str:
    """
    `text`, an XML document, with an element a line; as it came if it is no such thing.

    No parser is asked, so entities stay as they are and nothing is looked up.
    """
    if len(text) > MOST:
        return readable(text)
    lines: list[str] = []
    depth = 0
    pieces = _pieces(text)
    if pieces is None:
        return readable(text)
    index = 0
    while index < len(pieces):
        piece = pieces[index]
        if piece.startswith("</"):
            depth -= 1
            if depth < 0:
                return readable(text)
            lines.append("  " * depth + piece)
        elif piece.startswith(("<?", "<!")) or piece.endswith("/>") or not piece.startswith("<"):
            lines.append("  " * depth + piece.strip())
        elif depth >= _DEEPEST:
            return readable(text)
        else:
            simple = _simple(pieces, index)
            lines.append("  " * depth + simple)
            if simple is piece:
                depth += 1
            else:
                index += 1 if pieces[index + 1].startswith("</") else 2
        index += 1
    return readable("\n".join(lines)) if depth == 0 else readable(text)


def _pieces(text: str) -> list[str] | None:
    pieces = []
    for found in _MARKUP.finditer(text):
        piece = found[0]
        if piece == "<":
            # Going on, each further one could search to the end again.
            return None
        if piece.strip():
            pieces.append(piece)
    return pieces


def _simple(pieces: list[str], index: int) -> str:
    """An element with only text in it, on one line; else its start tag, the very piece."""
    start, following = pieces[index], pieces[index + 1 : index + 3]
    if following and following[0].startswith("</"):
        return start + following[0]
    if len(following) == 2 and not following[0].startswith("<") and following[1].startswith("</"):
        return start + following[0].strip() + following[1]
    return start


def pretty_json(text: str) -> str:
    """`text`, if it is JSON, indented, its values written as they came; else as it came."""
    if len(text) > MOST or not text.lstrip().startswith(("{", "[")):
        return readable(text)
    try:
        return readable(msgspec.json.format(text, indent=2))
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return readable(text)


def pretty_body(text: str) -> str:
    """A body laid out as what it looks like: JSON, XML, or neither."""
    begin = text.lstrip()[:1]
    if begin == "<" and not re.match(r"\s*<(!doctype|html)", text, re.IGNORECASE):
        return pretty_xml(text)
    return pretty_json(text)
