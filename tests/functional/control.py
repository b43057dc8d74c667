"""Asks the API of a running service, on its control socket."""

from __future__ import annotations

import json
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor as installed
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from cubehook import control
from cubehook.api.operations import PREFIX
from tests.functional.harness import Service

reactor: Any = installed


@implementer(IAgentEndpointFactory)
class _Socket:
    def __init__(self, path: str) -> None:
        self._path = path

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return UNIXClientEndpoint(reactor, self._path)


class Answer:
    """Status, entity tag and body of an answer."""

    def __init__(self, status: int, tag: str | None, body: Any) -> None:
        self.status = status
        self.tag = tag
        self.body = body


async def ask(
    service: Service, method: str, path: str, body: object = None, tag: str | None = None
) -> Answer:
    """Ask for `path` below the API's prefix; `tag` is sent as If-Match."""
    headers: dict[bytes | str, bytes | str] = {"Host": "localhost"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if tag is not None:
        headers["If-Match"] = tag
    with control.short_path(service.folder / "state") as socket:
        agent = Agent.usingEndpointFactory(reactor, _Socket(socket))
        response = await HTTPClient(agent).request(
            method,
            f"http://localhost{PREFIX}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
        )
        content = await response.content()
    found = response.headers.getRawHeaders("etag") or [None]
    return Answer(response.code, found[0], json.loads(content) if content else None)
