"""From the bytes that a terminal sends to keys; pure."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

LONGEST_PASTE = 1 << 16
"""Characters of a paste that are taken together."""

_CSI = re.compile(r"\x1b\[([0-?]*)[ -/]*([@-~])")
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?")
_LONGEST_SEQUENCE = 32

_PASTE_BEGINS, _PASTE_ENDS = "200~", "\x1b[201~"

_FINAL = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
_TILDE = {"1": "home", "3": "delete", "4": "end", "7": "home", "8": "end"}
# CSI 1;5C is Ctrl and the right arrow, 1;3C Alt.
_BY_WORD = {("right", "5"): "alt-f", ("right", "3"): "alt-f", ("left", "5"): "alt-b", ("left", "3"): "alt-b"}
_CONTROL = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace"}


class Key(NamedTuple):
    """
    A key, by its name, or `text` that was typed or pasted.

    Names are such as `left`, `ctrl-a`, `alt-b`; those of text are `text` and `paste`.
    """

    name: str
    text: str = ""


class Keys:
    """Makes keys of bytes, however these are cut."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting = ""
        self._pasting = False
        self._returned = False

    def feed(self, data: bytes) -> list[Key]:
        """The keys that these bytes complete."""
        text = self._waiting + self._decoder.decode(data)
        self._waiting = ""
        found: list[Key] = []
        while text:
            if self._pasting:
                text = self._paste(text, found)
            elif text[0] == "\x1b":
                text = self._escape(text, found)
            else:
                end = 1
                if text[0] >= " " and text[0] != "\x7f":
                    while end < len(text) and text[end] >= " " and text[end] != "\x7f":
                        end += 1
                    # What C1 holds are commands to terminals, not characters.
                    typed = "".join(each for each in text[:end] if not "\x80" <= each <= "\x9f")
                    if typed:
                        found.append(Key("text", typed))
                elif text[0] != "\n" or not self._returned:
                    found.append(Key(_CONTROL.get(text[0]) or f"ctrl-{chr(ord(text[0]) + 96)}"))
                self._returned = text[end - 1] == "\r"
                text = text[end:]
        return found

    def _paste(self, text: str, found: list[Key]) -> str:
        end = text.find(_PASTE_ENDS)
        if end < 0:
            if len(text) <= LONGEST_PASTE:
                self._waiting = text
                return ""
            # It never ends, so it may as well be over.
            end = len(text)
        self._pasting = False
        found.append(Key("paste", text[:end].replace("\r\n", "\n").replace("\r", "\n")))
        return text[end + len(_PASTE_ENDS) :]

    def _escape(self, text: str, found: list[Key]) -> str:
        self._returned = False
        sequence = _CSI.match(text)
        if sequence is not None:
            self._sequence(sequence[1], sequence[2], found)
            return text[sequence.end() :]
        begun = _BEGUN.match(text)
        assert begun is not None
        if begun.end() == len(text) and len(text) <= _LONGEST_SEQUENCE:
            self._waiting = text
            return ""
        if text.startswith("\x1bO"):
            if text[2] in _FINAL:
                found.append(Key(_FINAL[text[2]]))
            return text[3:]
        if text.startswith("\x1b["):
            return text[begun.end() :]
        if text[1] == "\x1b":
            return text[1:]
        found.append(Key("alt-backspace" if text[1] in "\x7f\x08" else f"alt-{text[1].lower()}"))
        return text[2:]

    def _sequence(self, numbers: str, final: str, found: list[Key]) -> None:
        if numbers + final == _PASTE_BEGINS:
            self._pasting = True
            return
        first, _, modifier = numbers.partition(";")
        name = _TILDE.get(first) if final == "~" else _FINAL.get(final)
        if name is not None:
            found.append(Key(_BY_WORD.get((name, modifier), name)))
