"""`cubehook manhole-password`: a line for the file of those who may come into the manhole over telnet."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cubehook.operations.manhole.passwords import USER, hash_password

_LEAST = 8
"""Characters of a password."""


def manhole_password(argv: Sequence[str]) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="cubehook manhole-password",
        description="Ask for a password twice (or read a line from standard input, if that is no terminal) "
        "and print USER:HASH, or put that line into FILE, which is made with mode 0600 if there is none.",
    )
    parser.add_argument("user", metavar="USER", help="letters, digits and any of . _ @ -")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="manhole.password_file")
    arguments = parser.parse_args(argv)
    if USER.fullmatch(arguments.user) is None:
        parser.error("argument USER: letters, digits and any of . _ @ -, 64 at most")
    password = _asked()
    if password is None:
        return 1
    line = f"{arguments.user}:{hash_password(password, os.urandom(16))}"
    if arguments.file is None:
        print(line)
        return 0
    try:
        replaced = _put(arguments.file, arguments.user, line)
    except OSError as error:
        print(f"{arguments.file} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    how = "has another password" if replaced else "was added"
    print(f"{arguments.user} {how} in {arguments.file}, which is read at each login.")
    return 0


def _asked() -> str | None:
    if sys.stdin.isatty():
        password = getpass.getpass("password: ")
        if getpass.getpass("again: ") != password:
            print("These were two different passwords; nothing is changed.", file=sys.stderr)
            return None
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < _LEAST or not password.isprintable():
        print(f"A password has at least {_LEAST} characters, which can be typed.", file=sys.stderr)
        return None
    return password


def _put(path: Path, user: str, line: str) -> bool:
    """Put `line` into the file in place of that of `user`; whether there was one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        lines, mode = [], 0o600
    kept = [each for each in lines if each.partition(":")[0].strip() != user]
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        # Whoever may read it, such as the service's group, shall be able to go on.
        os.fchmod(descriptor, mode & ~0o022)
        file.write("".join(f"{each}\n" for each in [*kept, line]))
    new.rename(path)
    return len(kept) < len(lines)
