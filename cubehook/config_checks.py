"""
What is wrong with a cube or a webhook as a whole, in the words of the configuration file's reader.

For those that are made while the service runs: each field is right by itself already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from cubehook.config import Cube, Webhook
from cubehook.config_reader import Checks, Problem, WebhookCheck, hint


def cube_problems(cube: Cube, others: Iterable[Cube]) -> dict[str, str]:
    """What `cube` has that goes not with the others: what was expected and found, by its key."""
    problems: list[Problem] = []
    table = {"cubes": {cube.id: msgspec.to_builtins(cube)}}
    Checks(problems, table).cubes([*others, cube])
    return _told(problems, f"cubes.{cube.id}.")


def webhook_problems(webhook: Webhook, cubes: Collection[str], check_webhook: WebhookCheck) -> dict[str, str]:
    """
    What `webhook` has that does not fit together: what was expected and found, by its key.

    Its `cubes` must be among `cubes`; `check_webhook` judges what belongs to its transport.
    """
    problems: list[Problem] = []
    settings: dict[str, Any] = msgspec.to_builtins(webhook)
    table = {"webhooks": {webhook.id: settings}, "cubes": dict.fromkeys((*cubes, *webhook.cubes))}
    for number, cube in enumerate(webhook.cubes):
        if cube not in cubes:
            expected = "the id of a cube" + hint(cube, cubes)
            problems.append(Problem(f"webhooks.{webhook.id}.cubes[{number}]", expected, "another name"))
    Checks(problems, table).webhook(webhook, check_webhook)
    return _told(problems, f"webhooks.{webhook.id}.")


def _told(problems: Iterable[Problem], prefix: str) -> dict[str, str]:
    told: dict[str, str] = {}
    for problem in problems:
        words = f"expected {problem.expected}; found {problem.found}"
        key = problem.key.removeprefix(prefix)
        told[key] = f"{told[key]}; {words}" if key in told else words
    return told
