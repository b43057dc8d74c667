"""Wire traces: their files, their ends, and what they hide."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Log
from cubehook.events import Micros
from cubehook.operations import trace
from cubehook.operations.trace import FileTap, TraceError, Traces, masked_numbers

START: Micros = 1_732_377_816_000_000
"""2024-11-23T16:03:36Z."""

PEER = "192.0.2.1:51514"


class TraceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.traces = self.make()

    def make(self, settings: Log | None = None) -> Traces:
        traces = Traces(self.folder, settings or Log(), self.clock, self.now)
        self.addCleanup(traces.stop)
        return traces

    def now(self) -> Micros:
        return START + int(self.clock.seconds() * 1_000_000)

    def on(self, *, masked: bool = False) -> FileTap:
        self.traces.trace("hq", 10, masked)
        return self.traces.taps["hq"]

    def text(self, cube: str = "hq") -> str:
        self.clock.advance(1)  # what is written waits for more
        return (self.folder / f"trace-{cube}.log").read_text()


class Files(TraceCase):
    def test_an_exchange_each_way(self) -> None:
        tap = self.on()
        self.clock.advance(1)
        exchange = tap.received(PEER, ["POST /xcc/hq HTTP/1.1", "Host: us"], b"<a>\n<b/></a>", self.now())
        self.clock.advance(0.0034)
        tap.answered(exchange, PEER, ["HTTP/1.1 200 OK"], b"")
        exchange = tap.sent("192.0.2.1:8090", ["POST /cisco_xcc HTTP/1.1"], b"<c/>")
        self.clock.advance(0.5)
        tap.heard(exchange, "192.0.2.1:8090", ["HTTP/1.1 200 OK"], b"<d/>")
        self.assertEqual(
            self.text(),
            "2024-11-23T16:03:36.000000Z trace of cube hq begins, until 2024-11-23T16:13:36.000000Z\n"
            "2024-11-23T16:03:37.000000Z #1 192.0.2.1:51514 -> cubehook\n"
            "    POST /xcc/hq HTTP/1.1\n"
            "    Host: us\n"
            "\n"
            "    <a>\n"
            "    <b/></a>\n"
            "2024-11-23T16:03:37.003400Z #1 cubehook -> 192.0.2.1:51514 after 3.4 ms\n"
            "    HTTP/1.1 200 OK\n"
            "2024-11-23T16:03:37.003400Z #2 cubehook -> 192.0.2.1:8090\n"
            "    POST /cisco_xcc HTTP/1.1\n"
            "\n"
            "    <c/>\n"
            "2024-11-23T16:03:37.503400Z #2 192.0.2.1:8090 -> cubehook after 500.0 ms\n"
            "    HTTP/1.1 200 OK\n"
            "\n"
            "    <d/>\n",
        )
        self.assertEqual(self.traces.status("hq").messages, 4)

    def test_no_answer(self) -> None:
        tap = self.on()
        exchange = tap.sent("r:8090", ["POST / HTTP/1.1"], b"<a/>")
        self.clock.advance(5)
        tap.failed(exchange, "refused\nforged")
        self.assertIn("#1 no answer after 5000.0 ms: refused\\x0aforged\n", self.text())

    def test_body_that_was_not_kept(self) -> None:
        self.on().received(PEER, ["POST / HTTP/1.1"], None, START)
        self.assertIn("    (a body that is longer", self.text())

    def test_secrets_of_heads_are_left_out(self) -> None:
        head = ["GET / HTTP/1.1", "AUTHORIZATION: Basic hunter2", "Cookie: hunter2", "Via: 1.1 x"]
        self.on().received(PEER, head, b"", START)
        text = self.text()
        self.assertNotIn("hunter2", text)
        self.assertIn("    Via: 1.1 x\n", text)

    def test_mode(self) -> None:
        self.on()
        self.assertEqual((self.folder / "trace-hq.log").stat().st_mode & 0o007, 0)

    def test_rotated(self) -> None:
        self.traces = self.make(Log(rotate_bytes=10_000, keep=2))
        tap = self.on()
        for _ in range(40):
            tap.sent("r", ["POST / HTTP/1.1"], b"x" * 1000)
        self.clock.advance(1)
        names = sorted(path.name for path in self.folder.iterdir())
        self.assertEqual(names, ["trace-hq.log", "trace-hq.log.1", "trace-hq.log.2"])
        self.assertLessEqual(max(path.stat().st_size for path in self.folder.iterdir()), 10_000)

    @given(
        st.lists(st.text(), max_size=3),
        st.one_of(st.binary(), st.text().map(str.encode), st.text().map(lambda text: text.encode("utf-16"))),
        st.booleans(),
    )
    def test_nothing_received_stands_at_the_margin(self, head: list[str], body: bytes, masked: bool) -> None:
        tap = self.on(masked=masked)
        path = self.folder / "trace-hq.log"
        before = len(self.text())
        tap.received("peer\nforged", head, body, START)
        ours, *received = self.text()[before:].removesuffix("\n").split("\n")
        self.assertTrue(ours.endswith(" -> cubehook"))
        for line in received:
            self.assertRegex(line, r"\A(    [^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028]*)?\Z")
        self.traces.stop()
        path.unlink()


class Course(TraceCase):
    def test_ends_by_itself(self) -> None:
        with capturedLogs() as logged:
            tap = self.on()
            tap.sent("r", ["POST / HTTP/1.1"], b"")
            self.clock.advance(599)
            self.assertIn("hq", self.traces.taps)
            self.clock.advance(1)
        self.assertEqual((dict(self.traces.taps), self.traces.running()), ({}, []))
        begun, ended = [formatEvent(event) for event in logged]
        self.assertRegex(begun, r"^Cube hq is traced until 2024-11-23T16:13:36\.000000Z: .*numbers included$")
        self.assertRegex(
            ended, r"^The trace of cube hq has ended, as its time is over; it has 1 messages in "
        )
        self.assertTrue(self.text().endswith("Z trace of cube hq ends, as its time is over\n"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # An answer that comes after the end goes nowhere.
        tap.heard(1, "r", ["HTTP/1.1 200 OK"], b"")
        self.assertTrue(self.text().endswith("its time is over\n"))

    def test_goes_on(self) -> None:
        first = self.on()
        self.clock.advance(500)
        told = self.traces.trace("hq", 5, True)
        self.assertEqual((told.until, told.masked), (START + 800_000_000, True))
        self.clock.advance(299)
        self.assertIs(self.traces.taps["hq"], first)
        self.clock.advance(1)
        self.assertEqual(dict(self.traces.taps), {})
        self.assertIn("trace of cube hq goes on, until", self.text())

    def test_is_ended(self) -> None:
        self.on()
        self.traces.trace("branch", 1)
        self.assertEqual([each.cube for each in self.traces.running()], ["branch", "hq"])
        self.assertIsNone(self.traces.trace("hq", 0).until)
        self.assertEqual(list(self.traces.taps), ["branch"])
        self.assertIsNone(self.traces.trace("hq", 0).until)
        self.traces.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIn("ends, as the service stops", self.text("branch"))

    def test_a_second_trace_comes_after_the_first(self) -> None:
        self.on().sent("r", ["POST /first HTTP/1.1"], b"")
        self.traces.trace("hq", 0)
        self.on().sent("r", ["POST /second HTTP/1.1"], b"")
        text = self.text()
        self.assertLess(text.index("/first"), text.index("/second"))
        self.assertEqual(self.traces.status("hq").messages, 1)

    def test_minutes(self) -> None:
        for minutes in (-1, trace.LONGEST + 1, float("nan"), float("inf")):
            with self.assertRaises(ValueError):
                self.traces.trace("hq", minutes)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_file_that_cannot_be_written(self) -> None:
        os.mkdir(self.folder / "trace-hq.log")
        with self.assertRaisesRegex(TraceError, "trace-hq.log cannot be written"):
            self.traces.trace("hq", 1)
        self.assertEqual((dict(self.traces.taps), self.clock.getDelayedCalls()), ({}, []))


class Masks(TraceCase):
    def test_addresses(self) -> None:
        for given_, shown in (
            ("+12517676234", "+*********34"),
            ("12517676234", "*********34"),
            ("1001", "**01"),
            ("911", "***"),
            ("", ""),
            ("anonymous", "anonymous"),
            ("sip:+12512501663@192.0.2.10:5060", "sip:+*********63@192.0.2.10:5060"),
            ("sip:alice@example.com;user=phone", "sip:***ce@example.com;user=phone"),
            ("tel:+1-251-767-6234", "tel:+*-***-***-**34"),
            ("&#43;&#49;2517676234", "+*********34"),
            (" 12517676234\n", " *********34\n"),
        ):
            for start, end in (("<addr>", "</addr>"), ('<x:addr a="1">', "</x:addr>"), ("<addr>", "")):
                self.assertEqual(
                    masked_numbers(f"<type>E164</type>{start}{given_}{end}"),
                    f"<type>E164</type>{start}{shown}{end}",
                )

    def test_each_address_alone(self) -> None:
        self.assertEqual(
            masked_numbers("<a><addr>2517676234</addr></a><callID>123456789</callID><addr>5551234</addr>"),
            "<a><addr>********34</addr></a><callID>123456789</callID><addr>*****34</addr>",
        )

    def test_elsewhere(self) -> None:
        self.assertEqual(
            masked_numbers("<text>No route to +1 251 767 6234, sip:12512501663@192.0.2.1</text>"),
            "<text>No route to +* *** *** **34, sip:*********63@192.0.2.1</text>",
        )
        for kept in ("<addresses>12345</addresses>", "<guid>694646BC1D2311E7A8D2826ACB31D85A</guid>"):
            self.assertEqual(masked_numbers(kept), kept)

    def test_in_the_file(self) -> None:
        tap = self.on(masked=True)
        body = "<addr>+12517676234</addr>"
        for encoded in (
            body.encode(),
            body.encode("utf-16"),
            body.encode("utf-16-be"),
            body.encode("utf-16-le"),
            b"\xef\xbb\xbf" + body.encode(),
        ):
            tap.sent("r", ["POST / HTTP/1.1"], encoded)
        text = self.text()
        self.assertEqual(text.count("    <addr>+*********34</addr>\n"), 5)
        tap.sent("r", ["POST / HTTP/1.1"], b"\xff" + body.encode())
        text = self.text()
        self.assertIn("bytes that are no text", text)
        self.assertNotIn("251767", text)
        self.assertIn("numbers are masked", text)

    def test_not_unless_asked_for(self) -> None:
        tap = self.on()
        tap.sent("r", ["POST / HTTP/1.1"], b"\xff<addr>+12517676234</addr>")
        self.assertIn("    \\xff<addr>+12517676234</addr>\n", self.text())
