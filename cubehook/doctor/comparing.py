"""How two URLs differ, in a voice engineer's words, and which cube one of them may be meant for.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

import msgspec

from cubehook.config import Cube

_PORTS = {"http": 80, "https": 443}
_LONGEST = 500
"""Characters of a path that are compared for likeness."""


class Parts(msgspec.Struct, frozen=True):
    """
    A URL taken apart.

    `host` is in small letters, `port` what is connected to, None if that cannot be told; `target` is path
    and query as written.
    """

    scheme: str
    host: str
    port: int | None
    written_port: bool
    target: str


def parts(url: str) -> Parts:
    """The parts of any text that stands where a URL is expected."""
    try:
        split = urlsplit(url)
        host = split.hostname or ""
    except ValueError:  # brackets that hold no IPv6 address
        split, host = SplitResult("", "", url, "", ""), ""
    try:
        port = split.port
    except ValueError:
        port = None
    scheme = split.scheme.lower()
    target = f"{split.path}?{split.query}" if split.query else split.path
    return Parts(
        scheme,
        host.lower(),
        _PORTS.get(scheme) if port is None else port,
        port is not None,
        target,
    )


def differences(router: str, ours: str) -> list[str]:
    """In what the router's URL is not `ours`; empty if they are equal to the letter."""
    if router == ours:
        return []
    theirs, mine = parts(router), parts(ours)
    found = []
    if theirs.scheme != mine.scheme:
        found.append(f"scheme: the router has {theirs.scheme or 'none'}, the cube {mine.scheme}")
    if theirs.host != mine.host:
        found.append(_hosts(theirs.host, mine.host))
    if theirs.port != mine.port:
        found.append(f"port: the router has {_port(theirs)}, the cube {_port(mine)}")
    elif theirs.written_port != mine.written_port:
        found.append(f"port: {mine.port} is written in one and not in the other")
    if theirs.target != mine.target:
        found.append(_targets(theirs.target, mine.target))
    return found or [
        "letters: they are the same address, but not the same text (capitals, or what is after #)"
    ]


def _hosts(theirs: str, ours: str) -> str:
    told = f"the router has {theirs or 'none'}, the cube {ours}"
    if theirs and is_address(theirs) != is_address(ours):
        return f"host: {told}; a name is not an address, even if it leads there"
    return f"host: {told}"


def _port(of: Parts) -> str:
    if of.port is None:
        return "one that cannot be read"
    return str(of.port) if of.written_port else f"none written, which is {of.port}"


def _targets(theirs: str, ours: str) -> str:
    if theirs.rstrip("/") == ours.rstrip("/"):
        longer, shorter = ("router", "cube") if len(theirs) > len(ours) else ("cube", "router")
        return f"trailing slash: the {longer}'s URL ends in one, the {shorter}'s does not"
    told = f"the router has {theirs or 'none'}, the cube {ours or 'none'}"
    if theirs.lower() == ours.lower():
        return f"capital and small letters in the path: {told}"
    if theirs.strip("/").lower() == ours.strip("/").lower():
        return f"slashes in the path: {told}"
    return f"path: {told}"


def is_address(host: str) -> bool:
    """Whether `host` is an IP address rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def nearness(router: str, ours: str) -> float:
    """How likely the router's URL is meant to be `ours`: 1 if they are equal, 0 if nothing is alike."""
    if router == ours:
        return 1.0
    theirs, mine = parts(router), parts(ours)
    path, own = (text.strip("/").lower()[:_LONGEST] for text in (theirs.target, mine.target))
    alike = SequenceMatcher(None, path, own).ratio() if path or own else 1.0
    return min(
        0.99,
        0.6 * alike
        + 0.25 * (theirs.host == mine.host)
        + 0.1 * (theirs.port == mine.port)
        + 0.04 * (theirs.scheme == mine.scheme),
    )


def nearest(router: str, cubes: Iterable[Cube]) -> list[tuple[float, Cube]]:
    """`cubes` by how near their application URLs are to the router's, the nearest first."""
    found = [(nearness(router, cube.application_url), cube) for cube in cubes]
    return sorted(found, key=lambda each: (-each[0], each[1].id))
