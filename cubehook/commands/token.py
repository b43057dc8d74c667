"""`cubehook token`: who may use the REST API and the console."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from cubehook.commands import place
from cubehook.control import Control
from cubehook.text import printable

_PAGE = 200


def token(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook token",
        description="List, make and remove tokens for the REST API and the console.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list the tokens, without their secrets")
    adding = actions.add_parser("add", help="make a token and print it, this once")
    adding.add_argument("name", metavar="NAME", help="what it is for; also stands in the record of changes")
    adding.add_argument(
        "--role", choices=("viewer", "admin"), default="viewer", help="what its holder may do (%(default)s)"
    )
    removing = actions.add_parser("remove", help="remove a token, and end the browser sessions begun with it")
    removing.add_argument("token", metavar="NAME", help="the token's name or id")
    for each in (listing, adding, removing):
        place.add_arguments(each)
    arguments = parser.parse_args(argv)
    work = {"list": _list, "add": _add, "remove": _remove}[arguments.action]
    return place.run("token", arguments, lambda service: work(arguments, service))


def _all(service: Control) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": _PAGE}
    while True:
        page = service.get(f"/tokens?{urlencode(query)}")
        items += page["items"]
        if page["next"] is None:
            return items
        query["cursor"] = page["next"]


def _list(arguments: argparse.Namespace, service: Control) -> int:
    items = _all(service)
    if arguments.json:
        place.print_json({"items": items, "next": None})
        return 0
    if not items:
        print("There are no tokens.")
    for item in items:
        used = item["last_used_at"]
        last = "never used" if used is None else f"last used {place.local(used)}"
        print(
            f"{item['id']}  {item['role']:6}  {printable(item['name'])}  "
            f"(made {place.local(item['created_at'])} by {printable(item['created_by'])}, {last})"
        )
    return 0


def _add(arguments: argparse.Namespace, service: Control) -> int:
    made = service.post("/tokens", {"name": arguments.name, "role": arguments.role})
    if arguments.json:
        place.print_json(made)
    else:
        print(made["token"])
        print(f"This is the token, for the role {made['role']}.  It is not shown again.", file=sys.stderr)
    return 0


def _remove(arguments: argparse.Namespace, service: Control) -> int:
    meant = arguments.token
    items = _all(service)
    # Names are unique; one may look like another's id.
    found = [item for item in items if item["name"] == meant]
    found = found or [item for item in items if item["id"] == meant.upper()]
    if not found:
        print(f"cubehook token: there is no token {printable(meant)}", file=sys.stderr)
        return 1
    service.delete(f"/tokens/{quote(found[0]['id'])}")
    if arguments.json:
        place.print_json(found[0])
    else:
        print(f"Token {printable(found[0]['name'])} is removed.")
    return 0
