"""Why a cube or a webhook cannot be made or changed while the service runs."""

from __future__ import annotations

from collections.abc import Mapping


class SettingsError(Exception):
    """Settings that cannot be used; `problems` tells of each what was expected and found, by its key."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {words}" for key, words in problems.items()))
        self.problems = dict(problems)


class RefusedError(Exception):
    """It does not go with how things stand; the text says why."""


class ExistsError(RefusedError):
    """There is one of that id already."""
