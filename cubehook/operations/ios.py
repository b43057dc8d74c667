"""The lines that an engineer pastes into a router so that it serves a cube."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit

from cubehook.config import Cube

_LINES = """\
ip http server
ip http max-connections 100
ip http timeout-policy idle 600 life 86400 requests 86400
http client connection persistent
http client connection idle timeout 600
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


def ios_config(cube: Cube) -> str:
    """
    What to paste in the router's configuration mode (`configure terminal`) for `cube`.

    Lines that begin with `!` are remarks, which IOS takes and forgets.
    """
    return _remarks(cube) + _LINES.format(
        service="secure-wsapi" if _secure(cube) else "wsapi",
        source=_source(cube),
        remote_url=cube.application_url,
    )


def _secure(cube: Cube) -> bool:
    return urlsplit(cube.provider_url).scheme == "https"


def _source(cube: Cube) -> str:
    host = urlsplit(cube.provider_url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return f"! source-address A.B.C.D   (the router's own address, that of {host})"
    if isinstance(address, IPv4Address):
        return f"source-address {address}"
    return "! source-address A.B.C.D   (the router's own IPv4 address: XCC has no IPv6)"


def _remarks(cube: Cube) -> str:
    remarks = [f"cubehook, cube {cube.id}"]
    if _secure(cube):
        remarks.append("uc secure-wsapi needs IOS XE 16.6.1, and cannot stand beside uc wsapi")
    if "?" in cube.application_url:
        remarks.append("IOS takes ? for a question: type Ctrl+V before it in the last line")
    return "".join(f"! {remark}\n" for remark in remarks)
