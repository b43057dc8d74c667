"""What docs/api.md shows is what the API takes, answers and has."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec.structs import fields
from twisted.trial.unittest import SynchronousTestCase

from cubehook.api import errors
from cubehook.api.cubes import CubesPart
from cubehook.api.errors import ApiError, ErrorBody
from cubehook.api.faces import Faces
from cubehook.api.operations import Nothing, Operation, Stream, operations
from cubehook.api.redelivery import RedeliveryPart
from cubehook.api.registrations import RegistrationsPart
from cubehook.api.reload import ReloadPart
from cubehook.api.status import StatusPart
from cubehook.api.trace import TracePart
from cubehook.api.validation import from_json, from_query
from cubehook.api.webhooks import WebhooksPart

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILTER = re.compile(r"\{(.*)\}")


class Example(NamedTuple):
    """A request by curl; `answer` is what is shown of it, `keys` those that jq lets through."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes | None
    keys: list[str] | None
    answer: Any

    @property
    def refused(self) -> bool:
        """Whether the answer is an error."""
        return self.answer is not None and list(self.answer) == ["error"]


def examples() -> Iterator[Example]:
    """Every request of the page, in order."""
    blocks = [(kind, text) for kind, text in _BLOCK.findall(TEXT)]
    for place, (kind, text) in enumerate(blocks):
        if kind != "console":
            continue
        after = blocks[place + 1] if place + 1 < len(blocks) else ("", "")
        commands = [each for each in text.split("$ ")[1:] if each.startswith("curl ")]
        for number, command in enumerate(commands):
            shown = after[0] == "json" and number == len(commands) - 1
            yield example(command, json.loads(after[1]) if shown else None)


def example(command: str, answer: Any) -> Example:
    """The request that a command makes; what it prints, if anything, is no part of it."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|")
    lexer.whitespace_split = True
    words = list(lexer)
    asked, keys = words, None
    if "|" in words:
        asked, after = words[: words.index("|")], words[words.index("|") + 1 :]
        if after[0] == "jq":
            found = _FILTER.fullmatch(after[1])
            assert found is not None, command
            keys = [key.strip() for key in found[1].split(",")]
    (url,) = (word for word in asked if word.startswith("$API"))
    body = next((value for name, value in pairwise(asked) if name == "-d"), None)
    method = next((value for name, value in pairwise(asked) if name == "-X"), "GET")
    parts = urlsplit(url.removeprefix("$API"))
    return Example(
        method, parts.path, parse_qs(parts.query), None if body is None else body.encode(), keys, answer
    )


class Examples(SynchronousTestCase):
    def setUp(self) -> None:
        nothing: Any = MagicMock()
        parts = [
            CubesPart(nothing),
            WebhooksPart(nothing, nothing),
            RedeliveryPart(nothing, nothing),
            TracePart(nothing),
            RegistrationsPart(nothing),
            StatusPart(nothing, lambda: 0),
            ReloadPart(nothing),
        ]
        faces = Faces(parts, nothing, nothing, lambda: 0, nothing)
        self.declared = [declared for part in faces.parts for declared, _ in operations(part)]
        self.examples = list(examples())

    def operation(self, example: Example) -> Operation:
        found = [
            declared
            for declared in sorted(self.declared, key=lambda each: "{" in each.path)
            if declared.method == example.method
            and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", declared.path), example.path)
        ]
        self.assertTrue(found, f"there is no {example.method} {example.path}")
        return found[0]

    def test_each_asks_for_what_there_is_with_what_it_takes(self) -> None:
        self.assertGreater(len(self.examples), 30)
        for example in self.examples:
            declared = self.operation(example)
            if not example.refused:
                from_query(declared.query, example.query)
            if example.body is not None:
                from_json(declared.body, example.body)
            elif declared.method != "GET":
                # It may be left out.
                self.assertTrue(declared.body is Nothing or not example.answer, example.path)

    def test_each_answer_is_one(self) -> None:
        for example in self.examples:
            if example.answer is None:
                continue
            kind: Any = self.operation(example).result
            if example.refused:
                kind = ErrorBody
            assert not issubclass(kind, Stream)
            if example.keys is None:
                self.see_that_it_is(kind, example.answer, example.path)
                continue
            self.assertEqual(list(example.answer), example.keys, example.path)
            known = {field.encode_name: field.type for field in fields(kind)}
            for name, value in example.answer.items():
                self.see_that_it_is(known[name], value, f"{example.path} {name}")

    def see_that_it_is(self, kind: Any, value: Any, where: str) -> None:
        """Whole, and nothing else."""
        made = json.loads(msgspec.json.encode(msgspec.convert(value, kind)))
        self.assertEqual(made, value, where)

    def test_a_refusal_that_is_shown_is_what_is_answered(self) -> None:
        (refused,) = (each for each in self.examples if each.answer and "fields" in str(each.answer))
        with self.assertRaises(ApiError) as caught:
            from_query(self.operation(refused).query, refused.query)
        self.assertEqual(json.loads(caught.exception.body()), refused.answer)

    def test_every_path_is_in_the_table_with_its_methods(self) -> None:
        table = TEXT.partition("| Path | Methods |")[2].partition("\n\n")[0]
        shown: dict[str, set[str]] = {}
        for line in table.splitlines()[2:]:
            _, paths, methods, *_ = line.split("|")
            for path, of in zip(re.findall(r"`([^`]+)`", paths), methods.split(";"), strict=False):
                shown[path] = {method.strip() for method in of.split(",")}
            alone = re.findall(r"`([^`]+)`", paths)
            self.assertEqual(len(alone), len(methods.split(";")), line)
        known: dict[str, set[str]] = {}
        for declared in self.declared:
            known.setdefault(declared.path, set()).add(declared.method)
        self.assertEqual(shown, known)

    def test_every_refusal_is_in_the_table(self) -> None:
        table = TEXT.partition("| Status | `code` |")[2].partition("\n\n")[0]
        told = re.findall(r"`(\w+)`", "\n".join(line.split("|")[2] for line in table.splitlines()[2:]))
        kinds = [each for each in vars(errors).values() if isinstance(each, type)]
        codes = {each.code for each in kinds if issubclass(each, ApiError)}
        self.assertEqual(set(told), codes)

    def test_every_filter_is_in_the_table(self) -> None:
        table = TEXT.partition("| List | Filters")[2].partition("\n\n")[0]
        for line in table.splitlines()[2:]:
            path, *filters = re.findall(r"`([^`]+)`", line)
            (declared,) = (each for each in self.declared if (each.method, each.path) == ("GET", path))
            known = {field.encode_name for field in fields(declared.query)} - {"limit", "cursor"}
            self.assertEqual(set(filters), known, path)
