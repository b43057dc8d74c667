"""What was typed, by whom: kept in a file of mode 0600, so that it outlives sessions and restarts."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

MOST = 500
"""Texts that are kept of one person."""

_LONGEST = 10_000
"""Characters of a text that is worth being kept."""


class Histories:
    """Each person's history, by name, in the lines of one file; without it if it cannot be used."""

    _log = Logger()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._texts: dict[str, list[str]] | None = None

    def of(self, who: str) -> list[str]:
        """What `who` typed, oldest first; the list grows with what is added."""
        if self._texts is None:
            self._texts = self._read()
        return self._texts.setdefault(who, [])

    def add(self, who: str, text: str) -> None:
        """Keep another text, unless it repeats the last."""
        texts = self.of(who)
        if not text.strip() or len(text) > _LONGEST or (texts and texts[-1] == text):
            return
        texts.append(text)
        # In place, as an editor holds it.
        del texts[:-MOST]
        self._write([(who, text)], os.O_APPEND)

    def _read(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        lines = 0
        try:
            with self._path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    lines += 1
                    with suppress(ValueError, TypeError):
                        who, text = json.loads(line)
                        found.setdefault(str(who), []).append(str(text))
        except FileNotFoundError:
            return found
        except OSError as error:
            self._complain(error)
            return found
        for texts in found.values():
            del texts[:-MOST]
        if lines > 2 * sum(map(len, found.values())) + MOST:
            self._write([(who, text) for who, texts in found.items() for text in texts], os.O_TRUNC)
        return found

    def _write(self, entries: list[tuple[str, str]], how: int) -> None:
        data = "".join(f"{json.dumps(entry)}\n" for entry in entries).encode()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | how, 0o600)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        self._log.warn(
            "What is typed in the manhole is not kept in {path}: {why}",
            path=str(self._path),
            why=error.strerror or str(error),
        )
