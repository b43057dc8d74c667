"""
What a webhook keeps secret, encrypted in the database with a key that lies beside it.

A database, its copies and its dumps then tell nothing of header values, tokens in URLs, passwords
among options and signing secrets; whoever has the key file too can read them.  Of several keys the
first seals, all unseal, and at a start what an older one sealed is sealed anew.
`docs/decisions/0005-secrets-at-rest.md` tells why.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Connection, Engine, select, update
from twisted.logger import Logger

from cubehook.rotation import SigningSecrets
from cubehook.store import keyfile, sqlite
from cubehook.store.errors import StoreError
from cubehook.store.schema import webhooks

_PREFIX = "fernet:"

_log = Logger()


class UnsealError(ValueError):
    """A text was not sealed with any of the keys, or was changed since."""


class Sealer:
    """Seals texts with the first of `keys` (at least one), and unseals what any of them sealed."""

    def __init__(self, keys: Sequence[str]) -> None:
        made = [Fernet(key) for key in keys]
        self._newest = made[0]
        self._any = MultiFernet(made)

    def seal(self, text: str) -> str:
        """`text`, to be kept; differs each time."""
        return _PREFIX + self._newest.encrypt(text.encode()).decode("ascii")

    def unseal(self, sealed: str) -> str:
        """What `seal` was given; UnsealError, which repeats none of it, if that cannot be told."""
        return self._unsealed_by(self._any, sealed)

    def is_newest(self, sealed: str) -> bool:
        """Whether `sealed` is what the first key made."""
        try:
            self._unsealed_by(self._newest, sealed)
        except UnsealError:
            return False
        return True

    def _unsealed_by(self, fernet: Fernet | MultiFernet, sealed: str) -> str:
        if not is_sealed(sealed):
            raise UnsealError("it is not sealed")
        try:
            return fernet.decrypt(sealed[len(_PREFIX) :]).decode()
        except InvalidToken:
            raise UnsealError("it was sealed with another key, or changed since") from None


def is_sealed(text: str) -> bool:
    """Whether `text` looks like what `Sealer.seal` makes; no settings nor signing secret do."""
    return text.startswith(_PREFIX)


def unlock(engine: Engine, database: Path) -> Sealer:
    """
    The sealer of what `database` keeps, after which all of that is sealed, with the newest key.

    Makes the key file if nothing is sealed yet.  What an older cubehook wrote in plain text is sealed, and
    the whole file rewritten once, so that none of it stays in unused places.  Raises StoreError, for
    an operator, if the key file cannot be used or is not that of this database.
    """
    path = database.with_name(keyfile.NAME)
    with engine.begin() as connection:
        query = select(webhooks.c.id, webhooks.c.settings, webhooks.c.secret).order_by(webhooks.c.id)
        rows = connection.execute(query).all()
        kept = [text for row in rows for text in (row.settings, row.secret)]
        try:
            sealer = Sealer(keyfile.keys(path, may_make=not any(map(is_sealed, kept))))
        except keyfile.KeyFileError as error:
            raise StoreError(f"{error}. {_remedy(path, database)}") from None
        closed = [row.id for row in rows if not _opens(sealer, row.settings, row.secret)]
        if closed:
            raise StoreError(
                f"{path} is not the key that the webhooks {', '.join(closed)} were sealed with. "
                + _remedy(path, database)
            )
        plain = [text for text in kept if not is_sealed(text)]
        old = [text for text in kept if is_sealed(text) and not sealer.is_newest(text)]
        if plain or old:
            for row in rows:
                _seal_row(connection, sealer, row.id, row.settings, row.secret)
        if plain:
            sqlite.mark_soiled(connection)
    if old:
        _log.info(
            "What {path} protects is sealed with its newest key now: the lines after the first can go",
            path=str(path),
        )
    _clean(engine, database)
    return sealer


def _opens(sealer: Sealer, *texts: str) -> bool:
    try:
        for text in texts:
            if is_sealed(text):
                sealer.unseal(text)
    except UnsealError:
        return False
    return True


def _seal_row(connection: Connection, sealer: Sealer, id: str, settings: str, secret: str) -> None:
    if is_sealed(settings):
        settings = sealer.unseal(settings)
    # Schema 0001 kept the one secret as it is written.
    secret = sealer.unseal(secret) if is_sealed(secret) else _as_kept_now(secret)
    row = {"settings": sealer.seal(settings), "secret": sealer.seal(secret)}
    connection.execute(update(webhooks).where(webhooks.c.id == id).values(row))


def _as_kept_now(secret: str) -> str:
    return msgspec.json.encode(SigningSecrets(current=secret)).decode()


def _clean(engine: Engine, database: Path) -> None:
    """Rewrite the database if plain text may be left in it; if that fails, say so and go on."""
    if sqlite.is_clean(engine):
        return
    _log.info(
        "Rewriting {database}, once, so that no secret stays in it in plain text; a large one takes a while",
        database=str(database),
    )
    try:
        sqlite.clean(engine)
    except Exception as error:
        _log.error(
            "{database} could not be rewritten, and secrets that an older cubehook kept in plain text may be "
            "left in unused parts of it: {reason}. That is tried again at the next start",
            database=str(database),
            reason=sqlite.reason(error),
        )


def _remedy(path: Path, database: Path) -> str:
    command = f"sqlite3 {database} 'DELETE FROM webhooks'"  # noqa: S608 - for a person to type
    return (
        f"Restore {path.name} from the backup. If it is lost, delete the webhooks ({command}) and start "
        "again: those of the configuration file come back, a secret that the file does not give is made "
        "anew, and calls, events and deliveries stay"
    )
