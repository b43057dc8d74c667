"""`cubehook ios`: the configuration to paste on a cube's router."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from cubehook.commands import place
from cubehook.config import Cube
from cubehook.control import Control
from cubehook.operations.ios import ios_config
from cubehook.text import printable


def ios(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook ios",
        description="Print the IOS configuration that makes a router one of the running service's cubes, to "
        "paste after `configure terminal`.",
    )
    parser.add_argument("cube", metavar="NAME", help="the cube's id")
    parser.add_argument(
        "--authority",
        type=Path,
        metavar="FILE",
        help="in secure mode, the certificate (PEM) that the router is to trust: cubehook's own if that is "
        "self-signed, else that of the authority that signed it",
    )
    place.add_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        authority = _authority(arguments.authority)
    except ValueError as error:
        print(f"cubehook ios: {printable(str(error), 1000)}", file=sys.stderr)
        return 1

    def work(service: Control) -> int:
        known = service.get(f"/cubes/{quote(arguments.cube, safe='')}")
        cube = Cube(
            id=known["id"], provider_url=known["provider_url"], application_url=known["application_url"]
        )
        text = ios_config(cube, authority)
        if arguments.json:
            place.print_json({"cube": cube.id, "ios": text})
        else:
            print(text, end="")
        return 0

    return place.run("ios", arguments, work)


def _authority(path: Path | None) -> str:
    """The one certificate in the file; ValueError with the words if there is none, or there are several."""
    if path is None:
        return ""
    from cryptography.hazmat.primitives.serialization import Encoding

    from cubehook.net.certificates import TlsFileError, read_certificates

    try:
        found = read_certificates("--authority", path)
    except TlsFileError as error:
        raise ValueError(str(error)) from None
    if len(found) > 1:
        raise ValueError(f"--authority: {path} holds {len(found)} certificates, and a trustpoint takes one")
    return found[0].public_bytes(Encoding.PEM).decode()
