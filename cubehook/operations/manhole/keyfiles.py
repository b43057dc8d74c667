"""Whose keys open the SSH door, and the door's own key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.keys import FingerprintFormats, Key
from twisted.logger import Logger

from cubehook.operations.manhole.passwords import read_guarded
from cubehook.text import printable

_TYPES = ("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")

_log = Logger(namespace="cubehook.operations.manhole")


class HostKeyError(Exception):
    """The host key cannot be read or made; the text says what to do."""


class Authorized(NamedTuple):
    """A key that opens the door, and the name of who has it."""

    key: Key
    name: str


def authorized(path: Path) -> list[Authorized]:
    """
    The keys in the file; UnsafeFileError.

    Each is named by its comment, else by its fingerprint.  A line with options, such as `from=` or
    `command=`, is left out with a warning, as letting its key in without them is not what was meant.
    """
    found = []
    for number, line in enumerate(read_guarded(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not line.startswith(_TYPES):
            _log.warn(
                "Line {number} of {path} is left out: it does not begin with the type of a key, such as "
                "ssh-ed25519; options are not understood here",
                number=number,
                path=str(path),
            )
            continue
        try:
            key = Key.fromString(line.encode(), type="PUBLIC_OPENSSH")
        except Exception as error:  # Whatever the many kinds of broken keys make conch raise.
            _log.warn(
                "Line {number} of {path} is left out: {why}",
                number=number,
                path=str(path),
                why=printable(f"{type(error).__name__}: {error}"),
            )
            continue
        comment = " ".join(line.split()[2:])
        found.append(Authorized(key, printable(comment, 100) or fingerprint(key)))
    return found


def fingerprint(key: Key) -> str:
    """As `ssh` shows it."""
    return f"SHA256:{key.fingerprint(FingerprintFormats.SHA256_BASE64).rstrip('=')}"


def host_key(path: Path) -> Key:
    """The door's own ed25519 key, made now if there is none, of mode 0600.  HostKeyError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise HostKeyError(f"the host key {path} cannot be made ({error.strerror})") from None
    key = Key(Ed25519PrivateKey.generate())
    try:
        with open(descriptor, "wb") as file:
            file.write(key.toString("OPENSSH", comment="cubehook"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise HostKeyError(f"the host key {path} cannot be written ({error.strerror})") from None
    return key


def _read(path: Path) -> Key:
    try:
        mode = path.stat().st_mode & 0o777
        data = path.read_bytes()
    except OSError as error:
        raise HostKeyError(f"the host key {path} cannot be read ({error.strerror})") from None
    if mode & 0o077:
        raise HostKeyError(
            f"the host key {path} can be read or changed by others than its owner (mode {mode:04o}): chmod "
            "600 it, or remove it to have a new one"
        )
    try:
        key: Key | None = Key.fromString(data)
    except Exception:  # Whatever the many kinds of broken keys make conch raise.
        key = None
    if key is None or key.isPublic() or key.type() != "Ed25519":
        raise HostKeyError(f"{path} is not an ed25519 key without a passphrase: remove it to have a new one")
    return key
