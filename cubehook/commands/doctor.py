"""`cubehook doctor`: what is wrong with a service, its cubes and its webhooks, and what to do."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from cubehook import config_reader
from cubehook.commands import place
from cubehook.text import printable

_LARGEST = 2 << 20
"""Bytes of a text that was copied from a router: a whole configuration has a tenth of that."""


def doctor(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook doctor",
        description="Find out what is wrong: with the configuration, the database, the listeners, each cube "
        "and its gateway, each webhook and its receiver, the clock; whether or not the service runs.  "
        "Nothing is changed, and nothing is registered or sent.",
        epilog="FILE holds what was copied from the router's terminal, prompts and all; - is standard "
        "input.  Both outputs may be in one text.  Exit status: 0 nothing is wrong, 1 something is, 2 wrong "
        "usage.",
    )
    parser.add_argument("--cube", metavar="NAME", help="only this cube, and no webhooks")
    parser.add_argument(
        "--router-config",
        metavar="FILE",
        help="`show running-config`, or its `section wsapi`: compared with the cube",
    )
    parser.add_argument(
        "--registrations", metavar="FILE", help="`show wsapi registration all`: compared with the cube"
    )
    place.add_config(parser, "the configuration of the service, which may run or not")
    place.add_color(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    if arguments.router_config == arguments.registrations == "-":
        parser.error("standard input can be read once: with both outputs in it, give it to --router-config")
    try:
        router, registrations = map(_text, (arguments.router_config, arguments.registrations))
    except OSError as error:
        name = printable(str(error.filename))
        print(f"cubehook doctor: {name} cannot be read: {error.strerror}", file=sys.stderr)
        return 1

    from cubehook.doctor.examination import Asked, NoCubeError, examine, is_well
    from cubehook.doctor.findings import as_builtins, rendered

    asked = Asked(
        config=arguments.config or config_reader.find(),
        cube=arguments.cube,
        router=router,
        registrations=registrations,
    )
    try:
        findings = _run(partial(examine, asked=asked, now=time.time))
    except NoCubeError as error:
        print(f"cubehook doctor: {printable(str(error), 1000)}", file=sys.stderr)
        return 2
    if arguments.json:
        place.print_json(as_builtins(findings))
    else:
        colour = place.colours(arguments.color)
        for line in rendered(findings, unicode=_takes_signs(), colour=colour):
            print(line)
    return 0 if is_well(findings) else 1


def _text(name: str | None) -> str | None:
    if name is None:
        return None
    if name == "-":
        return sys.stdin.buffer.read(_LARGEST).decode("utf-8", "replace")
    with open(Path(name), "rb") as file:
        return file.read(_LARGEST).decode("utf-8", "replace")


def _run(main: Any) -> Any:
    """What `main`, given a reactor, returns or raises; threads that hang are left behind."""
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    reactor: Any = installed
    pool = reactor.getThreadPool()
    # The resolver's too: a name server that is silent holds its thread for a minute and more.
    pool.threadFactory = partial(Thread, daemon=True)
    pool.adjustPoolsize(0, 64)
    outcome: list[Any] = []

    def begin() -> None:
        _ = Deferred.fromCoroutine(main(reactor)).addBoth(end)

    def end(result: Any) -> None:
        outcome.append(result)
        # Not `stop`, which waits for the threads.
        reactor.crash()

    def interrupted(*_: object) -> None:
        # The reactor would take the exception that Python makes of this for a mistake of its own.
        outcome.append(Failure(KeyboardInterrupt()))
        reactor.callFromThread(reactor.crash)

    before = signal.signal(signal.SIGINT, interrupted)
    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    _ = signal.signal(signal.SIGINT, before)
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result


def _takes_signs() -> bool:
    encoding = sys.stdout.encoding or "ascii"
    try:
        "✓✗".encode(encoding)
    except (UnicodeError, LookupError):
        return False
    return os.environ.get("TERM") != "linux"
