"""`cubehook pin`: the certificate that a cube's router shows, and the line that pins it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from cubehook import config_rules
from cubehook.commands import place
from cubehook.control import Control
from cubehook.text import printable

if TYPE_CHECKING:
    from cubehook.net.presented import Presented

SECONDS = 10.0
"""For which a router is waited for."""


def pin(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook pin",
        description="Show the certificate that a router presents, and the setting that pins it. Whether it "
        "is the router's own is for you to see: compare it with what the router itself says.",
    )
    parser.add_argument(
        "cube",
        metavar="NAME|URL",
        help="a cube's id, of the running service; or an https URL, for which none needs to run",
    )
    place.add_arguments(parser)
    arguments = parser.parse_args(argv)
    if "://" in arguments.cube:
        try:
            url = config_rules.gateway_url(arguments.cube)
        except ValueError as error:
            parser.error(f"{printable(arguments.cube)}: {error}")
        return _show(url, (), "NAME", as_json=arguments.json)

    def work(service: Control) -> int:
        known = service.get(f"/cubes/{quote(arguments.cube, safe='')}")
        return _show(known["provider_url"], known["pins"], known["id"], as_json=arguments.json)

    return place.run("pin", arguments, work)


def _show(url: str, pins: Sequence[str], cube: str, *, as_json: bool) -> int:
    from cubehook.net.presented import PresentedError, look

    parts = urlsplit(url)
    if parts.scheme != "https":
        print(f"cubehook pin: {url} is not https: there is no certificate to pin", file=sys.stderr)
        return 1
    host, port = parts.hostname or "", parts.port or 443
    try:
        presented = look(host, port, SECONDS)
    except PresentedError as error:
        print(f"cubehook pin: {host} port {port}: {printable(str(error))}", file=sys.stderr)
        return 1
    try:
        told = _told(presented)
    except ValueError as error:
        words = f"its certificate cannot be read: {printable(str(error))}"
        print(f"cubehook pin: {host} port {port}: {words}", file=sys.stderr)
        return 1
    told["pinned"] = bool({told["fingerprint"], told["key_fingerprint"]} & set(pins))
    if as_json:
        place.print_json({"host": host, "port": port, **told})
    else:
        print(_text(f"{host} port {port}", told, pins, cube))
    return 0


def _told(presented: Presented) -> dict[str, Any]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    from cubehook.net.certificates import not_in_force, pins_of

    certificate = presented.certificate
    own, of_key = pins_of(certificate)
    key = certificate.public_key()
    match key:
        case rsa.RSAPublicKey():
            kind = f"RSA, {key.key_size} bits"
        case ec.EllipticCurvePublicKey():
            kind = f"ECDSA, {key.curve.name}"
        case _:
            kind = type(key).__name__.removesuffix("PublicKey")
    sha1 = certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - IOS has no other
    return {
        "subject": printable(certificate.subject.rfc4514_string()),
        "issuer": printable(certificate.issuer.rfc4514_string()),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "not_in_force": not_in_force(certificate),
        "key": kind,
        "tls": presented.version,
        "cipher": presented.cipher,
        "fingerprint": own,
        "key_fingerprint": of_key,
        "ios_fingerprint": " ".join(sha1[start : start + 8] for start in range(0, 40, 8)),
    }


def _text(where: str, told: dict[str, Any], pins: Sequence[str], cube: str) -> str:
    dates = f"{told['not_before'][:10]} to {told['not_after'][:10]}"
    if told["not_in_force"]:
        dates += f": it {told['not_in_force']}, which does not matter once it is pinned"
    itself = " (itself)" if told["issuer"] == told["subject"] else ""
    rows = [
        ("subject", told["subject"]),
        ("issuer", told["issuer"] + itself),
        ("valid", dates),
        ("key", told["key"]),
        ("SHA-256", told["fingerprint"]),
        ("of the key", told["key_fingerprint"]),
        ("SHA1", f"{told['ios_fingerprint']}  (show crypto pki certificates verbose)"),
    ]
    lines = [f"{where} shows this certificate over TLS {told['tls']} ({told['cipher']}):", ""]
    lines += [f"  {name:10}  {text}" for name, text in rows]
    lines.append("")
    if told["pinned"]:
        lines.append(f"It is pinned by cube {cube}.")
        return "\n".join(lines)
    if pins:
        lines.append(f"Cube {cube} pins another: {', '.join(pins)}.")
    kept = "".join(f', "{each}"' for each in pins)
    lines += [
        "If that is what the router itself says of its certificate, pin it below "
        f"[cubes.{cube}]{' (or in the console)' if cube != 'NAME' else ''}:",
        "",
        f'pins = ["{told["fingerprint"]}"{kept}]',
    ]
    if told["tls"] < "1.2":
        lines += [f'tls_minimum = "{told["tls"]}"   # unsafe: better to update the router']
    return "\n".join(lines)
