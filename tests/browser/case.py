"""A service that knows nothing yet, a gateway, receivers, and somebody with a browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from playwright.sync_api import Page
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cubehook.simulator.gateway import Settings, SimulatedCall, SimulatedGateway
from cubehook.simulator.provider import Probing
from cubehook.simulator.scenarios import script
from cubehook.simulator.sink import Behaviour, Received, Sink
from tests.browser.stage import MISSING, Watch, on_stage, open_page, reactor
from tests.functional.control import ask
from tests.functional.harness import PATIENCE, Service, free_port

T = TypeVar("T")


class BrowserCase(TestCase):
    """Ends by asking what went wrong in the pages that were open: nothing may have."""

    timeout = 120
    skip = MISSING
    extra = ""
    """More of the configuration."""
    speed = 20.0
    """How many times faster than life calls go."""
    placed = 0

    async def begin(self) -> None:
        """The service runs; the gateway waits to be told of it."""
        self.cookies: list[Any] = []
        self.gateway_port, self.sink_port = free_port(), free_port()
        self.service = Service(self, Path(self.mktemp()), extra=self.extra)
        self.url = f"http://127.0.0.1:{self.service.console_port}"
        self.provider = f"http://127.0.0.1:{self.gateway_port}/cisco_xcc"
        self.gateway = SimulatedGateway(
            reactor,
            Settings(
                remote_url=self.service.application_url("hq"),
                listen=f"tcp:{self.gateway_port}:interface=127.0.0.1",
                speed=self.speed,
                probing=Probing(response_timeout=5.0, negative=1.0),
            ),
            Random(1),
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(self.gateway.stop()))
        self.before_start()
        await self.gateway.start()
        await self.service.start()

    def before_start(self) -> None:
        """Put into the service's folder what it is to find there."""

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """What the API answers; it must have done what was asked."""
        answer = await ask(self.service, method, path, body)
        self.assertIn(answer.status, (200, 201, 202, 204), answer.body)
        return answer.body

    async def add_cube(self, **more: object) -> None:
        """Cube `hq`, registered."""
        url = self.service.application_url("hq")
        await self.ask(
            "POST", "/cubes", {"id": "hq", "provider_url": self.provider, "application_url": url, **more}
        )
        await self.gateway.when_registered().addTimeout(PATIENCE, reactor)

    async def receiver(self, behaviour: Behaviour | None = None, port: int | None = None) -> Sink:
        """A receiver at `sink_port`, or another port."""
        sink = Sink(
            reactor,
            lambda: time.time_ns() // 1000,
            behaviour=behaviour or Behaviour(),
            received=self.received,
        )
        await sink.start(f"tcp:{port or self.sink_port}:interface=127.0.0.1")
        self.addCleanup(sink.stop)
        return sink

    def received(self, received: Received) -> None:
        """A receiver got something."""

    def call(self, scenario: str = "answered", hold: float = 2.0) -> SimulatedCall:
        self.placed += 1
        return self.gateway.place_call(script(scenario, Random(self.placed), hold))

    async def deliveries(self, count: int, **wanted: object) -> list[dict[str, Any]]:
        """Wait until so many deliveries, newest first, are as wanted."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            items: list[dict[str, Any]] = (await self.ask("GET", "/deliveries?limit=200"))["items"]
            fitting = [each for each in items if all(each[key] == value for key, value in wanted.items())]
            if len(fitting) >= count:
                return fitting
            await deferLater(reactor, 0.05, lambda: None)
        raise self.failureException(f"there were never {count} deliveries {wanted}, but {items}")

    async def browse(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do something with a page, in the browser's thread."""
        return await on_stage(work, *arguments)

    async def open(self, *, signed_in: bool = True, **options: Any) -> tuple[Page, Watch]:
        """A page in a session of its own; closed, and found without fault, at the end of the test."""
        if signed_in and not self.cookies:
            self.cookies = await self.sign_in((self.service.folder / "state" / "admin-token").read_text())
        page, watch = await on_stage(lambda: open_page(self.cookies if signed_in else None, **options))

        async def close() -> None:
            await on_stage(page.context.close)
            self.assertEqual(watch.wrong, [])

        self.addCleanup(lambda: Deferred.fromCoroutine(close()))
        return page, watch

    async def sign_in(self, token: str) -> list[Any]:
        """The cookies of a new session of whoever has this token."""

        def enter() -> list[Any]:
            page, watch = open_page()
            page.goto(f"{self.url}/sign-in")
            page.get_by_label("API token").fill(token.strip())
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("heading", name="Overview", level=1).wait_for()
            cookies: list[Any] = page.context.cookies()
            page.context.close()
            self.assertEqual(watch.wrong, [])
            return cookies

        return await on_stage(enter)
