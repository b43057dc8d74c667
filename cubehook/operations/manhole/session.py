"""One person at a prompt: from keys to results, in a terminal."""

from __future__ import annotations

import pprint
import reprlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook import __version__
from cubehook.operations.manhole.completion import MOST, common, completions
from cubehook.operations.manhole.editor import MORE, Editor, Wish
from cubehook.operations.manhole.history import Histories
from cubehook.operations.manhole.inside import Inside
from cubehook.operations.manhole.interpreter import Interpreter
from cubehook.operations.manhole.keys import Key, Keys
from cubehook.operations.manhole.namespace import PLAIN, Shown, namespace
from cubehook.operations.manhole.screen import Painted, Screen, Style, cells, columns_of
from cubehook.text import printable

MOST_OUTPUT = 1 << 16
"""Characters that one command may put out."""

IDLE_SECONDS = 1800.0
"""How long a session may stand at its prompt, or wait, with no key pressed."""

_LOGGED = 2_000
"""Characters of a command in the log."""

_MOST_AHEAD = 1 << 16
"""Characters that may be typed while a command runs."""

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_PASTES = "\x1b[?2004h"
_NO_PASTES = "\x1b[?2004l"

_log = Logger(namespace="cubehook.operations.manhole")


class Visitor(NamedTuple):
    """Who came: `name` as the keys or passwords have it, through which door, from where."""

    name: str
    door: str
    peer: str

    def __str__(self) -> str:
        return f"{printable(self.name, 100)} ({self.door}, {self.peer})"


class Terminal(Protocol):
    """The other end of a session."""

    def write(self, data: bytes) -> None:
        """Send what is to be shown."""

    def leave(self, status: int) -> None:
        """End the session; once."""


class Printer:
    """Puts results into a terminal, at most `MOST_OUTPUT` characters a command."""

    def __init__(self, write: Callable[[str], None], screen: Screen) -> None:
        self._write = write
        self._screen = screen
        self.begin()

    def begin(self) -> None:
        """Another command begins."""
        self._left = MOST_OUTPUT
        self.at_margin = True

    def write(self, text: str) -> int:
        """See `Output`: received text may be in it, so nothing of it commands the terminal."""
        if not isinstance(text, str):
            raise TypeError(f"only text can be written here, not {type(text).__name__}")
        self._put(_fit(text))
        return len(text)

    def flush(self) -> None:
        """See `Output`."""

    def isatty(self) -> bool:
        """Programs that ask would send commands to the terminal, which do not pass."""
        return False

    def result(self, value: object) -> None:
        """See `Output`."""
        shown: str
        if isinstance(value, Shown):
            shown = value.show()
        elif isinstance(value, Painted):
            shown = value
        else:
            shown = _fit(_repr(value, self._screen.width))
        self.whole(shown)

    def error(self, text: str) -> None:
        """See `Output`."""
        head, newline, last = _fit(text).rpartition("\n")
        self.whole(head + newline + self._screen.paint(last, Style.BAD))

    def whole(self, text: str) -> None:
        """Show lines of their own, which are fit to be shown."""
        self._put(("" if self.at_margin else "\n") + text + "\n")

    def _put(self, text: str) -> None:
        if not text or self._left <= 0:
            return
        if len(text) > self._left:
            note = f"... (cut: a command may put out {MOST_OUTPUT:,} characters)"
            text = (
                f"{text[: self._left]}\x1b[0m\n{note}\n"
                if self._screen.colour
                else f"{text[: self._left]}\n{note}\n"
            )
            self._left = 0
        self._left -= len(text)
        self.at_margin = text.endswith("\n")
        self._write(text)


def _fit(text: str) -> str:
    lines = text.expandtabs(8).replace("\r\n", "\n").split("\n")
    return "\n".join(printable(line, len(line)) for line in lines)


class _Repr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 5
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 200
        self.maxstring = self.maxlong = self.maxother = MOST_OUTPUT


_short = _Repr()


def _repr(value: object, width: int) -> str:
    try:
        if isinstance(value, dict | list | tuple | set | frozenset):
            if len(value) > 200:
                return _short.repr(value)
            return pprint.pformat(value, width=max(width, 20), compact=True, sort_dicts=False)
        return _short.repr(value)
    except Exception as error:
        return f"<{type(value).__name__}, of which the repr raised {type(error).__name__}: {error}>"


class Session:
    """
    A prompt for `visitor` in `terminal`.

    The door that made it hands it `data` and `resize`, and tells of its end with `ended`.
    """

    def __init__(
        self,
        inside: Inside,
        visitor: Visitor,
        terminal: Terminal,
        screen: Screen,
        histories: Histories,
        *,
        visitors: Callable[[], list[str]],
        editing: bool = True,
        newline: str = "\r\n",
    ) -> None:
        self.visitor = visitor
        self._reactor = reactor = inside.reactor
        self._terminal = terminal
        self._screen = screen
        self._histories = histories
        self._began = reactor.seconds()
        self._keys = Keys()
        self._ahead: list[tuple[Key, bool]] = []
        self._running: Deferred[bool] | None = None
        self._over = False
        self._idle: IDelayedCall | None = None
        self.printer = Printer(self._print, screen)
        self._namespace = namespace(inside, screen, str(visitor), visitors=visitors, leave=self._leave)
        self._interpreter = Interpreter(self._namespace, self.printer, PLAIN)
        self._history = histories.of(visitor.name)
        self._editor = Editor(self._history, self._interpreter.complete)
        self._line: _Line = _EditedLine(self._send, screen) if editing else _PlainLine(self._send)
        self._editing = editing
        self._newline = newline
        self._listed = False
        _log.info("Manhole: {visitor} has come", visitor=str(visitor))

    # The prompt

    def start(self) -> None:
        """Greet, and prompt."""
        if self._editing:
            self._send(_PASTES)
        greeting = f"cubehook {__version__}.  help() tells what is here; Ctrl-D leaves."
        self._send(self._screen.paint(greeting, Style.DIM) + "\r\n")
        self._touch()
        self._draw()

    def data(self, data: bytes) -> None:
        """What the person typed."""
        self._touch()
        keys = self._keys.feed(data)
        for number, key in enumerate(keys):
            if self._over:
                return
            self._take(key, number + 1 < len(keys))
        if self._running is None and not self._over:
            self._draw()

    def _take(self, key: Key, more: bool) -> None:
        if self._running is not None:
            if key.name == "ctrl-c":
                self._ahead.clear()
                self.interrupt()
            elif sum(len(each.text) + 1 for each, _ in self._ahead) < _MOST_AHEAD:
                self._ahead.append((key, more))
            return
        wish = self._editor.key(key, more=more)
        listed, self._listed = self._listed, False
        if wish is Wish.RUN:
            self._enter()
        elif wish is Wish.INTERRUPT:
            self._finish_line("^C")
            self._editor.clear()
        elif wish is Wish.LEAVE:
            self._finish_line()
            self._leave()
        elif wish is Wish.REDRAW:
            self._send(_CLEAR if self._editing else "\r\n")
            self._line.forget()
        elif wish is Wish.COMPLETE:
            self._complete(listed)
        elif wish is Wish.RING:
            self._send("\a")

    def _draw(self) -> None:
        self._line.draw(self._editor)

    def _finish_line(self, note: str = "") -> None:
        """Go below what is typed."""
        self._editor.cursor = len(self._editor.text)
        self._draw()
        self._line.forget()
        self._send(note + "\r\n")

    def _complete(self, listed: bool) -> None:
        editor = self._editor
        begun, found = completions(self._namespace, editor.text[: editor.cursor])
        if not found:
            self._send("\a")
            return
        addition = common(found)[len(begun) :]
        if addition:
            editor.insert(addition)
        elif len(found) > 1:
            if not listed:
                # As in shells: the second Tab shows them.
                self._listed = True
                self._send("\a")
                return
            cursor = editor.cursor
            self._finish_line()
            if len(found) > MOST:
                text = f"{len(found):,} possibilities"
            else:
                text = columns_of(self._screen, [printable(name) for name in found])
            self._print(text + "\n")
            editor.cursor = cursor

    def _enter(self) -> None:
        text = self._editor.text
        self._finish_line()
        self._editor.clear()
        if not text.strip():
            return
        self._histories.add(self.visitor.name, text.rstrip())
        _ = self.run(text).addCallback(self._again)

    def _again(self, _: bool) -> None:
        """Prompt again, and take what was typed meanwhile."""
        if self._over:
            return
        ahead, self._ahead = self._ahead, []
        for key, more in ahead:
            self._take(key, more)
        if self._running is None and not self._over:
            self._draw()

    # Running

    def run(self, text: str) -> Deferred[bool]:
        """Run `text`, logged; fires with whether all went well.  One at a time."""
        _log.info(
            "Manhole: {visitor} typed: {text}",
            visitor=str(self.visitor),
            text=printable(text.rstrip(), _LOGGED),
        )
        self.printer.begin()
        over: Deferred[bool] = Deferred()
        running = self._running = Deferred.fromCoroutine(self._interpreter.run(text))

        def done(result: bool | Failure) -> None:
            self._running = None
            well = result is True
            if isinstance(result, Failure):
                if result.check(SystemExit):
                    self._leave()
                elif not self._over:
                    self.printer.error(f"{result.type.__name__}: {result.value}")  # type: ignore[union-attr]
            if not self.printer.at_margin:
                self._print("\n")
            self._touch()
            over.callback(well)

        _ = running.addBoth(done)
        return over

    def interrupt(self) -> None:
        """Wait no longer for what runs."""
        if self._running is not None:
            self._print("^C\n")
            self._running.cancel()

    # The terminal

    def resize(self, width: int, height: int) -> None:
        """The terminal has another size."""
        self._screen.resize(width, height)
        if self._running is None and not self._over:
            self._line.refit()
            self._draw()

    def _print(self, text: str) -> None:
        self._send(text.replace("\n", self._newline))

    def _send(self, text: str) -> None:
        if not self._over:
            self._terminal.write(text.encode("utf-8", "backslashreplace"))

    # Leaving

    def _touch(self) -> None:
        if self._idle is not None and self._idle.active():
            self._idle.reset(IDLE_SECONDS)
        elif not self._over:
            self._idle = self._reactor.callLater(IDLE_SECONDS, self._idled)

    def _idled(self) -> None:
        self.close(f"Nobody typed for {IDLE_SECONDS / 60:.0f} minutes.")

    def close(self, why: str) -> None:
        """End the session, and tell the person why."""
        if self._over:
            return
        self._line.forget()
        self._send(f"\r\n{why}\r\n")
        self._leave()

    def _leave(self, status: int = 0) -> None:
        if self._over:
            return
        if self._editing:
            self._send(_NO_PASTES)
        self.ended()
        self._terminal.leave(status)

    def ended(self) -> None:
        """The terminal is gone; what is typed there is given up."""
        if self._over:
            return
        self._over = True
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        if self._running is not None:
            self._running.cancel()
        self._interpreter.close()
        seconds = self._reactor.seconds() - self._began
        _log.info(
            "Manhole: {visitor} has left after {seconds} s", visitor=str(self.visitor), seconds=round(seconds)
        )


class _Line(Protocol):
    """Shows an editor's text where the cursor of the terminal stands."""

    def draw(self, editor: Editor) -> None: ...

    def forget(self) -> None:
        """What was drawn stays; the next is drawn where the cursor then stands."""

    def refit(self) -> None:
        """The screen has another width."""


class _EditedLine:
    def __init__(self, send: Callable[[str], None], screen: Screen) -> None:
        self._send = send
        self._screen = screen
        self.forget()

    def forget(self) -> None:
        self._rows: list[str] = []
        self._row = self._column = 0

    def refit(self) -> None:
        # Terminals wrap what they show anew, so that the row is a guess: where it would be now.
        if self._rows:
            width = self._screen.width
            before = sum((cells(row) - 1) // width for row in self._rows[: self._row] if row)
            self._row += before + self._column // width

    def draw(self, editor: Editor) -> None:
        rows, row, column = editor.layout(self._screen.width)
        most = self._screen.height - 1
        if len(rows) > most > 0:
            first = min(max(0, row - most + 1), len(rows) - most)
            rows, row = rows[first : first + most], row - first
        if (rows, row, column) == (self._rows, self._row, self._column):
            return
        self._send(self._changes(rows, row, column))
        self._rows, self._row, self._column = rows, row, column

    def _changes(self, rows: list[str], row: int, column: int) -> str:
        last = len(self._rows) - 1
        if (
            self._rows
            and rows[:-1] == self._rows[:-1]
            and rows[-1].startswith(self._rows[-1])
            and self._row == row == last
            and self._column == cells(self._rows[-1])
            and column == cells(rows[-1])
        ):
            return rows[-1][len(self._rows[-1]) :]
        parts = [_up(self._row), "\r\x1b[J"] if self._rows else []
        parts.append("\r\n".join(self._prompted(text) for text in rows))
        if (row, column) != (len(rows) - 1, cells(rows[-1])):
            parts += [_up(len(rows) - 1 - row), "\r", f"\x1b[{column}C" if column else ""]
        return "".join(parts)

    def _prompted(self, row: str) -> str:
        for prompt in (">>> ", MORE):
            if row.startswith(prompt):
                return self._screen.paint(prompt.rstrip(), Style.PROMPT) + " " + row[len(prompt) :]
        return row


def _up(rows: int) -> str:
    return f"\x1b[{rows}A" if rows > 0 else ""


class _PlainLine:
    """For what knows no commands: types on, takes back, and begins anew below where that is not enough."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self.forget()

    def forget(self) -> None:
        self._shown: str | None = None

    def refit(self) -> None:
        pass

    def draw(self, editor: Editor) -> None:
        rows, _, _ = editor.layout(1_000_000)
        text = "\r\n".join(rows)
        shown = self._shown
        self._shown = text
        if shown is None:
            self._send(text)
        elif text.startswith(shown):
            self._send(text[len(shown) :])
        elif shown.startswith(text) and "\n" not in shown[len(text) :]:
            self._send("\b \b" * cells(shown[len(text) :]))
        else:
            self._send("\r\n" + text)
