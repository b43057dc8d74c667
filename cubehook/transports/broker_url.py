"""What the URL of a broker says: where it is, and who we are there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from twisted.internet.abstract import isIPv6Address

from cubehook.net.journey import address_text

_TEXT = re.compile(r"[!-~]+")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class BrokerUrl(msgspec.Struct, frozen=True, kw_only=True):
    """`user`, `password` and `path` are decoded; None for what the URL does not give."""

    scheme: str
    host: str
    port: int
    user: str | None
    password: str | None
    path: str | None
    """What follows the slash after host and port."""

    def __repr__(self) -> str:
        # It holds a password, and a repr ends up in logs and tracebacks.
        return f"<BrokerUrl {self.address}>"

    @property
    def address(self) -> str:
        """Host and port, as people write them."""
        return address_text(self.host, self.port)


def read_broker_url(text: str, ports: Mapping[str, int]) -> BrokerUrl:
    """
    The parts of `text`, whose scheme must be one of those in `ports`, which gives their ports.

    ValueError tells what was expected, for `ITransportPlugin.check`; it repeats nothing of `text`.
    """
    schemes = " or ".join(f"{scheme}://" for scheme in ports)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"a URL with {schemes}") from None
    if parts.scheme not in ports or not parts.hostname:
        raise ValueError(f"a URL with {schemes} and a host")
    if not _TEXT.fullmatch(text) or _PERCENT.search(text):
        raise ValueError("a URL of printable ASCII: a host in its xn-- form, other characters as %XX")
    if not _is_host(parts.hostname):
        raise ValueError("a URL whose host is an address, or a name of letters, digits, - and _")
    if port == 0:
        raise ValueError("a URL whose port is not 0")
    if "?" in text or "#" in text:
        raise ValueError("a URL without ? and #: settings go under options, and in a password they are %XX")
    try:
        return BrokerUrl(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port or ports[parts.scheme],
            user=_decoded(parts.username),
            password=_decoded(parts.password),
            path=_decoded(parts.path.removeprefix("/") or None),
        )
    except UnicodeDecodeError:
        raise ValueError("a URL whose %XX are UTF-8") from None


def _decoded(text: str | None) -> str | None:
    return None if text is None else unquote_to_bytes(text).decode("utf-8")


def _is_host(host: str) -> bool:
    return isIPv6Address(host) or (
        len(host) <= 253 and all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))
    )
