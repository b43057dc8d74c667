"""Which service a command speaks to, how it says what went wrong, and how it shows times."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cubehook import config_reader
from cubehook.control import Control, ControlError
from cubehook.text import printable

_RESET = "\x1b[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let the user say which service is meant."""
    place = parser.add_mutually_exclusive_group()
    add_config(place, "the configuration of the running service")
    place.add_argument("--state-dir", type=Path, metavar="DIR", help="its state folder, in place of --config")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_config(parser: argparse._ActionsContainer, what: str) -> None:
    """Let the user name a configuration file, which is `what`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"{what}; by default ./cubehook.toml, else /etc/cubehook/cubehook.toml",
    )


def add_color(parser: argparse.ArgumentParser) -> None:
    """Let the user say whether the output is in colour."""
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="auto: if this is a terminal"
    )


def colours(choice: str) -> Callable[[str, str], str]:
    """What gives a text a colour, which is a terminal's command, or leaves it."""
    auto = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if choice == "always" or (choice == "auto" and auto):
        return lambda colour, text: f"{colour}{text}{_RESET}"
    return lambda colour, text: text


def state_dir(arguments: argparse.Namespace) -> Path:
    """The state folder of the service that is meant; ConfigErrors if the configuration does not tell."""
    if arguments.state_dir is not None:
        given: Path = arguments.state_dir
        return given.absolute()
    path = arguments.config or config_reader.find()
    if path is None:
        return config_reader.defaults(Path.cwd()).state_dir
    return config_reader.state_dir(path, os.environ)


def configuration(arguments: argparse.Namespace) -> Path | None:
    """The configuration file of the service that is meant; None if only a state folder was named."""
    if arguments.state_dir is not None:
        return None
    path: Path | None = arguments.config or config_reader.find()
    return path


def run(name: str, arguments: argparse.Namespace, work: Callable[[Control], int]) -> int:
    """The exit status of `work` with the service that is meant; says what went wrong with it."""
    try:
        return work(Control(state_dir(arguments)))
    except (ControlError, config_reader.ConfigErrors) as error:
        lines = "\n".join(printable(line, 2000) for line in str(error).splitlines())
        print(f"cubehook {name}: {lines}", file=sys.stderr)
        return 1


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def local(text: str) -> str:
    """A time of the service as the user's clock has it."""
    return datetime.fromisoformat(text).astimezone().isoformat(" ", "seconds")
