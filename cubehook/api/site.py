"""What the console's listener serves, and the headers that every answer of it has."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource

from cubehook.net.site import LimitedRequest

_HEADERS = (
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"same-origin"),
    (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)


class ConsoleSite(Resource):
    """
    Gives each request to the resource of the longest prefix that its path has, else to `otherwise`.

    A prefix is whole segments of a path; the resources see the whole path.  What they say in their headers
    goes before what is said here.
    """

    isLeaf = True

    def __init__(self, prefixes: dict[str, Resource], otherwise: Resource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        longest_first = sorted(prefixes.items(), key=lambda item: -len(item[0]))
        self._prefixes = [(prefix.encode("ascii"), resource) for prefix, resource in longest_first]
        self._otherwise = otherwise

    def render(self, request: LimitedRequest) -> Any:
        """Answer `request`."""
        for name, value in _HEADERS:
            request.responseHeaders.setRawHeaders(name, [value])
        return self._of(request.path).render(request)

    def _of(self, path: bytes) -> Resource:
        for prefix, resource in self._prefixes:
            if path == prefix or path.startswith(prefix + b"/"):
                return resource
        return self._otherwise
