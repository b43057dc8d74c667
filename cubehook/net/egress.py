"""
Which addresses a webhook may be sent to: pure, an address in and a verdict out.

Metadata services, link-local, unspecified, multicast and broadcast addresses are denied whatever is
written.  Of the networks in `deny` and `allow` the narrowest that holds an address decides, `deny` on a
tie.  Where none holds it, loopback is denied and everything else allowed, private ranges too.

Two more metadata services stand at addresses that may be somebody's own (carrier-grade NAT, unique local):
they are denied unless `allow` names the very address; a network around it is not enough.

An IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4, Teredo) is judged as well, since the
packet may end there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from cubehook.config import Egress

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


class BlockedError(Exception):
    """
    The egress policy denies `address`.

    `rule` names what denies it, and what to write where that helps; `host` is the name that
    resolved to it, None if the address itself was asked for.
    """

    def __init__(self, rule: str, address: str, host: str | None = None) -> None:
        super().__init__(rule, address, host)
        self.rule = rule
        self.address = address
        self.host = host

    def __str__(self) -> str:
        named = (
            f"{self.host} resolves to {self.address}" if self.host else f"{self.address} may not be reached"
        )
        return f"{named}: {self.rule}"


_ALWAYS: tuple[tuple[str, tuple[Network, ...]], ...] = tuple(
    (rule, tuple(ip_network(text) for text in networks))
    for rule, networks in (
        (
            "cloud metadata and link-local addresses are always denied",
            ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"),
        ),
        ("an unspecified address is always denied", ("0.0.0.0/8", "::/128")),
        ("multicast is always denied", ("224.0.0.0/4", "ff00::/8")),
        ("broadcast is always denied", ("255.255.255.255/32",)),
    )
)
_METADATA: tuple[Network, ...] = (ip_network("100.100.100.200/32"), ip_network("fd20:ce::254/128"))
_LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

_MAPPED = IPv6Network("::ffff:0:0/96")
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")


class EgressPolicy:
    """The verdict on addresses under one configuration's `[egress]`."""

    def __init__(self, deny: Iterable[Network] = (), allow: Iterable[Network] = ()) -> None:
        rules = [(network, True) for network in deny] + [(network, False) for network in allow]
        # Narrowest first; the sort is stable, so on a tie deny comes before allow.
        self._rules = sorted(rules, key=lambda rule: rule[0].prefixlen, reverse=True)

    def check(self, address: str) -> None:
        """Return if `address`, a literal IPv4 or IPv6 address, may be reached; else raise BlockedError."""
        try:
            parsed = ip_address(address)
        except ValueError:
            raise BlockedError("it is not an IP address", address) from None
        for judged in _faces(parsed):
            rule = self._denies(judged)
            if rule is not None:
                if judged.version != parsed.version:
                    rule = f"it holds {judged}, and {rule}"
                raise BlockedError(rule, address)

    def _denies(self, address: Address) -> str | None:
        for rule, networks in _ALWAYS:
            if _within(address, networks):
                return rule
        # Prefixes of the two families are not comparable, but an address meets those of its own only.
        for network, denied in self._rules:
            if address.version == network.version and address in network:
                if not denied and network.num_addresses > 1 and _within(address, _METADATA):
                    break
                return f"{network} is in egress.deny" if denied else None
        if _within(address, _METADATA):
            return f"it is a cloud's metadata service; add {address} itself to egress.allow if it is meant"
        if _within(address, _LOOPBACK):
            network = next(network for network in _LOOPBACK if network.version == address.version)
            return f"loopback is denied; add {network} to egress.allow if it is meant"
        return None


def parse_networks(texts: Iterable[str]) -> tuple[list[Network], list[tuple[int, str]]]:
    """
    The networks that `texts` name, and what is wrong with the rest as (index, what was expected) pairs.

    A bare address stands for itself alone; an IPv4-mapped network for the IPv4 network it holds.
    """
    networks: list[Network] = []
    errors: list[tuple[int, str]] = []
    for index, text in enumerate(texts):
        try:
            network = ip_network(text)
        except ValueError:
            errors.append((index, _expected(text)))
            continue
        if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
            network = IPv4Network((_low_32(network.network_address), network.prefixlen - 96))
        networks.append(network)
    return networks, errors


def policy_from(egress: Egress) -> EgressPolicy:
    """The policy that `[egress]` asks for; ValueError names every network that cannot be read."""
    deny, deny_errors = parse_networks(egress.deny)
    allow, allow_errors = parse_networks(egress.allow)
    errors = [f"egress.deny[{index}]: expected {expected}" for index, expected in deny_errors]
    errors += [f"egress.allow[{index}]: expected {expected}" for index, expected in allow_errors]
    if errors:
        raise ValueError("; ".join(errors))
    return EgressPolicy(deny, allow)


def _expected(text: str) -> str:
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        return 'an address or a network in CIDR notation, such as "10.0.0.0/8" or "fd00::/8"'
    return f'no bits set beyond the prefix: "{meant}"'


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _low_32(address: IPv6Address) -> int:
    return int(address) & 0xFFFFFFFF


def _faces(address: Address) -> Iterator[Address]:
    """`address`, without its zone, and every IPv4 address that it holds."""
    if isinstance(address, IPv4Address):
        yield address
        return
    bare = IPv6Address(int(address))
    yield bare
    number = int(bare)
    if bare in _MAPPED or bare in _NAT64 or (bare in _COMPATIBLE and number > 1):
        yield IPv4Address(_low_32(bare))
    elif bare in _6TO4:
        yield IPv4Address(number >> 80 & 0xFFFFFFFF)
    elif bare in _TEREDO:
        # RFC 4380, section 4: the server's address, and the client's with its bits flipped.
        yield IPv4Address(number >> 64 & 0xFFFFFFFF)
        yield IPv4Address(_low_32(bare) ^ 0xFFFFFFFF)
