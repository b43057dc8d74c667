"""An application for the simulator's tests: registers, and answers as it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import treq
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cubehook.simulator.http import Request, Server, response
from cubehook.xcc import codec
from cubehook.xcc import messages as xcc

reactor: Any = installed
PATIENCE = 20.0
EVERYTHING = (
    "CREATED",
    "REDIRECTED",
    "ALERTING",
    "CONNECTED",
    "TRANSFERRED",
    "CALL_DELIVERY",
    "DISCONNECTED",
    "HANDOFFLEAVE",
    "HANDOFFJOIN",
)
OK = response(200)


def soap(message: codec.Message) -> bytes:
    return response(200, codec.write(message), after=b"Content-Type: application/soap+xml\r\n")


def well(message: Any) -> bytes | None:
    """What a good application answers."""
    if isinstance(message, xcc.SolicitXccProbing):
        return soap(xcc.ResponseXccProbing(msg_header=message.msg_header, sequence=message.sequence))
    if isinstance(message, xcc.SolicitXccProviderUnRegister):
        return soap(xcc.ResponseXccProviderUnRegister(message.msg_header))
    if isinstance(message, xcc.SolicitXccConnectionAuthorize):
        return soap(
            xcc.ResponseXccConnectionAuthorize(msg_header=message.msg_header, action=xcc.ContinueProcessing())
        )
    return OK


class Application:
    """
    Listens on loopback.  `answer` makes the HTTP response to a message, None leaves it unanswered.

    `received` holds every message, `bodies` the same as they came.
    """

    def __init__(self, test: TestCase) -> None:
        self.answer: Callable[[Any], bytes | None] = well
        self.hold: Callable[[Any, Request], bool] = lambda message, request: False
        """Takes a request, to answer it later."""
        self.received: list[Any] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self.registration_id = ""
        self._waiting: list[tuple[Callable[[Any], bool], Deferred[Any]]] = []
        self._server = Server(self._handle)
        test.addCleanup(lambda: Deferred.fromCoroutine(self._server.close()))

    async def start(self) -> None:
        self.url = await self._server.listen(reactor, "tcp:0:interface=127.0.0.1") + "/xcc/hq"

    async def stop(self) -> None:
        await self._server.close()

    def when(self, wanted: type | Callable[[Any], bool]) -> Deferred[Any]:
        """Fires with the next message of this type, or of which this is true."""
        event: Deferred[Any] = Deferred()
        _ = event.addTimeout(PATIENCE, reactor)
        match = (lambda message: isinstance(message, wanted)) if isinstance(wanted, type) else wanted
        self._waiting.append((match, event))
        return event

    def events(self) -> list[tuple[str, str, str]]:
        """(callID, connID, event) of every notification received."""
        return [
            (message.call_data.call_id, message.conn_data.conn_id, type(message.event).__name__)
            for message in self.received
            if isinstance(message, xcc.NotifyXccConnectionData)
        ]

    async def ask(self, url: str, message: codec.Message) -> tuple[int, Any]:
        """The status and message that answer a request."""
        return await self.post(url, codec.write(message))

    async def post(self, url: str, body: bytes) -> tuple[int, Any]:
        answer = await treq.post(url, data=body, persistent=False, timeout=PATIENCE)
        return answer.code, codec.read(await answer.content())

    async def register(self, url: str, events: tuple[str, ...] = EVERYTHING, **changes: Any) -> Any:
        request = xcc.RequestXccRegister(
            msg_header=xcc.MsgHeader(transaction_id="A:1"),
            application_data=xcc.ApplicationData(url=self.url, name="cubehook"),
            provider_data=xcc.ProviderData(url=url),
            connection_events_filter=events,
            **changes,
        )
        status, answer = await self.ask(url, request)
        if status == 200:
            self.registration_id = answer.msg_header.registration_id
        return answer

    @property
    def header(self) -> xcc.MsgHeader:
        return xcc.MsgHeader("A:2", self.registration_id)

    def _handle(self, request: Request) -> None:
        message = codec.read(request.body)
        self.bodies.append(request.body)
        self.received.append(message)
        answer = None if self.hold(message, request) else self.answer(message)
        if answer is not None:
            request.respond(answer)
        for entry in list(self._waiting):
            match, event = entry
            if match(message):
                self._waiting.remove(entry)
                event.callback(message)
