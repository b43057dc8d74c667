"""Numbers, times and calls in words."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cubehook.config import Webhook
from cubehook.delivery.readable import duration, local_time, number, sentence
from cubehook.delivery.samples import samples
from cubehook.events import CallState, Notice, NoticeType, Outcome
from tests.delivery.fakes import call_event


class WordsTests(SynchronousTestCase):
    def test_numbers(self) -> None:
        self.assertEqual("+49 30 901820", number("+4930901820"))
        self.assertEqual("030 901820", number("+4930901820", "national"))
        for text in ("1001", "", "+", "+1", "sales@example.com", "+\u0661" * 8, "+99999999999", "+1\n"):
            self.assertEqual(text, number(text))
        with self.assertRaises(ValueError):
            number("1001", "spoken")

    def test_durations(self) -> None:
        told = {
            0: "0:00",
            7.4: "0:07",
            59.6: "1:00",
            74.67: "1:15",
            3599.4: "59:59",
            3723: "1:02:03",
            -3: "0:00",
        }
        for seconds, expected in told.items():
            self.assertEqual(expected, duration(seconds))

    def test_local_times(self) -> None:
        at = "2024-07-03T22:03:06.200940Z"
        self.assertEqual("2024-07-04 00:03:06", local_time(at, "Europe/Berlin"))
        self.assertEqual("4.7. 0:03", local_time(at, "Europe/Berlin", "%-d.%-m. %-H:%M"))
        self.assertEqual("100% Thu", local_time(at, "Europe/Berlin", "100%% %a"))
        self.assertEqual("0", local_time("2024-07-03T00:00:00Z", "UTC", "%-H"))
        for arguments in (
            ("yesterday", "UTC"),
            ("2024-07-03T22:03:06", "UTC"),
            (at, "Mars"),
            (at, "../UTC"),
            (at, ""),
            (at, "Europe"),
            (at, "UTC", "%10Y"),
            (at, "UTC", "%"),
            (at, "UTC", "x" * 300),
        ):
            with self.assertRaises(ValueError, msg=str(arguments)):
                local_time(*arguments)


class SentenceTests(SynchronousTestCase):
    def said(self, **changes: Any) -> str:
        return sentence(call_event(**changes))

    def ended(self, outcome: Outcome | None, **changes: Any) -> str:
        return self.said(call_state=CallState.DISCONNECTED, outcome=outcome, **changes)

    def test_calls(self) -> None:
        call = "call from +1 251-767-6234 to +1 251-250-1663"
        self.assertEqual(f"C{call[1:]} is ringing", self.said())
        self.assertEqual(f"C{call[1:]} was answered", self.said(call_state=CallState.CONNECTED))
        self.assertEqual(
            f"C{call[1:]} was answered after 7 s", self.said(call_state=CallState.CONNECTED, ring_seconds=7.4)
        )
        self.assertEqual(f"C{call[1:]} ended after 1:15", self.ended(Outcome.ANSWERED, talk_seconds=74.67))
        self.assertEqual(f"C{call[1:]} ended after 20 s", self.ended(Outcome.ANSWERED, talk_seconds=20.0))
        self.assertEqual(f"Missed {call}, rang 12 s", self.ended(Outcome.MISSED, ring_seconds=12.03))
        self.assertEqual(f"Missed {call}", self.ended(Outcome.MISSED))
        self.assertEqual(f"Abandoned {call}, rang 5 s", self.ended(Outcome.ABANDONED, ring_seconds=5.1))
        self.assertEqual(f"C{call[1:]} found the line busy", self.ended(Outcome.BUSY))
        self.assertEqual(f"C{call[1:]} was rejected", self.ended(Outcome.REJECTED))
        self.assertEqual(
            f"C{call[1:]} failed: No route", self.ended(Outcome.FAILED, disconnect_text="No route")
        )
        self.assertEqual(f"C{call[1:]} ended", self.ended(None))
        self.assertIn("did not tell how it ended", self.ended(Outcome.ANSWERED, inferred=True))

    def test_who(self) -> None:
        self.assertIn("from an unknown number to 1001", self.said(calling_number=None, called_number="1001"))
        self.assertIn("from a withheld number", self.said(calling_number=None, calling_withheld=True))
        self.assertEqual(
            "Missed call from 1 to 2, redirected to 3, rang 9 s",
            self.ended(
                Outcome.MISSED, calling_number="1", called_number="2", redirected_to="3", ring_seconds=9.0
            ),
        )
        self.assertEqual(
            "Missed call from 1 to 2, redirected to 3",
            self.ended(Outcome.MISSED, calling_number="1", called_number="2", redirected_to="3"),
        )

    def test_notices(self) -> None:
        webhook = Webhook(id="ops", notices=tuple(NoticeType), states=(CallState.ALERTING,))
        told = [event.payload for _, event in samples(webhook)]
        said = [sentence(each) for each in told if isinstance(each, Notice)][: len(NoticeType)]
        for beginning, text in zip(
            (
                "Cube hq is registered",
                "Cube hq is lost: no answer",
                "Webhook ERP is failing: no answer",
                "Webhook ERP works again",
                "Webhook ERP is disabled: no answer",
            ),
            said,
            strict=True,
        ):
            self.assertTrue(text.startswith(beginning), text)

    def test_a_sentence_is_one_line_that_reads_from_left_to_right(self) -> None:
        for _, event in samples(Webhook(id="ops", notices=tuple(NoticeType))):
            self.assertNotRegex(sentence(event.payload), "[\r\n\x00\u2028\u202e]")
