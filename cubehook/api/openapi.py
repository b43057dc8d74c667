"""
The OpenAPI document, made of the same declarations and structs that requests are read by.

Also JSON Schemas of what webhooks are sent.  Both are for everyone, and made when they are first asked for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar

import msgspec
from msgspec.structs import FieldInfo, fields
from twisted.internet.defer import Deferred, succeed

from cubehook import __version__
from cubehook.api.errors import (
    ApiError,
    ErrorBody,
    NotFoundError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
)
from cubehook.api.examples import EXAMPLES
from cubehook.api.operations import PREFIX, Caller, Nothing, Operation, Stream, operation, operations
from cubehook.events import BasicPayload, CallEvent, Notice
from cubehook.net.site import LimitedRequest
from cubehook.schemas import components as json_schema_components
from cubehook.schemas import schema as json_schema
from cubehook.text import printable

_REFERENCE = "#/components/schemas/{name}"
_PLACE = re.compile(r"\{(\w+)\}")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCHEMAS: dict[str, type[msgspec.Struct]] = {"basic": BasicPayload, "full": CallEvent, "notice": Notice}

_DESCRIPTION = """\
Everything that the console shows and does, for programs.

Say who asks by `Authorization: Bearer TOKEN`: the state folder's file `admin-token` holds the first token, \
`POST /tokens` and `cubehook token add` make more. A token of the role `viewer` may look, one of the role \
`admin` may also change things.

Lists are pages, newest first: `next` is the `cursor` of the next page, null at the end. Times are RFC 3339. \
An error's body tells its `code` for programs, a `message` for people, and in `fields` what is wrong with \
each.
"""


class Document(Stream):
    """JSON that is no struct's."""

    content_type: ClassVar[str] = "application/json"
    schema: ClassVar[dict[str, Any]] = {"type": "object"}

    def __init__(self, body: bytes) -> None:
        self._body = body

    def send(self, request: LimitedRequest, still: Callable[[], Awaitable[Caller]]) -> Deferred[None]:
        """See `Stream.send`."""
        request.setHeader(b"Content-Length", b"%d" % len(self._body))
        request.write(self._body)
        return succeed(None)


class SchemaDocument(Document):
    """A JSON Schema."""

    content_type = "application/schema+json"


class OpenApiPart:
    """The operations that describe the API, made of all `parts` and this one itself."""

    def __init__(self, parts: Iterable[object]) -> None:
        self._parts = [*parts, self]
        self._document: bytes | None = None

    @operation("GET", "/openapi.json", result=Document, access="anyone")
    async def get_openapi(self, caller: Caller) -> Document:
        """This API as an OpenAPI 3.1 document."""
        if self._document is None:
            self._document = msgspec.json.encode(document(self._parts))
        return Document(self._document)

    @operation("GET", "/schemas/{schema}", result=SchemaDocument, access="anyone")
    async def get_schema(self, caller: Caller, schema: str) -> SchemaDocument:
        """
        The JSON Schema of what webhooks are sent.

        `basic` and `full` are the payloads of events, `notice` is that of notices.
        """
        kind = _SCHEMAS.get(schema.removesuffix(".json"))
        if kind is None:
            raise NotFoundError(f"There is no schema {printable(schema)}, only {', '.join(_SCHEMAS)}")
        return SchemaDocument(msgspec.json.encode({"$schema": _DIALECT, **json_schema(kind)}))


def document(parts: Iterable[object]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the operations of `parts`."""
    declared = sorted(
        (each for part in parts for each, _ in operations(part)), key=lambda each: (each.path, each.method)
    )
    kinds: dict[type[msgspec.Struct], None] = dict.fromkeys([ErrorBody])
    for each in declared:
        for kind in (each.body, each.result):
            if issubclass(kind, msgspec.Struct) and kind is not Nothing:
                kinds[kind] = None
    found, components = json_schema_components(kinds, _REFERENCE)
    schemas = dict(zip(kinds, found, strict=True))
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    refusals: dict[str, Any] = {}
    for each in declared:
        paths[PREFIX + each.path][each.method.lower()] = _operation(each, schemas, refusals)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cubehook",
            "version": __version__,
            "summary": "Call events of Cisco CUBE gateways, as webhooks",
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The service that this document is of"}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(each) for each in declared)],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": refusals,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A token for the API"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "cubehook-session",
                    "description": "A browser's session; changes need the header `X-CSRF-Token` too",
                },
            },
        },
    }


def _tag(declared: Operation) -> str:
    return declared.path.split("/")[1].removesuffix(".json")


def _operation(declared: Operation, schemas: Mapping[type, Any], refusals: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": declared.name,
        "summary": declared.summary.rstrip("."),
        "tags": [_tag(declared)],
        "parameters": _parameters(declared),
        "responses": _responses(declared, schemas, refusals),
        "security": [] if declared.access == "anyone" else [{"token": []}, {"session": []}],
    }
    description = declared.description
    if declared.access == "admin":
        description = f"{description}\n\nFor tokens of the role `admin`.".strip()
    if declared.query is not Nothing and declared.query.__doc__:
        description = f"{description}\n\n{_dedented(declared.query.__doc__)}".strip()
    if description:
        made["description"] = description
    if declared.body is not Nothing:
        required = any(field.required for field in fields(declared.body))
        content = _json(declared.body, schemas)
        made["requestBody"] = {"required": True, "content": content}
        if not required:
            made["requestBody"]["description"] = "Every field may be left out: then this is `{}`"
    return made


def _json(kind: type[msgspec.Struct], schemas: Mapping[type, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schemas[kind]}
    if kind in EXAMPLES:
        content["examples"] = {"example": {"value": msgspec.to_builtins(EXAMPLES[kind])}}
    return {"application/json": content}


def _parameters(declared: Operation) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": f"The id of the {name}" if name != "schema" else "`basic`, `full` or `notice`",
            "schema": {"type": "string", "minLength": 1},
        }
        for name in _PLACE.findall(declared.path)
    ]
    for place, kind in (("query", declared.query), ("header", declared.headers)):
        made += [_parameter(field, place) for field in fields(kind)]
    if declared.conditional:
        made.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": False,
                "description": "The `ETag` of what was looked at: nothing is changed if it has changed since",
                "schema": {"type": "string"},
            }
        )
    return made


def _parameter(field: FieldInfo, place: str) -> dict[str, Any]:
    schema = dict(json_schema(field.type))
    # A parameter is not given rather than given as null.
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1 and len(schema["anyOf"]) == 2:
        del schema["anyOf"]
        schema = {**kinds[0], **schema}
    if "$ref" in schema:
        schema = {**schema["$defs"][schema["$ref"].rpartition("/")[2]], **schema}
        del schema["$ref"]
    schema.pop("$defs", None)
    if field.default is not msgspec.NODEFAULT and field.default is not None:
        schema["default"] = msgspec.to_builtins(field.default)
    made = {"name": field.encode_name, "in": place, "required": field.required, "schema": schema}
    description = schema.pop("description", None)
    if description:
        made["description"] = description[:1].upper() + description[1:]
    return made


def _responses(declared: Operation, schemas: Mapping[type, Any], refusals: dict[str, Any]) -> dict[str, Any]:
    """The operation's answers; what it refuses with is put into `refusals`, as others do the same."""
    by_status: dict[int, list[type[ApiError]]] = defaultdict(list)
    for error in declared.every_error:
        by_status[error.status].append(error)
    made = {str(declared.status): _success(declared, schemas)}
    for status in sorted(by_status):
        errors = sorted(by_status[status], key=lambda error: error.code)
        name = "-or-".join(error.code for error in errors)
        refusals[name] = _error(errors, schemas)
        made[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return made


def _success(declared: Operation, schemas: Mapping[type, Any]) -> dict[str, Any]:
    result = declared.result
    made: dict[str, Any] = {"description": "Done"}
    if declared.tagged:
        made["headers"] = {
            "ETag": {"description": "Changes with what is shown", "schema": {"type": "string"}}
        }
    if issubclass(result, Stream):
        schema = getattr(result, "schema", {"type": "string"})
        made["content"] = {result.content_type: {"schema": schema}}
    elif declared.status != 204:
        made["content"] = _json(result, schemas)
    if result.__doc__ and result is not Nothing:
        made["description"] = _dedented(result.__doc__)
    return made


def _error(errors: list[type[ApiError]], schemas: Mapping[type, Any]) -> dict[str, Any]:
    words = [_dedented(error.__doc__ or "").replace("\n", " ") for error in errors]
    made: dict[str, Any] = {"description": " ".join(words), "content": _json(ErrorBody, schemas)}
    headers: dict[str, Any] = {}
    if UnauthorizedError in errors:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    if TooManyRequestsError in errors or UnavailableError in errors:
        headers["Retry-After"] = {
            "description": "Seconds to wait, if that is known",
            "schema": {"type": "integer"},
        }
    if headers:
        made["headers"] = headers
    return made


def _dedented(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())
