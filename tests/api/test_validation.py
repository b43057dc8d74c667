"""Values of every shape that a body may have, and what is said of each that is wrong."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook import config
from cubehook.api.errors import ApiError, InvalidError
from cubehook.api.settings import NewWebhook
from cubehook.api.validation import from_json, from_query
from cubehook.config_rules import duration, rule


class Colour(enum.Enum):
    RED = "red"


def _no_secret(text: str) -> str:
    raise ValueError("it is too short")


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    colour: Colour = Colour.RED


class Body(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    wait: Annotated[int, rule("a duration", duration)]
    secret: Annotated[str, rule("a secret", _no_secret, None)] = ""
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    named: dict[Colour, Annotated[float, msgspec.Meta(gt=0)]] = {}
    texts: Annotated[list[str], msgspec.Meta(min_length=2)] = []
    maybe: Annotated[int, msgspec.Meta(le=5)] | None = None


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NUMBERS = st.integers(-1, 7)
INNERS = st.fixed_dictionaries({"size": NUMBERS}, optional={"colour": st.sampled_from(["red", "blue"])})
BODIES = st.fixed_dictionaries(
    {"name": st.text(max_size=2), "wait": st.sampled_from(["2m", "soon"])},
    optional={
        "inner": st.none() | INNERS,
        "many": st.lists(INNERS, max_size=3),
        "named": st.dictionaries(st.sampled_from(["red", "blue"]), NUMBERS | st.floats(-1, 1)),
        "texts": st.lists(st.text(max_size=2), max_size=3) | ANYTHING,
        "maybe": st.none() | NUMBERS | ANYTHING,
    },
)
"""Bodies that are nearly, and sometimes wholly, right."""


class Bodies(SynchronousTestCase):
    def wrong(self, kind: type[msgspec.Struct], value: Any) -> dict[str, str]:
        error: InvalidError = self.assertRaises(InvalidError, from_json, kind, msgspec.json.encode(value))
        return error.fields

    def test_all_of_it(self) -> None:
        given = {
            "name": "x",
            "wait": "2m",
            "inner": {"size": 2, "colour": "red"},
            "many": [{"size": 1}],
            "named": {"red": 1},
            "texts": ["a", "b"],
            "maybe": None,
        }
        self.assertEqual(
            from_json(Body, msgspec.json.encode(given)),
            Body(
                name="x",
                wait=120,
                inner=Inner(2, Colour.RED),
                many=(Inner(1),),
                named={Colour.RED: 1.0},
                texts=["a", "b"],
            ),
        )

    def test_everything_wrong_at_once(self) -> None:
        found = self.wrong(
            Body,
            {
                "name": "",
                "wait": "soon",
                "secret": "hunter2",
                "inner": {"size": 0, "weight": 1},
                "many": [{"size": 1}, {"colour": "blue"}, 5],
                "named": {"red": 0, "blue": "x"},
                "texts": ["a"],
                "maybe": 6,
            },
        )
        self.assertEqual(
            sorted(found),
            [
                "inner.size",
                "inner.weight",
                "many[1].colour",
                "many[1].size",
                "many[2]",
                "maybe",
                "name",
                "named.blue",
                "named.red",
                "secret",
                "texts",
                "wait",
            ],
        )
        self.assertEqual(found["wait"], 'expected a duration; found "soon"')
        self.assertEqual(found["inner.size"], "expected a whole number of at least 1; found 0")
        self.assertEqual(found["many[2]"], "expected an object; found 5")
        self.assertEqual(found["texts"], "expected at least 2 of them; found 1")

    def test_what_may_not_be_shown(self) -> None:
        found = self.wrong(Body, {"name": "x", "wait": "2m", "secret": "hunter2"})
        self.assertEqual(list(found), ["secret"])
        self.assertEqual(
            found["secret"], "expected a secret; found a text that is not shown: it is too short"
        )

    def test_other_kinds(self) -> None:
        found = self.wrong(
            Body,
            {"name": 5, "wait": 5, "inner": [], "many": {}, "named": [], "texts": "ab", "maybe": "5"},
        )
        self.assertEqual(sorted(found), ["inner", "many", "maybe", "name", "named", "texts", "wait"])
        self.assertIn("found null", self.wrong(Body, {"name": None, "wait": "2m"})["name"])

    def test_names_that_are_no_fit_for_a_terminal(self) -> None:
        found = self.wrong(Body, {"name": "x", "wait": "2m", "\x1b[2J" + "x" * 500: 1})
        (name,) = found
        self.assertNotIn("\x1b", name)
        self.assertLess(len(name), 100)

    def test_a_webhook_of_the_configuration(self) -> None:
        found = self.wrong(
            config.Webhook,
            {
                "id": "crm",
                "url": "https://crm.example",
                "states": ["RINGING"],
                "headers": {"a b": "x"},
                "expire": {"ALERTING": -1},
                "breaker": {"failures": 0, "colour": 1},
                "options": {"anything": [1, {"goes": None}]},
            },
        )
        self.assertEqual(
            sorted(found),
            ["breaker.colour", "breaker.failures", "expire.ALERTING", "headers.a b", "states[0]"],
        )

    @given(BODIES | ANYTHING)
    def test_whatever_comes_is_read_or_refused(self, value: Any) -> None:
        # What is taken is what msgspec takes itself, where it knows no rules.
        plain = value
        if isinstance(value, dict) and value.get("wait") == "2m" and "secret" not in value:
            plain = {**value, "wait": 120}
        body = msgspec.json.encode(value)
        try:
            expected = msgspec.json.decode(msgspec.json.encode(plain), type=Body)
        except msgspec.ValidationError:
            self.assertRaises(ApiError, from_json, Body, body)
        else:
            self.assertEqual(from_json(Body, body), expected)


class Ids(SynchronousTestCase):
    def test_what_an_id_is_is_told_in_words(self) -> None:
        with self.assertRaises(InvalidError) as caught:
            from_json(NewWebhook, b'{"id": "CRM"}')
        self.assertIn("small letters", caught.exception.fields["id"])


class Query(msgspec.Struct):
    limit: Annotated[int, msgspec.Meta(ge=1)] = 5
    on: bool = False
    text: str | None = None


class Queries(SynchronousTestCase):
    def test_texts_become_values(self) -> None:
        found = from_query(Query, {"limit": ["7"], "on": ["true"], "text": ["7"]})
        self.assertEqual(found, Query(7, True, "7"))
        self.assertEqual(from_query(Query, {}), Query())

    def test_what_is_wrong(self) -> None:
        error = self.assertRaises(
            InvalidError,
            from_query,
            Query,
            {"limit": ["0"], "on": ["perhaps"], "text": ["a", "b"], "x": [""]},
        )
        self.assertEqual(sorted(error.fields), ["limit", "on", "text", "x"])
