"""`cubehook trace`: write down what a cube's gateway says and is told, for some minutes."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cubehook.commands import place
from cubehook.control import Control, ControlError
from cubehook.text import printable

_MINUTES = 10.0

_LONGEST = 24 * 60.0

_LOOK = 0.25
"""Seconds between two looks at the file, which is written in groups of about as long."""

_ASK = 5.0
"""Seconds between two questions whether the trace is still on."""

_INDENT = "    "

_BETWEEN = re.compile(r">\s*<")


def trace(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook trace",
        description="Write down what a cube's gateway says and is told, with times and HTTP heads, for some "
        "minutes: to trace-CUBE.log in the log folder of the running service.  A trace that is on ends so "
        "many minutes from now instead.",
    )
    parser.add_argument("cube", metavar="CUBE", help="the cube's id")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--minutes",
        type=_minutes,
        metavar="N",
        help=f"for how long, {_MINUTES:g} unless given, a day at most",
    )
    what.add_argument("--stop", action="store_true", help="end a trace that is on")
    what.add_argument("--status", action="store_true", help="only tell whether one is on")
    parser.add_argument(
        "--mask", action="store_true", help="hide telephone numbers but for their last two digits"
    )
    parser.add_argument("--follow", action="store_true", help="show what is written until the trace is over")
    parser.add_argument("--raw", action="store_true", help="show it as it is in the file, XML on one line")
    place.add_arguments(parser)
    arguments = parser.parse_args(argv)
    if (arguments.stop or arguments.status) and (arguments.mask or arguments.follow):
        parser.error("--mask and --follow are for a trace that is begun")
    if arguments.follow and arguments.json:
        parser.error("--follow shows text: leave out --json")
    return place.run("trace", arguments, partial(_trace, arguments))


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is no number above 0 and up to {_LONGEST:g}")
    return minutes


def _trace(arguments: argparse.Namespace, service: Control) -> int:
    path = f"/cubes/{quote(arguments.cube, safe='')}/trace"
    if arguments.status:
        return _tell(arguments, service.get(path))
    if arguments.stop:
        return _tell(arguments, service.post(path, {"minutes": 0}))
    # What is in the file already belongs to earlier traces.
    followed = _File(Path(service.get(path)["file"])) if arguments.follow else None
    minutes = _MINUTES if arguments.minutes is None else arguments.minutes
    state = service.post(path, {"minutes": minutes, "masked": arguments.mask})
    if followed is None:
        return _tell(arguments, state)
    print(_words(state), file=sys.stderr)
    try:
        return _follow(followed, service, path, raw=arguments.raw)
    except KeyboardInterrupt:
        print(
            f"The trace goes on in the service; `cubehook trace {arguments.cube} --stop` ends it.",
            file=sys.stderr,
        )
        raise


def _tell(arguments: argparse.Namespace, state: dict[str, Any]) -> int:
    if arguments.json:
        place.print_json(state)
    else:
        print(_words(state))
    return 0


def _words(state: dict[str, Any]) -> str:
    cube, file = state["cube"], state["file"]
    if state["until"] is None:
        if not state["messages"]:
            return f"Cube {cube} is not traced.  A trace of it goes to {file}."
        return f"Cube {cube} is traced no more: {state['messages']:,} messages are in {file}."
    masked = "masked" if state["masked"] else "included"
    return f"Cube {cube} is traced until {place.local(state['until'])} to {file}, numbers {masked}."


def _follow(file: _File, service: Control, path: str, *, raw: bool) -> int:
    """Show what is written to the file until the trace is over."""
    asked = time.monotonic()
    over = gone = None
    while True:
        for line in file.read():
            print(line if raw else _pretty(line))
        sys.stdout.flush()
        if gone is not None:
            raise gone
        if over:
            return 0
        if file.has_ended or time.monotonic() - asked >= _ASK:
            asked = time.monotonic()
            try:
                over = service.get(path)["until"] is None
            except ControlError as error:
                gone = error
            if over or gone is not None:
                # What was written until then is read once more.
                continue
        time.sleep(_LOOK)


class _File:
    """A rotated file that is read from where it ends now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._open(at_end=True)
        self.has_ended = False
        """Whether a line was read that tells the end of the trace."""

    def _open(self, *, at_end: bool) -> None:
        try:
            self._file = open(self._path, "rb")  # noqa: SIM115  # read from until it is rotated
        except FileNotFoundError:
            self._file = open(os.devnull, "rb")  # noqa: SIM115
        except OSError as error:
            raise ControlError(f"{self._path} cannot be read: {error.strerror}") from None
        if at_end:
            self._file.seek(0, os.SEEK_END)

    def read(self) -> list[str]:
        """The whole lines that were written since."""
        data = self._rest + self._file.read()
        if self._was_rotated():
            data += self._file.read()
            self._file.close()
            self._open(at_end=False)
            data += self._file.read()
        *lines, self._rest = data.split(b"\n")
        found = [line.decode("utf-8", "replace") for line in lines]
        self.has_ended = any(_ENDS.match(line) for line in found)
        return [printable(line, len(line)) for line in found]

    def _was_rotated(self) -> bool:
        try:
            there, ours = os.stat(self._path), os.fstat(self._file.fileno())
        except OSError:
            return False
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)


_ENDS = re.compile(r"\S+ trace of cube \S+ ends, ")


def _pretty(line: str) -> str:
    """A line of the file, XML with an element a line."""
    body = line.removeprefix(_INDENT)
    if line == body or not body.startswith("<") or not _BETWEEN.search(body):
        return line
    depth, lines = 0, []
    for part in _BETWEEN.sub(">\n<", body).split("\n"):
        closes = part.startswith("</")
        if closes:
            depth = max(0, depth - 1)
        lines.append(f"{_INDENT}{'  ' * depth}{part}")
        if not closes and not part.startswith(("<?", "<!")) and not part.endswith("/>") and "</" not in part:
            depth += 1
    return "\n".join(lines)
