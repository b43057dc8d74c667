"""
The file with the keys that seal what webhooks keep secret: Fernet keys, one a line, the newest first.

Only its owner may read it.  Lines that are empty or begin with `#` say nothing.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from twisted.logger import Logger

from cubehook.store.errors import StoreError
from cubehook.store.private_file import write_private

NAME = "secret.key"
"""Its name, in the state folder."""

KEY_BYTES = 32

_OTHERS = 0o077

_log = Logger()


class KeyFileError(Exception):
    """There is no key, or what there is cannot be one; the text says so and shows none of it."""


def keys(path: Path, *, may_make: bool) -> list[str]:
    """
    The keys in the file at `path`, which is made with a new one if it is missing and `may_make`.

    A file that other users could read is made this user's own, loudly.  Raises KeyFileError, and StoreError
    where the system refuses.
    """
    try:
        text = _read(path)
    except FileNotFoundError:
        if not may_make:
            raise KeyFileError(f"{path} is missing, and settings of webhooks were sealed with it") from None
        text = _make(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be used: {error.strerror}; it must be this user's own") from error
    return parsed(text, path)


def parsed(text: str, path: Path) -> list[str]:
    """The keys in `text`, which is that of the file at `path`; KeyFileError if they are no keys."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            if not _is_key(line):
                raise KeyFileError(
                    f"{path}, line {number}: expected a key, which is {KEY_BYTES} bytes in URL-safe base64"
                )
            found.append(line)
    if not found:
        raise KeyFileError(f"{path} holds no key")
    return found


def _is_key(line: str) -> bool:
    try:
        return len(base64.b64decode(line, b"-_", validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    with open(descriptor, encoding="ascii", errors="replace") as file:
        mode = os.fstat(descriptor).st_mode
        if mode & _OTHERS:
            os.fchmod(descriptor, 0o600)
            _log.warn(
                "{path} could be read by other users (its mode was {mode:03o}) and is 0600 now. If somebody "
                "did, put a new key before the one in it, and change the secrets of your webhooks",
                path=str(path),
                mode=mode & 0o777,
            )
        return file.read()


def _make(path: Path) -> str:
    """Write a new key; after a power failure the whole file is there, or nothing of it."""
    text = base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode("ascii") + "\n"
    try:
        write_private(path, text)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
    _log.info(
        "Made {path}, which protects the webhooks' secrets in the database: back it up, apart from that",
        path=str(path),
    )
    return text
