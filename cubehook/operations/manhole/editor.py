"""
Editing what is typed: text, a cursor, history; pure.

The text may have several lines: a block stays editable as a whole until it is complete.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from cubehook.operations.manhole.keys import Key
from cubehook.operations.manhole.screen import cell

PROMPT = ">>> "
MORE = "... "
SEARCHING = "search: "
INDENT = "    "

LONGEST = 1 << 16
"""Characters that a text may have."""


class Wish(enum.Enum):
    """What is to be done that an editor cannot do itself."""

    RUN = enum.auto()
    """`text` is complete: run it."""
    LEAVE = enum.auto()
    INTERRUPT = enum.auto()
    """`text` is given up."""
    COMPLETE = enum.auto()
    REDRAW = enum.auto()
    """Clear the screen."""
    RING = enum.auto()


class Editor:
    """
    The text being typed, and where the cursor stands in it.

    `history` are former texts, oldest first; `complete` tells whether a text can be run, or goes on.
    """

    def __init__(self, history: Sequence[str], complete: Callable[[str], bool]) -> None:
        self.text = ""
        self.cursor = 0
        self._history = history
        self._complete = complete
        self._cut = ""
        self._drop_place()

    def clear(self) -> None:
        """Begin a new text."""
        self.text, self.cursor = "", 0
        self._drop_place()

    def insert(self, text: str) -> Wish | None:
        """Put `text` where the cursor stands."""
        if len(self.text) + len(text) > LONGEST:
            return Wish.RING
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)
        return None

    def key(self, key: Key, *, more: bool = False) -> Wish | None:
        """
        Do what `key` means.

        `more` says that others came with it: then nobody types, and lines bring their own indentation.
        """
        if self._sought is not None:
            done, wish = self._search(key)
            if done:
                return wish
        if key.name not in ("up", "down", "ctrl-p", "ctrl-n"):
            self._drop_place()
        if key.name == "text":
            return self.insert(key.text)
        if key.name == "paste":
            return self._paste(key.text)
        if key.name == "enter":
            return self._enter(more)
        action = _ACTIONS.get(key.name)
        return None if action is None else action(self)

    # Lines

    def _enter(self, more: bool) -> Wish | None:
        text = self.text
        head, _, last = text.rpartition("\n")
        # An empty line ends a block.
        if head and not last.strip():
            text = head + "\n"
        if self._complete(text):
            # So that what is run stands there whole.
            self.cursor = len(self.text)
            return Wish.RUN
        if self.cursor < len(self.text.rstrip()):
            return self.insert("\n")
        self.cursor = len(self.text)
        return self.insert("\n" + ("" if more else _indent(last)))

    def _paste(self, text: str) -> Wish | None:
        shown = "".join(each for each in text.expandtabs(4) if each == "\n" or each.isprintable())
        if self.text or "\n" not in shown:
            return self.insert(shown)
        return self.insert(shown.rstrip("\n"))

    def _eof(self) -> Wish | None:
        if not self.text:
            return Wish.LEAVE
        self._delete()
        return None

    def _interrupt(self) -> Wish:
        return Wish.INTERRUPT

    def _tab(self) -> Wish | None:
        line = self.text[: self.cursor].rpartition("\n")[2]
        if line.strip():
            return Wish.COMPLETE
        return self.insert(" " * (4 - len(line) % 4))

    def _redraw(self) -> Wish:
        return Wish.REDRAW

    # Moving

    def _left(self) -> None:
        self.cursor = max(0, self.cursor - 1)

    def _right(self) -> None:
        self.cursor = min(len(self.text), self.cursor + 1)

    def _home(self) -> None:
        self.cursor = self.text.rfind("\n", 0, self.cursor) + 1

    def _end(self) -> None:
        end = self.text.find("\n", self.cursor)
        self.cursor = len(self.text) if end < 0 else end

    def _word_left(self) -> None:
        at = self.cursor
        while at and not self.text[at - 1].isalnum():
            at -= 1
        while at and self.text[at - 1].isalnum():
            at -= 1
        self.cursor = at

    def _word_right(self) -> None:
        at, end = self.cursor, len(self.text)
        while at < end and not self.text[at].isalnum():
            at += 1
        while at < end and self.text[at].isalnum():
            at += 1
        self.cursor = at

    def _up(self) -> Wish | None:
        line = self.text.rfind("\n", 0, self.cursor)
        if line < 0 or self._place is not None:
            return self._recall(-1)
        column = self.cursor - line - 1
        start = self.text.rfind("\n", 0, line) + 1
        self.cursor = min(start + column, line)
        return None

    def _down(self) -> Wish | None:
        line = self.text.find("\n", self.cursor)
        if line < 0 or self._place is not None:
            return self._recall(1)
        column = self.cursor - self.text.rfind("\n", 0, self.cursor) - 1
        end = self.text.find("\n", line + 1)
        self.cursor = min(line + 1 + column, len(self.text) if end < 0 else end)
        return None

    # Taking away

    def _take(self, start: int, end: int, *, keep: bool = True) -> None:
        if keep and start < end:
            self._cut = self.text[start:end]
        self.text = self.text[:start] + self.text[end:]
        self.cursor = start

    def _backspace(self) -> None:
        line = self.text[: self.cursor].rpartition("\n")[2]
        # What a tab put there goes at once.
        count = (len(line) - 1) % 4 + 1 if line and not line.strip() else 1
        self._take(max(0, self.cursor - count), self.cursor, keep=False)

    def _delete(self) -> None:
        self._take(self.cursor, min(len(self.text), self.cursor + 1), keep=False)

    def _kill_end(self) -> None:
        start = self.cursor
        self._end()
        self._take(start, max(self.cursor, min(start + 1, len(self.text)) if self.cursor == start else 0))

    def _kill_start(self) -> None:
        end = self.cursor
        self._home()
        self._take(self.cursor, end)

    def _kill_word_left(self) -> None:
        end = self.cursor
        at = end
        while at and self.text[at - 1].isspace():
            at -= 1
        while at and not self.text[at - 1].isspace():
            at -= 1
        self._take(at, end)

    def _kill_part_left(self) -> None:
        end = self.cursor
        self._word_left()
        self._take(self.cursor, end)

    def _kill_part_right(self) -> None:
        start = self.cursor
        self._word_right()
        self._take(start, self.cursor)

    def _yank(self) -> Wish | None:
        return self.insert(self._cut)

    # History

    def _drop_place(self) -> None:
        self._place: int | None = None
        self._begun = ""
        self._sought: str | None = None

    def _recall(self, step: int) -> Wish | None:
        """Go to the next text in history that begins as what was typed does."""
        if self._place is None:
            self._begun = self.text
        now = len(self._history) if self._place is None else self._place
        place = now + step
        while 0 <= place < len(self._history):
            found = self._history[place]
            if found.startswith(self._begun) and found != self.text:
                self._place, self.text, self.cursor = place, found, len(found)
                return None
            place += step
        if step < 0 or now == len(self._history):
            return Wish.RING
        self._place, self.text, self.cursor = len(self._history), self._begun, len(self._begun)
        return None

    def _begin_search(self) -> None:
        self._place, self._sought = len(self._history), ""

    def _search(self, key: Key) -> tuple[bool, Wish | None]:
        """Whether `key` belonged to the search, and what is to be done then."""
        assert self._sought is not None
        assert self._place is not None
        if key.name == "text":
            self._sought += key.text
            return True, self._find(min(self._place, len(self._history) - 1))
        if key.name == "ctrl-r":
            return True, self._find(self._place - 1)
        if key.name == "backspace":
            self._sought = self._sought[:-1]
            return True, self._find(len(self._history) - 1)
        self._sought = None
        return key.name == "ctrl-g", None

    def _find(self, place: int) -> Wish | None:
        assert self._sought is not None
        while place >= 0:
            found = self._history[place]
            if self._sought in found:
                self._place, self.text = place, found
                self.cursor = found.rfind(self._sought) + len(self._sought)
                return None
            place -= 1
        return Wish.RING

    @property
    def prompt(self) -> str:
        """What stands before the text."""
        return PROMPT if self._sought is None else f"({SEARCHING}{self._sought}) "

    def layout(self, width: int) -> tuple[list[str], int, int]:
        """The rows that prompts and text take at this width, and the row and column of the cursor."""
        rows: list[str] = []
        row, taken = [self.prompt], len(self.prompt)
        at = (0, taken)
        for number, character in enumerate(self.text):
            if number == self.cursor:
                at = (len(rows), taken)
            if character == "\n":
                rows.append("".join(row))
                row, taken = [MORE], len(MORE)
                continue
            size = cell(character)
            if taken + size > width:
                rows.append("".join(row))
                row, taken = [], 0
                if number == self.cursor:
                    at = (len(rows), 0)
            row.append(character)
            taken += size
        if self.cursor == len(self.text):
            if taken >= width:
                rows.append("".join(row))
                row, taken = [], 0
            at = (len(rows), taken)
        rows.append("".join(row))
        # Behind a full row, at the end of a line, a terminal's cursor stays on the last place.
        return rows, at[0], min(at[1], width - 1)


def _indent(line: str) -> str:
    """The indentation of what follows `line`."""
    indent = line[: len(line) - len(line.lstrip())]
    code = line.split("#", 1)[0].rstrip()
    return indent + INDENT if code.endswith((":", "(", "[", "{")) else indent


_ACTIONS: dict[str, Callable[[Editor], Wish | None]] = {
    "left": Editor._left,
    "ctrl-b": Editor._left,
    "right": Editor._right,
    "ctrl-f": Editor._right,
    "home": Editor._home,
    "ctrl-a": Editor._home,
    "end": Editor._end,
    "ctrl-e": Editor._end,
    "up": Editor._up,
    "ctrl-p": Editor._up,
    "down": Editor._down,
    "ctrl-n": Editor._down,
    "alt-b": Editor._word_left,
    "alt-f": Editor._word_right,
    "backspace": Editor._backspace,
    "delete": Editor._delete,
    "ctrl-k": Editor._kill_end,
    "ctrl-u": Editor._kill_start,
    "ctrl-w": Editor._kill_word_left,
    "alt-backspace": Editor._kill_part_left,
    "alt-d": Editor._kill_part_right,
    "ctrl-y": Editor._yank,
    "ctrl-r": Editor._begin_search,
    "ctrl-c": Editor._interrupt,
    "ctrl-d": Editor._eof,
    "ctrl-l": Editor._redraw,
    "tab": Editor._tab,
}
