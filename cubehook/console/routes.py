"""
How a page is declared, what it is given of a request, and what it answers.

A page is an `async def` method declared with `page(...)`.  It is given the `Visit`, then by keyword
the parts of its path, and returns an `Answer`: mostly what `Visit.show` or `Visit.go` made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

import msgspec

from cubehook.api.operations import Caller
from cubehook.console.desk import Desk
from cubehook.events import Micros

Method = Literal["GET", "POST"]
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A page's method, path (`/cubes/<cube>`, as Klein has it), and who may see it."""

    name: str
    method: Method
    path: str
    signed_out: bool
    """Those who have not signed in may see it."""
    viewers: bool
    """Callers who may change nothing may use it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a page answers."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = {}
    content_type: str = "text/html; charset=utf-8"


class Form:
    """The fields that a form sent: texts, without white space around them unless asked for."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def raw(self, name: str, default: str = "") -> str:
        """The field as it was typed, with line breaks of one kind."""
        values = self._values.get(name)
        return values[0].replace("\r\n", "\n") if values else default

    def text(self, name: str, default: str = "") -> str:
        """The field, `default` if it was not sent."""
        return self.raw(name, default).strip()

    def all(self, name: str) -> list[str]:
        """Each value of a field that may be sent several times, empty ones too."""
        return [value.strip() for value in self._values.get(name, ())]

    def checked(self, name: str) -> bool:
        """Whether a box was ticked."""
        return name in self._values

    def lines(self, name: str) -> list[str]:
        """The field's lines, and what stands between commas and spaces, empty ones left out."""
        return self.raw(name).replace(",", " ").split()

    def names(self) -> Iterator[str]:
        """The fields' names."""
        return iter(self._values)


class Visit:
    """
    One request for a page.

    `query` and `form` are what it gave; `path` its path; `live` tells that the page's script asks for a
    part of it.  `origin` is `http://HOST` as the browser calls us, `address` whence it came, `secure` that
    it came over TLS, `cookie` the request's `Cookie`.
    """

    def __init__(
        self,
        *,
        desk: Desk,
        caller: Caller | None,
        csrf: str,
        path: str,
        query: Form,
        form: Form,
        live: bool,
        origin: str,
        address: str,
        secure: bool,
        now: Micros,
        render: Callable[[Visit, str, Mapping[str, Any]], bytes],
        say: Callable[[str, str], None],
        cookie: str | None,
    ) -> None:
        self.desk = desk
        self._caller = caller
        self.csrf = csrf
        self.path = path
        self.query = query
        self.form = form
        self.live = live
        self.origin = origin
        self.address = address
        self.secure = secure
        self.now = now
        self.cookie = cookie
        self._render = render
        self._say = say

    @property
    def signed_in(self) -> bool:
        """Whether anybody is signed in."""
        return self._caller is not None

    @property
    def caller(self) -> Caller:
        """Who is signed in."""
        assert self._caller is not None, "only pages for those who are signed in ask that"
        return self._caller

    @property
    def may_change(self) -> bool:
        """Whether the caller may change anything; forms are shown to nobody else."""
        return self._caller is not None and self._caller.role == "admin"

    async def ask(
        self,
        operation: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        seen: str | None = None,
        **parts: str,
    ) -> Any:
        """
        What the API's operation of that name answers the caller: see `Desk.ask`.

        Raises ApiError as the API would answer it.
        """
        return await self.desk.ask(self.caller, operation, query=query, body=body, seen=seen, **parts)

    async def ask_tagged(
        self,
        operation: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        seen: str | None = None,
        **parts: str,
    ) -> tuple[Any, str]:
        """The same, and the tag of the state that is answered."""
        return await self.desk.ask_tagged(self.caller, operation, query=query, body=body, seen=seen, **parts)

    def show(self, template: str, *, status: int = 200, **values: Any) -> Answer:
        """A page made of `template` and `values`; a template may show `visit` too."""
        return Answer(body=self._render(self, template, values), status=status)

    def go(self, path: str, said: str | None = None, *, kind: str = "done", **query: str) -> Answer:
        """
        To another page of ours (303), which will show `said` once.

        `kind` is `done`, `note` or `failed`.
        """
        if said is not None:
            self._say(kind, said)
        where = f"{path}?{urlencode(query)}" if query else path
        return Answer(status=303, headers={"Location": where})


def page(
    method: Method, path: str, *, signed_out: bool = False, viewers: bool | None = None
) -> Callable[[Handler], Handler]:
    """
    Declare an `async def` method to be a page.

    A POST is for callers who may change things, unless it is for `viewers` too; a GET is for everybody,
    unless it shows a form that is of no use to `viewers`.
    """

    def declare(handler: Handler) -> Handler:
        handler.route = Route(  # type: ignore[attr-defined]
            name=f"{handler.__module__.rpartition('.')[2]}.{handler.__name__}",
            method=method,
            path=path,
            signed_out=signed_out,
            viewers=method == "GET" if viewers is None else viewers,
        )
        return handler

    return declare


def routes(pages: object) -> Iterator[tuple[Route, Callable[..., Awaitable[Answer]]]]:
    """The pages of an object, each with the method that makes it."""
    for name in dir(pages):
        handler = getattr(pages, name, None)
        declared = getattr(handler, "route", None)
        if handler is not None and isinstance(declared, Route):
            yield declared, handler
