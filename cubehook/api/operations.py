"""
Operations: what one method of one path takes, does and answers, said once.

`operation` declares a method of a class to be one.  `Api` puts the operations of such classes on
Klein; what documents them reads the same declarations.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from inspect import isawaitable
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar
from urllib.parse import parse_qs

import msgspec
from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_CONTENT
from twisted.web.resource import Resource
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from cubehook.api.errors import (
    ApiError,
    BadRequestError,
    ForbiddenError,
    InternalError,
    InvalidError,
    MediaTypeError,
    MethodNotAllowedError,
    NotFoundError,
    PreconditionFailedError,
    TooLargeError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
)
from cubehook.api.validation import from_json, from_query
from cubehook.interfaces import StoreFullError
from cubehook.net.routing import LazyResource
from cubehook.net.site import MAX_BODY, LimitedRequest
from cubehook.store.errors import StoreError

PREFIX = "/api/v1"

_READING: frozenset[type[ApiError]] = frozenset(
    {
        BadRequestError,
        InternalError,
        InvalidError,
        MethodNotAllowedError,
        NotFoundError,
        UnavailableError,
    }
)
_READING_BODY: frozenset[type[ApiError]] = frozenset({MediaTypeError, TooLargeError})
_KNOWING: frozenset[type[ApiError]] = frozenset({UnauthorizedError, ForbiddenError, TooManyRequestsError})

Access: TypeAlias = Literal["anyone", "viewer", "admin"]
"""Who may do something: anyone at all, whoever has a token, or only those who may change things."""

Who: TypeAlias = "Callable[[LimitedRequest], Caller | Awaitable[Caller]]"
"""Tells who makes a request, now or later; raises ApiError if that is nobody who may ask."""

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

_JSON = b"application/json"
_PLACE = re.compile(r"\{(\w+)\}")
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')


class Caller(msgspec.Struct, frozen=True):
    """Who asks; `name` is for records of what was done, a `viewer` may change nothing."""

    name: str
    role: Literal["admin", "viewer"] = "admin"


NOBODY = Caller("anyone", "viewer")
"""Who asks for what anyone may see."""


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body or a query that has no fields."""


class Tagged(msgspec.Struct, frozen=True):
    """A result, and the strong entity tag of what it shows: `tag` is without its quotes."""

    result: msgspec.Struct
    tag: str


class Stream(ABC):
    """A result that is no JSON, and is written bit by bit; `content_type` tells of what kind it is."""

    content_type: ClassVar[str]

    @abstractmethod
    def send(self, request: LimitedRequest, still: Callable[[], Awaitable[Caller]]) -> Deferred[None]:
        """
        Write it; fires when it is over, is cancelled if the client leaves.

        `still` asks again who the caller is, and raises ApiError if that is nobody who may ask any more.
        """


class IfMatch:
    """The `If-Match` of a request; every tag will do if it has none."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    def check(self, tag: str) -> None:
        """PreconditionFailedError unless what is to be changed may have this tag."""
        header = self._header
        if header is None or header.strip() == "*":
            return
        # A weak tag matches nothing here (RFC 9110, section 13.1.1).
        if tag not in (given for weak, given in _TAG.findall(header) if not weak):
            raise PreconditionFailedError(
                "It was changed since you looked at it: get it again, and change what it is now"
            )


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """
    One method of one path.

    `path` is that below `PREFIX`, with `{name}` for each part that is given as an argument.
    `errors` are those that the operation itself may answer, beside those of reading the request.
    `status` is answered with the result; 204 goes without one.  An operation that is `conditional`
    honours `If-Match`, one that is `tagged` answers with an `ETag`.  `headers` are those of the request
    that matter, as `query` has the parameters.  `access` tells who may ask for it.  `changes` tells of a
    body whether anything is changed, so that it belongs in the record of changes.  `recorded` makes what that
    has as its detail of the result, None if nothing was changed; without it the body is recorded.  One that
    `stores` is of no use while the database cannot be written, beside the record, which can wait.
    """

    name: str
    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    summary: str
    description: str
    body: type[msgspec.Struct]
    query: type[msgspec.Struct]
    headers: type[msgspec.Struct]
    result: type[msgspec.Struct] | type[Stream]
    errors: tuple[type[ApiError], ...]
    access: Access
    changes: Callable[[Any], bool]
    recorded: Callable[[Any], dict[str, Any] | None] | None = None
    stores: bool = False
    status: int = 200
    conditional: bool = False
    tagged: bool = False

    @property
    def every_error(self) -> frozenset[type[ApiError]]:
        """All that it may answer but its result."""
        reading = _READING if self.method == "GET" else _READING | _READING_BODY
        knowing: frozenset[type[ApiError]] = frozenset() if self.access == "anyone" else _KNOWING
        condition = {PreconditionFailedError} if self.conditional else set()
        return frozenset(self.errors) | reading | knowing | condition


def _always(body: object) -> bool:
    return True


def operation(
    method: Literal["GET", "POST", "PATCH", "DELETE"],
    path: str,
    *,
    result: type[msgspec.Struct] | type[Stream],
    body: type[msgspec.Struct] = Nothing,
    query: type[msgspec.Struct] = Nothing,
    headers: type[msgspec.Struct] = Nothing,
    errors: tuple[type[ApiError], ...] = (),
    access: Access | None = None,
    changes: Callable[[Any], bool] = _always,
    recorded: Callable[[Any], dict[str, Any] | None] | None = None,
    stores: bool | None = None,
    status: int = 200,
    conditional: bool = False,
    tagged: bool = False,
) -> Callable[[Handler], Handler]:
    """
    Declare an `async def` method to be an operation; its docstring is what users read of it.

    It is called with the `Caller`, then by keyword the parts of the path, and as `body`, `query` and
    `headers` what was given of these if the operation takes fields there, and as `if_match` an `IfMatch` if
    it is `conditional`.  It returns a `result`, as a `Tagged` if it is `tagged`, or raises one of `errors`.
    Unless `access` is given, a GET is for everyone who has a token, and anything else for admins.  Unless
    `stores` is given, anything but a GET does.
    """
    if access is None:
        access = "viewer" if method == "GET" else "admin"

    def declare(handler: Handler) -> Handler:
        summary, _, rest = (handler.__doc__ or "").strip().partition("\n")
        handler.operation = Operation(  # type: ignore[attr-defined]
            name=handler.__name__,
            method=method,
            path=path,
            summary=summary,
            description="\n".join(line.strip() for line in rest.splitlines()).strip(),
            body=body,
            query=query,
            headers=headers,
            result=result,
            errors=errors,
            access=access,
            changes=changes,
            recorded=recorded,
            stores=method != "GET" if stores is None else stores,
            status=status,
            conditional=conditional,
            tagged=tagged,
        )
        return handler

    return declare


def operations(part: object) -> Iterator[tuple[Operation, Callable[..., Awaitable[Any]]]]:
    """The operations of an object or a class, each with the method that does it."""
    for name in dir(part):
        handler = getattr(part, name, None)
        declared = getattr(handler, "operation", None)
        if handler is not None and isinstance(declared, Operation):
            yield declared, handler


def check_access(caller: Caller, declared: Operation) -> None:
    """ForbiddenError if the caller may not have the operation done."""
    if declared.access == "admin" and caller.role != "admin":
        raise ForbiddenError("Only an administrator's token may do that; yours may look at what there is")


class Api:
    """
    Serves the operations of `parts`; `who` tells whose request it is.

    An operation once begun is done to its end, whether or not its client waits for the answer.
    """

    _log = Logger()

    def __init__(self, parts: Iterable[object], who: Who) -> None:
        self._parts = list(parts)
        self._who = who

    def resource(self) -> Resource:
        """The resource to put into a site."""
        return LazyResource(lambda: _JsonResource(self._routed()))

    def _routed(self) -> Klein:
        app = Klein()
        app.handle_errors(HTTPException)(self._not_routed)  # type: ignore[arg-type]
        for part in self._parts:
            for declared, handler in operations(part):
                self._add(app, declared, handler)
        return app

    def _add(self, app: Klein, declared: Operation, handler: Callable[..., Awaitable[Any]]) -> None:
        async def respond(request: LimitedRequest, **parts: str) -> bytes:
            return await self._respond(request, declared, handler, parts)

        rule = PREFIX + _PLACE.sub(r"<\1>", declared.path)
        app.route(rule, methods=[declared.method], endpoint=declared.name)(respond)

    async def _respond(
        self,
        request: LimitedRequest,
        declared: Operation,
        handler: Callable[..., Awaitable[Any]],
        parts: Mapping[str, str],
    ) -> bytes:
        try:
            caller = await self._caller(request, declared)
            arguments = {**parts, **_given(request, declared)}
            result = await self._to_its_end(handler(caller, **arguments))
        except ApiError as error:
            return _refuse(request, error)
        except (StoreError, StoreFullError) as error:
            return _refuse(request, UnavailableError(f"The database cannot be used: {error}"))
        except CancelledError:
            if request.channel is None:
                raise
            # Nobody but the service itself, when it stops, cancels what is being done.
            return _refuse(request, UnavailableError("The service is stopping"))
        except Exception:
            self._log.failure("The API failed at {method} {path}", method=declared.method, path=declared.path)
            return _refuse(request, InternalError("Something went wrong; the service's log tells what"))
        if isinstance(result, Stream):
            return await self._stream(request, declared, result)
        return _answer(request, declared, result)

    async def _caller(self, request: LimitedRequest, declared: Operation) -> Caller:
        """Who asks; ApiError if that is nobody, or nobody who may have this done."""
        if declared.access == "anyone":
            return NOBODY
        asking = self._who(request)
        caller = await asking if isawaitable(asking) else asking
        check_access(caller, declared)
        return caller

    async def _stream(self, request: LimitedRequest, declared: Operation, stream: Stream) -> bytes:
        request.setResponseCode(declared.status)
        request.setHeader(b"Content-Type", stream.content_type.encode())
        request.setHeader(b"Cache-Control", b"no-store")
        if request.method != b"HEAD":
            await stream.send(request, partial(self._caller, request, declared))
        return b""

    def _to_its_end(self, work: Awaitable[Any]) -> Deferred[Any]:
        """The result of `work`; who waits for it may be cancelled, but not the work."""

        async def done() -> Any:
            return await work

        # Without a canceller, it takes and drops the result that comes after it was cancelled.
        waiting: Deferred[Any] = Deferred()

        def tell(result: Any) -> None:
            gone = waiting.called
            if gone and isinstance(result, Failure) and not result.check(ApiError, CancelledError):
                self._log.failure("An operation of the API failed whose client had gone", result)
            waiting.callback(result)

        _ = Deferred.fromCoroutine(done()).addBoth(tell)
        return waiting

    def _not_routed(self, request: LimitedRequest, failure: Failure) -> bytes:
        error = failure.value
        if isinstance(error, MethodNotAllowed):
            methods = ", ".join(sorted(error.valid_methods or ()))
            return _refuse(
                request,
                MethodNotAllowedError(f"This path takes {methods}", headers={"Allow": methods}),
            )
        return _refuse(request, NotFoundError("There is no such path"))


class _JsonResource(KleinResource):
    """Klein's resource, with answers of our form also to what it cannot read of a request's head."""

    def render(self, request: LimitedRequest) -> Any:  # type: ignore[override]
        if not request.getHeader(b"host"):
            # HTTP/1.0 has none, and the address of a unix socket has no name to stand in.
            request.requestHeaders.setRawHeaders(b"host", [b"localhost"])
        try:
            b"/".join([*request.prepath, *request.postpath, request.getRequestHostname()]).decode()  # type: ignore[misc]
            return super().render(request)
        except (UnicodeDecodeError, HTTPException):
            return _refuse(request, BadRequestError("The path or the Host header cannot be read"))


def _given(request: LimitedRequest, declared: Operation) -> dict[str, Any]:
    """What the request gives for the operation's `query` and `body`; ApiError if it cannot be read."""
    _, _, query = request.uri.partition(b"?")
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True, errors="replace")
    found: dict[str, Any] = {"query": from_query(declared.query, values)}
    if declared.method != "GET":
        found["body"] = _body(request, declared.body)
    if declared.headers is not Nothing:
        found["headers"] = from_query(declared.headers, _headers(request, declared.headers))
    if declared.conditional:
        lines = header_lines(request, "if-match")
        found["if_match"] = IfMatch(None if lines is None else ", ".join(lines))
    return {name: value for name, value in found.items() if not isinstance(value, Nothing)}


def _headers(request: LimitedRequest, kind: type[msgspec.Struct]) -> dict[str, Sequence[str]]:
    """The request's values of the headers that `kind` has fields for."""
    found = {name: header_lines(request, name) for name in kind.__struct_encode_fields__}
    return {name: values for name, values in found.items() if values}


def header_lines(request: LimitedRequest, name: str) -> list[str] | None:
    """
    What the request gives for a header, whatever its bytes are; None if nothing.

    Twisted takes them for UTF-8 where it is asked for texts, and raises UnicodeDecodeError if they are not.
    """
    lines = request.requestHeaders.getRawHeaders(name.encode("ascii"))
    return None if lines is None else [line.decode("utf-8", "replace") for line in lines]


def _body(request: LimitedRequest, kind: type[msgspec.Struct]) -> msgspec.Struct:
    if request.too_large:
        raise TooLargeError(f"A body may have {MAX_BODY} bytes at most")
    body = request.content.getvalue()  # type: ignore[union-attr]
    if not body and kind is Nothing:
        return Nothing()
    content_type = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
    if content_type != _JSON:
        raise MediaTypeError("The body must be JSON, and its Content-Type application/json")
    return from_json(kind, body)


def _answer(request: LimitedRequest, declared: Operation, result: Any) -> bytes:
    request.setResponseCode(declared.status)
    if isinstance(result, Tagged):
        request.setHeader(b"ETag", f'"{result.tag}"'.encode())
        result = result.result
    if declared.status == NO_CONTENT:
        request.setHeader(b"Cache-Control", b"no-store")
        return b""
    return _json(request, msgspec.json.encode(result))


def _refuse(request: LimitedRequest, error: ApiError) -> bytes:
    # Twisted does not know the phrases of all of these.
    request.setResponseCode(error.status, HTTPStatus(error.status).phrase.encode())
    for name, value in error.headers.items():
        request.setHeader(name, value)
    return _json(request, error.body())


def _json(request: LimitedRequest, body: bytes) -> bytes:
    request.setHeader(b"Content-Type", _JSON)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.setHeader(b"Cache-Control", b"no-store")
    return body
