"""A Klein application behind a real listener: answers at once and later, failures, clients that leave."""

from __future__ import annotations

import gc
from typing import Any

import treq
from klein import Klein
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from cubehook.net.routing import LazyResource, PlainResource
from cubehook.net.site import AccessSite, LimitedRequest

reactor: Any = installed


class RoutingTests(TestCase):
    def setUp(self) -> None:
        self.app = Klein()
        self.app.url_map.merge_slashes = False
        self.requests: list[LimitedRequest] = []
        self.waiting: Deferred[bytes] = Deferred()
        self.called: Deferred[None] = Deferred()

        @self.app.route("/xcc/", branch=True)
        def echo(request: LimitedRequest) -> bytes:
            self.requests.append(request)
            return request.path

        @self.app.route("/later", methods=["POST"])
        def later(request: LimitedRequest) -> Deferred[bytes]:
            self.called.callback(None)
            return self.waiting

        @self.app.route("/broken")
        def broken(request: LimitedRequest) -> bytes:
            raise LookupError("no such thing")

        self.logged: list[tuple[bytes, int]] = []
        self.made = 0
        site = AccessSite(
            LazyResource(self.make),
            lambda request: self.logged.append((request.path, request.code)),
            lambda: 0,
            reactor,
        )
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        self.client = treq.client.HTTPClient(Agent(reactor, pool=pool))

    def make(self) -> PlainResource:
        self.made += 1
        return PlainResource(self.app)

    async def ask(self, method: str, path: str) -> tuple[int, bytes, object]:
        response = await self.client.request(
            method, f"http://127.0.0.1:{self.port.getHost().port}{path}", allow_redirects=False
        )
        return response.code, await response.content(), response.length

    async def test_an_answer_at_once(self) -> None:
        self.assertEqual(await self.ask("POST", "/xcc/a//hq/"), (200, b"/xcc/a//hq/", 11))
        self.assertEqual(await self.ask("GET", "/xcc/a//hq/"), (200, b"/xcc/a//hq/", 11))

    async def test_it_is_made_with_the_first_request_and_not_again(self) -> None:
        self.assertEqual(self.made, 0)
        await self.ask("POST", "/xcc/hq")
        await self.ask("POST", "/xcc/hq")
        self.assertEqual(self.made, 1)

    async def test_an_answer_later(self) -> None:
        asked = Deferred.fromCoroutine(self.ask("POST", "/later"))
        await self.called
        self.waiting.callback(b"")
        self.assertEqual(await asked, (200, b"", 0))

    async def test_what_no_route_takes_is_answered_by_klein(self) -> None:
        self.assertEqual((await self.ask("PUT", "/later"))[0], 405)
        self.assertEqual((await self.ask("POST", "/nowhere"))[0], 404)
        self.assertEqual((await self.ask("POST", "/xcc/%FF"))[0], 200)

    async def test_failures_at_once_and_later(self) -> None:
        self.assertEqual((await self.ask("GET", "/broken"))[0], 500)
        asked = Deferred.fromCoroutine(self.ask("POST", "/later"))
        await self.called
        self.waiting.errback(LookupError("no such thing"))
        self.assertEqual((await asked)[0], 500)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 2)

    async def gone(self) -> None:
        """A client asks for `/later` and leaves before the answer."""
        client = await connectProtocol(
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port), Protocol()
        )
        client.transport.write(b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        await self.called
        client.transport.abortConnection()
        # A request of its own tells that the listener has seen to what came before.
        await self.ask("POST", "/xcc/another")

    async def test_a_client_that_leaves_cancels_nothing(self) -> None:
        cancelled: list[object] = []
        self.waiting = Deferred(cancelled.append)
        await self.gone()
        self.assertEqual(cancelled, [])
        self.waiting.callback(b"too late")

    async def test_a_failure_after_its_client_left_is_logged(self) -> None:
        await self.gone()
        self.waiting.errback(LookupError("no such thing"))
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    async def test_requests_leave_no_reference_cycles(self) -> None:
        await self.ask("POST", "/xcc/hq")
        self.requests.clear()
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await self.ask("POST", "/xcc/hq")
                self.requests.clear()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kept = [each for each in gc.garbage if isinstance(each, LimitedRequest)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        self.assertEqual(kept, [])
