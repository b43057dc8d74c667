"""Every message above `info` that the service may log is explained in docs/log-messages.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "log-messages.md"
LEVELS = ("warn", "error", "critical", "failure")

Message = tuple[str, str]
"""A level, `emit` where that is decided as it is logged, and a format."""

_LOGGER = re.compile(r"_*[a-z_]*log")


def logged(source: str, name: str) -> list[tuple[Message, str]]:
    """The messages that a module may log above `info`, and where."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        method, logger = node.func.attr, node.func.value
        owner = logger.attr if isinstance(logger, ast.Attribute) else getattr(logger, "id", "")
        if method not in (*LEVELS, "emit") or not _LOGGER.fullmatch(owner):
            continue
        place = f"{name}:{node.lineno}"
        arguments = node.args[1:] if method == "emit" else node.args
        if not (arguments and isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, str)):
            raise AssertionError(
                f"{place}: a message's format is a literal, and what it tells comes after it"
            )
        found.append(((method, arguments[0].value), place))
    return found


def explained() -> dict[Message, str]:
    """The messages that the page has, and what it says of each."""
    found: dict[Message, str] = {}
    for line in PAGE.read_text("utf-8").splitlines():
        match = re.fullmatch(r"\| (`+) ?(.+?) ?\1 \| (.+?) \| (.*) \|", line)
        if match is not None:
            for level in match[3].split(", "):
                key = ("emit" if level == "any" else level, match[2])
                if key in found:
                    raise AssertionError(f"docs/log-messages.md has this twice: {key}")
                found[key] = match[4]
    return found


class LogMessageTests(SynchronousTestCase):
    maxDiff = None

    def test_every_message_above_info_has_its_row(self) -> None:
        page = explained()
        missing = []
        known: set[Message] = set()
        for path in sorted((ROOT / "cubehook").rglob("*.py")):
            for message, place in logged(path.read_text("utf-8"), str(path.relative_to(ROOT))):
                known.add(message)
                if message not in page:
                    level = "any" if message[0] == "emit" else message[0]
                    marks = "``" if "`" in message[1] else "`"
                    row = f"| {marks}{message[1]}{marks} | {level} | WHAT IT MEANS, AND WHAT TO DO |"
                    missing.append(f"{place}\n    {row}")
        self.assertEqual(
            [],
            missing,
            "add these rows to docs/log-messages.md, each to the table of its room, with your words",
        )
        self.assertEqual([], sorted(set(page) - known), "nobody logs these any more: take their rows away")

    def test_every_row_says_something(self) -> None:
        page = explained()
        self.assertGreater(len(page), 100)
        for message, words in page.items():
            self.assertRegex(words, r".+\.$", str(message))

    def test_what_is_looked_for_is_found(self) -> None:
        source = (
            'self._log.warn("one {a}", a=1)\n_log.failure("two", failure)\nself._log.emit(level, "three")\n'
        )
        found = [message for message, _ in logged(source + 'self._log.info("four")\n', "x.py")]
        self.assertEqual(found, [("warn", "one {a}"), ("failure", "two"), ("emit", "three")])
        self.assertRaises(AssertionError, logged, 'self._log.error(f"{a} is bad")', "x.py")
