"""Received text made fit to show."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cubehook.text import printable


class PrintableTests(SynchronousTestCase):
    def test_ordinary_text_is_left_alone(self) -> None:
        for text in ("", "+12512501663", "a\tb", "Zoë \u05d0\u05d1 \U0001f4de {log_source}"):
            self.assertEqual(printable(text), text)

    def test_what_moves_a_cursor_or_breaks_a_line(self) -> None:
        self.assertEqual(printable("a\r\n\x1b[2J\x9b\x7f\u2028\0"), r"a\x0d\x0a\x1b[2J\x9b\x7f\x2028\x00")

    def test_what_turns_the_direction_of_text(self) -> None:
        self.assertEqual(printable("1\u202e2\u2066"), r"1\x202e2\x2066")

    def test_what_no_file_takes(self) -> None:
        self.assertEqual(printable("a\udcff").encode(), rb"a\xdcff")

    def test_it_is_cut(self) -> None:
        self.assertEqual((printable("x" * 6, 5), printable("x" * 5, 5)), ("xxxxx...", "xxxxx"))
