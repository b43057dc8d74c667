"""Log files: what is written where, and that received text stays data."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest
from zope.interface import implementer

from cubehook.config import Log, Webhook
from cubehook.events import CallEvent, CallState, Event, Granularity
from cubehook.operations.logs import FLUSH_SECONDS, Logs, RotatedFile
from cubehook.records import Attempt, Delivery, ErrorClass

NOW = 1_732_377_816_200_940


def call_event(**changes: object) -> CallEvent:
    fields: dict[str, object] = {
        "call_state": CallState.ALERTING,
        "called_number": "+12512501663",
        "calling_number": "+12517676234",
        "timestamp": "2024-11-23T16:03:36.200940Z",
        "event_id": "64YBA8PFPXG05-1",
        "sequence": 1,
        "cube": "hq",
        "call_id": "64YBA8PFPXG05",
        "inferred": False,
        "calling_withheld": False,
        "connections": [],
    }
    fields.update(changes)
    for name in CallEvent.__struct_fields__:
        fields.setdefault(name, None)
    return CallEvent(**fields)  # type: ignore[arg-type]


def event(**changes: object) -> Event:
    return Event(id=1, call=2, cube="hq", granularity=Granularity.CALL, at=NOW, payload=call_event(**changes))


class LogsTests(SynchronousTestCase):
    def open(self, **settings: object) -> Logs:
        self.clock = Clock()
        self.folder = Path(self.mktemp())
        logs = Logs(self.folder, Log(**settings), self.clock, lambda: NOW)  # type: ignore[arg-type]
        logs.open()
        self.addCleanup(logs.close)
        return logs

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def test_service_messages_are_written_at_once(self) -> None:
        self.open()
        Logger("cubehook.xcc").info("Cube {cube} is registered", cube="hq")
        self.assertIn("info cubehook.xcc: Cube hq is registered\n", self.read("cubehook.log"))

    def test_other_settings_hold_at_once(self) -> None:
        logs = self.open(levels={"cubehook.access": "warn"})
        log = Logger("cubehook.xcc")
        log.debug("unwanted")
        logs.access(DummyRequest([b""]))  # type: ignore[arg-type]
        logs.change(Log(level="debug", format="json", keep=1, rotate_bytes=10_000))
        log.debug("detail")
        logs.event(event())
        self.clock.advance(FLUSH_SECONDS)
        self.assertNotIn("unwanted", self.read("cubehook.log"))
        self.assertEqual(json.loads(self.read("cubehook.log"))["message"], "detail")
        self.assertEqual(json.loads(self.read("events.log"))["cube"], "hq")
        for _ in range(300):
            log.debug("x" * 100)
        self.assertEqual(
            {path.name for path in self.folder.glob("cubehook.*")}, {"cubehook.log", "cubehook.log.1"}
        )
        logs.change(Log(level="error", levels={"cubehook.events": "warn"}))
        log.warn("unwanted")
        before = self.read("events.log")
        logs.event(event())
        self.clock.advance(FLUSH_SECONDS)
        self.assertEqual(self.read("events.log"), before)
        self.assertNotIn("unwanted", self.read("cubehook.log"))
        log.error("last")
        self.assertTrue(self.read("cubehook.log").endswith("last\n"))
        self.assertEqual(self.read("cubehook.log").count("last"), 1)

    def test_files_that_were_moved_are_let_go_of(self) -> None:
        logs = self.open()
        path = self.folder / "events.log"
        moved = path.rename(self.folder / "moved")
        logs.event(event())
        logs.reopen()
        self.assertEqual(len(self.read("events.log").splitlines()), 1)
        links = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        self.assertIn(str(path.absolute()), links)
        self.assertNotIn(str(moved.absolute()), links)

    def test_a_file_that_cannot_be_opened_again_is_written_on(self) -> None:
        logs = self.open()
        path = self.folder / "events.log"
        path.rename(self.folder / "moved")
        path.mkdir()
        logs.reopen()
        self.assertIn("events.log cannot be opened again: Is a directory", self.read("cubehook.log"))

    def test_level_by_namespace(self) -> None:
        self.open(levels={"cubehook.xcc": "debug", "cubehook.delivery": "error"})
        Logger("cubehook.xcc").debug("fine detail")
        Logger("cubehook.delivery").info("too much")
        Logger("cubehook.store").debug("too fine")
        text = self.read("cubehook.log")
        self.assertIn("fine detail", text)
        self.assertNotIn("too", text)

    def test_received_text_is_not_a_format(self) -> None:
        self.open()
        Logger("cubehook").warn(
            "Number {number}", number="{log_source.__class__}\n2024 info forged: line\x1b[2J"
        )
        text = self.read("cubehook.log")
        self.assertIn(r"Number {log_source.__class__}\x0a2024 info forged: line\x1b[2J", text)
        self.assertEqual(text.count("\n"), 1)

    def test_failure_is_indented_below_its_message(self) -> None:
        self.open()
        try:
            raise RuntimeError("broken\nforged\x1b[2J")
        except RuntimeError:
            Logger("cubehook").failure("It failed")
        lines = self.read("cubehook.log").splitlines()
        self.assertIn("critical cubehook: It failed", lines[0])
        self.assertTrue(all(line.startswith("    ") for line in lines[1:]))
        self.assertTrue(any("RuntimeError" in line for line in lines))
        self.assertEqual(lines[-1], r"    forged\x1b[2J")
        self.flushLoggedErrors(RuntimeError)

    def test_event_line_waits_for_others_but_not_long(self) -> None:
        logs = self.open()
        logs.event(event())
        logs.event(event(event_id="64YBA8PFPXG05-2", call_state=CallState.CONNECTED))
        self.assertEqual(self.read("events.log"), "")
        self.clock.advance(FLUSH_SECONDS)
        self.assertEqual(
            self.read("events.log"),
            "2024-11-23T16:03:36.200940Z event 64YBA8PFPXG05-1 hq ALERTING +12517676234 -> +12512501663\n"
            "2024-11-23T16:03:36.200940Z event 64YBA8PFPXG05-2 hq CONNECTED +12517676234 -> +12512501663\n",
        )

    def test_event_numbers_cannot_forge_lines(self) -> None:
        logs = self.open()
        logs.event(event(calling_number="1\n2024 event", called_number="2\n2024 attempt"))
        logs.attempt(*self.attempt(error="no\n2024 event"))
        logs.close()
        text = self.read("events.log")
        self.assertIn(r"1\x0a2024 event -> 2\x0a2024 attempt", text)
        self.assertIn(r"http: no\x0a2024 event", text)
        self.assertEqual(text.count("\n"), 2)

    def attempt(self, **changes: object) -> tuple[Webhook, Delivery, Attempt]:
        fields: dict[str, object] = {
            "id": 9,
            "delivery": 8,
            "number": 2,
            "started_at": NOW,
            "duration": 1500,
            "delivered": False,
            "error_class": ErrorClass.HTTP,
            "error": "answered 500",
            "status": 500,
        }
        fields.update(changes)
        delivery = Delivery(id=8, webhook="crm", event=event(), due_at=NOW)
        return Webhook(id="crm"), delivery, Attempt(**fields)  # type: ignore[arg-type]

    def test_attempt_line(self) -> None:
        logs = self.open()
        logs.attempt(*self.attempt())
        logs.attempt(*self.attempt(delivered=True, status=204, error=None, error_class=None))
        logs.close()
        self.assertEqual(
            self.read("events.log"),
            "2024-11-23T16:03:36.200940Z attempt 64YBA8PFPXG05-1 -> crm #2 not delivered 500 1.5ms "
            "http: answered 500\n"
            "2024-11-23T16:03:36.200940Z attempt 64YBA8PFPXG05-1 -> crm #2 delivered 204 1.5ms\n",
        )

    def test_what_is_to_be_known_of_an_attempts_way(self) -> None:
        lines = []
        for format in ("text", "json"):
            logs = self.open(format=format)
            logs.attempt(*self.attempt(delivered=True, status=204, error=None, note="not verified"))
            logs.close()
            lines.append(self.read("events.log"))
        self.assertTrue(lines[0].endswith("#2 delivered 204 1.5ms [not verified]\n"))
        self.assertEqual(json.loads(lines[1])["note"], "not verified")

    def test_json(self) -> None:
        logs = self.open(format="json")
        Logger("cubehook.xcc").info("Cube {cube} is registered", cube="hq")
        logs.event(event())
        logs.attempt(*self.attempt())
        logs.close()
        service = json.loads(self.read("cubehook.log"))
        self.assertEqual((service["message"], service["cube"]), ("Cube hq is registered", "hq"))
        told, tried = map(json.loads, self.read("events.log").splitlines())
        self.assertEqual((told["kind"], told["state"], told["outcome"]), ("event", "ALERTING", None))
        self.assertEqual((tried["kind"], tried["error_class"], tried["ms"]), ("attempt", "http", 1.5))

    def test_access_line(self) -> None:
        logs = self.open()
        request: Any = DummyRequest([b""])
        request.method, request.uri, request.code = b"POST", b"/xcc/hq\x1b", 200
        request.sentLength, request.received_at = 17, NOW - 2500
        logs.access(request)
        logs.close()
        line = self.read("access.log")
        self.assertIn(r'"POST /xcc/hq\x1b" 200 17 2.5ms', line)

    def test_streams_can_be_silenced(self) -> None:
        logs = self.open(levels={"cubehook.events": "error"})
        logs.event(event())
        logs.close()
        self.assertEqual(self.read("events.log"), "")

    def test_what_an_event_calls_its_own_forges_nothing(self) -> None:
        self.open(format="json")
        Logger("cubehook").info("It is told", namespace="x", time=0, ratio=0.5)
        record = json.loads(self.read("cubehook.log"))
        self.assertEqual(
            (record["message"], record["namespace"], record["ratio"]), ("It is told", "cubehook", 0.5)
        )
        self.assertRegex(record["time"], "^20")

    def test_text_that_is_no_unicode(self) -> None:
        for format in ("text", "json"):
            logs = self.open(format=format)
            logs.event(event(calling_number=os.fsdecode(b"1\xff")))
            logs.close()
            self.assertRegex(self.read("events.log"), r"1\\[ux]dcff")

    def test_a_clock_that_is_set_back(self) -> None:
        logs = self.open()
        request: Any = DummyRequest([b""])
        request.method, request.uri, request.code = b"GET", b"/", 200
        request.sentLength, request.received_at = 0, NOW + 5_000_000
        logs.access(request)
        logs.close()
        self.assertTrue(self.read("access.log").endswith(" 0.0ms\n"))

    def test_closed_logs_take_nothing_more(self) -> None:
        logs = self.open()
        logs.close()
        logs.event(event())
        Logger("cubehook").info("late")
        self.assertEqual(self.read("cubehook.log"), "")


class RotatedFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        # What a glob would take for a pattern.
        self.folder = Path(self.mktemp()).absolute() / "[abc] *"
        self.folder.mkdir(parents=True)
        self.path = self.folder / "x.log"
        self.said: list[str] = []

        @implementer(ILogObserver)
        def observer(event: LogEvent) -> None:
            self.said.append(formatEvent(event))

        self.patch(RotatedFile, "_log", Logger("t", observer=observer))

    def open(self, rotate_bytes: int = 200, keep: int = 2) -> RotatedFile:
        file = RotatedFile(self.path, rotate_bytes, keep, Clock())
        self.addCleanup(file.close)
        return file

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def all_lines(self) -> list[str]:
        """From the oldest file to the current one."""
        names = sorted(self.names(), reverse=True)
        return "".join((self.folder / name).read_text() for name in names).splitlines()

    def test_no_file_is_too_large_and_no_line_lost(self) -> None:
        file = self.open(keep=9)
        lines = [f"line {number} of many" for number in range(60)]
        for line in lines:
            file.write(line + "\n")
        file.close()
        self.assertEqual(self.all_lines(), lines)
        self.assertGreater(len(self.names()), 4)
        self.assertTrue(all(path.stat().st_size <= 200 for path in self.folder.iterdir()))

    def test_so_many_are_kept(self) -> None:
        # Left by a service that was told to keep more, and by somebody else.
        for name in ("x.log.3", "x.log.12", "x.log.old", "x.log.0"):
            (self.folder / name).touch()
        file = self.open()
        for number in range(60):
            file.write_now(f"line {number} of many\n")
        self.assertEqual(self.names(), ["x.log", "x.log.0", "x.log.1", "x.log.2", "x.log.old"])
        self.assertTrue((self.folder / "x.log.1").read_text() < self.path.read_text())

    def test_a_file_of_an_earlier_run_goes_on(self) -> None:
        self.path.write_text("earlier\n")
        self.open().write_now("later\n")
        self.assertEqual(self.all_lines(), ["earlier", "later"])

    def test_numbers_of_callers_are_not_for_everybody(self) -> None:
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        file = self.open()
        for number in range(60):
            file.write_now(f"line {number} of many\n")
        self.assertEqual({path.stat().st_mode & 0o777 for path in self.folder.iterdir()}, {0o640})

    def test_two_processes_overwrite_nothing(self) -> None:
        first, second = self.open(), self.open()
        for number in range(3):
            first.write_now(f"first {number}\n")
            second.write_now(f"second {number}\n")
        self.assertEqual(
            self.all_lines(), [f"{who} {number}" for number in range(3) for who in ("first", "second")]
        )

    def test_a_file_taken_away_is_begun_again(self) -> None:
        moves: tuple[Callable[[], object], ...] = (
            self.path.unlink,
            lambda: self.path.rename(self.folder / "elsewhere"),
        )
        file = self.open()
        for move in moves:
            file.write_now("before\n")
            move()
            file.write_now("after\n")
            self.assertEqual(self.path.read_text(), "after\n")
        self.assertEqual((self.folder / "elsewhere").read_text(), "after\nbefore\n")

    def test_what_cannot_be_rotated_is_still_written(self) -> None:
        (self.folder / "x.log.1").mkdir()
        file = self.open(keep=1)
        for number in range(30):
            file.write_now(f"line {number} of many\n")
        self.assertEqual(len(self.path.read_text().splitlines()), 30)
        self.assertEqual(self.said, [])

    def test_a_full_disk_loses_lines_and_says_so_once(self) -> None:
        self.path.symlink_to("/dev/full")
        file = self.open()
        file.write("one\n")
        file.write("two\n")
        file.flush()
        file.write_now("three\n")
        self.assertEqual(
            self.said,
            [f"{self.path} cannot be written: No space left on device; its lines are lost until it can"],
        )
        self.path.unlink()
        file.write_now("four\n")
        self.assertEqual(self.path.read_text(), "four\n")
        self.assertEqual(self.said[1:], [f"{self.path} is written again; 3 of its lines are lost"])

    def test_a_line_that_was_cut_spoils_no_other(self) -> None:
        file = self.open(rotate_bytes=10_000)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            file.write_now("twenty characters...\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        file.write_now("whole\n")
        file.write_now("as well\n")
        self.assertEqual(self.all_lines(), ["twenty cha", "whole", "as well"])

    def test_its_own_trouble_does_not_come_round_again(self) -> None:
        logs = Logs(self.folder, Log(), Clock(), lambda: NOW)
        (self.folder / "cubehook.log").symlink_to("/dev/full")
        self.patch(RotatedFile, "_log", Logger("cubehook.operations.logs"))
        logs.open()
        self.addCleanup(logs.close)
        Logger("cubehook").info("lost")
        (self.folder / "cubehook.log").unlink()
        Logger("cubehook").info("kept")
        text = (self.folder / "cubehook.log").read_text()
        self.assertIn("kept\n", text)
        self.assertIn("is written again; 2 of its lines are lost\n", text)
