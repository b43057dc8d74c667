"""`cubehook enable`: send again to a webhook that was disabled while it was in use."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from urllib.parse import quote

from cubehook.commands import place
from cubehook.control import Control
from cubehook.text import printable


def enable(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook enable",
        description="Send again to a webhook that was disabled because its receiver answered 410 or failed "
        "for days, or whose transport could not be made before, beginning with what is pending for it.",
    )
    parser.add_argument("webhook", metavar="WEBHOOK", help="the webhook's id")
    place.add_arguments(parser)
    arguments = parser.parse_args(argv)

    def work(service: Control) -> int:
        path = f"/webhooks/{quote(arguments.webhook, safe='')}"
        before = service.get(path)
        reason = before["disabled_reason"] or before["problem"]
        webhook = service.post(f"{path}/enable")
        if arguments.json:
            place.print_json(webhook)
            return 0
        if reason is None:
            print(f"Webhook {webhook['id']} was not disabled.")
        else:
            print(f"Webhook {webhook['id']} is enabled.  It had been sent nothing: {printable(reason)}")
        count = webhook["pending"]
        print("1 delivery is pending." if count == 1 else f"{count:,} deliveries are pending.")
        if webhook["held_until"] is not None:
            print(f"It is held back until {place.local(webhook['held_until'])}, since its receiver failed.")
        if webhook["problem"] is not None:
            print(f"It is sent nothing yet: {printable(webhook['problem'])}")
        return 0

    return place.run("enable", arguments, work)
