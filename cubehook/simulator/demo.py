"""
`twistd cubehook --demo`: the service, a simulated gateway and a receiver in one process, on loopback.

What is printed is what the receiver got, so whoever reads it sees the product from its far end.
"""

from __future__ import annotations

import base64
import secrets
import shutil
import socket
import sys
import time
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook import config
from cubehook.delivery.signing import decode_secret
from cubehook.events import CallEvent, CallState
from cubehook.service import CubehookService
from cubehook.simulator.gateway import Observer, Settings, SimulatedGateway
from cubehook.simulator.provider import Registration
from cubehook.simulator.scenarios import Traffic
from cubehook.simulator.sink import Received, Sink
from cubehook.text import printable

MIX = {
    "answered": 40.0,
    "busy": 10.0,
    "no_answer": 10.0,
    "abandoned": 10.0,
    "hunt": 10.0,
    "simultaneous": 10.0,
    "blind_transfer": 5.0,
    "withheld": 5.0,
}
SHOWN_BODIES = 6
"""How many payloads are shown as they came: those of about two calls."""

_WORDS = {CallState.ALERTING: "rings", CallState.CONNECTED: "answered", CallState.DISCONNECTED: "ended"}


class DemoService(Service):
    """
    The service with its state in `folder`, which is removed at the end, and company.

    `seed` makes the calls the same every time.
    """

    _log = Logger()

    def __init__(self, folder: Path, reactor: Any, seed: int = 1) -> None:
        self._folder = folder
        self._reactor = reactor
        self._seed = seed
        self._shown = 0
        cubes, gateway, sink, console = _free_ports(4)
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self._console = f"http://127.0.0.1:{console}/"
        application_url = f"http://127.0.0.1:{cubes}/xcc/demo"
        webhooks = tuple(
            config.Webhook(
                id=payload, url=f"http://127.0.0.1:{sink}/{payload}", payload=payload, secret=secret
            )
            for payload in ("basic", "full")
        )
        self._settings = config.Config(
            state_dir=folder,
            listen=config.Listen(
                cubes=(f"tcp:{cubes}:interface=127.0.0.1",), console=(f"tcp:{console}:interface=127.0.0.1",)
            ),
            cubes=(
                config.Cube(
                    id="demo",
                    provider_url=f"http://127.0.0.1:{gateway}/cisco_xcc",
                    application_url=application_url,
                    default_region="US",
                ),
            ),
            webhooks=webhooks,
            egress=config.Egress(allow=("127.0.0.0/8",)),
        )
        self._service = CubehookService(self._settings, reactor)
        self._sink = Sink(
            reactor, lambda: time.time_ns() // 1000, secrets=[decode_secret(secret)], received=self._received
        )
        self._sink_endpoint = f"tcp:{sink}:interface=127.0.0.1"
        self._gateway = SimulatedGateway(
            reactor,
            Settings(remote_url=application_url, listen=f"tcp:{gateway}:interface=127.0.0.1", speed=2.0),
            Random(seed),  # noqa: S311 - for play
            [_Registered(self)],
        )
        self._calls: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._service.privilegedStartService()

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._calls = Deferred.fromCoroutine(self._play())
        _ = self._calls.addErrback(self._ended)

    async def _play(self) -> None:
        await self._sink.start(self._sink_endpoint)
        await self._gateway.start()
        self._service.startService()
        await self._service.ready
        self.say(f"cubehook runs with its state in {self._folder}; logs are in {self._folder / 'log'}.")
        self.say(
            f"The console is at {self._console}: the line above with `Sign in` has the link into it.\n"
            f"Metrics are at {self._console}metrics. A simulated gateway comes up; Ctrl-C ends it all.\n"
            "A line is a webhook as a receiver gets it; in brackets, how long after the gateway's word.\n"
        )
        await self._gateway.when_registered()
        await self._gateway.make_calls(Traffic(mix=MIX, seed=self._seed, rate=0.4, hold_seconds=12.0))

    def _ended(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("The demonstration broke", failure)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._calls is not None:
            self._calls.cancel()
        await self._service.stopService()
        await self._gateway.stop()
        await self._sink.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def say(self, text: str) -> None:
        """Print a line past twistd's log, which would take it for one of its own."""
        if sys.__stdout__ is not None:
            sys.__stdout__.write(text + "\n")
            sys.__stdout__.flush()

    def _received(self, received: Received) -> None:
        if received.path == "/basic":
            self._show(received.body)
        else:
            self._tell(received)

    def _show(self, body: bytes) -> None:
        """A body as it came, the first times."""
        if self._shown < SHOWN_BODIES:
            self._shown += 1
            self.say(f"              {printable(body.decode(), 500)}")
            if self._shown == SHOWN_BODIES:
                self.say("              (so it goes on: one such body, signed, for each state of each call)")

    def _tell(self, received: Received) -> None:
        event = msgspec.json.decode(received.body, type=CallEvent)
        when = datetime.fromisoformat(event.timestamp).astimezone().strftime("%H:%M:%S.%f")[:-3]
        parties = f"{event.calling_number or 'withheld'} -> {event.called_number or 'unknown'}"
        what = _WORDS[event.call_state]
        if event.call_state is CallState.DISCONNECTED:
            what += f": {event.outcome}"
            if event.talk_seconds is not None:
                what += f", talked {event.talk_seconds:.1f} s"
        latency = 0.0 if received.latency is None else received.latency * 1000
        signed = "signed" if received.signature == "ok" else f"signature {received.signature}"
        self.say(
            f"{when}  {printable(parties):<28}  {what}  "
            f"[call {event.call_id[-4:]}, {latency:.0f} ms, {signed}]"
        )


class _Registered(Observer):
    def __init__(self, demo: DemoService) -> None:
        self._demo = demo

    def registered(self, registration: Registration) -> None:
        self._demo.say(f"The gateway says: {registration.name} is registered as {registration.id}.\n")


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nothing listens at the moment."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
