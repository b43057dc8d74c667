"""Finding calls by a number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.store.numbering import search_key, sought_key


class KeyTests(SynchronousTestCase):
    def found(self, number: str, text: str) -> bool:
        sought = sought_key(text)
        return bool(sought) and search_key(number).startswith(sought)

    def test_however_it_is_written(self) -> None:
        for text in (
            "+12512501663",
            "12512501663",
            "(251) 250-1663",
            "2501663",
            "1663",
            "0251 2501663",
            " 1663 ",
        ):
            self.assertTrue(self.found("+12512501663", text), text)
        for text in ("16639", "+22512501663", "", "0", "-"):
            self.assertFalse(self.found("+12512501663", text), text)

    def test_zeros_at_the_end_count(self) -> None:
        self.assertTrue(self.found("1000", "1000"))
        self.assertFalse(self.found("100", "1000"))

    def test_a_users_name(self) -> None:
        self.assertTrue(self.found("Alice.Smith", "smith"))

    @given(st.text(alphabet="+0123456789 -()", max_size=20), st.integers(0, 10))
    def test_every_end_of_a_number_finds_it(self, number: str, length: int) -> None:
        digits = "".join(character for character in number if character.isdigit())
        end = digits[len(digits) - length :].lstrip("0") if length <= len(digits) else ""
        if end:
            self.assertTrue(self.found(number, end))
