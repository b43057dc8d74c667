"""What this machine's kernel tells of ports, addresses and locks: who holds one, and whether one is ours."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_LISTENING = "0A"
"""Of the column `st` in /proc/net/tcp."""


class Holder(msgspec.Struct, frozen=True):
    """A process that listens; `pid` is None where the system does not tell this user who it is."""

    pid: int | None
    name: str | None = None

    def __str__(self) -> str:
        if self.pid is None:
            return "a program of another user"
        return f"{self.name or 'a program'} (process {self.pid})"


def holders(port: int, address: str = "") -> list[Holder]:
    """
    Who listens on TCP `port` of this machine's `address` (any if empty); empty if nobody, or not on Linux.

    A process that listens for all addresses holds each of them.
    """
    inodes = {
        inode
        for name in ("tcp", "tcp6")
        for inode, bound in _listening(_PROC / "net" / name, port)
        if not address or bound.is_unspecified or str(bound) == str(_plain(address))
    }
    if not inodes:
        return []
    found = [Holder(pid, _name(pid)) for pid in _processes(inodes)]
    return found or [Holder(None)]


def _listening(table: Path, port: int) -> Iterator[tuple[str, IPv4Address | IPv6Address]]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        columns = line.split()
        with suppress(ValueError, IndexError):
            text, _, number = columns[1].partition(":")
            if columns[3] == _LISTENING and int(number, 16) == port:
                yield columns[9], _kernel_address(text)


def _kernel_address(text: str) -> IPv4Address | IPv6Address:
    """An address as /proc/net writes it: words of four bytes, each in the machine's own order."""
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    found = ip_address(raw)
    return getattr(found, "ipv4_mapped", None) or found


def _plain(address: str) -> IPv4Address | IPv6Address | str:
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return getattr(found, "ipv4_mapped", None) or found


def _processes(inodes: set[str]) -> list[int]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = []
    for folder in _PROC.glob("[0-9]*"):
        try:
            descriptors = list((folder / "fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            with suppress(OSError):
                if os.readlink(descriptor) in wanted:
                    found.append(int(folder.name))
                    break
    return sorted(found)


def _name(pid: int) -> str | None:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip() or None
    except OSError:
        return None


def is_here(address: str) -> bool:
    """Whether `address` is one of this machine's."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if found.is_unspecified:
        return False
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            # Nothing is sent, and no port that anybody would want is held.
            trial.bind((address, 0))
    except OSError:
        return False
    return True


def cannot_bind(address: str, port: int) -> OSError | None:
    """Why this user could not listen there now, None if it could."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind((address, port))
    except OSError as error:
        return error
    return None


def lock_holder(path: Path) -> int | None:
    """The process that holds an advisory lock on the file at `path`; None if none does, or not on Linux."""
    try:
        inode = path.stat().st_ino
        lines = (_PROC / "locks").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        columns = line.split()
        if len(columns) > 5 and columns[1] == "FLOCK" and columns[5].rpartition(":")[2] == str(inode):
            return int(columns[4])
    return None
