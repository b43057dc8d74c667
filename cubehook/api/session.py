"""
Who a browser speaks for: its cookie, the token in its forms, and where a sign-in may lead.

The cookie holds a secret of which only a hash is kept.  Forms carry a value made of that secret, which
nobody can tell who does not know it: so a form of another site is not taken.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from http.cookies import CookieError, SimpleCookie
from typing import Protocol
from urllib.parse import urlsplit

from cubehook.api.operations import Caller

COOKIE = "cubehook-session"

_CSRF = b"cubehook: forms of the console"


class Doors(Protocol):
    """
    What the console needs of access: tokens and links become sessions, sessions tell who asks.

    Everything may wait for the store, and raises StoreError if that cannot be read or written.
    """

    session_seconds: int
    """After which a session is over."""

    async def sign_in(self, token: str, address: str) -> str | None:
        """A new session for whoever knows an API token; its secret, None if there is no such token."""

    async def sign_in_by_link(self, code: str, address: str) -> str | None:
        """A new session for whoever has a one-time link's code, which is spent; its secret, or None."""

    async def session(self, secret: str) -> Caller | None:
        """Who has signed in with that session, None if it is over or never was."""

    async def sign_out(self, secret: str) -> None:
        """End a session."""

    def must_wait(self, address: str) -> int:
        """Seconds for which an address may not try again, since it failed too often; 0 if it may."""


def cookie_name(secure: bool) -> str:
    """The cookie's name; over TLS one that browsers take from this very host alone."""
    return f"__Host-{COOKIE}" if secure else COOKIE


def session_secret(header: str | None, secure: bool) -> str | None:
    """The secret in a `Cookie` header."""
    return _cookies(header).get(cookie_name(secure)) or None


def _cookies(header: str | None) -> dict[str, str]:
    """The cookies of a `Cookie` header; none if it cannot be read."""
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header or "").items()}
    except CookieError:
        return {}


def set_cookie(secret: str, secure: bool, *, seconds: int) -> str:
    """The `Set-Cookie` that gives a browser its session, or with 0 `seconds` takes it away."""
    return (
        f"{cookie_name(secure)}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}"
        f"{'; Secure' if secure else ''}"
    )


def csrf_token(secret: str) -> str:
    """What the forms of a session carry."""
    digest = hmac.digest(secret.encode("utf-8", "surrogateescape"), _CSRF, hashlib.sha256)
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def same_token(one: str, other: str) -> bool:
    """Whether two tokens are the same, in a time that tells nothing."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def inner_path(path: str, otherwise: str = "/") -> str:
    """`path` if it is one of ours to go to after a sign-in, else `otherwise`."""
    if (
        not path.startswith("/")
        or path.startswith(("//", "/sign-"))
        or "\\" in path
        or not path.isprintable()
    ):
        return otherwise
    try:
        parts = urlsplit(path)
    except ValueError:
        return otherwise
    return path if not parts.scheme and not parts.netloc else otherwise


def from_elsewhere(fetch_site: str | None, origin: str | None, host: str) -> bool:
    """Whether a browser says that another site makes this request; `host` is the request's own."""
    if fetch_site is not None:
        return fetch_site not in ("same-origin", "none")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:  # brackets that hold no IPv6 address
        return True
