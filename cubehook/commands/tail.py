"""`cubehook tail`: events in a terminal, as they happen."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from cubehook.commands import place
from cubehook.commands.events import Sent, read
from cubehook.control import Control, ControlError, RefusedError
from cubehook.events import CallState
from cubehook.ids import first_id, id_text
from cubehook.text import printable
from cubehook.times import parse_moment

_AGAIN = 1.0
"""Seconds after which a service that went is looked for again."""

_UNAVAILABLE = 503

_STATE_WIDTH = max(map(len, CallState))

_NUMBERS = ("calling_number", "called_number", "original_called_number", "redirected_to")

_DIM = "\x1b[2m"
_RED = "\x1b[31m"
_GREEN = "\x1b[32m"
_YELLOW = "\x1b[33m"
_BLUE = "\x1b[34m"
_MAGENTA = "\x1b[35m"

_COLOURS = {"ALERTING": _YELLOW, "CONNECTED": _GREEN, "answered": _BLUE}
_BAD_NEWS = frozenset({"cube.lost", "webhook.failing", "webhook.disabled"})


def tail(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook tail",
        description="Show events of calls as they happen, and what the service has to tell of itself "
        "(cubes lost, webhooks failing).  When the service is started again, what happened meanwhile is "
        "shown too.  Ctrl-C ends it.",
        epilog="WHEN is a time with its zone such as 2024-11-23T16:00:00Z, a date, or how long ago it was, "
        "such as 10m or 2h: a day at most.",
    )
    parser.add_argument("--cube", metavar="CUBE", help="only of this cube")
    parser.add_argument(
        "--state",
        type=_states,
        metavar="LIST",
        help=f"only these: any of {', '.join(CallState)}, with commas",
    )
    parser.add_argument(
        "--number",
        type=_digits,
        metavar="DIGITS",
        help="only of calls from or to a number that has these digits",
    )
    parser.add_argument("--since", metavar="WHEN", help="begin with what happened then")
    parser.add_argument(
        "--notices",
        action=argparse.BooleanOptionalAction,
        help="with what the service tells of itself, which comes unless --state or --number are given",
    )
    place.add_color(parser)
    place.add_arguments(parser)
    arguments = parser.parse_args(argv)
    after = None
    if arguments.since is not None:
        now = time.time_ns() // 1000
        try:
            after = id_text(first_id(parse_moment(arguments.since, now)))
        except ValueError as error:
            parser.error(f"argument --since: {printable(arguments.since)!r}: {error}")
    return place.run("tail", arguments, partial(_tail, arguments, after))


def _states(text: str) -> frozenset[str]:
    states = frozenset(state.strip().upper() for state in text.split(","))
    for state in sorted(states.difference(CallState)):
        raise argparse.ArgumentTypeError(f"{printable(state)!r} is none of {', '.join(CallState)}")
    return states


def _digits(text: str) -> str:
    digits = re.sub(r"[^0-9]", "", text)
    if not digits:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} has no digits")
    return digits


def _tail(arguments: argparse.Namespace, after: str | None, service: Control) -> int:
    query = {}
    if arguments.cube is not None:
        # The stream of a cube that is not there would be silent for ever.
        service.get(f"/cubes/{quote(arguments.cube, safe='')}")
        query["cube"] = arguments.cube
    notices = arguments.notices
    if notices is None:
        notices = arguments.state is None and arguments.number is None
    if notices:
        query["notices"] = "true"
    show = _show_json if arguments.json else partial(_show, colours=place.colours(arguments.color))
    for sent in _sent(service, f"/events?{urlencode(query)}", after):
        told = json.loads(sent.data)
        if sent.type == "gap":
            _tell(f"What happened before {place.local(told['told_since'])} is not told again.")
        elif _wanted(arguments, told):
            show(told)
            sys.stdout.flush()
    return 0


def _sent(service: Control, path: str, after: str | None) -> Iterator[Sent]:
    """What the service tells, without end: one that goes is waited for."""
    last, ever, lost = after, False, False
    while True:
        why = ""
        try:
            with_id = {} if last is None else {"Last-Event-ID": last}
            for told in read(service.stream(path, {"Accept": "text/event-stream", **with_id})):
                if lost:
                    _tell("It is back; what happened meanwhile comes first.")
                ever, lost = True, False
                last = last if told.id is None else told.id
                if isinstance(told, Sent):
                    yield told
        except ControlError as error:
            # While it starts or stops it may have no time for us.
            refused = isinstance(error, RefusedError) and error.status != _UNAVAILABLE
            if refused or not ever:
                raise
            why = f" ({error})"
        if not lost:
            _tell(f"The service tells no more{why}.  Waiting for it ...")
        lost = True
        time.sleep(_AGAIN)


def _wanted(arguments: argparse.Namespace, told: Mapping[str, Any]) -> bool:
    if "call_state" not in told:
        return True
    if arguments.state is not None and told["call_state"] not in arguments.state:
        return False
    return arguments.number is None or any(
        arguments.number in re.sub(r"[^0-9]", "", (told[name] or "").partition("@")[0]) for name in _NUMBERS
    )


def _show_json(told: Mapping[str, Any]) -> None:
    # In ASCII, so that nothing received commands a terminal.
    print(json.dumps(told, separators=(",", ":")))


def _show(told: Mapping[str, Any], colours: Callable[[str, str], str]) -> None:
    print(_notice_line(told, colours) if "call_state" not in told else _call_line(told, colours))


def _call_line(told: Mapping[str, Any], colours: Callable[[str, str], str]) -> str:
    state, outcome = told["call_state"], told["outcome"]
    colour = _COLOURS.get(outcome or state, _RED)
    line = (
        f"{colours(_DIM, _clock(told['timestamp']))}  {printable(told['cube'])}  "
        f"{colours(colour, f'{state:{_STATE_WIDTH}}')}  {_calling(told)} -> {_number(told['called_number'])}"
    )
    more = [] if outcome is None else [colours(colour, outcome)]
    if told["talk_seconds"] is not None and state == CallState.DISCONNECTED:
        more.append(f"talked {_duration(told['talk_seconds'])}")
    elif told["ring_seconds"] is not None and state != CallState.ALERTING:
        more.append(f"rang {_duration(told['ring_seconds'])}")
    if told["disconnect_cause"] is not None:
        more.append(f"cause {told['disconnect_cause']} {printable(told['disconnect_text'] or '')}".rstrip())
    if told["inferred"]:
        more.append("inferred")
    more.append(colours(_DIM, f"call {printable(told['call_id'])}"))
    return f"{line}  {', '.join(more)}"


def _notice_line(told: Mapping[str, Any], colours: Callable[[str, str], str]) -> str:
    type, data = told["type"], told["data"]
    subject, *others = data.items()
    about = [f"{name}: {value}" for name, value in others if value not in (None, "") and name != "name"]
    colour = _RED if type in _BAD_NEWS else _MAGENTA
    return (
        f"{colours(_DIM, _clock(told['timestamp']))}  {colours(colour, printable(type))}  "
        f"{printable(f'{subject[0]} {subject[1]}')}  {printable('; '.join(about), 500)}"
    )


def _calling(told: Mapping[str, Any]) -> str:
    return "withheld" if told["calling_withheld"] else _number(told["calling_number"])


def _number(number: str | None) -> str:
    return printable(number, 80) if number else "unknown"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def _clock(text: str) -> str:
    """A time as this machine's clock has it, to the millisecond."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _tell(text: str) -> None:
    print(printable(text, 1000), file=sys.stderr, flush=True)
