"""Log files: what is written where, and that received text stays data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from cubehook.config import Log, Webhook
from cubehook.events import CallEvent, CallState, Event, Granularity
from cubehook.operations.logs import FLUSH_SECONDS, Logs
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
            raise RuntimeError("broken\nforged")
        except RuntimeError:
            Logger("cubehook").failure("It failed")
        lines = self.read("cubehook.log").splitlines()
        self.assertIn("critical cubehook: It failed", lines[0])
        self.assertTrue(all(line.startswith("    ") for line in lines[1:]))
        self.assertTrue(any("RuntimeError" in line for line in lines))
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
        logs.event(event(calling_number="1\n2024 event"))
        logs.close()
        self.assertIn(r"1\x0a2024 event -> ", self.read("events.log"))

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

    def test_rotation_keeps_so_many_files(self) -> None:
        self.open(rotate_bytes=200, keep=2)
        for number in range(20):
            Logger("cubehook").info("message number {number} of a chatty service", number=number)
        names = sorted(path.name for path in self.folder.glob("cubehook.log*"))
        self.assertEqual(names, ["cubehook.log", "cubehook.log.1", "cubehook.log.2"])

    def test_closed_logs_take_nothing_more(self) -> None:
        logs = self.open()
        logs.close()
        logs.event(event())
        Logger("cubehook").info("late")
        self.assertEqual(self.read("cubehook.log"), "")
