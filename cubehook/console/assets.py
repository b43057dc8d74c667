"""
The console's static files: style, scripts, icons, all served by us.

A file's address holds a hash of its content, so browsers keep it for good and never show an old one.
"""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from typing import NamedTuple

FOLDER = "static"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """A file: its bytes, the same compressed, what it is, and the hash that stands in its address."""

    body: bytes
    zipped: bytes
    content_type: str
    hash: str


class Vendored(NamedTuple):
    """A file that others wrote and we ship."""

    file: str
    name: str
    version: str
    licence: str
    home: str


VENDORED = (
    Vendored("htmx.js", "htmx", "2.0.11", "0BSD", "https://htmx.org"),
    Vendored("idiomorph.js", "idiomorph", "0.7.4", "0BSD", "https://github.com/bigskysoftware/idiomorph"),
    Vendored("uplot.js", "uPlot", "1.6.32", "MIT", "https://github.com/leeoniya/uPlot"),
    Vendored("uplot.css", "uPlot", "1.6.32", "MIT", "https://github.com/leeoniya/uPlot"),
)
"""Each with the licence's SPDX name; `static/LICENSES.txt` has the texts."""


class Assets:
    """The static files, read once."""

    def __init__(self) -> None:
        self._assets: dict[str, Asset] = {}
        for file in files("cubehook.console").joinpath(FOLDER).iterdir():
            kind = _TYPES.get("." + file.name.rpartition(".")[2])
            if kind is not None:
                body = file.read_bytes()
                digest = hashlib.sha256(body).hexdigest()[:16]
                self._assets[file.name] = Asset(body, gzip.compress(body, 9, mtime=0), kind, digest)

    def path(self, name: str) -> str:
        """Where a file is served; KeyError if there is none of that name."""
        return f"/{FOLDER}/{self._assets[name].hash}/{name}"

    def get(self, name: str) -> Asset | None:
        """A file."""
        return self._assets.get(name)
