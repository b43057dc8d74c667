"""What a message to a broker says beside its body, and the names made for it."""

from __future__ import annotations

import re

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.events import Event, Notice, NoticeType
from cubehook.transports.messages import PLACEHOLDERS, Pattern, labels
from tests.transports.support import AT, event, outbound


def call(calling: str | None = "+12517676234", called: str | None = "+12512501663") -> Event:
    plain = event()
    payload = msgspec.structs.replace(plain.call_event, calling_number=calling, called_number=called)
    return msgspec.structs.replace(plain, payload=payload)


def notice(cube: str = "hq") -> Event:
    payload = Notice(type=NoticeType.CUBE_LOST, timestamp="x", event_id="E", data={"cube": "hq"})
    return Event(id=2, call=5, cube=cube, granularity=None, at=AT, payload=payload)


class LabelTests(SynchronousTestCase):
    def test_of_a_call(self) -> None:
        self.assertEqual(
            labels(outbound()),
            {
                "webhook-id": "0123456789ABC",
                "cubehook-state": "ALERTING",
                "cubehook-cube": "hq",
                "cubehook-call": "0123456789ABC",
                "cubehook-sequence": "1",
            },
        )

    def test_of_one_that_is_sent_again_because_someone_asked(self) -> None:
        again = msgspec.structs.replace(outbound(), redelivery=True)
        self.assertEqual(labels(again), labels(outbound()) | {"cubehook-redelivery": "true"})

    def test_of_a_notice(self) -> None:
        sent = msgspec.structs.replace(outbound(id="E"), event=notice())
        self.assertEqual(
            labels(sent), {"webhook-id": "E", "cubehook-state": "cube.lost", "cubehook-cube": "hq"}
        )
        sent = msgspec.structs.replace(outbound(id="E"), event=notice(cube=""))
        self.assertEqual(labels(sent), {"webhook-id": "E", "cubehook-state": "cube.lost"})


class PatternTests(SynchronousTestCase):
    def _fill(self, text: str, of: Event | None = None) -> str:
        return Pattern(text).fill("crm", of or call())

    def test_every_placeholder(self) -> None:
        self.assertEqual(
            self._fill("a/{webhook}/{cube}/{state}/{call}/{calling_number}/{called_number}/z"),
            "a/crm/hq/ALERTING/0123456789ABC/12517676234/12512501663/z",
        )

    def test_a_text_without(self) -> None:
        self.assertEqual(self._fill("calls.all"), "calls.all")
        self.assertEqual(self._fill(""), "")
        self.assertEqual(self._fill("{{cube}}{cube}}}"), "{cube}hq}")

    def test_what_is_not_known(self) -> None:
        self.assertEqual(self._fill("{calling_number}", call(calling=None)), "unknown")
        self.assertEqual(self._fill("{calling_number}/{call}", notice()), "unknown/unknown")
        self.assertEqual(self._fill("{cube}/{state}", notice(cube="")), "unknown/cube_lost")

    def test_what_cannot_be_read(self) -> None:
        for text, words in (
            ("{number}", "{calling_number}"),
            ("{}", "{cube}"),
            ("{cube.__class__}", "{cube}"),
            ("{cube!r}", "{cube}"),
            ("a{", "{ is doubled"),
            ("a}b", "} is doubled"),
        ):
            with self.assertRaises(ValueError) as caught:
                Pattern(text)
            self.assertIn(words, str(caught.exception), text)

    def test_what_it_consists_of(self) -> None:
        pattern = Pattern("a/{cube}/{{b}}/{state}")
        self.assertEqual(pattern.literal, "a//{b}/")
        self.assertEqual(pattern.names, ["cube", "state"])

    @given(st.text(max_size=30), st.text(max_size=30))
    @example("+", "+/#")
    def test_no_number_can_be_more_than_a_word(self, calling: str, called: str) -> None:
        filled = Pattern("<{calling_number}|{called_number}>").fill("crm", call(calling, called))
        assert re.fullmatch(r"<[A-Za-z0-9_-]+\|[A-Za-z0-9_-]+>", filled), filled

    @given(st.lists(st.sampled_from(["{{", "}}", "/", "a", *(f"{{{name}}}" for name in PLACEHOLDERS)])))
    def test_any_text_of_good_parts_is_good(self, parts: list[str]) -> None:
        assert Pattern("".join(parts)).names == [part[1:-1] for part in parts if part[1:-1] in PLACEHOLDERS]
