"""Running what is typed: results, what is awaited, what goes wrong, what is completed."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cubehook.operations.manhole.completion import common, completes, completions
from cubehook.operations.manhole.interpreter import Interpreter, MistakeError


class Recorder:
    """Keeps what is put out."""

    def __init__(self) -> None:
        self.printed = ""
        self.results: list[object] = []
        self.errors: list[str] = []

    def write(self, text: str) -> int:
        self.printed += text
        return len(text)

    def flush(self) -> None:
        pass

    def result(self, value: object) -> None:
        self.results.append(value)

    def error(self, text: str) -> None:
        self.errors.append(text)


class InterpreterTests(TestCase):
    def setUp(self) -> None:
        self.output = Recorder()
        self.names: dict[str, Any] = {}
        self.interpreter = Interpreter(self.names, self.output)

    def run_now(self, text: str) -> bool:
        """Run what waits for nothing."""
        return bool(self.successResultOf(self.start(text)))

    def start(self, text: str) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.interpreter.run(text))

    def test_expressions_are_shown_and_statements_not(self) -> None:
        self.assertTrue(self.run_now("x = 1\nx + 1; None\nx + 2"))
        self.assertEqual(self.output.results, [2, 3])
        self.assertTrue(self.run_now("_ * 2"))
        self.assertEqual(self.output.results[-1], 6)

    def test_what_is_printed_is_output_and_nothing_else_is(self) -> None:
        before = sys.stdout
        self.run_now("print('a', end=''); import sys; print('b', file=sys.stderr)")
        self.assertEqual(self.output.printed, "ab\n")
        self.assertIs(sys.stdout, before)

    def test_each_step_of_a_program_prints_here_and_what_runs_between_them_does_not(self) -> None:
        gate: Deferred[str] = Deferred()
        self.names["gate"] = gate
        before = sys.stdout
        over = self.start("for i in range(2):\n    print(i)\n    await gate\n")
        self.assertEqual(self.output.printed, "0\n")
        self.assertIs(sys.stdout, before)
        gate.callback("x")
        self.assertTrue(self.successResultOf(over))
        self.assertEqual(self.output.printed, "0\n1\n")

    def test_deferreds_and_coroutines_are_awaited(self) -> None:
        gate: Deferred[str] = Deferred()
        self.names["gate"] = gate

        async def work() -> str:
            return "worked " + await gate

        self.names["work"] = work
        over = self.start("work()")
        self.assertNoResult(over)
        gate.callback("well")
        self.assertTrue(self.successResultOf(over))
        self.assertEqual(self.output.results, ["worked well"])

    def test_a_deferred_keeps_its_result(self) -> None:
        gate: Deferred[str] = Deferred()
        self.names["gate"] = gate
        over = self.start("gate")
        gate.callback("x")
        self.successResultOf(over)
        self.assertEqual(self.successResultOf(gate), "x")

    def test_the_failure_of_a_deferred_is_shown_as_an_exception_is(self) -> None:
        gate: Deferred[str] = Deferred()
        self.names["gate"] = gate
        over = self.start("gate")
        gate.errback(ValueError("no good"))
        self.assertFalse(self.successResultOf(over))
        self.assertIn("ValueError: no good", self.output.errors[0])

    def test_interrupting_stops_waiting_and_leaves_what_was_called_alone(self) -> None:
        cancelled: list[object] = []
        gate: Deferred[str] = Deferred(cancelled.append)
        self.names["gate"] = gate
        for text in ("gate", "await gate"):
            over = self.start(text)
            over.cancel()
            self.assertFalse(self.successResultOf(over))
        self.assertEqual(self.output.errors, ["Cancelled."] * 2)
        self.assertEqual(cancelled, [])
        gate.callback("late")
        self.assertEqual(self.output.results, [])

    def test_a_late_failure_is_told_by_the_log_alone(self) -> None:
        gate: Deferred[str] = Deferred()
        self.names["gate"] = gate
        over = self.start("gate")
        over.cancel()
        self.successResultOf(over)
        gate.errback(ValueError("late"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_interrupting_ends_a_program(self) -> None:
        cancelled: list[object] = []
        gate: Deferred[str] = Deferred(cancelled.append)
        self.names["gate"] = gate
        over = self.start("while True:\n    x = await gate\n")
        over.cancel()
        self.assertFalse(self.successResultOf(over))
        self.assertEqual(cancelled, [gate])

    def test_an_exception_shows_what_was_typed_and_nothing_of_ours(self) -> None:
        self.run_now("def f():\n    return 1 / 0\n")
        self.assertFalse(self.run_now("x = 1\nf()"))
        told = self.output.errors[0]
        self.assertIn("return 1 / 0", told)
        self.assertIn('File "<manhole>", line 2', told)
        self.assertTrue(told.endswith("ZeroDivisionError: division by zero"))
        self.assertNotIn("interpreter.py", told)

    def test_what_follows_an_exception_is_not_run(self) -> None:
        self.run_now("1 / 0\nx = 1")
        self.assertNotIn("x", self.names)

    def test_wrong_syntax(self) -> None:
        self.assertFalse(self.run_now("x ==\n"))
        self.assertIn("SyntaxError", self.output.errors[0])
        self.assertNotIn("Traceback", self.output.errors[0])
        self.assertFalse(self.run_now("x = '\0'"))
        self.assertFalse(self.run_now("return 1"))

    def test_even_what_is_no_error_goes_no_further(self) -> None:
        for name in ("KeyboardInterrupt", "GeneratorExit", "RecursionError"):
            self.assertFalse(self.run_now(f"raise {name}"), name)

    def test_mistakes_are_told_in_a_sentence(self) -> None:
        def refuse() -> None:
            raise MistakeError("There is no such cube")

        self.names["refuse"] = refuse
        self.run_now("refuse()")
        self.assertEqual(self.output.errors, ["There is no such cube"])

    def test_leaving(self) -> None:
        self.failureResultOf(self.start("raise SystemExit"), SystemExit)

    def test_what_is_complete(self) -> None:
        for text in ("1", "await x", "x ==", "if a:\n  b\n", "def f():\n  a\nf()", "", "[1,\n2]"):
            self.assertTrue(self.interpreter.complete(text), text)
        for text in ("if a:", "if a:\n  b", "[1,", "'''a", "@a", "async with a:\n  b", "if a: b", "x = \\"):
            self.assertFalse(self.interpreter.complete(text), text)


class Things:
    """Has keys, an attribute that fails, and a function."""

    def keys(self) -> list[str]:
        return ["hq", "lab-2"]

    def __getitem__(self, key: str) -> str:
        return key.upper()

    @property
    def broken(self) -> str:
        raise RuntimeError("never to be seen")

    hidden = 1


class CompletionTests(TestCase):
    def setUp(self) -> None:
        @completes(lambda: ["hq", "lab-2"])
        def register(cube: str) -> None:
            raise AssertionError("completing calls nothing")

        self.names = {"things": Things(), "register": register, "thought": 1}

    def found(self, before: str) -> list[str]:
        return completions(self.names, before)[1]

    def test_names(self) -> None:
        self.assertEqual(self.found("th"), ["things", "thought"])
        self.assertEqual(self.found("x = reg"), ["register("])
        self.assertIn("print(", self.found("pri"))
        self.assertIn("while", self.found("whi"))
        self.assertEqual(self.found("'th"), [])

    def test_attributes_and_what_they_lead_to(self) -> None:
        self.assertEqual(self.found("things.k"), ["keys("])
        self.assertEqual(self.found("print(things.hid"), ["hidden"])
        self.assertIn("upper(", self.found('things["hq"].upp'))
        self.assertEqual(self.found("things.broken.x"), [])
        self.assertEqual(self.found("nothing.x"), [])
        self.assertEqual(self.found("things."), ["broken", "hidden", "keys("])
        self.assertIn("__class__(", self.found("things.__cl"))

    def test_keys(self) -> None:
        self.assertEqual(self.found("things["), ['"hq"]', '"lab-2"]'])
        self.assertEqual(completions(self.names, "things['l"), ("'l", ["'lab-2']"]))

    def test_arguments(self) -> None:
        self.assertEqual(self.found('register("l'), ['lab-2"'])
        self.assertEqual(self.found("register('"), ["hq'", "lab-2'"])
        self.assertEqual(self.found("print('"), [])

    def test_what_they_have_in_common(self) -> None:
        self.assertEqual(common(["things", "thought"]), "th")
        self.assertEqual(common(["one"]), "one")
