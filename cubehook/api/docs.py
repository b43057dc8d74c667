"""
A page that shows the OpenAPI document to people: `/api/docs`, made by RapiDoc of files of our own.

RapiDoc sets styles from its script, which this page's policy allows, and no other page's does.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from twisted.web.resource import Resource

from cubehook.net.site import LimitedRequest

PATH: Final = "/api/docs"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FILES = {
    PATH: ("docs.html", "text/html; charset=utf-8"),
    f"{PATH}/docs.css": ("docs.css", "text/css; charset=utf-8"),
    f"{PATH}/rapidoc-min.js": ("rapidoc-min.js", "text/javascript; charset=utf-8"),
}


class DocsResource(Resource):
    """Serves the page and its files, read when they are asked for: few people do, and one is large."""

    isLeaf = True

    def render_GET(self, request: LimitedRequest) -> bytes:
        """The file at the request's path."""
        found = _FILES.get(request.path.decode("latin-1"))
        if found is None:
            request.setResponseCode(404)
            body, content_type = b"There is no such path\n", "text/plain; charset=utf-8"
        else:
            name, content_type = found
            body = (resources.files("cubehook.api") / "static" / name).read_bytes()
            request.setHeader(b"Content-Security-Policy", POLICY.encode())
            request.setHeader(b"Cache-Control", b"no-cache")
        request.setHeader(b"Content-Type", content_type.encode())
        request.setHeader(b"Content-Length", b"%d" % len(body))
        return body
