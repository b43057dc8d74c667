"""
What a single value of the configuration may be, beyond its type.

A `Rule` hangs on a field's type (`Annotated[str, rule(...)]`) and is applied by
`cubehook.config_reader`.  Its words may end up on a screen or in a log, so no rule
repeats a value that may be a secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

_EXTRA: Final = "cubehook.rule"
GIVEN_AS_TEXT: Final = "x-given-as-text"
"""Marks in msgspec's JSON Schemas what is given as a text, whatever that becomes."""

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_URL_TEXT = re.compile(r"[\x21-\x7e]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://", re.ASCII)
_PART = re.compile(r"((?:[^:\\]|\\.)*)(?::|\Z)", re.DOTALL)

_PIN = re.compile(
    r"(?:sha-?256(?: fingerprint)?[:= ]\s*)?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.ASCII | re.I
)
_KEY_PIN = re.compile(r"sha256//([A-Za-z0-9+/]{43}=)", re.ASCII)

# The order in which Twisted takes arguments that are given without a name.
_POSITIONAL = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        "port",
        "privateKey",
        "certKey",
        "sslmethod",
        "interface",
        "backlog",
        "extraCertChain",
        "dhParameters",
    ),
    "unix": ("address", "mode", "backlog", "lockfile"),
}
_TLS_FILES = ("privateKey", "certKey", "extraCertChain", "dhParameters")
# Arguments that name files.
_FILES = {"ssl": _TLS_FILES, "systemd": _TLS_FILES, "unix": ("address",)}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a text of the configuration becomes a value.

    `expected` tells in words what is wanted.  `read` takes the text and returns the
    value, or raises ValueError; the error's words, if any, tell what is wrong with the
    text without repeating it.  `show` makes a found text fit for an error message;
    None if it may not be shown at all.  `resolve` makes the value one whose relative paths start from a
    folder, that of the configuration file.
    """

    expected: str
    read: Callable[[str], Any]
    show: Callable[[str], str] | None = None
    resolve: Callable[[Any, Path], Any] | None = None


def rule(
    expected: str,
    read: Callable[[str], Any],
    show: Callable[[str], str] | None = str,
    resolve: Callable[[Any, Path], Any] | None = None,
) -> msgspec.Meta:
    """A `Rule` as a type's metadata; `cubehook.schemas` makes a JSON Schema of its text."""
    return msgspec.Meta(
        extra={_EXTRA: Rule(expected=expected, read=read, show=show, resolve=resolve)},
        extra_json_schema={GIVEN_AS_TEXT: True, "description": expected},
    )


def rule_of(extra: dict[str, Any] | None) -> Rule | None:
    """The rule that `rule` put into a type's metadata."""
    return (extra or {}).get(_EXTRA)


def shown_url(text: str) -> str:
    """`text` without what may be secret in a URL: user, password, query and fragment."""
    start, separator, rest = text.partition("://")
    if not separator:
        return "..." if text else ""
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{start}://{authority.rpartition('@')[2]}{slash}{path}"


def duration(text: str) -> int:
    """Seconds of `90d`, `12h`, `30m` or `45s`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def duration_or_never(text: str) -> int:
    """`duration`, or 0 for `never`."""
    return 0 if text == "never" else duration(text)


def proxy_url(text: str) -> str:
    """Empty, or the URL of an HTTP proxy: nothing but user, password, host and port."""
    if not text:
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("its host or port cannot be read") from None
    if not _URL_TEXT.fullmatch(text) or parts.scheme != "http" or not parts.hostname:
        raise ValueError("it is not of the form http://host:port")
    if port == 0:
        raise ValueError("its port is 0")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("it has more than a host and a port")
    return text


_NO_PROXY = re.compile(
    r"(?:\*?\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
_BRACKETED = re.compile(r"\[(?P<address>[^\]]*)\](?::(?P<port>[0-9]{1,5}))?", re.ASCII)


def no_proxy(text: str) -> str:
    """Who is reached without a proxy: `*`, an address, a network, a host, a domain; perhaps with a port."""
    if text == "*":
        return text
    try:
        ip_network(text)
        return text
    except ValueError:
        pass
    found = _BRACKETED.fullmatch(text)
    if found is not None:
        ip_address(found["address"])
    else:
        if re.fullmatch(r"[0-9A-Fa-f.:]+/[0-9]+", text, re.ASCII):
            network(text)
        found = _NO_PROXY.fullmatch(text)
    if found is None or not int(found["port"] or 1) or int(found["port"] or 1) > 65535:
        raise ValueError("it is none of these")
    return text


def gateway_url(text: str) -> str:
    """An absolute http or https URL of the kind that names a gateway's or our own service."""
    if not _URL_TEXT.fullmatch(text):
        raise ValueError("it holds spaces or characters outside ASCII")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("its host or port cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("it does not begin with http:// or https://")
    if not parts.hostname:
        raise ValueError("it has no host")
    if port == 0:
        raise ValueError("its port is 0")
    if "@" in parts.netloc:
        raise ValueError("a user name in it would not be used")
    if "#" in text:
        raise ValueError("what follows # is never sent")
    return text


def receiver_url(text: str) -> str:
    """Empty, or an absolute URL of any scheme: what schemes will do is the transport's to say."""
    if not text:
        return text
    try:
        if _URL_TEXT.fullmatch(text) and _SCHEME.match(text) and urlsplit(text).hostname:
            return text
    except ValueError:  # brackets that hold no IPv6 address
        pass
    raise ValueError("it is not of the form scheme://host/path, or holds spaces")


def pin(text: str) -> str:
    """
    The SHA-256 fingerprint of a certificate, or of its public key.

    The former as OpenSSL prints it, with or without what it prints before it, and becomes pairs of capital
    digits between colons; the latter as `sha256//` and base64, as curl takes it.
    """
    text = text.strip()
    found = _PIN.fullmatch(text)
    if found is not None:
        return bytes.fromhex(found[1].replace(":", "")).hex(":").upper()
    found = _KEY_PIN.fullmatch(text)
    if found is None or base64.b64encode(base64.b64decode(found[1])).decode() != found[1]:
        raise ValueError("it is neither 64 hexadecimal digits nor sha256// and 44 characters of base64")
    return text


def network(text: str) -> str:
    """An IP network or a single address."""
    try:
        ip_network(text)
    except ValueError:
        try:
            wider = ip_network(text, strict=False)
        except ValueError:
            raise ValueError from None
        raise ValueError(f"its address lies inside {wider}; write that, or the address alone") from None
    return text


def region(text: str) -> str:
    """A region that phonenumbers knows, such as `US`."""
    from phonenumbers import SUPPORTED_REGIONS

    if text not in SUPPORTED_REGIONS:
        raise ValueError
    return text


def database(text: str) -> str:
    """`sqlite`, the only store there is."""
    if text.startswith(("postgresql://", "postgres://")):
        raise ValueError("this version keeps its data in SQLite only, not in PostgreSQL")
    if text != "sqlite":
        raise ValueError
    return text


def header_name(text: str) -> str:
    """A field name of HTTP (RFC 9110, section 5.1)."""
    if not _HEADER_NAME.fullmatch(text):
        raise ValueError
    return text


def header_value(text: str) -> str:
    """A field value of HTTP in Latin-1."""
    if "\n" in text or "\r" in text:
        raise ValueError("it holds a line break")
    if not _HEADER_VALUE.fullmatch(text):
        raise ValueError("it holds a control character or one outside Latin-1")
    if text != text.strip(" \t"):
        raise ValueError("it begins or ends with a space")
    return text


def endpoint_parts(text: str) -> tuple[str, dict[str, str]]:
    """
    The type and the named arguments of a Twisted endpoint string.

    Arguments without a name get the one Twisted gives them; where that is not known here,
    they are left out.
    """
    parts = [found[1] for found in _PART.finditer(text)]
    # A text that does not end in a colon ends in an empty match.
    if len(parts) > 1 and not text.endswith(":"):
        parts.pop()
    kind = parts[0].lower()
    names = iter(_POSITIONAL.get(kind, ()))
    arguments: dict[str, str] = {}
    for part in parts[1:]:
        name, equals, value = part.partition("=")
        if not equals:
            name, value = next(names, ""), part
        if name:
            arguments[name] = re.sub(r"\\(.)", r"\1", value)
    return kind, arguments


def endpoint(text: str) -> str:
    """A server endpoint string that Twisted understands; nothing is opened."""
    kind, arguments = endpoint_parts(text)
    if kind == "systemd":
        _systemd(arguments)
        return text
    if kind == "stdio":
        raise ValueError("a service has no standard input")
    if kind in ("tcp", "tcp6", "ssl"):
        port = arguments.get("port", "")
        if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65535):
            raise ValueError("its port is not a number from 0 to 65535")
    if kind == "unix" and not arguments.get("address"):
        raise ValueError("it names no socket")
    if kind == "ssl":
        # Twisted's parser would read the files at once, and from the folder the process runs in.
        _ssl(arguments)
        return text

    from twisted.internet.endpoints import serverFromString

    try:
        # The parsers only hand the reactor on to the endpoint, which is not used.
        serverFromString(None, text)
    except TypeError:
        raise ValueError(f"{kind}: does not take these arguments") from None
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None
    except Exception as error:  # parsers may be anybody's plugins, and raise anything
        raise ValueError(str(error)) from None
    return text


def endpoint_in(text: str, folder: Path) -> str:
    """An endpoint string whose relative paths, of files for TLS or of a Unix socket, start from `folder`."""
    kind, arguments = endpoint_parts(text)
    relative = [
        name for name in _FILES.get(kind, ()) if name in arguments and not Path(arguments[name]).is_absolute()
    ]
    if not relative:
        return text
    arguments |= {name: str(folder / arguments[name]) for name in relative}
    return _written(kind, arguments)


def without_tls(text: str) -> str:
    """A `systemd:` endpoint string as Twisted knows it, which has no TLS for such."""
    kind, arguments = endpoint_parts(text)
    return _written(kind, {name: value for name, value in arguments.items() if name not in _TLS_FILES})


def _written(kind: str, arguments: dict[str, str]) -> str:
    escaped = {name: re.sub(r"([\\:])", r"\\\1", value) for name, value in arguments.items()}
    return ":".join([kind, *(f"{name}={value}" for name, value in escaped.items())])


def _ssl(arguments: dict[str, str]) -> None:
    for name in arguments:
        if name not in _POSITIONAL["ssl"]:
            raise ValueError(f"ssl: does not take {name}")
    if "sslmethod" in arguments:
        raise ValueError("sslmethod is not taken: listen.tls_minimum tells how old TLS may be")
    _tls_files(arguments)
    if not arguments.get("backlog", "0").isdecimal():
        raise ValueError("its backlog is not a number")


def _tls_files(arguments: dict[str, str]) -> None:
    if not arguments.get("privateKey"):
        raise ValueError("it names no privateKey")
    for name in _TLS_FILES:
        if "\0" in arguments.get(name, "") or arguments.get(name) == "":
            raise ValueError(f"its {name} is no file")


def _systemd(arguments: dict[str, str]) -> None:
    # Twisted looks the socket up at once; it is there only under systemd.
    if arguments.get("domain") not in ("INET", "INET6", "UNIX"):
        raise ValueError("its domain is not INET, INET6 or UNIX")
    if ("index" in arguments) == ("name" in arguments):
        raise ValueError("it wants either index= or name=")
    if not arguments.get("index", "0").isdecimal():
        raise ValueError("its index is not a number")
    if any(name in arguments for name in _TLS_FILES):
        # Of our own making: Twisted has none that takes such a socket and speaks TLS.
        _tls_files(arguments)


def is_tls(text: str) -> bool:
    """Whether it is TLS that is spoken at an endpoint."""
    kind, arguments = endpoint_parts(text)
    return kind == "ssl" or (kind == "systemd" and "privateKey" in arguments)


def is_local(text: str) -> bool:
    """Whether only this machine can reach the endpoint: a Unix socket, or TCP on loopback."""
    kind, arguments = endpoint_parts(text)
    if kind == "unix":
        return True
    interface = arguments.get("interface", "")
    if kind not in ("tcp", "tcp6"):
        return False
    if interface == "localhost":
        return True
    try:
        return ip_address(interface).is_loopback
    except ValueError:
        return False
