"""`cubehook tail`: what it asks for, what it shows, and how it waits for a service that went."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock
from urllib.parse import parse_qs

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook import cli
from cubehook.commands import place
from cubehook.commands.events import Heartbeat, Sent, read
from cubehook.config import Webhook
from cubehook.control import ControlError, NotRunningError, RefusedError
from cubehook.delivery.samples import samples
from cubehook.events import NoticeType
from tests.commands.support import CommandCase, FakeControl, Terminal

EVERY: list[dict[str, Any]] = [
    msgspec.to_builtins(sample.event.payload)
    for sample in samples(Webhook(id="x", notices=tuple(NoticeType)))
]
CALL = [event for event in EVERY if "call_state" in event][:3]
"""The three events of an ordinary call."""
NOTICES = [event for event in EVERY if "call_state" not in event]

Stream = Sequence[dict[str, Any] | BaseException]


def block(told: Mapping[str, Any], id: str | None = None) -> str:
    """`told` as the service writes it."""
    type = told.get("call_state") or told["type"]
    return f"id: {id or told['event_id']}\nevent: {type}\ndata: {json.dumps(told)}\n\n"


class Streams(FakeControl):
    """Tells one of `streams` after the other, then what ends the command."""

    def __init__(self, streams: Sequence[Stream], answers: dict[str, list[Any]]) -> None:
        super().__init__(answers)
        self.streams = iter(streams)
        self.followed: list[tuple[str, Mapping[str, str]]] = []

    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[bytes]:
        self.followed.append((path, headers))
        for told in next(self.streams, [KeyboardInterrupt()]):
            if isinstance(told, BaseException):
                raise told
            text = ":\n\n" if told is BEAT else BEGIN if told is START else block(told)
            yield from text.encode().splitlines(keepends=True)


START: dict[str, Any] = {"what": "every stream begins with"}
BEGIN = "retry: 3000\n\nid: 64YBA8PFTTH9E\n\n"
BEAT: dict[str, Any] = {"what": "comes every 15 seconds"}
GAP = {"type": "gap", "last_event_id": "64YBA8PFTTH9E", "told_since": "2024-11-23T00:00:00Z", "event_id": "x"}


class TailCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.waited: list[float] = []
        self.patch(time, "sleep", self.waited.append)

    def tail(
        self, *argv: str, streams: Sequence[Stream] = (), terminal: bool = False, **answers: list[Any]
    ) -> tuple[Any, list[str], str]:
        """Exit status, lines of standard output, and standard error."""
        self.streams = Streams(streams, {f"/cubes/{cube}": each for cube, each in answers.items()})
        output, errors = Terminal() if terminal else io.StringIO(), io.StringIO()
        with (
            mock.patch.object(place, "Control", return_value=self.streams),
            mock.patch.object(sys, "stdout", output),
            mock.patch.object(sys, "stderr", errors),
        ):
            try:
                status: Any = cli.main(["tail", *argv, "--state-dir", "/srv/cubehook"])
            except SystemExit as exit:
                status = exit.code
        return status, output.getvalue().splitlines(), errors.getvalue()

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.streams.followed[0][0].partition("?")[2])


class Shown(TailCase):
    def test_a_call(self) -> None:
        status, lines, errors = self.tail(streams=[[START, *CALL, BEAT]])
        self.assertEqual((status, errors), (130, "The service tells no more.  Waiting for it ...\n"))
        alerting, connected, disconnected = lines
        self.assertRegex(
            alerting,
            r"^2024-11-23 \d\d:\d\d:36\.200  hq  ALERTING      \+12517676234 -> \+12512501663  call \w{13}$",
        )
        self.assertRegex(connected, r"  CONNECTED     .*  rang 7\.4 s, call ")
        self.assertRegex(
            disconnected, r"  DISCONNECTED  .*  answered, talked 1 min 15 s, cause 16 \w.*, call "
        )

    def test_every_kind_of_event_is_one_line_without_commands(self) -> None:
        for told in EVERY:
            for options in ((), ("--json",)):
                _, lines, _ = self.tail(*options, streams=[[told]])
                self.assertEqual(len(lines), 1, told)
                self.assertNotRegex(lines[0], r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u202e]")

    def test_notices(self) -> None:
        _, lines, _ = self.tail(streams=[NOTICES])
        self.assertEqual(self.query, {"notices": ["true"]})
        self.assertEqual(len(lines), len(NOTICES))
        lost = next(line for line in lines if "cube.lost" in line)
        self.assertRegex(lost, r"^2024-11-23 \S+  cube\.lost  cube hq  state: ")

    def test_json_is_what_was_told(self) -> None:
        _, lines, _ = self.tail("--json", streams=[EVERY])
        self.assertEqual([json.loads(line) for line in lines], EVERY)

    def test_colours(self) -> None:
        plain, coloured = "\x1b" not in "".join(self.tail(streams=[CALL])[1]), "\x1b[33mALERTING"
        self.assertTrue(plain)
        self.patch(os, "environ", {"TERM": "xterm"})
        self.assertIn(coloured, self.tail(streams=[CALL], terminal=True)[1][0])
        self.assertNotIn("\x1b", self.tail("--color", "never", streams=[CALL], terminal=True)[1][0])
        self.assertNotIn("\x1b", self.tail("--json", streams=[CALL], terminal=True)[1][0])
        self.assertIn(coloured, self.tail("--color", "always", streams=[CALL])[1][0])
        for environment in ({"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}):
            self.patch(os, "environ", environment)
            self.assertNotIn("\x1b", self.tail(streams=[CALL], terminal=True)[1][0])


class Filtered(TailCase):
    def test_cube(self) -> None:
        self.tail("--cube", "hq", streams=[[START]], hq=[{"id": "hq"}])
        self.assertEqual(self.query, {"cube": ["hq"], "notices": ["true"]})
        status, _, errors = self.tail(
            "--cube", "hq", hq=[RefusedError(404, "not_found", "There is no cube hq", {})]
        )
        self.assertEqual((status, errors), (1, "cubehook tail: There is no cube hq\n"))
        self.assertEqual(self.streams.followed, [])

    def test_states(self) -> None:
        _, lines, _ = self.tail("--state", "alerting, CONNECTED", streams=[CALL])
        self.assertEqual([line.split()[3] for line in lines], ["ALERTING", "CONNECTED"])
        self.assertEqual(self.query, {})

    def test_number(self) -> None:
        call = CALL[0]
        told = [
            {**call, "calling_number": "+1 (251) 767-6234", "called_number": None},
            {**call, "calling_number": None, "called_number": "sip:+12517676234@192.0.2.1"},
            {**call, "calling_number": None, "called_number": "100", "redirected_to": "7676234"},
            {**call, "calling_number": "1", "called_number": "sip:1@192.0.2.100", "redirected_to": None},
        ]
        for number, found in (("767-6234", 3), ("+1251767", 2), ("100", 1), ("999", 0)):
            self.assertEqual(len(self.tail("--number", number, streams=[told])[1]), found, number)

    def test_notices_can_be_left_out_or_had_beside_filters(self) -> None:
        self.tail("--no-notices", streams=[[START]])
        self.assertEqual(self.query, {})
        _, lines, _ = self.tail("--notices", "--number", "999", streams=[[*CALL, NOTICES[0]]])
        self.assertEqual((self.query, len(lines)), ({"notices": ["true"]}, 1))

    def test_since(self) -> None:
        self.tail("--since", "2024-11-23T16:03:36.2Z", streams=[[BEAT], [START], []])
        followed = [headers.get("Last-Event-ID") for _, headers in self.streams.followed]
        self.assertEqual(len(str(followed[0])), 13)
        self.assertLess(str(followed[0]), CALL[0]["event_id"])
        self.assertEqual(followed, [followed[0], followed[0], "64YBA8PFTTH9E", "64YBA8PFTTH9E"])
        _, lines, errors = self.tail("--since", "2d", streams=[[GAP, *CALL]])
        self.assertIn("What happened before 2024-11-2", errors)
        self.assertEqual(len(lines), 3)

    def test_wrong_usage(self) -> None:
        for argv in (
            ("--state", "RINGING"),
            ("--state", ""),
            ("--number", "abc"),
            ("--since", "yesterday"),
            ("--color", "red"),
            ("x",),
        ):
            status, _, errors = self.tail(*argv)
            self.assertEqual((status, self.streams.followed), (2, []), argv)
            self.assertIn("cubehook tail: error", errors)


class Waits(TailCase):
    def test_for_a_service_that_is_started_again(self) -> None:
        gone = NotRunningError("no cubehook is running")
        status, lines, errors = self.tail(
            streams=[
                [START, CALL[0]],
                [gone],
                [RefusedError(503, "unavailable", "The service is stopping", {})],
                [CALL[1], ControlError("broke off")],
                [CALL[2]],
            ]
        )
        self.assertEqual((status, len(lines)), (130, 3))
        self.assertEqual(
            [headers.get("Last-Event-ID") for _, headers in self.streams.followed],
            [None, *[CALL[0]["event_id"]] * 3, CALL[1]["event_id"], CALL[2]["event_id"]],
        )
        self.assertEqual(
            errors.splitlines(),
            [
                "The service tells no more.  Waiting for it ...",
                "It is back; what happened meanwhile comes first.",
                "The service tells no more (broke off).  Waiting for it ...",
                "It is back; what happened meanwhile comes first.",
                "The service tells no more.  Waiting for it ...",
            ],
        )
        self.assertEqual(len(self.waited), 5)

    def test_not_for_one_that_was_never_there(self) -> None:
        for error in (
            NotRunningError("no cubehook is running"),
            RefusedError(503, "unavailable", "64 clients follow the events already", {}),
        ):
            status, _, errors = self.tail(streams=[[error]])
            self.assertEqual((status, errors), (1, f"cubehook tail: {error}\n"))

    def test_not_for_one_that_refuses(self) -> None:
        status, _, errors = self.tail(streams=[[START], [RefusedError(422, "invalid", "no such event", {})]])
        self.assertEqual((status, errors.splitlines()[-1]), (1, "cubehook tail: no such event"))


class Read(SynchronousTestCase):
    def read(self, text: str) -> list[Sent | Heartbeat]:
        return list(read(text.encode().splitlines(keepends=True)))

    def test_events(self) -> None:
        self.assertEqual(
            self.read(
                "retry: 1\n\nid: 7\n\n:\n\nid: 8\nevent: x\ndata: one\ndata:two\n\ndata\n\ndata: lost\n"
            ),
            [
                Heartbeat(None),
                Heartbeat("7"),
                Heartbeat("7"),
                Sent("x", "one\ntwo", "8"),
                Sent("message", "", "8"),
            ],
        )

    @given(st.binary())
    def test_anything(self, data: bytes) -> None:
        list(read(data.splitlines(keepends=True)))
