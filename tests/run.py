"""
Runs the tests with trial: `python -m tests.run [--jobs N] [--slowest N] [--temp-directory DIR] [NAME ...]`.

Without names, everything under `tests` but the long ones in `tests.proof`.  Says at the end what failed, and
what was skipped and why; the last line is always `N passed, N failed, N skipped`, and the exit status is 0
only if something passed and nothing failed.

Modules are run in several processes, one more than there are processors, as most tests wait for the most
part; those of `tests.proof`, which measure, have the machine for themselves.  trial's own `--jobs` hands out
single tests, and puts the checkout into PYTHONPATH, where tests of installed wheels must not find it.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TextIO
from unittest import TestCase, TestSuite

import msgspec
from twisted.trial.itrial import ITestCase
from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner
from twisted.trial.unittest import decorate

import tests

APART = "tests.proof"
"""Runs only when named, and alone."""

MOST = 8
"""Processes, however many processors there are: each takes up to 300 MB, and the longest module its time."""

TIMED = ("tests.simulator.test_load",)
"""Ask how long something takes; they run after the others, one at a time."""

LONG = ("tests.browser.", "tests.functional.", "tests.transports.")
"""Their modules are begun first, so that no long one is left over for one process at the end."""


class Outcome(msgspec.Struct):
    """How tests went, by their ids, and in words."""

    passed: set[str] = msgspec.field(default_factory=set)
    failed: set[str] = msgspec.field(default_factory=set)
    skipped: dict[str, str] = msgspec.field(default_factory=dict)
    """Why."""
    took: dict[str, float] = msgspec.field(default_factory=dict)
    """Seconds."""
    text: str = ""

    def add(self, other: Outcome) -> None:
        self.passed |= other.passed
        self.failed |= other.failed
        self.skipped |= other.skipped
        self.took |= other.took


class CountingReporter(TreeReporter):
    """Trial's verbose reporter; knows in the end how each test went, once a test."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.passed: set[str] = set()
        self.took: dict[str, float] = {}
        self._began = 0.0

    def startTest(self, test: TestCase) -> None:
        super().startTest(test)
        self._began = time.monotonic()

    def stopTest(self, test: TestCase) -> None:
        super().stopTest(test)
        self.took[test.id()] = time.monotonic() - self._began

    def addSuccess(self, test: TestCase) -> None:
        super().addSuccess(test)
        self.passed.add(test.id())

    def addExpectedFailure(self, test: TestCase, failure: object, todo: object = None) -> None:
        super().addExpectedFailure(test, failure, todo)
        self.passed.add(test.id())

    def outcome(self) -> Outcome:
        """How all tests went that were run so far."""
        failed = {
            test.id() for test, *_ in (*self.failures, *self.errors, *self.unexpectedSuccesses)
        }  # a test may fail twice: in itself and in its clean-up
        skipped = {test.id(): str(reason) for test, reason in self.skips}
        return Outcome(self.passed - failed, failed, skipped, self.took)


def default_names() -> list[str]:
    """The modules and packages that run when none is named."""
    found = (f"tests.{each.name}" for each in pkgutil.iter_modules(tests.__path__))
    return [name for name in found if name != APART and name.rpartition(".")[2] != "run"]


def modules(names: Iterable[str]) -> list[str]:
    """These names, packages replaced by their modules with tests, long ones first."""
    found: dict[str, None] = {}
    for name in names:
        try:
            path = getattr(import_module(name), "__path__", None)
        except ImportError:
            path = None  # a class or a test, or the loader will say what is wrong
        if path is None:
            found[name] = None
            continue
        for each in pkgutil.walk_packages(path, f"{name}."):
            if not each.ispkg and each.name.rpartition(".")[2].startswith("test_"):
                found[each.name] = None
    return sorted(found, key=lambda name: not name.startswith(LONG))


def load(names: Sequence[str]) -> TestSuite:
    """The tests in these packages, modules, classes or methods; what cannot be loaded is a failing test."""
    return TestLoader().loadByNames(list(names), recurse=True)


def run(suite: TestSuite, directory: str, stream: TextIO, *, at_once: bool = False) -> CountingReporter:
    """Run tests in this process; `at_once` tells of what fails when it does, not only in the end."""
    runner = TrialRunner(
        CountingReporter,
        workingDirectory=directory,
        tracebackFormat="default",
        stream=stream,
        realTimeErrors=at_once,
    )
    result = runner.run(suite)
    assert isinstance(result, CountingReporter)
    return result


class HandedOver(TestSuite):
    """Modules whose names come in one after the other; how each went is told before the next is asked for."""

    def __init__(self, connection: Connection, text: StringIO) -> None:
        super().__init__()
        self._connection, self._text = connection, text

    def run(self, result: Any, debug: bool = False) -> Any:
        for name in iter(self._connection.recv, None):
            decorate(load([name]), ITestCase)(result)
            outcome: Outcome = result.outcome()
            outcome.text = self._text.getvalue()
            self._connection.send(outcome)
            _ = self._text.truncate(self._text.seek(0))
        return result


def work(connection: Connection, directory: str) -> None:
    """What a process does: it runs what is handed over, and tells in the end of all together."""
    text = StringIO()
    result = run(HandedOver(connection, text), directory, text, at_once=True)
    outcome = result.outcome()
    if outcome.failed:
        outcome.text = text.getvalue()
    connection.send(outcome)


class Processes:
    """Runs modules in several processes, and prints what each says when it has ended."""

    def __init__(self, names: Sequence[str], directory: str) -> None:
        self._left = list(reversed(names))
        self._directory = directory
        self._under_way: dict[Connection, str | None] = {}
        self._processes: dict[Connection, Any] = {}
        self._outcome = Outcome()

    def run(self, jobs: int) -> Outcome:
        for _ in range(min(jobs, len(self._left))):
            self._start()
        while self._under_way:
            for connection in wait(list(self._under_way)):
                assert isinstance(connection, Connection)
                try:
                    self._heard(connection, connection.recv())
                except (EOFError, ConnectionResetError):
                    self._ended(connection)
        return self._outcome

    def _start(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self._directory), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        self._hand_over(ours)

    def _hand_over(self, connection: Connection) -> None:
        name = self._left.pop() if self._left else None
        self._under_way[connection] = name
        # A process that is gone is found when it is listened to.
        with suppress(BrokenPipeError):
            connection.send(name)

    def _heard(self, connection: Connection, outcome: Outcome) -> None:
        self._outcome.add(outcome)
        print(outcome.text, end="", flush=True)
        if self._under_way[connection] is not None:
            self._hand_over(connection)

    def _ended(self, connection: Connection) -> None:
        name = self._under_way.pop(connection)
        process = self._processes.pop(connection)
        process.join()
        if name is not None or process.exitcode != 0:
            print(f"\nThe process that ran {name or 'all modules'} ended by itself ({process.exitcode})")
            self._outcome.failed.add(f"{name or 'after all tests'}: the process ended")
        if self._left:
            self._start()


def report(outcome: Outcome, slowest: int = 0) -> int:
    """Print what failed, what was skipped, and the closing line; the exit status."""
    if slowest:
        print("\nSlowest:")
        for name in sorted(outcome.took, key=lambda name: -outcome.took[name])[:slowest]:
            print(f"  {outcome.took[name]:5.1f} s  {name}")
    passed = outcome.passed - outcome.failed
    if outcome.failed:
        print("\nFailed:", *sorted(outcome.failed), sep="\n  ")
    if outcome.skipped:
        print("\nSkipped:", *(f"{name}: {why}" for name, why in sorted(outcome.skipped.items())), sep="\n  ")
    print(f"\n{len(passed)} passed, {len(outcome.failed)} failed, {len(outcome.skipped)} skipped", flush=True)
    return 0 if passed and not outcome.failed else 1


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.run", description="Run tests with trial.")
    parser.add_argument("--jobs", type=int, metavar="N", help="how many processes share the modules")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="tell which took the longest")
    parser.add_argument("--temp-directory", default="", metavar="DIR", help="where trial's are made")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as tests.calls or tests.test_config")
    arguments = parser.parse_args(argv)
    names = modules(arguments.names or default_names())
    # trial gives each process that asks for this name one of its own: _trial_temp-1 and so on.
    directory = os.path.join(arguments.temp_directory, "_trial_temp")
    os.makedirs(os.path.dirname(directory) or ".", exist_ok=True)
    jobs = arguments.jobs
    if jobs is None:
        alone = any(name.startswith(APART) for name in names)
        jobs = 1 if alone else min(len(os.sched_getaffinity(0)) + 1, MOST)
    if min(jobs, len(names)) > 1:
        outcome = Outcome()
        for some, at_once in ((set(names) - set(TIMED), jobs), (set(names) & set(TIMED), 1)):
            processes = Processes([name for name in names if name in some], directory)
            outcome.add(processes.run(at_once))
    else:
        outcome = run(load(names), directory, sys.stdout).outcome()
    return report(outcome, arguments.slowest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
