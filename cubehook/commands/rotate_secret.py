"""`cubehook rotate-secret`: give a webhook a new signing secret."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from urllib.parse import quote

from cubehook.commands import place
from cubehook.control import Control


def rotate_secret(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook rotate-secret",
        description="Give a webhook a new signing secret and print it, this once.  The former secret goes on "
        "signing beside it for as long as delivery.secret_overlap says (a day, unless it is set), so that "
        "the receiver can change over.",
    )
    parser.add_argument("webhook", metavar="WEBHOOK", help="the webhook's id")
    place.add_arguments(parser)
    arguments = parser.parse_args(argv)

    def work(service: Control) -> int:
        rotated = service.post(f"/webhooks/{quote(arguments.webhook, safe='')}/rotate-secret")
        if arguments.json:
            place.print_json(rotated)
        else:
            print(rotated["secret"])
        until = rotated["former_until"]
        if until is None:
            told = "Only the new secret signs from now on."
        else:
            told = f"The former secret signs until {place.local(until)} too: change the receiver by then."
        print(f"{told}  The new one is not shown again.", file=sys.stderr)
        return 0

    return place.run("rotate-secret", arguments, work)
