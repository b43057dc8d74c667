"""The libraries that cubehook runs on, and their licences, as they say themselves."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any

import msgspec


class Library(msgspec.Struct, frozen=True):
    """A library that this runs on."""

    name: str
    version: str
    licence: str


def libraries() -> list[Library]:
    """What cubehook requires and is installed, in the order of names."""
    found = []
    for wanted in requires("cubehook") or ():
        name = wanted.partition(";")[0].strip()
        for end in "[<>=!~ ":
            name = name.partition(end)[0]
        if "extra ==" in wanted:
            continue
        try:
            about: Any = metadata(name)
            licence = about.get("License-Expression") or _short(about.get("License")) or _classified(about)
            found.append(Library(name, version(name), licence))
        except PackageNotFoundError:
            continue
    return sorted(found, key=lambda library: library.name.lower())


def _short(licence: str | None) -> str:
    return licence if licence and len(licence) <= 40 else ""


def _classified(about: Any) -> str:
    names = [
        text.rpartition("::")[2].strip()
        for text in about.get_all("Classifier") or ()
        if text.startswith("License ::")
    ]
    return ", ".join(names) or "see its package"
