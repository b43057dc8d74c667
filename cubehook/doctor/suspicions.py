"""Settings that are valid, and are seldom what somebody wants.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from cubehook.config import Config, Cube
from cubehook.config_rules import endpoint_parts, is_local
from cubehook.doctor.findings import Finding, warning
from cubehook.net.tls import is_old

AREA = "configuration"

GATEWAY_PORT = 8090
"""Where every router's provider is without TLS (protocol, section 1)."""

_PATH = "/cisco_xcc"
_EVERYONE = frozenset({"0.0.0.0/0", "::/0"})


def suspicions(config: Config, cubes: Sequence[Cube]) -> Iterator[Finding]:
    """What to look at again in `config`, and in `cubes`, which may be others than the file's."""
    yield from _doors(config)
    for cube in cubes:
        yield from _cube(cube)
    yield from _same_gateways(cubes)


def _doors(config: Config) -> Iterator[Finding]:
    for endpoint in config.listen.console:
        if _is_clear(endpoint) and not is_local(endpoint):
            yield warning(
                AREA,
                f"listen.console {endpoint} lets other machines in without TLS: tokens and what the console "
                "shows can be read on the way",
                "Add interface=127.0.0.1 and put a TLS proxy before it, or use an ssl: endpoint.",
            )
    if config.manhole.telnet is not None:
        yield warning(
            AREA,
            f"manhole.telnet is open on {config.manhole.telnet}: passwords go over it in clear text",
            "Use manhole.ssh, and leave out manhole.telnet.",
        )
    if config.manhole.ssh is not None and not is_local(config.manhole.ssh):
        yield warning(
            AREA,
            f"manhole.ssh {config.manhole.ssh} lets other machines try: whoever gets in may do anything",
            "Add interface=127.0.0.1 unless that is meant.",
        )
    if is_old(config.listen.tls_minimum):
        yield warning(
            AREA,
            f"listen.tls_minimum is {config.listen.tls_minimum}: what routers send may be read on the way",
            "Update the routers, and take that setting away.",
        )
    for name in ("127.0.0.0/8", "::1/128"):
        if name in config.egress.allow and not any(
            _is_loopback(urlsplit(webhook.url).hostname or "") for webhook in config.webhooks
        ):
            yield warning(
                AREA,
                f"egress.allow has {name}, and no webhook of the file needs that: one made in the console "
                "could be sent to programs of this machine",
                f'Take "{name}" out of egress.allow unless that is meant.',
            )


def _cube(cube: Cube) -> Iterator[Finding]:
    key = f"cubes.{cube.id}"
    provider, application = urlsplit(cube.provider_url), urlsplit(cube.application_url)
    gateway, here = provider.hostname or "", application.hostname or ""
    if provider.scheme == "http" and provider.port != GATEWAY_PORT and not _is_loopback(gateway):
        written = f"port {provider.port}" if provider.port else "no port, which is 80"
        yield warning(
            AREA,
            f"{key}.provider_url has {written}: without TLS a router's provider is always at {GATEWAY_PORT}",
            f"Write http://{_bracketed(gateway)}:{GATEWAY_PORT}{provider.path or _PATH}.",
        )
    if provider.path != _PATH:
        yield warning(
            AREA,
            f"{key}.provider_url has the path {provider.path or '/'}: that of the XCC provider is {_PATH}",
        )
    if _is_unspecified(here):
        yield warning(
            AREA,
            f"{key}.application_url names {here}, which is nobody's address: no router can call it",
            "Write the address of this machine that the router reaches, here and in its remote-url.",
        )
    elif _is_loopback(here) and not _is_loopback(gateway):
        yield warning(
            AREA,
            f"{key}.application_url names {here}, which to the router {gateway} is itself",
            "Write the address of this machine that the router reaches, here and in its remote-url.",
        )
    if provider.scheme != application.scheme:
        yield warning(
            AREA,
            f"{key}: provider_url is {provider.scheme}, application_url {application.scheme}: a router "
            "speaks TLS both ways (uc secure-wsapi) or not at all (uc wsapi)",
        )
    if is_old(cube.tls_minimum):
        yield warning(
            AREA,
            f"{key}.tls_minimum is {cube.tls_minimum}: what it is told may be read on the way",
            "Update the router, and take that setting away.",
        )
    yield from _allowed(cube, key, gateway)


def _allowed(cube: Cube, key: str, gateway: str) -> Iterator[Finding]:
    address = _address(gateway)
    if cube.allow_from and address is not None:
        networks = [ip_network(network, strict=False) for network in cube.allow_from]
        if not any(address.version == each.version and address in each for each in networks):
            yield warning(
                AREA,
                f"{key}.allow_from has not {gateway}, the host of its provider_url: what the router sends "
                "from there is refused with 403",
                f'Add "{gateway}", unless the router\'s source-address is another one.',
            )
    if _EVERYONE.intersection(cube.allow_from):
        yield warning(
            AREA,
            f"{key}.allow_from lets everybody speak as this cube, and keeps the cubes' places for strangers",
            "Write the router's address or network.",
        )


def _same_gateways(cubes: Sequence[Cube]) -> Iterator[Finding]:
    gateways: dict[str, str] = {}
    paths: dict[str, tuple[str, str]] = {}
    for cube in cubes:
        if not cube.enabled:
            continue
        other = gateways.setdefault(cube.provider_url.lower().rstrip("/"), cube.id)
        if other != cube.id:
            yield warning(
                AREA,
                f"cubes.{other} and cubes.{cube.id} have one provider_url, {cube.provider_url}: a router's "
                "XCC takes one application",
            )
        url = urlsplit(cube.application_url)
        path = f"{url.path}?{url.query}" if url.query else url.path
        other, others_path = paths.setdefault(path.strip("/").lower(), (cube.id, path))
        if other == cube.id:
            continue
        told = f"cubes.{other} and cubes.{cube.id} have application URLs"
        if others_path == path:
            yield warning(
                AREA,
                f"{told} with one path, {path}: which of them a message is of is told by its registration or "
                "source address only",
                "Give each a path of its own.",
            )
        else:
            yield warning(
                AREA,
                f"{told} whose paths are easily mistaken, {others_path} and {path}",
                "Give each a path that nobody takes for the other's.",
            )


def _is_clear(endpoint: str) -> bool:
    return endpoint_parts(endpoint)[0] in ("tcp", "tcp6")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
