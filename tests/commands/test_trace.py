"""`cubehook trace`, and what it shows of a trace's file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from cubehook.commands import trace
from cubehook.control import NotRunningError, RefusedError
from tests.commands.support import CommandCase

PATH = "/cubes/hq/trace"


class TraceCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(trace, "_LOOK", 0)
        self.file = Path(self.mktemp())

    def state(self, until: str | None = "2024-11-23T16:13:36.000000Z", **more: Any) -> dict[str, Any]:
        found = {"cube": "hq", "until": until, "masked": False, "messages": 0, "file": str(self.file)}
        return {**found, **more}


class Course(TraceCase):
    def test_begun(self) -> None:
        status, output, _ = self.run_command("trace", "hq", answers={PATH: [self.state()]})
        self.assertEqual(self.service.asked, [("POST", PATH, {"minutes": 10.0, "masked": False})])
        self.assertEqual(status, 0)
        self.assertRegex(output, rf"^Cube hq is traced until .* to {self.file}, numbers included\.\n$")

    def test_as_it_is_asked_for(self) -> None:
        _, output, _ = self.run_command(
            "trace", "hq", "--minutes", "0.5", "--mask", answers={PATH: [self.state(masked=True)]}
        )
        self.assertEqual(self.service.asked, [("POST", PATH, {"minutes": 0.5, "masked": True})])
        self.assertIn("numbers masked", output)

    def test_ended(self) -> None:
        _, output, _ = self.run_command(
            "trace", "hq", "--stop", answers={PATH: [self.state(None, messages=1200)]}
        )
        self.assertEqual(self.service.asked, [("POST", PATH, {"minutes": 0})])
        self.assertEqual(output, f"Cube hq is traced no more: 1,200 messages are in {self.file}.\n")

    def test_state(self) -> None:
        _, output, _ = self.run_command("trace", "hq", "--status", answers={PATH: [self.state(None)]})
        self.assertEqual(self.service.asked, [("GET", PATH)])
        self.assertIn("is not traced", output)
        _, output, _ = self.run_command("trace", "hq", "--json", "--status", answers={PATH: [self.state()]})
        self.assertEqual(json.loads(output), self.state())

    def test_wrong_usage(self) -> None:
        for arguments in (
            (),
            ("hq", "--minutes", "0"),
            ("hq", "--minutes", "-1"),
            ("hq", "--minutes", "1441"),
            ("hq", "--minutes", "nan"),
            ("hq", "--minutes", "ten"),
            ("hq", "--minutes", "1", "--stop"),
            ("hq", "--stop", "--follow"),
            ("hq", "--follow", "--json"),
        ):
            status, output, errors = self.run_command("trace", *arguments)
            self.assertEqual((status, output), (2, ""), arguments)
            self.assertIn("cubehook trace", errors)
            self.assertEqual(self.service.asked, [])

    def test_refused(self) -> None:
        refusal = RefusedError(404, "not_found", "There is no cube hq", {})
        status, _, errors = self.run_command("trace", "hq", answers={PATH: [refusal]})
        self.assertEqual((status, errors), (1, "cubehook trace: There is no cube hq\n"))


class Followed(TraceCase):
    """`steps` happen one after another, whenever the command waits."""

    def follow(self, *steps: Callable[[], Any], options: tuple[str, ...] = (), **more: Any) -> Any:
        waiting = iter(steps)

        def sleep(seconds: float) -> None:
            next(waiting)()

        answers = {PATH: [self.state(None), self.state(), *more.get("asked", [self.state(None)])]}
        with mock.patch.object(time, "sleep", sleep):
            return self.run_command("trace", "hq", "--follow", *options, answers=answers)

    def write(self, text: str) -> None:
        with open(self.file, "a") as file:
            file.write(text)

    def end(self) -> None:
        self.write("2024-11-23T16:13:36.000000Z trace of cube hq ends, as its time is over\n")

    def test_what_is_written_from_then_on(self) -> None:
        self.write("of an earlier trace\n")
        status, output, errors = self.follow(
            lambda: self.write("one\ntw"), lambda: self.write("o\n"), self.end
        )
        self.assertEqual(status, 0)
        self.assertEqual(
            output,
            "one\ntwo\n2024-11-23T16:13:36.000000Z trace of cube hq ends, as its time is over\n",
        )
        self.assertIn("is traced until", errors)
        self.assertEqual(self.service.asked[-1], ("GET", PATH))

    def test_file_that_comes_later_and_is_rotated(self) -> None:
        def rotate() -> None:
            self.write("last\n")
            self.file.rename(f"{self.file}.1")
            self.write("first\n")

        _, output, _ = self.follow(lambda: self.write("one\n"), rotate, self.end)
        self.assertEqual(output.splitlines()[:3], ["one", "last", "first"])

    def test_xml_has_an_element_a_line(self) -> None:
        line = '    <?xml version="1.0"?><a><b>1</b><c/> <d x=">"><e>2</e></d></a>\n'
        _, output, _ = self.follow(lambda: self.write(line), self.end)
        self.assertEqual(
            output.splitlines()[:-1],
            [
                '    <?xml version="1.0"?>',
                "    <a>",
                "      <b>1</b>",
                "      <c/>",
                '      <d x=">">',
                "        <e>2</e>",
                "      </d>",
                "    </a>",
            ],
        )
        _, output, _ = self.follow(lambda: self.write(line), self.end, options=("--raw",))
        self.assertIn(line, output)

    def test_whoever_ended_it_is_heard_of(self) -> None:
        # The line that tells the end may be of a trace that was begun again.
        _, output, _ = self.follow(
            self.end, lambda: self.write("more\n"), self.end, asked=[self.state(), self.state(None)]
        )
        self.assertIn("more\n", output)

    def test_service_that_goes(self) -> None:
        self.patch(trace, "_ASK", 0)
        status, output, errors = self.follow(
            lambda: self.write("one\n"), asked=[self.state(), NotRunningError("no cubehook is running")]
        )
        self.assertEqual((status, output), (1, "one\n"))
        self.assertIn("no cubehook is running", errors)

    def test_interrupted(self) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        status, _, errors = self.follow(interrupt)
        self.assertEqual(status, 130)
        self.assertIn("`cubehook trace hq --stop` ends it", errors)

    def test_terminal_is_not_commanded(self) -> None:
        _, output, _ = self.follow(lambda: self.write("\x1b[2J\n"), self.end)
        self.assertIn("\\x1b[2J", output)
