"""The lines that an engineer pastes into a router so that it serves a cube."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit

from cubehook.config import Cube

TRUSTPOINT = "CUBEHOOK"

_HTTP = """\
ip http max-connections 100
ip http timeout-policy idle 600 life 86400 requests 86400
http client connection persistent
http client connection idle timeout 600
"""
_SERVICE = """\
uc {service}
 message-exchange max-failures 2
 response-timeout 10
 probing max-failures 5
 probing interval keepalive 30
 probing interval negative 10
 {source}
 provider xcc
  no shutdown
  remote-url {remote_url}
"""


def ios_config(cube: Cube, authority: str = "") -> str:
    """
    What to paste in the router's configuration mode (`configure terminal`) for `cube`.

    In secure mode the router must trust `authority`, a certificate in PEM: our own if that is self-signed,
    else that of who signed it.  Lines that begin with `!` are remarks, which IOS takes and forgets.
    """
    secure = urlsplit(cube.provider_url).scheme == "https"
    service = _SERVICE.format(
        service="secure-wsapi" if secure else "wsapi", source=_source(cube), remote_url=cube.application_url
    )
    serving = "".join(f"{line}\n" for line in _secure(cube, authority)) if secure else "ip http server\n"
    remarks = "".join(f"! {remark}\n" for remark in _remarks(cube, secure))
    return remarks + serving + _HTTP + service


def _secure(cube: Cube, authority: str) -> Iterator[str]:
    """HTTPS both ways: the router's own server, and what it must trust."""
    yield f"crypto pki trustpoint {TRUSTPOINT}"
    yield " enrollment terminal"
    yield " revocation-check none"
    yield " exit"
    if authority:
        yield f"crypto pki authenticate {TRUSTPOINT}"
        yield from authority.splitlines()
        yield "quit"
        yield "yes"
    else:
        yield f"! then, by hand: crypto pki authenticate {TRUSTPOINT}"
        yield "!   and paste cubehook's certificate, or that of the authority that signed it; then: quit, yes"
    port = urlsplit(cube.provider_url).port or 443
    if port != 443:
        yield f"ip http secure-port {port}"
    yield "! unless the router is to make its own certificate: ip http secure-trustpoint NAME"
    yield "ip http secure-server"


def _source(cube: Cube) -> str:
    host = urlsplit(cube.provider_url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return f"! source-address A.B.C.D   (the router's own address, that of {host})"
    if isinstance(address, IPv4Address):
        return f"source-address {address}"
    return "! source-address A.B.C.D   (the router's own IPv4 address: XCC has no IPv6)"


def _remarks(cube: Cube, secure: bool) -> Iterator[str]:
    yield f"cubehook, cube {cube.id}"
    if secure:
        yield "uc secure-wsapi needs IOS XE 16.6.1, and cannot stand beside uc wsapi: first, no uc wsapi"
        url = urlsplit(cube.application_url)
        if url.scheme != "https":
            yield "in secure mode the router takes an https remote-url only: change application_url"
        elif not _is_ipv4(url.hostname or ""):
            yield "in secure mode the router takes an IPv4 address in remote-url, and no name"
    if "?" in cube.application_url:
        yield "IOS takes ? for a question: type Ctrl+V before it in the last line"


def _is_ipv4(host: str) -> bool:
    try:
        return isinstance(ip_address(host), IPv4Address)
    except ValueError:
        return False
