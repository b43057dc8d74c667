"""
Runs the tests with trial: `python -m tests.run [--temp-directory DIR] [NAME ...]`.

Without names, everything under `tests` but the long ones in `tests.proof`.  Says at the end what was
skipped and why; the last line is always `N passed, N failed, N skipped`, and the exit status is 0 only
if something passed and nothing failed.

One process, not trial's `--jobs`: tests that measure or start whole services would share the
machine's few cores with each other and be judged on that.
"""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Sequence
from unittest import TestCase, TestSuite

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

import tests

APART = {"proof"}
"""Packages under `tests` that run only when named."""


class CountingReporter(TreeReporter):
    """Trial's verbose reporter; knows in the end how each test went, once a test."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.passed: set[str] = set()

    def addSuccess(self, test: TestCase) -> None:
        super().addSuccess(test)
        self.passed.add(test.id())

    def addExpectedFailure(self, test: TestCase, failure: object, todo: object = None) -> None:
        super().addExpectedFailure(test, failure, todo)
        self.passed.add(test.id())


def default_names() -> list[str]:
    """The modules and packages that run when none is named."""
    return [
        f"tests.{found.name}"
        for found in pkgutil.iter_modules(tests.__path__)
        if found.name not in APART and (found.ispkg or found.name.startswith("test_"))
    ]


def load(names: Sequence[str]) -> TestSuite:
    """The tests in these packages, modules, classes or methods; what cannot be loaded is a failing test."""
    return TestLoader().loadByNames(list(names), recurse=True)


def report(result: CountingReporter) -> int:
    """Print what was skipped and the closing line; the exit status."""
    failed = {
        test.id() for test, *_ in (*result.failures, *result.errors, *result.unexpectedSuccesses)
    }  # a test may fail twice: in itself and in its clean-up
    passed = result.passed - failed
    if result.skips:
        print("\nSkipped:")
        for test, reason in result.skips:
            print(f"  {test.id()}: {reason}")
    print(f"\n{len(passed)} passed, {len(failed)} failed, {len(result.skips)} skipped", flush=True)
    return 0 if passed and not failed else 1


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.run", description="Run tests with trial.")
    parser.add_argument("--temp-directory", default="_trial_temp", metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as tests.calls or tests.test_config")
    arguments = parser.parse_args(argv)
    runner = TrialRunner(
        CountingReporter, workingDirectory=arguments.temp_directory, tracebackFormat="default"
    )
    result = runner.run(load(arguments.names or default_names()))
    assert isinstance(result, CountingReporter)
    return report(result)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
