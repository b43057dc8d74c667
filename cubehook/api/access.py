"""
Who makes a request of the console's listener: by a token, or by the session of a browser.

A browser sends its session's cookie along with whatever any site makes it ask for, so that a change
needs also a header that only our own pages can give.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cubehook.api.errors import ForbiddenError, TooManyRequestsError, UnauthorizedError
from cubehook.api.operations import Caller
from cubehook.api.session import csrf_token, from_elsewhere, same_token, session_secret
from cubehook.api.throttle import Throttle
from cubehook.events import Micros
from cubehook.ids import Ids
from cubehook.net.site import LimitedRequest
from cubehook.store.access import (
    FIRST_LINK_TIME,
    LINK,
    SESSION,
    SESSION_TIME,
    TOKEN,
    Access,
    Entry,
    Session,
    Token,
    hash_of,
    new_secret,
)

CSRF_HEADER = "X-CSRF-Token"
"""Carries what the forms of a session carry, in requests for changes that a page's script makes."""

FIRST_NAME = "first administrator"

_KNOWN = 1000
_LOOKING = (b"GET", b"HEAD")
_CHALLENGE = 'Bearer realm="cubehook"'


class Gate:
    """
    Lets in whoever has a token or a session, and counts by address who has a wrong one.

    An address that failed too often is refused without a look at what else it tries.  Only a token or a
    session that was right before still counts, so that nobody can lock out others who come from the same
    address, as they do behind a proxy.  What is wrong is never told, nor whether anything is right in part.
    """

    session_seconds = SESSION_TIME // 1_000_000
    """How long a session lasts."""

    def __init__(
        self,
        access: Access,
        ids: Ids,
        now: Callable[[], Micros],
        seconds: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._access = access
        self._ids = ids
        self._now = now
        self._seconds = seconds
        self._random_bytes = random_bytes
        self._throttle = Throttle()
        self._known: OrderedDict[bytes, None] = OrderedDict()

    async def who(self, request: LimitedRequest) -> Caller:
        """Who makes the request; ApiError if that is nobody who may ask, StoreError."""
        address = address_of(request)
        scheme, _, token = (request.getHeader("authorization") or "").strip().partition(" ")
        if scheme:
            if scheme.lower() != "bearer" or not token.strip():
                raise UnauthorizedError(
                    "The Authorization header must be `Bearer TOKEN`",
                    headers={"WWW-Authenticate": _CHALLENGE},
                )
            return await self._by_token(token.strip(), address)
        secure = bool(request.isSecure())
        secret = session_secret(request.getHeader("cookie"), secure)
        if secret is None:
            raise UnauthorizedError(
                "Say who asks, by `Authorization: Bearer TOKEN`", headers={"WWW-Authenticate": _CHALLENGE}
            )
        caller = await self._by_session(secret, address)
        if request.method not in _LOOKING:
            _check_own_page(request, secret)
        return caller

    async def _by_token(self, token: str, address: str) -> Caller:
        hash = self._look_at(token, address)
        found = await self._access.token(token, self._now())
        if found is None:
            self._refuse(hash, address)
        self._remember(hash)
        return Caller(found.name, found.role)

    async def _by_session(self, secret: str, address: str) -> Caller:
        hash = self._look_at(secret, address)
        found = await self._access.session(secret, self._now())
        if found is None:
            self._refuse(hash, address)
        self._remember(hash)
        return Caller(found.name, found.role)

    def _look_at(self, secret: str, address: str) -> bytes:
        """The hash of what is given; TooManyRequestsError if the address gave too much that was wrong."""
        hash = hash_of(secret)
        wait = self.must_wait(address)
        if wait and hash not in self._known:
            raise TooManyRequestsError(
                f"Too many requests from {address} came with a token that is none: wait {wait} s",
                headers={"Retry-After": str(wait)},
            )
        return hash

    def _refuse(self, hash: bytes, address: str) -> NoReturn:
        # What was right before is over by now: that is no guess.
        if hash in self._known:
            del self._known[hash]
        else:
            self._throttle.failed(address, self._seconds())
        raise UnauthorizedError(
            "This token or session is none that counts",
            headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
        )

    def _remember(self, hash: bytes) -> None:
        self._known[hash] = None
        self._known.move_to_end(hash)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    # What the console needs: see `cubehook.api.session.Doors`

    def must_wait(self, address: str) -> int:
        """Seconds for which an address may not try again, since it failed too often; 0 if it may."""
        return self._throttle.wait(address, self._seconds())

    async def sign_in(self, token: str, address: str) -> str | None:
        """A new session for whoever knows an API token; its secret, None if there is no such token."""
        if self.must_wait(address):
            return None
        now = self._now()
        found = await self._access.token(token, now)
        if found is None:
            self._throttle.failed(address, self._seconds())
            return None
        secret = new_secret(SESSION, self._random_bytes)
        session = Session(name=found.name, role=found.role, created_at=now, expires_at=now + SESSION_TIME)
        await self._access.begin_session(secret, session, self._entry(found.name, "sign_in", address))
        if await self._access.token(token, now) is None:
            # It was removed after it was looked up, and with it all sessions that there were then.
            await self.sign_out(secret)
            return None
        return secret

    async def sign_in_by_link(self, code: str, address: str) -> str | None:
        """A new session for whoever has a one-time link's code, which is spent; its secret, or None."""
        if self.must_wait(address):
            return None
        secret = new_secret(SESSION, self._random_bytes)
        entry = self._entry("one-time link", "sign_in", address)
        if await self._access.take_link(code, secret, self._now(), entry) is None:
            self._throttle.failed(address, self._seconds())
            return None
        return secret

    async def session(self, secret: str) -> Caller | None:
        """Who has signed in with that session, None if it is over or never was."""
        found = await self._access.session(secret, self._now())
        return None if found is None else Caller(found.name, found.role)

    async def sign_out(self, secret: str) -> None:
        """End a session."""
        found = await self._access.session(secret, self._now())
        if found is not None:
            await self._access.end_session(secret, self._entry(found.name, "sign_out", found.name))

    def _entry(self, who: str, action: str, subject: str) -> Entry:
        return Entry(id=self._ids.next(self._now()), who=who, action=action, subject=subject)

    async def first_start(self, folder: Path) -> tuple[Path, str] | None:
        """
        Make the first administrator's token, if there is none of any administrator.

        The file in `folder` that holds it, and the code of a link that signs a browser in once.
        """
        now = self._now()
        token = Token(id=self._ids.next(now), name=FIRST_NAME, role="admin", created_by="cubehook")
        path = await self._access.make_first_admin(folder, token, new_secret(TOKEN, self._random_bytes))
        if path is None:
            return None
        code = new_secret(LINK, self._random_bytes)
        session = Session(name=FIRST_NAME, role="admin", created_at=now, expires_at=now + FIRST_LINK_TIME)
        await self._access.add_link(code, session)
        return path, code


def address_of(request: LimitedRequest) -> str:
    """The address at the other end of the connection; empty for a socket that has none."""
    return str(getattr(request.getClientAddress(), "host", ""))


def _check_own_page(request: LimitedRequest, secret: str) -> None:
    host = request.getHeader("host") or ""
    if from_elsewhere(request.getHeader("sec-fetch-site"), request.getHeader("origin"), host):
        raise ForbiddenError("Another site asks for this in your name")
    if not same_token(request.getHeader(CSRF_HEADER) or "", csrf_token(secret)):
        raise ForbiddenError(f"A change by a browser's session needs the header {CSRF_HEADER}")
