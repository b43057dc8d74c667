"""The console without a service: operations that a test makes up, asked over a request in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode

from lxml import html
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET, Request
from twisted.web.test.requesthelper import DummyChannel

from cubehook import config
from cubehook.api.operations import Caller
from cubehook.api.session import COOKIE, csrf_token
from cubehook.console.app import Console
from cubehook.console.desk import Desk
from cubehook.events import Micros

NOW: Micros = 1_732_377_816_200_940
"""2024-11-23 16:03:36.200940 UTC."""

ADMIN = "secret-of-an-administrator"
VIEWER = "secret-of-a-viewer"
NASTY = "<script>alert(1)</script>\"'`\n{{ 7 * 7 }} & \u202e</td>"
"""What nobody may be able to put into a page but as text."""


class MemoryDoors:
    """Sessions of an administrator and a viewer, a token `good`, a link's code `once`."""

    session_seconds = 43_200

    def __init__(self) -> None:
        self.sessions = {ADMIN: Caller("ada"), VIEWER: Caller("vic", "viewer")}
        self.codes = {"once"}
        self.wait = 0
        self.asked: list[tuple[str, str]] = []

    async def sign_in(self, token: str, address: str) -> str | None:
        self.asked.append((token, address))
        return self._open() if token == "good" else None

    async def sign_in_by_link(self, code: str, address: str) -> str | None:
        self.asked.append((code, address))
        if code not in self.codes:
            return None
        self.codes.remove(code)
        return self._open()

    def _open(self) -> str:
        self.sessions["fresh"] = Caller("fresh")
        return "fresh"

    async def session(self, secret: str) -> Caller | None:
        return self.sessions.get(secret)

    async def sign_out(self, secret: str) -> None:
        self.sessions.pop(secret, None)

    def must_wait(self, address: str) -> int:
        return self.wait


class Page:
    """What was answered."""

    def __init__(self, request: Any, body: bytes) -> None:
        self.status: int = request.code
        self.headers: Mapping[str, str] = {
            name.decode().lower(): values[-1].decode()
            for name, values in request.responseHeaders.getAllRawHeaders()
        }
        self.body = body

    @property
    def tree(self) -> html.HtmlElement:
        """The page, parsed."""
        return html.document_fromstring(self.body.decode())

    @property
    def text(self) -> str:
        """What can be read, white space collapsed."""
        return " ".join(self.tree.find("body").text_content().split())

    def find(self, path: str) -> Any:
        """The only element that the XPath finds."""
        (found,) = self.tree.xpath(path)
        return found


class _Request(Request):
    too_large = False
    received_at = NOW
    secure = False
    written = b""
    done: Deferred[None]

    def isSecure(self) -> bool:
        return self.secure

    def write(self, data: bytes) -> None:
        self.startedWriting = 1
        self.written += data

    def finish(self) -> None:
        self.finished = 1
        self.done.callback(None)


class Browser:
    """Asks a console made of `parts` for pages, with the cookie of a session."""

    def __init__(
        self,
        parts: Iterable[object] = (),
        settings: config.Config | None = None,
        problems: Iterable[str] = (),
        session: str | None = ADMIN,
        pages: Sequence[str] = (),
    ) -> None:
        self.doors = MemoryDoors()
        self.session = session
        self.problems = list(problems)
        self.desk = Desk(
            parts, self.doors, lambda: settings or config.Config(), lambda: self.problems, lambda: NOW
        )
        self.resource = Console(self.desk, pages).resource()

    async def get(self, path: str, **headers: str) -> Page:
        """The page at `path`; headers with `_` for `-`."""
        return await self._ask("GET", path, b"", headers)

    async def post(self, path: str, fields: Any = (), csrf: str | None = None, **headers: str) -> Page:
        """Send a form; its `csrf` is the session's unless given."""
        if csrf is None:
            csrf = csrf_token(self.session or "")
        pairs = [*(fields.items() if isinstance(fields, Mapping) else fields), ("csrf", csrf)]
        headers.setdefault("content_type", "application/x-www-form-urlencoded")
        return await self._ask("POST", path, urlencode(pairs).encode(), headers)

    async def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Page:
        request: Any = _Request(DummyChannel(), False)
        request.done = Deferred()
        request.method = method.encode()
        request.uri = path.encode()
        request.path = path.partition("?")[0].encode()
        request.clientproto = b"HTTP/1.1"
        request.prepath, request.postpath = [], list(map(unquote_to_bytes, request.path[1:].split(b"/")))
        request.content = BytesIO(body)
        request.client = IPv4Address("TCP", "192.0.2.7", 4711)
        request.secure = headers.get("secure") == "yes"
        request.requestHeaders.setRawHeaders("host", ["cubehook.example:8080"])
        if self.session is not None:
            name = f"__Host-{COOKIE}" if request.secure else COOKIE
            request.requestHeaders.setRawHeaders("cookie", [f"{name}={self.session}"])
        for name, value in headers.items():
            request.requestHeaders.setRawHeaders(name.replace("_", "-"), [value])
        answer = self.resource.render(request)
        if answer is NOT_DONE_YET:
            await request.done
            if request.etag:
                request.setHeader("ETag", request.etag)
        else:
            request.written += answer
        return Page(request, request.written)
