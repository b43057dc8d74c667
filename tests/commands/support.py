"""Commands with a service that answers as it is told."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from cubehook import cli
from cubehook.commands import place, redeliver

JOB: dict[str, Any] = {
    "id": "6C4CYCND0S9TG",
    "webhook": "crm",
    "state": "running",
    "since": "2024-11-23T00:00:00.000000Z",
    "until": "2024-11-24T00:00:00.000000Z",
    "status": ["failed"],
    "per_second": 50.0,
    "total": 1200,
    "done": 0,
    "skipped": 0,
    "asked_by": "uid 0",
    "started_at": "2024-11-24T10:00:00.000000Z",
    "ended_at": None,
    "reason": None,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FakeControl:
    """Answers from `answers`, a list for each path; the last answer of a list stays."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []

    def get(self, path: str) -> Any:
        return self._answer(("GET", path))

    def post(self, path: str, body: object = None) -> Any:
        return self._answer(("POST", path) if body is None else ("POST", path, body))

    def _answer(self, asked: tuple[Any, ...]) -> Any:
        self.asked.append(asked)
        answers = self.answers[asked[1].partition("?")[0]]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


class CommandCase(SynchronousTestCase):
    """`run` runs a command; `folder` is the state folder that it was led to."""

    def setUp(self) -> None:
        self.folder: Path | None = None
        self.patch(redeliver, "_INTERVAL", 0)

    def run_command(
        self,
        *argv: str,
        answers: dict[str, list[Any]] | None = None,
        typed: str | None = None,
        watched: bool = False,
        place_options: Sequence[str] = ("--state-dir", "/srv/cubehook"),
    ) -> tuple[int | str | None, str, str]:
        """Exit status, standard output and standard error; `typed` at a terminal, if anything is."""
        self.service = FakeControl(answers or {})

        def control(folder: Path) -> FakeControl:
            self.folder = folder
            return self.service

        output = io.StringIO()
        errors = Terminal() if watched else io.StringIO()
        typing = io.StringIO() if typed is None else Terminal(typed)
        with (
            mock.patch.object(place, "Control", control),
            mock.patch.object(sys, "stdout", output),
            mock.patch.object(sys, "stderr", errors),
            mock.patch.object(sys, "stdin", typing),
        ):
            try:
                status: int | str | None = cli.main([*argv, *place_options])
            except SystemExit as exit:  # argparse leaves by it
                status = exit.code
        return status, output.getvalue(), errors.getvalue()
