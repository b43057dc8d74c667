"""`/healthz`, `/readyz` and `/metrics`, on the console's listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from klein import Klein
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from cubehook.operations.metrics import Metrics


class HealthResource:
    """
    `problems` names what keeps the service from being ready, in words; empty when it is.

    `look` finds out, before metrics are shown, what they are to tell that is not known all the time.

    `/healthz` says that the process answers; `/readyz` is 503 while there are problems.
    """

    app = Klein()

    def __init__(
        self,
        metrics: Metrics,
        problems: Callable[[], list[str]],
        look: Callable[[], Awaitable[None]],
    ) -> None:
        self._metrics = metrics
        self._problems = problems
        self._look = look

    def resource(self) -> Resource:
        """The resource to put into a site."""
        return self.app.resource()

    @app.route("/healthz", methods=["GET"])
    def healthz(self, request: IRequest) -> bytes:
        return _text(request, "ok\n")

    @app.route("/readyz", methods=["GET"])
    def readyz(self, request: IRequest) -> bytes:
        problems = self._problems()
        if problems:
            request.setResponseCode(503)
            return _text(request, "".join(f"{problem}\n" for problem in problems))
        return _text(request, "ready\n")

    @app.route("/metrics", methods=["GET"])
    async def metrics(self, request: IRequest) -> bytes:
        await self._look()
        return _whole(request, CONTENT_TYPE_LATEST.encode(), generate_latest(self._metrics.registry))


def _text(request: IRequest, text: str) -> bytes:
    return _whole(request, b"text/plain; charset=utf-8", text.encode())


def _whole(request: IRequest, content_type: bytes, body: bytes) -> bytes:
    request.setHeader(b"Content-Type", content_type)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    # What was true a moment ago is of no use to anybody.
    request.setHeader(b"Cache-Control", b"no-store")
    return body
