"""Tables, details and columns, fitted to a width."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.operations.manhole.screen import (
    Cell,
    Column,
    Screen,
    Style,
    cells,
    columns_of,
    details,
    shortened,
    table,
)

_COLUMNS = (Column("id"), Column("count", right=True, spare=1), Column("name", cut=True))
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class TableTests(SynchronousTestCase):
    def test_a_table_that_fits(self) -> None:
        shown = table(Screen(80), _COLUMNS, [("a", "1", "first"), ("bcd", "1,000", "second")])
        self.assertEqual(shown, "id   count  name\na        1  first\nbcd  1,000  second")

    def test_what_may_be_cut_is_cut(self) -> None:
        shown = table(Screen(28), _COLUMNS, [("a", "1", "a name that is too long")])
        self.assertEqual(shown.split("\n")[1], "a       1  a name that is t…")

    def test_what_can_be_spared_is_left_out(self) -> None:
        # What would be cut too short is worth more than what can be spared.
        shown = table(Screen(24), _COLUMNS, [("a", "1", "a name that is too long")])
        self.assertEqual(shown, "id  name\na   a name that is too …")
        shown = table(Screen(12), _COLUMNS, [("a", "1", "a name that is too long")])
        self.assertEqual(shown, "id  name\na   a name …")

    def test_a_resized_screen_gets_another_table(self) -> None:
        screen = Screen(20)
        screen.resize(80, 24)
        self.assertIn(
            "a name that is too long", table(screen, _COLUMNS, [("a", "1", "a name that is too long")])
        )

    def test_terminals_that_do_not_know_their_size(self) -> None:
        screen = Screen(0, 0)
        self.assertEqual((screen.width, screen.height), (80, 24))

    def test_colours_only_where_there_are_some(self) -> None:
        rows = [(Cell("bad", Style.BAD), "1", "x")]
        self.assertNotIn("\x1b", table(Screen(80), _COLUMNS, rows))
        coloured = table(Screen(80, colour=True), _COLUMNS, rows)
        self.assertIn("\x1b[1;31mbad\x1b[0m", coloured)
        self.assertEqual(_COLOUR.sub("", coloured), table(Screen(80), _COLUMNS, rows))

    def test_received_text_commands_nothing(self) -> None:
        for shown in (
            table(Screen(80), _COLUMNS, [("\x1b[2J", "1", "a\nb")]),
            details(Screen(80), [("name", "\x1b]0;title\x07\r")]),
        ):
            self.assertNotRegex(shown, r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
        self.assertEqual(len(table(Screen(80), _COLUMNS, [("a", "1", "a\nb")]).split("\n")), 2)

    @given(
        st.lists(st.tuples(*[st.text(max_size=40)] * 3), max_size=5),
        st.integers(min_value=20, max_value=120),
    )
    def test_no_line_is_wider_than_the_screen_if_all_may_be_cut(
        self, rows: list[tuple[str, str, str]], width: int
    ) -> None:
        columns = [Column(name, cut=True) for name in ("a", "b", "c")]
        for line in table(Screen(width), columns, rows).split("\n"):
            self.assertLessEqual(cells(line), max(width, 3 * 6 + 4))

    @given(st.text(max_size=50), st.integers(min_value=1, max_value=20))
    def test_shortening(self, text: str, width: int) -> None:
        self.assertLessEqual(cells(shortened(text, width)), width)


class DetailsTests(SynchronousTestCase):
    def test_long_values_go_on_under_themselves(self) -> None:
        shown = details(Screen(30), [("a", "short"), ("name", "one two three four five six seven")])
        self.assertEqual(shown, "a     short\nname  one two three four five\n      six seven")

    def test_lines_stay_lines(self) -> None:
        self.assertEqual(details(Screen(80), [("a", "one\ntwo")]), "a  one\n   two")


class ColumnsTests(SynchronousTestCase):
    def test_they_are_read_downwards(self) -> None:
        self.assertEqual(columns_of(Screen(9), ["aa", "bb", "cc"]), "aa  cc\nbb")
        self.assertEqual(columns_of(Screen(2), ["long", "b"]), "long\nb")
