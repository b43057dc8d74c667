"""
What the console knows of the service: the API's operations, asked in the process, and a few facts.

A page can do nothing that the API's users could not: it asks by an operation's name, gives what they
would send, and is answered what they would be answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from cubehook import config
from cubehook.api.operations import (
    Caller,
    IfMatch,
    Nothing,
    Operation,
    Tagged,
    check_access,
    operations,
)
from cubehook.api.session import Doors
from cubehook.api.validation import from_json, from_query
from cubehook.events import Micros

VIEWERS_ONLY_LOOK = "You may look, and change nothing: sign in with an administrator's token"


class Desk:
    """
    Asks the operations of `parts`, and tells what else the pages must know of the service.

    `doors` are where people sign in; `settings` are those that hold; `problems` are sentences, none if the
    service is ready.
    """

    def __init__(
        self,
        parts: Iterable[object],
        doors: Doors,
        settings: Callable[[], config.Config],
        problems: Callable[[], list[str]],
        now: Callable[[], Micros],
    ) -> None:
        self.doors = doors
        self._settings = settings
        self.problems = problems
        self.now = now
        self._operations: dict[str, tuple[Operation, Callable[..., Awaitable[Any]]]] = {
            declared.name: (declared, handler) for part in parts for declared, handler in operations(part)
        }

    @property
    def settings(self) -> config.Config:
        """The settings that hold."""
        return self._settings()

    def has(self, operation: str) -> bool:
        """Whether the API has an operation of that name."""
        return operation in self._operations

    async def ask(
        self,
        caller: Caller,
        operation: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        seen: str | None = None,
        **parts: str,
    ) -> Any:
        """
        What an operation answers, checked as the API checks what comes over HTTP.

        `query` has texts, numbers or lists of texts (None for what is not given), `body` what a client would
        write in JSON, `seen` is the tag of the state that the caller means to change.
        Raises ApiError; KeyError if there is no such operation.
        """
        return (await self.ask_tagged(caller, operation, query=query, body=body, seen=seen, **parts))[0]

    async def ask_tagged(
        self,
        caller: Caller,
        operation: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        seen: str | None = None,
        **parts: str,
    ) -> tuple[Any, str]:
        """As `ask`, and the tag of the state that the answer shows; empty if it has none."""
        declared, handler = self._operations[operation]
        check_access(caller, declared)
        arguments: dict[str, Any] = dict(parts)
        if declared.query is not Nothing:
            arguments["query"] = from_query(declared.query, _texts(query or {}))
        if declared.method != "GET" and declared.body is not Nothing:
            arguments["body"] = from_json(declared.body, msgspec.json.encode(body or {}))
        if declared.conditional:
            arguments["if_match"] = IfMatch(f'"{seen}"' if seen else None)
        answer = await handler(caller, **arguments)
        return (answer.result, answer.tag) if isinstance(answer, Tagged) else (answer, "")


def _texts(query: Mapping[str, Any]) -> dict[str, list[str]]:
    """A query as it would be read from an address."""
    return {
        name: [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]
        for name, value in query.items()
        if value is not None
    }
