"""Why a cube or a webhook cannot be made or changed while the service runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class SettingsError(Exception):
    """Settings that cannot be used; `problems` tells of each what was expected and found, by its key."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {words}" for key, words in problems.items()))
        self.problems = dict(problems)


class MissingError(KeyError):
    """
    There is no cube or webhook of that id.

    It is a class of its own so that a KeyError out of a bug is not taken for it.
    """


def the(id: str, known: Mapping[str, T]) -> T:
    """The one of that id among those `known`; MissingError if there is none."""
    if id not in known:
        raise MissingError(id)
    return known[id]


class ReloadError(Exception):
    """
    The configuration was read again, and nothing was changed.

    `problems` tells of each mistake what was expected and found, by its key (`file` for the file as a whole).
    """

    def __init__(self, message: str, problems: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.problems = dict(problems or {})

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {key}: {words}" for key, words in self.problems.items())])


class RefusedError(Exception):
    """It does not go with how things stand; the text says why."""


class ExistsError(RefusedError):
    """There is one of that id already."""
