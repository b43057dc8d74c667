"""What the console's listener serves: health, metrics, the REST API, and everywhere else the console."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

_HEALTH = frozenset({b"healthz", b"readyz", b"metrics"})


class ConsoleRoot(Resource):
    """
    Hands a request to the resource that its path's first part names, with the whole of its path.

    `health` answers `/healthz`, `/readyz` and `/metrics`, `api` what is below `/api`, and `console` the rest.
    """

    isLeaf = True

    def __init__(self, health: IResource, api: IResource, console: IResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._health = health
        self._api = api
        self._console = console

    def render(self, request: Request) -> Any:
        """Answer `request`, now or later."""
        first = request.postpath[0] if request.postpath else b""
        if first in _HEALTH:
            return self._health.render(request)
        return (self._api if first == b"api" else self._console).render(request)
