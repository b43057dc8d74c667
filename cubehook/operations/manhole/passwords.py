"""Passwords for telnet: `USER:HASH` lines, hashed with scrypt; pure but for `read_users`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import stat
from collections.abc import Mapping
from pathlib import Path

_COST, _BLOCK, _PARALLEL = 1 << 15, 8, 1
_MEMORY = 1 << 26
_LENGTH = 32

USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")

_HASH = re.compile(r"scrypt\$(\d{1,2})\$([A-Za-z0-9+/=]{8,88})\$([A-Za-z0-9+/=]{24,88})", re.ASCII)
_GREATEST_COST = 17
"""As a power of two: more would take a second and a hundred megabytes."""


class UnsafeFileError(Exception):
    """A file that decides who comes in cannot be read, or others can change it; the text says what to do."""


def hash_password(password: str, salt: bytes) -> str:
    """What a line of the file holds of `password`; `salt` are 16 random bytes."""
    digest = _digest(password, salt, _COST)
    return f"scrypt${_COST.bit_length() - 1}${_text(salt)}${_text(digest)}"


def matches(password: str, hashed: str) -> bool:
    """Whether `hashed` was made of `password`; False also if it is no hash of ours.  Takes about 0.1 s."""
    found = _HASH.fullmatch(hashed)
    if found is None or not 10 <= int(found[1]) <= _GREATEST_COST:
        return False
    try:
        salt, digest = base64.b64decode(found[2]), base64.b64decode(found[3])
    except ValueError:
        return False
    return hmac.compare_digest(_digest(password, salt, 1 << int(found[1])), digest)


def nobody() -> str:
    """A hash that no password matches, which takes as long to find out as with any other."""
    return f"scrypt${_COST.bit_length() - 1}${_text(bytes(16))}${_text(bytes(_LENGTH))}"


def read_users(path: Path) -> Mapping[str, str]:
    """The hashes by user; empty lines, and those that begin with `#`, are left out.  UnsafeFileError."""
    users = {}
    for line in read_guarded(path).splitlines():
        user, colon, hashed = line.strip().partition(":")
        if colon and not user.startswith("#"):
            users[user.strip()] = hashed.strip()
    return users


def read_guarded(path: Path) -> str:
    """The text of a file that only its owner may change; UnsafeFileError."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(1 << 20)
    except OSError as error:
        raise UnsafeFileError(f"{path} cannot be read ({error.strerror})") from None
    if mode & 0o022:
        raise UnsafeFileError(
            f"{path} can be changed by others than its owner (mode {mode:04o}), so nobody is let in by it: "
            "chmod go-w it"
        )
    return text


def _digest(password: str, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogateescape"),
        salt=salt,
        n=cost,
        r=_BLOCK,
        p=_PARALLEL,
        maxmem=_MEMORY * 4,
        dklen=_LENGTH,
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
