"""Identifiers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.ids import Ids, first_id, id_text, id_time, parse_id
from tests.calls.wire import NOW, SECOND

numbers = st.integers(0, (1 << 63) - 1)


class MakingTests(SynchronousTestCase):
    @given(st.lists(st.integers(0, 1 << 50), min_size=1), st.integers(0, 4095))
    def test_each_is_greater_than_the_last(self, times: list[int], low: int) -> None:
        """Also in the same microsecond, and when the clock steps back."""
        ids = Ids(lambda bits: low)
        made = [ids.next(at) for at in times]
        self.assertEqual(made, sorted(set(made)))

    def test_the_time_is_in_it(self) -> None:
        made = Ids(lambda bits: (1 << bits) - 1).next(NOW)
        self.assertEqual(id_time(made), NOW)
        self.assertTrue(first_id(NOW) <= made < first_id(NOW + 1))

    def test_begin_after(self) -> None:
        """What the store holds may be of a clock that was ahead; what was made here stays made."""
        ids = Ids(lambda bits: 0)
        ahead = first_id(NOW + 3600 * SECOND)
        ids.begin_after(ahead)
        ids.begin_after(first_id(NOW))
        self.assertEqual([ids.next(NOW), ids.next(NOW)], [ahead + 1, ahead + 2])


class TextTests(SynchronousTestCase):
    @given(numbers)
    def test_there_and_back(self, number: int) -> None:
        text = id_text(number)
        self.assertEqual((len(text), parse_id(text), parse_id(text.lower())), (13, number, number))

    @given(numbers, numbers)
    def test_texts_sort_as_numbers_do(self, one: int, other: int) -> None:
        self.assertEqual(id_text(one) < id_text(other), one < other)

    def test_what_is_no_id(self) -> None:
        for text in (
            "",
            "64YB9YWQA61D",
            "64YB9YWQA61D77",
            "64YB9YWQA61DU",
            "64YB9YWQA61D\u0663",
            "8" + "0" * 12,
        ):
            with self.assertRaises(ValueError, msg=text):
                parse_id(text)
