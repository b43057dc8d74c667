"""
Who may use the API and the console: tokens, sessions, links that begin one; and the record of changes.

Secrets are 256 random bits.  Only their SHA-256 is kept, which is enough for what nobody can guess; to look
one up is to look up its hash.  A session lasts for a fixed time, so that no request has to write.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from sqlalchemy import Connection, delete, exists, insert, or_, select, update
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook.events import Micros
from cubehook.ids import id_time
from cubehook.store.errors import StoreError
from cubehook.store.jobs import Do, Read
from cubehook.store.private_file import write_private
from cubehook.store.schema import audit, sessions, tokens

Role: TypeAlias = Literal["admin", "viewer"]
"""An `admin` may change things, a `viewer` only look."""

TOKEN, SESSION, LINK = "chk_", "chs_", "chl_"
"""What the secrets of each kind begin with, so that people and scanners know one when they see it."""

SESSION_TIME: Micros = 12 * 3600 * 1_000_000
FIRST_LINK_TIME: Micros = 24 * 3600 * 1_000_000
"""That of a link: whoever installs the service may come back to it the next day."""

ADMIN_FILE = "admin-token"
"""The file in the state folder with the first administrator's token."""

USED_EVERY: Micros = 60 * 1_000_000
"""That a token is used is written down no more often than this."""

BEGIN_SECONDS = 2.0
"""How long beginning a session waits for its commit."""

_BYTES = 32

_log = Logger()

_encode = msgspec.json.Encoder().encode


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token for the API, without its secret; `last_used_at` may be a minute old."""

    id: int
    name: str
    role: Role
    created_by: str
    last_used_at: Micros | None = None

    @property
    def created_at(self) -> Micros:
        """When it was made."""
        return id_time(self.id)


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a browser speaks for; or, of a link, whom it will speak for."""

    name: str
    role: Role
    created_at: Micros
    expires_at: Micros


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A change that someone made: `who` did `action` to `subject`; `detail` tells more, and no secret."""

    id: int
    who: str
    action: str
    subject: str
    detail: dict[str, Any] = {}


class NameTakenError(Exception):
    """There is a token of that name already."""


class LastAdminError(Exception):
    """It is the only token of an administrator; its text is the token's name."""


def new_secret(kind: str, random_bytes: Callable[[int], bytes]) -> str:
    """A new secret of `kind`: `TOKEN`, `SESSION` or `LINK`."""
    return kind + urlsafe_b64encode(random_bytes(_BYTES)).rstrip(b"=").decode("ascii")


def hash_of(secret: str) -> bytes:
    """What is kept of a secret; whatever text was given as one has some hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class Access:
    """
    Tokens, sessions and links in the database that `read` reads and `do` writes.

    Where an `Entry` is given, it is kept together with the change that it tells of, or neither is.
    Everything raises StoreError if the database cannot be read or written.
    """

    def __init__(self, read: Read, do: Do, reactor: IReactorTime) -> None:
        self._read = read
        self._do = do
        self._reactor = reactor
        self._begun: dict[bytes, Session] = {}
        """Sessions that hold already and are not committed yet, by hash."""
        self._noted: dict[int, Micros] = {}
        self._known: dict[bytes, Token] = {}
        """By hash: every request has one, and nobody but this object takes any away."""
        self._removals = 0

    # Tokens.

    async def add_token(self, token: Token, secret: str, entry: Entry | None = None) -> None:
        """Let `secret` be a token's; NameTakenError if another has its name."""
        await self._do(told(partial(add_token, token=token, secret=secret), entry))

    async def token(self, secret: str, now: Micros) -> Token | None:
        """The token whose secret this is, None if it is none; that it is used is written down."""
        if not secret.startswith(TOKEN):
            return None
        hash, removals = hash_of(secret), self._removals
        found = self._known.get(hash) or await self._read(partial(token_of, secret=secret))
        if found is None:
            return None
        noted = self._is_to_be_noted(found, now)
        # One that is removed meanwhile may have been read before that.
        if removals == self._removals:
            last = now if noted else found.last_used_at
            self._known[hash] = msgspec.structs.replace(found, last_used_at=last)
        if noted:
            self._noted[found.id] = now
            # Nobody waits for this: a request is answered also while the database cannot be written.
            _ = Deferred.fromCoroutine(self._note(found.id, now))
        return found

    def _is_to_be_noted(self, token: Token, now: Micros) -> bool:
        noted = max(self._noted.get(token.id, 0), token.last_used_at or 0)
        return abs(now - noted) >= USED_EVERY

    async def _note(self, token: int, now: Micros) -> None:
        try:
            await self._do(partial(note_use, token=token, at=now))
        except Exception:
            _log.failure("That a token was used could not be written down")

    async def tokens(self) -> list[Token]:
        """Every token, newest first; there are few."""
        return await self._read(all_tokens)

    async def remove_token(self, id: int, entry: Entry | None = None) -> Token | None:
        """
        Let a token be none any more, and end the sessions of its name; None if there is none such.

        LastAdminError, and nothing is done, if nobody could change anything any more after that.
        """
        try:
            return await self._do(partial(remove_token, id=id, entry=entry))
        finally:
            self._removals += 1
            self._known.clear()
            self._begun.clear()
            self._noted.pop(id, None)

    async def make_first_admin(self, folder: Path, token: Token, secret: str) -> Path | None:
        """
        Make `token` and write `secret` to a file in `folder`, unless there is an administrator's token.

        The file, which only its owner may read; None if nothing was done.  Raises StoreError also if
        it cannot be written.
        """
        path = folder / ADMIN_FILE
        made = await self._do(partial(make_first_admin, path=path, token=token, secret=secret))
        return path if made else None

    # Sessions, and links that begin one.

    async def begin_session(self, secret: str, session: Session, entry: Entry | None = None) -> None:
        """
        Let whoever has `secret` speak for `session`.

        While the database cannot be written it holds from memory: those who come to mend that must get in.
        """
        hash = hash_of(secret)
        self._begun[hash] = session
        waiting: Deferred[Any] = Deferred()

        def over(result: object) -> None:
            self._begun.pop(hash, None)
            if not waiting.called:
                waiting.callback(result)
            elif isinstance(result, Failure):
                _log.failure("A session could not be written down, and is over", result)

        async def keep() -> None:
            await self._do(told(partial(keep_session, kind=SESSION, secret=secret, session=session), entry))

        _ = Deferred.fromCoroutine(keep()).addBoth(over)
        timer = self._reactor.callLater(BEGIN_SECONDS, _call, waiting)
        try:
            await waiting
        finally:
            if timer.active():
                timer.cancel()

    async def session(self, secret: str, now: Micros) -> Session | None:
        """The session whose secret this is; None if there is none or it is over at `now`."""
        if not secret.startswith(SESSION):
            return None
        begun = self._begun.get(hash_of(secret))
        if begun is not None:
            return begun if now < begun.expires_at else None
        return await self._read(partial(session_of, secret=secret, now=now))

    async def end_session(self, secret: str, entry: Entry | None = None) -> None:
        """Let nobody speak by `secret` any more."""
        self._begun.pop(hash_of(secret), None)
        await self._do(told(partial(take, kind=SESSION, secret=secret), entry))

    async def add_link(self, secret: str, session: Session, entry: Entry | None = None) -> None:
        """Let whoever has `secret` begin one session for `session`, until that link's time is over."""
        await self._do(told(partial(keep_session, kind=LINK, secret=secret, session=session), entry))

    async def take_link(
        self, link: str, secret: str, now: Micros, entry: Entry | None = None
    ) -> Session | None:
        """
        Begin the session that `link` is for, and let that be spent; None if it is none, or too old at `now`.

        The session's secret is `secret`.
        """
        if not link.startswith(LINK):
            return None
        return await self._do(partial(take_link, link=link, secret=secret, now=now, entry=entry))

    # The record of changes.

    async def keep(self, entry: Entry) -> None:
        """Keep what someone did on the record."""
        await self._do(partial(keep_entry, entry=entry))


def _call(waiting: Deferred[Any]) -> None:
    waiting.callback(None)


def told(work: Callable[[Connection], Any], entry: Entry | None) -> Callable[[Connection], Any]:
    """`work`, which `entry` tells of: both are kept, or neither."""
    if entry is None:
        return work

    def done(connection: Connection) -> Any:
        result = work(connection)
        keep_entry(connection, entry)
        return result

    return done


def keep_entry(connection: Connection, entry: Entry) -> None:
    """Put `entry` on the record."""
    connection.execute(
        insert(audit).values(
            id=entry.id,
            who=entry.who,
            action=entry.action,
            subject=entry.subject,
            detail=_encode(entry.detail).decode(),
        )
    )


def add_token(connection: Connection, token: Token, secret: str) -> None:
    """See `Access.add_token`."""
    if connection.scalar(select(exists().where(tokens.c.name == token.name))):
        raise NameTakenError(f"there is a token named {token.name!r} already")
    connection.execute(
        insert(tokens).values(**msgspec.structs.asdict(token), hash=hash_of(secret)),
    )


def token_of(connection: Connection, secret: str) -> Token | None:
    """See `Access.token`."""
    row = connection.execute(select(*_TOKEN).where(tokens.c.hash == hash_of(secret))).one_or_none()
    return None if row is None else Token(**row._mapping)


def all_tokens(connection: Connection) -> list[Token]:
    """See `Access.tokens`."""
    rows = connection.execute(select(*_TOKEN).order_by(tokens.c.id.desc()))
    return [Token(**row) for row in rows.mappings()]


_TOKEN: Sequence[Any] = [column for column in tokens.c if column is not tokens.c.hash]


def note_use(connection: Connection, token: int, at: Micros) -> None:
    """Write down that a token was used."""
    older = or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at < at)
    connection.execute(update(tokens).where(tokens.c.id == token, older).values(last_used_at=at))


def remove_token(connection: Connection, id: int, entry: Entry | None) -> Token | None:
    """See `Access.remove_token`."""
    row = connection.execute(delete(tokens).where(tokens.c.id == id).returning(*_TOKEN)).one_or_none()
    if row is None:
        return None
    if row.role == "admin" and not _has_admin(connection):
        # It is put back with the transaction that this ends.
        raise LastAdminError(row.name)
    connection.execute(delete(sessions).where(sessions.c.name == row.name))
    if entry is not None:
        keep_entry(connection, entry)
    return Token(**row._mapping)


def _has_admin(connection: Connection) -> bool:
    return bool(connection.scalar(select(exists().where(tokens.c.role == "admin"))))


def make_first_admin(connection: Connection, path: Path, token: Token, secret: str) -> bool:
    """See `Access.make_first_admin`; whether it was made."""
    if _has_admin(connection):
        return False
    # The file first: a token that is kept and that nobody has would stand in the way of another.
    try:
        write_private(path, secret + "\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
    add_token(connection, token, secret)
    return True


def keep_session(connection: Connection, kind: str, secret: str, session: Session) -> None:
    """Keep a session or a link."""
    connection.execute(
        insert(sessions).values(hash=hash_of(secret), kind=kind, **msgspec.structs.asdict(session))
    )


def session_of(connection: Connection, secret: str, now: Micros) -> Session | None:
    """See `Access.session`."""
    row = connection.execute(
        select(*_SESSION).where(
            sessions.c.hash == hash_of(secret), sessions.c.kind == SESSION, sessions.c.expires_at > now
        )
    ).one_or_none()
    return None if row is None else Session(**row._mapping)


_SESSION: Sequence[Any] = (
    sessions.c.name,
    sessions.c.role,
    sessions.c.created_at,
    sessions.c.expires_at,
)


def take(connection: Connection, kind: str, secret: str) -> Session | None:
    """Take away a session or a link; what it was."""
    row = connection.execute(
        delete(sessions)
        .where(sessions.c.hash == hash_of(secret), sessions.c.kind == kind)
        .returning(*_SESSION)
    ).one_or_none()
    return None if row is None else Session(**row._mapping)


def take_link(
    connection: Connection, link: str, secret: str, now: Micros, entry: Entry | None
) -> Session | None:
    """See `Access.take_link`."""
    found = take(connection, LINK, link)
    if found is None or found.expires_at <= now:
        return None
    session = Session(name=found.name, role=found.role, created_at=now, expires_at=now + SESSION_TIME)
    keep_session(connection, SESSION, secret, session)
    if entry is not None:
        keep_entry(connection, entry)
    return session
