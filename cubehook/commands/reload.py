"""`cubehook reload`: let the running service read its configuration again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec

from cubehook.commands import place
from cubehook.control import Control
from cubehook.settings_plan import Reloaded
from cubehook.text import printable


def reload(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook reload",
        description="Let the running service read its configuration file again: cubes, webhooks and most "
        "settings change without losing a registration or a delivery.  A file that cannot be used changes "
        "nothing, and every mistake in it is printed.  What ${NAME} stands for in the file is as it was when "
        "the service was started.",
    )
    place.add_arguments(parser)
    arguments = parser.parse_args(argv)

    def work(service: Control) -> int:
        answer = service.post("/reload")
        if arguments.json:
            place.print_json(answer)
            return 0
        done = msgspec.convert(answer, Reloaded)
        print(f"{printable(done.file)} was reloaded.")
        for line in done.words() or ["nothing has changed"]:
            print(f"  {printable(line, 10_000)}")
        sys.stdout.flush()
        for line in done.warning_words():
            print(f"cubehook reload: {printable(line, 10_000)}", file=sys.stderr)
        return 0

    return place.run("reload", arguments, work)
