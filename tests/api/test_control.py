"""The control socket: who may open it, whose it is, and how commands find it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from cubehook import control
from cubehook.api.control import ControlListener
from cubehook.control import Control, ControlError, NotRunningError, RefusedError
from tests.api.support import ApiCase, reactor


class ControlCase(ApiCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def listen(self, folder: Path) -> ControlListener:
        listener = ControlListener(folder, self.site, reactor)
        listener.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(listener.close()))
        return listener

    def leave_behind(self) -> None:
        """What a service leaves that is killed."""
        with socket.socket(socket.AF_UNIX) as killed, control.short_path(self.folder) as path:
            killed.bind(path)

    async def get(self, folder: Path, path: str = "/webhooks/crm", **options: Any) -> Any:
        return await deferToThread(Control(folder, **options).get, path)

    async def error(self, kind: type[ControlError], folder: Path, **options: Any) -> str:
        return str(await self.assertFailure(Deferred.fromCoroutine(self.get(folder, **options)), kind))


class Sockets(ControlCase):
    async def test_a_command_speaks_to_the_service(self) -> None:
        self.listen(self.folder)
        self.assertEqual((await self.get(self.folder))["id"], "crm")
        service = Control(self.folder)
        rotated = await deferToThread(service.post, "/webhooks/crm/rotate-secret")
        self.assertEqual(rotated["secret"], "whsec_new")
        self.assertEqual([request.code for request in self.logged], [200, 200])

    async def test_who_asks_is_told_by_the_kernel(self) -> None:
        self.listen(self.folder)
        body = {"since": "2024-11-23T00:00:00Z"}
        await deferToThread(Control(self.folder).post, "/webhooks/crm/redeliver", body)
        self.assertEqual(self.redelivery.asked[-1][-2], f"uid {os.getuid()}")

    async def test_nobody_else_may_open_it_at_any_time(self) -> None:
        before: list[int] = []
        chmod = os.chmod

        def changed(path: Any, mode: int, **options: Any) -> None:
            before.append(stat.S_IMODE(os.stat(path).st_mode))
            chmod(path, mode, **options)

        mask = os.umask(0)
        try:
            with mock.patch.object(os, "chmod", changed):
                listener = self.listen(self.folder)
            self.assertEqual(os.umask(0), 0)
        finally:
            os.umask(mask)
        self.assertEqual(before, [0o600])
        self.assertEqual(stat.S_IMODE(listener.path.lstat().st_mode), 0o600)

    async def test_a_request_without_a_host(self) -> None:
        self.listen(self.folder)

        def ask() -> bytes:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(20)
                with control.short_path(self.folder) as path:
                    asking.connect(path)
                asking.sendall(b"GET /api/v1/webhooks/crm HTTP/1.0\r\n\r\n")
                return asking.makefile("rb").read()

        self.assertTrue((await deferToThread(ask)).startswith(b"HTTP/1.0 200 "))

    async def test_it_is_taken_away(self) -> None:
        listener = self.listen(self.folder)
        await listener.close()
        self.assertEqual(os.listdir(self.folder), [])
        await self.error(NotRunningError, self.folder)

    async def test_it_closes_also_if_someone_took_it_away(self) -> None:
        listener = self.listen(self.folder)
        listener.path.unlink()
        await listener.close()

    async def test_one_left_behind_is_replaced(self) -> None:
        self.leave_behind()
        self.listen(self.folder)
        self.assertEqual((await self.get(self.folder))["id"], "crm")

    async def test_what_is_no_socket_is_left_alone(self) -> None:
        (self.folder / "control.sock").write_text("mine")
        listener = ControlListener(self.folder, self.site, reactor)
        error = self.assertRaises(OSError, listener.open)
        self.assertIn("no socket", error.strerror)
        await listener.close()
        self.assertEqual((self.folder / "control.sock").read_text(), "mine")

    async def test_a_deep_folder(self) -> None:
        deep = self.folder.joinpath(*["a-rather-deep-folder"] * 10)
        deep.mkdir(parents=True)
        listener = self.listen(deep)
        self.assertEqual((await self.get(deep))["id"], "crm")
        self.assertEqual(stat.S_IMODE((deep / "control.sock").lstat().st_mode), 0o600)
        await listener.close()
        self.assertEqual(os.listdir(deep), [])

    async def test_a_deep_folder_where_nothing_shorter_stands_for_it(self) -> None:
        deep = self.folder.joinpath(*["a-rather-deep-folder"] * 10)
        deep.mkdir(parents=True)
        with mock.patch.object(control, "_DESCRIPTORS", self.folder / "nothing"):
            error = self.assertRaises(OSError, ControlListener(deep, self.site, reactor).open)
            self.assertEqual(error.errno, errno.ENAMETOOLONG)
            self.assertIn("state_dir with a shorter path", error.strerror)
            self.assertIn("state_dir with a shorter path", await self.error(ControlError, deep))

    def test_a_short_path_is_held_no_longer_than_needed(self) -> None:
        deep = self.folder.joinpath(*["a-rather-deep-folder"] * 10)
        deep.mkdir(parents=True)
        with control.short_path(deep) as path:
            self.assertLess(len(path), control.PATH_BYTES)
            held = Path(path).parent
            self.assertTrue(held.samefile(deep))
        self.assertFalse(held.exists())

    async def test_a_folder_that_is_gone(self) -> None:
        listener = ControlListener(self.folder / "gone", self.site, reactor)
        self.assertEqual(self.assertRaises(OSError, listener.open).errno, errno.ENOENT)

    async def test_a_file_system_that_knows_no_sockets(self) -> None:
        listener = ControlListener(self.folder, self.site, reactor)
        with mock.patch.object(socket.socket, "bind", side_effect=PermissionError(errno.EPERM, "not here")):
            self.assertEqual(self.assertRaises(OSError, listener.open).strerror, "not here")
        # Its site is not left running, but for the case's own port.
        self.assertEqual(self.site.numPorts, 1)
        await listener.close()


class Commands(ControlCase):
    """What a command is told when it cannot speak to the service."""

    async def test_no_service(self) -> None:
        self.assertIn(str(self.folder), await self.error(NotRunningError, self.folder))
        self.assertIn("no state folder", await self.error(NotRunningError, self.folder / "gone"))
        self.leave_behind()
        self.assertIn(str(self.folder), await self.error(NotRunningError, self.folder))

    async def test_another_user(self) -> None:
        self.listen(self.folder)
        # A test may run as root, who may open everything.
        with mock.patch.object(socket.socket, "connect", side_effect=PermissionError(13, "denied")):
            self.assertIn("service's user", await self.error(ControlError, self.folder))

    async def test_a_refusal(self) -> None:
        self.listen(self.folder)
        body = {"since": "soon", "status": []}
        refused = await self.assertFailure(
            deferToThread(Control(self.folder).post, "/webhooks/crm/redeliver", body), RefusedError
        )
        self.assertEqual(
            (refused.status, refused.code, sorted(refused.fields)), (422, "invalid", ["since", "status"])
        )
        lines = str(refused).splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn("  since: expected a time", lines[1])

    async def test_answers_that_are_none(self) -> None:
        for answer in (
            b"",
            b"hello\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
            b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}",
        ):
            await self.error(ControlError, self.answering(answer))

    async def test_a_service_that_hangs(self) -> None:
        self.webhooks.waits = waits = Deferred[None]()
        self.listen(self.folder)
        asked = deferToThread(Control(self.folder, timeout=0.2).post, "/webhooks/crm/enable")
        error = await self.assertFailure(asked, ControlError)
        self.assertIn("did not answer within 0.2 s", str(error))
        waits.callback(None)

    def answering(self, answer: bytes) -> Path:
        """A folder where a socket answers one request with `answer`, and closes."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        listening = socket.socket(socket.AF_UNIX)
        with control.short_path(folder) as path:
            listening.bind(path)
        listening.listen()

        def serve() -> None:
            with listening, listening.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        served = deferToThread(serve)
        self.addCleanup(lambda: served)
        return folder
