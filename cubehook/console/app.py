"""
The console on HTTP: finds a request's page, who asks, and whether they may; writes what the page answers.

Templates, Jinja2 and the pages are imported with the first request: a service whose console nobody opens
does not hold them in memory.
"""

from __future__ import annotations

import pkgutil
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from cubehook.api.errors import (
    ApiError,
    BadRequestError,
    ForbiddenError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from cubehook.api.operations import Caller
from cubehook.api.session import (
    csrf_token,
    from_elsewhere,
    inner_path,
    same_token,
    session_secret,
)
from cubehook.console.desk import VIEWERS_ONLY_LOOK, Desk
from cubehook.console.routes import Answer, Form, Route, Visit, routes
from cubehook.interfaces import StoreFullError
from cubehook.net.routing import LazyResource
from cubehook.net.site import LimitedRequest
from cubehook.store.errors import StoreError

if TYPE_CHECKING:
    from cubehook.console.assets import Assets
    from cubehook.console.render import Renderer

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of every answer."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # `no-referrer` would also take the origin away from what our own forms send.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""On every answer of the console."""

_FIELDS = 2000
"""A form has fewer fields than that."""

_SAID = 500
"""Sessions for which something to be said is kept."""

_Page = Callable[..., Awaitable[Answer]]


class Console:
    """The console of a service that `desk` tells of; `pages` names its modules, unless it is all of them."""

    def __init__(self, desk: Desk, pages: Sequence[str] = ()) -> None:
        self._desk = desk
        self._names = pages

    def resource(self) -> Resource:
        """The resource to put into a site, for all paths that nothing else takes."""
        return LazyResource(lambda: _Pages(self._desk, self._names).resource)


class _GuardedResource(KleinResource):
    """Klein's resource; whatever it answers has the headers that keep browsers careful."""

    def render(self, request: LimitedRequest) -> Any:  # type: ignore[override]
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        request.setHeader(b"Cache-Control", b"no-store")
        if not request.getHeader(b"host"):
            request.requestHeaders.setRawHeaders(b"host", [b"localhost"])
        try:
            b"/".join([*request.prepath, *request.postpath, request.getRequestHostname()]).decode()  # type: ignore[misc]
        except UnicodeDecodeError:
            # Klein would put a traceback into the log.
            request.setResponseCode(400)
            request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
            return b"The path or the Host header cannot be read\n"
        return super().render(request)


class _Pages:
    """The pages on Klein."""

    _log = Logger()

    def __init__(self, desk: Desk, names: Sequence[str]) -> None:
        from cubehook.console.assets import Assets
        from cubehook.console.render import Renderer

        self._desk = desk
        self._assets: Assets = Assets()
        self._renderer: Renderer = Renderer(self._assets)
        self._said: OrderedDict[str, list[tuple[str, str]]] = OrderedDict()
        self._app = app = Klein()
        app.handle_errors(HTTPException)(self._not_routed)  # type: ignore[arg-type]
        app.route("/static/<hash>/<name>", methods=["GET"], endpoint="static")(self._static)
        for module in _modules(names):
            for route, handler in routes(module.Pages(desk)):
                self._add(route, handler)
        self.resource = _GuardedResource(app)

    def _add(self, route: Route, handler: _Page) -> None:
        async def respond(request: LimitedRequest, **parts: str) -> bytes:
            return await self._respond(request, route, handler, parts)

        self._app.route(route.path, methods=[route.method], endpoint=route.name)(respond)

    def _static(self, request: LimitedRequest, hash: str, name: str) -> bytes:
        asset = self._assets.get(name)
        if asset is None:
            request.setResponseCode(404)
            request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
            return b"There is no such file\n"
        request.setHeader(b"Content-Type", asset.content_type.encode())
        # An address with the hash of another version may be cached by nobody for this one.
        kept = "public, max-age=31536000, immutable" if hash == asset.hash else "no-cache"
        request.setHeader(b"Cache-Control", kept.encode())
        request.setHeader(b"Vary", b"Accept-Encoding")
        if request.setETag(b'"%s"' % asset.hash.encode()):
            return b""
        body = asset.body
        if _takes_gzip(request.getHeader("accept-encoding")):
            request.setHeader(b"Content-Encoding", b"gzip")
            body = asset.zipped
        request.setHeader(b"Content-Length", b"%d" % len(body))
        return body

    async def _not_routed(self, request: LimitedRequest, failure: Failure) -> bytes:
        error: ApiError = NotFoundError("There is no such page")
        if isinstance(failure.value, MethodNotAllowed):
            error = MethodNotAllowedError("This page cannot be asked for in that way")

        async def refuse(visit: Visit) -> Answer:
            raise error

        # Who has not signed in is not told which pages there are.
        route = Route(name="none", method="GET", path="", signed_out=False, viewers=True)
        return await self._respond(request, route, refuse, {})

    async def _respond(
        self, request: LimitedRequest, route: Route, handler: _Page, parts: Mapping[str, str]
    ) -> bytes:
        secure = bool(request.isSecure())
        secret = session_secret(request.getHeader("cookie"), secure)
        visit = self._visit(request, None, None, secure, Form({}), Form({}))
        try:
            caller = None if secret is None else await self._desk.doors.session(secret)
            query, form = _fields(request.uri.partition(b"?")[2]), _form(request)
            visit = self._visit(request, caller, secret, secure, query, form)
            answer = self._turned_away(request, visit, route)
            if answer is None:
                answer = await self._to_its_end(handler(visit, **parts))
        except ApiError as error:
            answer = self._refuse(visit, error)
        except (StoreError, StoreFullError) as error:
            answer = self._refuse(visit, UnavailableError(f"The database cannot be used: {error}"))
        except CancelledError:
            if request.channel is None:
                raise
            answer = self._refuse(visit, UnavailableError("The service is stopping"))
        except Exception:
            self._log.failure("The console failed at {method} {path}", method=route.method, path=route.path)
            answer = self._refuse(visit, InternalError("Something went wrong; the service's log tells what"))
        return _write(request, answer)

    def _visit(
        self,
        request: LimitedRequest,
        caller: Caller | None,
        secret: str | None,
        secure: bool,
        query: Form,
        form: Form,
    ) -> Visit:
        csrf = csrf_token(secret) if secret and caller is not None else ""
        host = request.getHeader("host") or "localhost"

        def render(visit: Visit, template: str, values: Mapping[str, Any]) -> bytes:
            said = [] if visit.live else self._said.pop(csrf, [])
            return self._renderer.page(visit, said, template, values)

        return Visit(
            desk=self._desk,
            caller=caller,
            csrf=csrf,
            path=request.path.decode("utf-8", "replace"),
            query=query,
            form=form,
            live=request.getHeader("hx-request") == "true",
            origin=f"{'https' if secure else 'http'}://{host}",
            address=getattr(request.getClientAddress(), "host", None) or "-",
            secure=secure,
            now=self._desk.now(),
            render=render,
            say=lambda kind, text: self._say(csrf, kind, text),
            cookie=request.getHeader("cookie"),
        )

    def _say(self, csrf: str, kind: str, text: str) -> None:
        if csrf:
            self._said.setdefault(csrf, []).append((kind, text))
            while len(self._said) > _SAID:
                _ = self._said.popitem(last=False)

    def _turned_away(self, request: LimitedRequest, visit: Visit, route: Route) -> Answer | None:
        """What is answered in the place of a page that may not be seen or used."""
        site = request.getHeader("sec-fetch-site")
        where = request.uri.decode("latin-1")
        if not visit.signed_in and not route.signed_out:
            sign_in = "/sign-in"
            if request.method in (b"GET", b"HEAD") and inner_path(where) not in ("/", "/sign-in"):
                sign_in += "?" + urlencode({"next": inner_path(where)})
            if visit.live:
                return Answer(status=401, headers={"HX-Redirect": "/sign-in"})
            if site == "cross-site" and request.method == b"GET":
                # Browsers keep the cookie back from whoever follows a link of another site; they send it
                # when our own page leads there.
                return visit.show("onward.html", where=inner_path(where))
            return visit.go(sign_in)
        if route.method == "GET":
            if visit.signed_in and not (visit.may_change or route.viewers):
                raise ForbiddenError(VIEWERS_ONLY_LOOK)
            return None
        host = request.getHeader("host") or ""
        if from_elsewhere(site, request.getHeader("origin"), host):
            raise ForbiddenError("This form was sent by another site, so nothing was done")
        if request.too_large:
            raise TooLargeError("That is more than a form may send")
        if visit.signed_in:
            given = visit.form.raw("csrf") or request.getHeader("x-csrf-token") or ""
            if not same_token(given, visit.csrf):
                raise ForbiddenError(
                    "This form belongs to another session, so nothing was done: go back, load the page "
                    "again, and send the form once more"
                )
            if not (visit.may_change or route.viewers):
                raise ForbiddenError(VIEWERS_ONLY_LOOK)
        return None

    def _to_its_end(self, work: Awaitable[Answer]) -> Deferred[Answer]:
        """The answer of a page; who waits for it may be cancelled, but not the work."""

        async def done() -> Answer:
            return await work

        waiting: Deferred[Answer] = Deferred()

        def tell(result: Any) -> None:
            gone = waiting.called
            if gone and isinstance(result, Failure) and not result.check(ApiError, CancelledError):
                self._log.failure("A page of the console failed whose reader had gone", result)
            waiting.callback(result)

        _ = Deferred.fromCoroutine(done()).addBoth(tell)
        return waiting

    def _refuse(self, visit: Visit, error: ApiError) -> Answer:
        if visit.live:
            return Answer(
                body=error.message.encode(), status=error.status, content_type="text/plain; charset=utf-8"
            )
        return visit.show("error.html", status=error.status, error=error)


def _modules(names: Sequence[str]) -> list[Any]:
    """Modules of `cubehook.console.pages`."""
    pages = import_module("cubehook.console.pages")
    found = names or sorted(module.name for module in pkgutil.iter_modules(pages.__path__))
    return [import_module(f"{pages.__name__}.{name}") for name in found]


def _fields(query: bytes) -> Form:
    try:
        return Form(
            parse_qs(
                query.decode("latin-1"),
                keep_blank_values=True,
                errors="replace",
                max_num_fields=_FIELDS,
            )
        )
    except ValueError:
        raise BadRequestError("The address or the form has too many fields") from None


def _form(request: LimitedRequest) -> Form:
    kind = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
    if request.method != b"POST" or request.too_large or kind != "application/x-www-form-urlencoded":
        return Form({})
    return _fields(request.content.getvalue())  # type: ignore[union-attr]


def _takes_gzip(header: str | None) -> bool:
    for part in (header or "").split(","):
        name, _, weight = part.partition(";")
        if name.strip().lower() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _write(request: LimitedRequest, answer: Answer) -> bytes:
    request.setResponseCode(answer.status)
    request.setHeader(b"Content-Type", answer.content_type.encode())
    request.setHeader(b"Content-Length", b"%d" % len(answer.body))
    for name, value in answer.headers.items():
        request.setHeader(name.encode(), value.encode("latin-1", "replace"))
    return answer.body
