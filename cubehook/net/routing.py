"""
Klein applications as resources: for requests that come by the thousand, and for those that may never come.

Klein's own resource ties every request into a reference cycle (its error handler refers to itself), so
that whole requests, headers and bodies and all, wait in memory for the garbage collector; and it finds
the route of each request anew.  See `docs/decisions/0004-klein-without-cycles.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from klein import Klein
from klein.resource import KleinResource
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from werkzeug.exceptions import HTTPException

_ROUTES = 256
"""How many requests' routes are remembered."""


class PlainResource(KleinResource):
    """
    Runs `app`, whose handlers return bytes or a Deferred of bytes and route by path and method alone.

    A handler is not cancelled when its client goes away: what it began is its own to finish.
    What no route takes is answered by Klein.
    """

    _log = Logger()

    def __init__(self, app: Klein) -> None:
        super().__init__(app)
        self._route = lru_cache(maxsize=_ROUTES)(self._find_route)

    def _find_route(self, method: bytes, path: bytes) -> tuple[str, Mapping[str, Any]]:
        """The endpoint and its arguments; HTTPException if there is none, UnicodeDecodeError."""
        where = self._app.url_map.bind("", path_info=path.decode(), default_method=method.decode())
        rule, arguments = where.match(return_rule=True)
        return rule.endpoint, arguments

    def render(self, request: Request) -> Any:  # type: ignore[override]
        """Answer `request`, now or when its handler's Deferred fires."""
        try:
            endpoint, arguments = self._route(request.method, request.path)
        except (HTTPException, UnicodeDecodeError):
            return super().render(request)
        answer: Any = self._app.execute_endpoint(endpoint, request, **arguments)
        if isinstance(answer, bytes):
            return answer
        _ = answer.addCallbacks(_answer, self._failed, callbackArgs=(request,), errbackArgs=(request,))
        return NOT_DONE_YET

    def _failed(self, failure: Failure, request: Request) -> None:
        if request.channel is not None:
            request.processingFailed(failure)
        else:
            self._log.failure("A request failed whose client had gone", failure)


class LazyResource(Resource):
    """
    Answers with the resource that `make` returns, which is made when the first request comes.

    A service whose API or console nobody asks does not hold them in memory.
    """

    isLeaf = True

    def __init__(self, make: Callable[[], Resource]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._make = make
        self._made: Resource | None = None

    def render(self, request: Request) -> Any:
        """Answer `request`."""
        if self._made is None:
            self._made = self._make()
        return self._made.render(request)


def _answer(body: bytes, request: Request) -> None:
    # A client that has gone takes its channel away.
    if request.channel is not None:
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()
