"""`cubehook ios`: the configuration to paste on a cube's router."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from urllib.parse import quote

from cubehook.commands import place
from cubehook.config import Cube
from cubehook.control import Control
from cubehook.operations.ios import ios_config


def ios(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook ios",
        description="Print the IOS configuration that makes a router one of the running service's cubes, to "
        "paste after `configure terminal`.",
    )
    parser.add_argument("cube", metavar="NAME", help="the cube's id")
    place.add_arguments(parser)
    arguments = parser.parse_args(argv)

    def work(service: Control) -> int:
        known = service.get(f"/cubes/{quote(arguments.cube, safe='')}")
        cube = Cube(
            id=known["id"], provider_url=known["provider_url"], application_url=known["application_url"]
        )
        text = ios_config(cube)
        if arguments.json:
            place.print_json({"cube": cube.id, "ios": text})
        else:
            print(text, end="")
        return 0

    return place.run("ios", arguments, work)
