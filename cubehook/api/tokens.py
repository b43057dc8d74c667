"""Tokens for the API: `/tokens`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from cubehook.api.errors import ConflictError, NotFoundError
from cubehook.api.operations import Caller, Nothing, operation
from cubehook.api.views import IdGiven, Limit, Time, shown_time
from cubehook.config_rules import rule
from cubehook.events import Micros, iso
from cubehook.ids import Ids, id_text, parse_id
from cubehook.store.access import (
    TOKEN,
    Access,
    LastAdminError,
    NameTakenError,
    Role,
    Token,
    new_secret,
)
from cubehook.text import printable

_NAME = 100


def token_name(text: str) -> str:
    """`text` if it can be a token's name; ValueError if not."""
    if not 1 <= len(text) <= _NAME or text != text.strip() or printable(text) != text:
        raise ValueError
    return text


TokenName = Annotated[
    str, rule(f"1 to {_NAME} characters without control characters or spaces at the ends", token_name)
]


class TokensQuery(msgspec.Struct, frozen=True):
    """`limit` tokens at most, after those that gave `cursor` as their `next`."""

    limit: Limit = 50
    cursor: IdGiven | None = None


class TokenShown(msgspec.Struct, frozen=True, kw_only=True):
    """A token, without its secret.  An `admin` may change things, a `viewer` only look."""

    id: str
    name: str
    role: Role
    created_by: str
    created_at: Time
    last_used_at: Time | None


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, newest first."""

    items: list[TokenShown]
    next: str | None


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is called, and what its holder may do."""

    name: TokenName
    role: Role = "viewer"


class TokenMade(TokenShown, frozen=True, kw_only=True):
    """A new token; `token` is the secret, which is shown this once."""

    token: str


class TokensPart:
    """The operations on tokens, which are for administrators."""

    def __init__(
        self,
        access: Access,
        ids: Ids,
        now: Callable[[], Micros],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._access = access
        self._ids = ids
        self._now = now
        self._random_bytes = random_bytes

    @operation("GET", "/tokens", query=TokensQuery, result=Tokens, access="admin")
    async def list_tokens(self, caller: Caller, query: TokensQuery) -> Tokens:
        """Tokens, newest first, without their secrets."""
        found = [
            token for token in await self._access.tokens() if query.cursor is None or token.id < query.cursor
        ]
        part = found[: query.limit]
        return Tokens(
            items=[TokenShown(**_fields(token)) for token in part],
            next=id_text(part[-1].id) if len(found) > len(part) else None,
        )

    @operation("POST", "/tokens", body=NewToken, result=TokenMade, errors=(ConflictError,), status=201)
    async def create_token(self, caller: Caller, body: NewToken) -> TokenMade:
        """
        Make a token.

        Its secret is in the answer, and is never shown again.
        """
        token = Token(id=self._ids.next(self._now()), name=body.name, role=body.role, created_by=caller.name)
        secret = new_secret(TOKEN, self._random_bytes)
        try:
            await self._access.add_token(token, secret)
        except NameTakenError as error:
            raise ConflictError(str(error)) from None
        return TokenMade(**_fields(token), token=secret)

    @operation("DELETE", "/tokens/{token}", result=Nothing, errors=(ConflictError,), status=204)
    async def delete_token(self, caller: Caller, token: str) -> Nothing:
        """
        Remove a token.

        From then on it counts no more, and neither do browser sessions that began with it.  The only one of
        an administrator stays: make another first.
        """
        try:
            number = parse_id(token)
        except ValueError as error:
            raise NotFoundError(f"There is no token of that id: {error}") from None
        try:
            removed = await self._access.remove_token(number)
        except LastAdminError as error:
            raise ConflictError(
                f"{printable(str(error))} is the only token of an administrator: make another first, here or "
                "by `cubehook token add NAME --role admin` on the service's machine, then remove this one"
            ) from None
        if removed is None:
            raise NotFoundError(f"There is no token {printable(token)}")
        return Nothing()


def _fields(token: Token) -> dict[str, Any]:
    return {
        "id": id_text(token.id),
        "name": token.name,
        "role": token.role,
        "created_by": token.created_by,
        "created_at": iso(token.created_at),
        "last_used_at": shown_time(token.last_used_at),
    }
