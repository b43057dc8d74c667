"""
The listeners' side of HTTP: bodies capped before they are held, every request in the access log.

Twisted's `Request` takes a body of any size (to a temporary file); here nothing past the limit is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from cubehook.events import Micros

MAX_BODY = 1 << 20
"""Bytes of a request's body that are accepted (contract, section 6)."""

MAX_DISCARDED = 16 << 20
"""Bytes over the limit that are read and dropped, so that the sender gets to see its 413."""

IDLE_TIMEOUT = 600
"""Seconds for which a kept-open connection may be silent: routers keep theirs up to ten minutes."""


class LimitedRequest(Request):
    """
    A request whose body is held in memory up to `MAX_BODY` bytes and never beyond.

    `too_large` tells a resource that the body was over the limit and is gone; `received_at` is
    when the headers were complete.
    """

    defaultContentType = None
    too_large = False
    received_at: Micros = 0
    _discarded = 0

    def gotLength(self, length: int | None) -> None:
        self.received_at = self.channel.site.now()  # type: ignore[attr-defined]
        self._held = self.content = BytesIO()
        self.too_large = length is not None and length > MAX_BODY

    def handleContentChunk(self, data: bytes) -> None:
        if not self.too_large:
            if self._held.tell() + len(data) <= MAX_BODY:
                self._held.write(data)
                return
            self.too_large = True
            self._held = self.content = BytesIO()
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED:
            self.channel.forceAbortClient()


class AccessSite(Site):
    """
    A site that hands each finished request to `access`, keeps no sessions and speaks HTTP/1 only.

    `access` is called after the answer was written; it must be quick.
    """

    # The default protocol passes every call through proxies to be able to switch to HTTP/2.
    protocol = HTTPChannel  # type: ignore[assignment]
    displayTracebacks = False

    def __init__(
        self,
        resource: IResource,
        access: Callable[[LimitedRequest], None],
        now: Callable[[], Micros],
        reactor: IReactorTime,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource,
            requestFactory=LimitedRequest,
            timeout=IDLE_TIMEOUT,
            parsePOSTFormSubmission=False,
            reactor=reactor,
        )
        self._access = access
        self.now = now

    def log(self, request: LimitedRequest) -> None:  # type: ignore[override]
        self._access(request)
