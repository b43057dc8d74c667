from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from cubehook.config import Listen
from cubehook.listeners import ListenError, Listeners
from tests.functional.harness import free_port

reactor: Any = installed


def tcp(port: int) -> str:
    return f"tcp:{port}:interface=127.0.0.1"


class Page(Resource):
    isLeaf = True

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.text = text

    def render_GET(self, request: Request) -> bytes:
        return self.text


class ListenersTests(TestCase):
    def setUp(self) -> None:
        self.one, self.two, self.console = (free_port() for _ in range(3))
        self.listen = Listen(cubes=(tcp(self.one),), console=(tcp(self.console),))
        self.refused = 0
        self.listeners = self.opened(self.listen)

    def opened(self, listen: Listen) -> Listeners:
        listeners = Listeners(reactor, listen, lambda: 0, lambda request: None, self.count)
        listeners.open(Page(b"cubes"), Page(b"console"), lambda address: True)
        self.addCleanup(listeners.close_connections)
        self.addCleanup(listeners.close)
        return listeners

    def count(self) -> None:
        self.refused += 1

    async def get(self, port: int) -> str:
        return await (await treq.get(f"http://127.0.0.1:{port}/", persistent=False)).text()

    async def closed(self, port: int) -> bool:
        try:
            await self.get(port)
        except ConnectionRefusedError:
            return True
        return False

    async def test_each_serves_its_own(self) -> None:
        self.assertEqual("cubes", await self.get(self.one))
        self.assertEqual("console", await self.get(self.console))
        self.assertEqual([f"http://127.0.0.1:{self.console}"], self.listeners.console_urls())

    async def test_only_sockets_of_systemds_outlive_us(self) -> None:
        inherited = "systemd:domain=INET:name=cubes"
        for cubes, expected in (((), False), ((inherited,), True), ((inherited, tcp(self.two)), False)):
            listeners = Listeners(reactor, Listen(cubes=cubes), lambda: 0, lambda request: None, self.count)
            self.assertEqual(listeners.outlive_us, expected)

    async def test_moves(self) -> None:
        await self.listeners.change(Listen(cubes=(tcp(self.two),), console=(tcp(self.console),)))
        self.assertEqual("cubes", await self.get(self.two))
        self.assertTrue(await self.closed(self.one))
        self.assertEqual("console", await self.get(self.console))
        for port in (self.one, self.two) * 3:
            await self.listeners.change(Listen(cubes=(tcp(port),), console=(tcp(self.console),)))
        # Nothing is left of ports that went, but what came with the last.
        self.assertLessEqual(len(self.listeners._sites), 3)

    async def test_what_stays_is_not_opened_again(self) -> None:
        with socket.create_connection(("127.0.0.1", self.one)) as waiting:
            await self.listeners.change(
                Listen(cubes=(tcp(self.two), tcp(self.one)), console=(), max_connections=9)
            )
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            waiting.settimeout(5)
            await self.get(self.two)
            self.assertIn(b"200 OK", waiting.recv(1000))
        self.assertTrue(await self.closed(self.console))

    async def test_connections_of_a_port_that_goes_are_served_to_their_end(self) -> None:
        with socket.create_connection(("127.0.0.1", self.one)) as waiting:
            waiting.sendall(b"GET / HT")
            await self.get(self.one)
            await self.listeners.change(Listen(cubes=(tcp(self.two),), console=()))
            waiting.sendall(b"TP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            waiting.settimeout(5)
            await self.get(self.two)
            self.assertIn(b"200 OK", waiting.recv(1000))

    async def test_another_endpoint_of_the_same_port(self) -> None:
        await self.listeners.change(Listen(cubes=(f"tcp:{self.one}",), console=()))
        self.assertEqual("cubes", await self.get(self.one))

    async def test_ports_change_their_use(self) -> None:
        await self.listeners.change(Listen(cubes=(tcp(self.console),), console=(tcp(self.one),)))
        self.assertEqual("console", await self.get(self.one))
        self.assertEqual("cubes", await self.get(self.console))
        self.assertEqual([f"http://127.0.0.1:{self.one}"], self.listeners.console_urls())

    async def test_a_socket_is_made_again(self) -> None:
        # The path of a socket may have no more than about a hundred bytes.
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        path = folder / "socket"
        await self.listeners.change(Listen(cubes=(f"unix:{path}",), console=()))
        await self.listeners.change(Listen(cubes=(f"unix:{path}:mode=600",), console=()))
        self.assertEqual(0o600, path.stat().st_mode & 0o777)
        # Before the folder goes.
        await self.listeners.close()

    async def test_a_port_that_cannot_be_opened_changes_nothing(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            wanted = Listen(
                cubes=(tcp(self.two), f"tcp:{self.one}"), console=(tcp(taken),), max_connections=8
            )
            with self.assertRaises(ListenError) as caught:
                await self.listeners.change(wanted)
        self.assertIn(
            f"cannot listen on tcp:{taken}:interface=127.0.0.1 (listen.console)", str(caught.exception)
        )
        self.assertEqual("cubes", await self.get(self.one))
        self.assertEqual("console", await self.get(self.console))
        self.assertTrue(await self.closed(self.two))
        await self.listeners.change(wanted.__class__(cubes=(tcp(self.two),), console=()))
        self.assertTrue(await self.closed(self.one))

    async def test_who_stops_while_they_change_is_left_with_none(self) -> None:
        three = free_port()
        wanted = [
            # Ports that only go, one that makes room, and nothing that closes but what comes.
            Listen(cubes=(), console=()),
            Listen(cubes=(f"tcp:{self.one}",), console=(f"tcp:{self.console}",)),
            Listen(cubes=(*self.listen.cubes, tcp(three)), console=()),
        ]
        for listen in wanted:
            listeners = self.opened(self.listen) if listen is not wanted[0] else self.listeners
            changing = Deferred.fromCoroutine(listeners.change(listen))
            await listeners.close()
            try:
                await changing
            except ListenError as error:
                self.assertIn("the service is stopping", str(error))
            for port in (self.one, self.console, three):
                self.assertTrue(await self.closed(port))

    async def test_one_that_closed_by_itself_is_known(self) -> None:
        self.assertEqual([], self.listeners.closed())
        port = self.listeners._groups[0].open[tcp(self.one)]
        await port.stopListening()  # type: ignore[misc]
        self.assertEqual([f"nobody listens on {tcp(self.one)} (listen.cubes)"], self.listeners.closed())

    async def test_limits_hold_at_once(self) -> None:
        held = [socket.create_connection(("127.0.0.1", self.one)) for _ in range(3)]
        try:
            self.assertEqual("cubes", await self.get(self.one))
            await self.listeners.change(
                Listen(cubes=self.listen.cubes, console=(), max_connections_per_address=2)
            )
            self.assertEqual(0, self.refused)
            # It has given way to this one, which proves itself.
            self.assertEqual("cubes", await self.get(self.one))
            self.assertEqual(1, self.refused)
        finally:
            for each in held:
                each.close()
