"""Traces over the API."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from cubehook.api.operations import operations
from cubehook.api.trace import TracePart
from cubehook.changes import the
from cubehook.config import Log
from cubehook.operations.trace import TraceError, Traces, Tracing
from tests.api.support import NOW, ApiCase


class Tracer:
    """A service with the cube hq, whose traces are real ones."""

    def __init__(self, test: TestCase) -> None:
        folder = Path(test.mktemp())
        folder.mkdir()
        self.traces = Traces(folder, Log(), Clock(), lambda: NOW)
        test.addCleanup(self.traces.stop)
        self.fault: Exception | None = None

    def trace(self, cube: str, minutes: float, masked: bool = False) -> Tracing:
        if self.fault is not None:
            raise self.fault
        self.tracing(cube)
        return self.traces.trace(cube, minutes, masked)

    def tracing(self, cube: str) -> Tracing:
        the(cube, {"hq": 1})
        return self.traces.status(cube)


class TraceTests(ApiCase):
    def make_parts(self) -> list[object]:
        self.tracer = Tracer(self)
        return [TracePart(self.tracer)]

    async def test_on_and_off(self) -> None:
        code, off = await self.ask("GET", "/cubes/hq/trace")
        self.assertEqual(code, 200)
        self.assertEqual((off["cube"], off["until"], off["messages"]), ("hq", None, 0))
        code, on = await self.ask("POST", "/cubes/hq/trace", {"minutes": 1.5, "masked": True})
        self.assertEqual(code, 200)
        self.assertEqual((on["until"], on["masked"]), ("2024-11-23T16:05:06.200940Z", True))
        self.assertTrue(Path(on["file"]).is_file())
        self.assertEqual(await self.ask("GET", "/cubes/hq/trace"), (200, on))
        _, ended = await self.ask("POST", "/cubes/hq/trace", {"minutes": 0})
        self.assertIsNone(ended["until"])
        self.assertEqual(dict(self.tracer.traces.taps), {})

    async def test_what_is_refused(self) -> None:
        wrong: list[tuple[dict[str, object], str]] = [
            ({}, "minutes"),
            ({"minutes": -1}, "minutes"),
            ({"minutes": 1441}, "minutes"),
            ({"minutes": 1, "masked": "yes"}, "masked"),
            ({"minutes": 1, "mask": True}, "mask"),
        ]
        for body, field in wrong:
            code, answer = await self.ask("POST", "/cubes/hq/trace", body)
            self.assertEqual((code, list(answer["error"]["fields"])), (422, [field]))
        for method in ("GET", "POST"):
            code, answer = await self.ask(
                method, "/cubes/nowhere/trace", {"minutes": 1} if method == "POST" else None
            )
            self.assertEqual((code, answer["error"]["code"]), (404, "not_found"))
        self.assertEqual(dict(self.tracer.traces.taps), {})

    async def test_file_that_cannot_be_written(self) -> None:
        self.tracer.fault = TraceError("trace-hq.log cannot be written")
        code, answer = await self.ask("POST", "/cubes/hq/trace", {"minutes": 1})
        self.assertEqual((code, answer["error"]["message"]), (503, "trace-hq.log cannot be written"))

    def test_who_may(self) -> None:
        access = {declared.name: declared.access for declared, _ in operations(TracePart(self.tracer))}
        self.assertEqual(access, {"trace_cube": "admin", "get_trace": "viewer"})
