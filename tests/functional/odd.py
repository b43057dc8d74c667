"""
Makes a process believe that it is on a machine whose clock can be set and whose disk can be slow.

At SIGUSR2 it does as the file says that the environment's ODD names, a JSON object: `ahead` is by how many
seconds the wall clock is wrong, `commit` how many seconds each commit takes longer.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

BEFORE = "from tests.functional.odd import begin; begin()"
"""To be run before anything takes the clock's names for itself, as Twisted's reactors do."""

_time, _time_ns = time.time, time.time_ns


class _Machine:
    """What is odd about it at the moment."""

    ahead = 0
    commit = 0.0

    def change(self, *_: object) -> None:
        told = json.loads(Path(os.environ["ODD"]).read_text())
        self.ahead, self.commit = told["ahead"], told["commit"]

    def time(self) -> float:
        return _time() + self.ahead

    def time_ns(self) -> int:
        return _time_ns() + self.ahead * 1_000_000_000


def begin() -> None:
    """Take the place of the clock and of commits."""
    machine = _Machine()
    time.time, time.time_ns = machine.time, machine.time_ns
    signal.signal(signal.SIGUSR2, machine.change)

    from cubehook.store import writer

    commit = writer._commit

    def slow(*arguments: object) -> object:
        time.sleep(machine.commit)
        return commit(*arguments)  # type: ignore[arg-type]

    writer._commit = slow  # type: ignore[assignment]
