"""The OpenAPI document: valid, whole, and true to what requests are read by."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any
from unittest.mock import MagicMock

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cubehook.api.examples import EXAMPLES
from cubehook.api.faces import Faces
from cubehook.api.openapi import document
from cubehook.api.operations import Nothing, Stream, operations
from cubehook.api.views import IdGiven, RedeliverRange, TimeGiven
from cubehook.config import Webhook
from cubehook.schemas import components, schema
from tests.api.support import ApiCase


class Documents(ApiCase):
    def make_parts(self) -> list[object]:
        parts = super().make_parts()
        store: Any = MagicMock()
        return list(Faces(parts, store, MagicMock(), lambda: 0, MagicMock()).parts)

    def setUp(self) -> None:
        super().setUp()
        self.document: Any = json.loads(msgspec.json.encode(document(self.parts)))

    def test_it_is_valid(self) -> None:
        if importlib.util.find_spec("openapi_spec_validator") is None:
            self.skipTest("openapi-spec-validator is not installed")
        from openapi_spec_validator import OpenAPIV31SpecValidator

        self.assertEqual(list(OpenAPIV31SpecValidator(self.document).iter_errors()), [])

    def test_every_operation_is_in_it(self) -> None:
        for declared in self.declared.values():
            made = self.document["paths"][f"/api/v1{declared.path}"][declared.method.lower()]
            self.assertEqual(made["operationId"], declared.name)
            self.assertEqual(
                set(made["responses"]),
                {str(declared.status), *(str(error.status) for error in declared.every_error)},
            )
            self.assertEqual(made["security"] == [], declared.access == "anyone")
            self.assertEqual("requestBody" in made, declared.body is not Nothing)
            given = {(each["in"], each["name"]) for each in made["parameters"]}
            wanted = {("path", name) for name in re.findall(r"\{(\w+)\}", declared.path)}
            wanted |= {("query", name) for name in declared.query.__struct_encode_fields__}
            wanted |= {("header", name) for name in declared.headers.__struct_encode_fields__}
            wanted |= {("header", "If-Match")} if declared.conditional else set()
            self.assertEqual(given, wanted, declared.name)
            if issubclass(declared.result, Stream):
                self.assertEqual(list(made["responses"]["200"]["content"]), [declared.result.content_type])

    def test_every_operation_is_told_of_in_words(self) -> None:
        for declared in self.declared.values():
            self.assertTrue(declared.summary, declared.name)

    async def test_it_is_served_to_anyone(self) -> None:
        status, found = await self.ask("GET", "/openapi.json")
        self.assertEqual((status, found["openapi"]), (200, "3.1.0"))
        self.assertIn("/api/v1/openapi.json", found["paths"])

    async def test_schemas_of_what_is_sent(self) -> None:
        for name, fields in (("basic", 4), ("full", 25), ("notice", 4)):
            response = await self._raw(f"/schemas/{name}")
            self.assertEqual(response["headers"], ["application/schema+json"])
            body = response["body"]
            found = body["$defs"][body["$ref"].rpartition("/")[2]]
            self.assertEqual((found["type"], len(found["required"])), ("object", fields))
        status, found = await self.ask("GET", "/schemas/other")
        self.assertEqual((status, found["error"]["code"]), (404, "not_found"))

    async def _raw(self, path: str) -> dict[str, Any]:
        import treq

        response = await treq.get(f"{self.url}/api/v1{path}", persistent=False)
        return {
            "headers": response.headers.getRawHeaders("content-type"),
            "body": json.loads(await response.content()),
        }


class Values(SynchronousTestCase):
    def test_what_is_given_as_a_text_is_told_as_one(self) -> None:
        self.assertEqual(
            schema(TimeGiven),
            {
                "type": "string",
                "format": "date-time",
                "description": "a time with its zone, such as 2024-11-23T16:03:36Z",
            },
        )
        self.assertEqual(schema(IdGiven)["type"], "string")
        _, found = components([RedeliverRange, Webhook], "#/{name}")
        fields = found["RedeliverRange"]["properties"]
        self.assertEqual(fields["since"]["type"], "string")
        self.assertEqual(fields["until"]["anyOf"][0]["type"], "string")
        self.assertEqual(fields["per_second"]["anyOf"][0]["type"], "number")
        self.assertNotIn("x-given-as-text", str(found))

    def test_anything_is_anything(self) -> None:
        self.assertEqual(schema(dict[str, object]), {"type": "object", "additionalProperties": {}})

    def test_examples_are_what_they_are_examples_of(self) -> None:
        for kind, value in EXAMPLES.items():
            self.assertIsInstance(value, kind)
            self.assertEqual(msgspec.convert(msgspec.to_builtins(value), kind), value)

    def test_examples_are_asked_for(self) -> None:
        store: Any = MagicMock()
        parts = Faces([], store, MagicMock(), lambda: 0, MagicMock()).parts
        text = msgspec.json.encode(document(parts)).decode()
        results = [declared.result for part in parts for declared, _ in operations(part)]
        self.assertEqual(len([result for result in results if result in EXAMPLES]), 3)
        self.assertIn('"Wallboard"', text)
