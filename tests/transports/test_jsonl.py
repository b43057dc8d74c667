"""The JSON Lines transport against real files."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportPlugin
from cubehook.records import ErrorClass
from cubehook.transports.jsonl import JsonLinesOptions, JsonLinesPlugin, JsonLinesTransport
from tests.transports.support import context_for, outbound

WEBHOOK = Webhook(id="archive", transport="jsonl")


class FileTestCase(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "calls.jsonl"

    async def transport(self, path: str = "calls.jsonl", fsync: bool = False) -> JsonLinesTransport:
        options = JsonLinesOptions(path=path, fsync=fsync)
        transport = JsonLinesTransport(options, context_for(WEBHOOK, state_dir=self.folder))
        await transport.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(transport.stop()))
        return transport


class AppendTests(FileTestCase):
    async def test_each_event_is_a_line(self) -> None:
        transport = await self.transport()
        for number in range(3):
            sent = await transport.deliver(outbound(b'{"n":%d}' % number))
            self.assertEqual((sent.delivered, sent.url, sent.error), (True, str(self.path), None))
        self.assertEqual(self.path.read_bytes(), b'{"n":0}\n{"n":1}\n{"n":2}\n')

    async def test_a_body_of_several_lines_becomes_one(self) -> None:
        transport = await self.transport()
        await transport.deliver(outbound(b'{\r\n "n": 1\n}'))
        self.assertEqual(self.path.read_bytes(), b'{   "n": 1 }\n')

    async def test_what_was_there_is_kept(self) -> None:
        self.path.write_bytes(b"{}\n")
        await (await self.transport()).deliver(outbound(b"[]"))
        self.assertEqual(self.path.read_bytes(), b"{}\n[]\n")

    async def test_an_unfinished_line_is_ended(self) -> None:
        self.path.write_bytes(b'{"cut":')
        await (await self.transport()).deliver(outbound(b"[]"))
        self.assertEqual(self.path.read_bytes(), b'{"cut":\n[]\n')

    async def test_folders_are_made_within_the_state_folder_only(self) -> None:
        transport = await self.transport("a/b/calls.jsonl")
        self.assertTrue((await transport.deliver(outbound(b"{}"))).delivered)
        self.assertEqual((self.folder / "a/b/calls.jsonl").read_bytes(), b"{}\n")
        elsewhere = await self.transport(str(self.folder / "c" / "calls.jsonl"))
        sent = await elsewhere.deliver(outbound(b"{}"))
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.OTHER))
        self.assertFalse((self.folder / "c").exists())

    async def test_others_may_not_read_it(self) -> None:
        await (await self.transport()).deliver(outbound())
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode) & 0o007, 0)

    async def test_stop_closes_every_file(self) -> None:
        before = os.listdir("/proc/self/fd")
        transport = await self.transport()
        await transport.deliver(outbound())
        await transport.stop()
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))


class RotationTests(FileTestCase):
    async def test_moved_away(self) -> None:
        for fsync in (False, True):
            transport = await self.transport(fsync=fsync)
            await transport.deliver(outbound(b"1"))
            before = len(os.listdir("/proc/self/fd"))
            old = self.path.rename(self.folder / "calls.jsonl.1")
            await transport.deliver(outbound(b"2"))
            self.assertEqual((old.read_bytes(), self.path.read_bytes()), (b"1\n", b"2\n"))
            self.assertEqual(len(os.listdir("/proc/self/fd")), before, "the old file is still open")
            await transport.stop()
            self.path.unlink()

    async def test_removed(self) -> None:
        transport = await self.transport()
        await transport.deliver(outbound(b"1"))
        self.path.unlink()
        await transport.deliver(outbound(b"2"))
        self.assertEqual(self.path.read_bytes(), b"2\n")

    async def test_truncated_in_place(self) -> None:
        transport = await self.transport()
        await transport.deliver(outbound(b"1"))
        os.truncate(self.path, 0)
        await transport.deliver(outbound(b"2"))
        self.assertEqual(self.path.read_bytes(), b"2\n")


class FailureTests(FileTestCase):
    async def test_what_is_no_file_is_told_and_does_not_block(self) -> None:
        os.mkfifo(self.folder / "pipe.jsonl")
        (self.folder / "folder.jsonl").mkdir()
        for name in ("pipe.jsonl", "folder.jsonl"):
            sent = await (await self.transport(name)).deliver(outbound())
            self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.OTHER))
            self.assertIn(name, sent.error or "")

    async def test_a_full_disk_is_a_failing_receiver_and_leaves_no_half_line(self) -> None:
        transport = await self.transport()
        await transport.deliver(outbound(b"1"))
        real = os.write
        room = 5

        def full(descriptor: int, data: bytes) -> int:
            nonlocal room
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = real(descriptor, data[:room])
            room -= written
            return written

        patch = self.patch(os, "write", full)
        sent = await transport.deliver(outbound(b"0123456789"))
        patch.restore()
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.OTHER))
        self.assertEqual(sent.error, f"{self.path}: No space left on device")
        self.assertEqual(self.path.read_bytes(), b"1\n")
        self.assertTrue((await transport.deliver(outbound(b"2"))).delivered)
        self.assertEqual(self.path.read_bytes(), b"1\n2\n")


class SyncTests(FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.synced: list[int] = []
        self.may_sync = threading.Event()
        self.failure: OSError | None = None
        real = os.fsync

        def fsync(descriptor: int) -> None:
            self.assertTrue(self.may_sync.wait(5), "never allowed to sync")
            self.synced.append(os.fstat(descriptor).st_size)
            if self.failure is not None:
                raise self.failure
            real(descriptor)

        self.patch(os, "fsync", fsync)
        self.addCleanup(self.may_sync.set)

    async def test_an_event_is_delivered_once_the_disk_has_it(self) -> None:
        transport = await self.transport(fsync=True)
        delivery = Deferred.fromCoroutine(transport.deliver(outbound(b"1")))
        self.assertFalse(delivery.called)
        self.may_sync.set()
        self.assertTrue((await delivery).delivered)
        self.assertEqual(self.synced, [2])

    async def test_events_share_a_wait_and_keep_their_order(self) -> None:
        transport = await self.transport(fsync=True)
        deliveries = [Deferred.fromCoroutine(transport.deliver(outbound(b"%d" % n))) for n in range(8)]
        self.may_sync.set()
        for sent in await gatherResults(deliveries):
            self.assertTrue(sent.delivered)
        self.assertEqual(self.path.read_bytes(), b"0\n1\n2\n3\n4\n5\n6\n7\n")
        self.assertEqual(len(self.synced), 2)
        self.assertEqual(self.synced[-1], 16)

    async def test_a_sync_that_fails_is_a_failing_receiver(self) -> None:
        self.may_sync.set()
        self.failure = OSError(errno.EIO, "Input/output error")
        transport = await self.transport(fsync=True)
        sent = await transport.deliver(outbound())
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.OTHER))
        self.failure = None
        self.assertTrue((await transport.deliver(outbound())).delivered)

    async def test_a_sync_that_hangs_times_out(self) -> None:
        transport = await self.transport(fsync=True)
        sent = await transport.deliver(outbound(timeout=0.05))
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.TIMEOUT))
        self.may_sync.set()

    async def test_a_file_moved_away_during_a_sync_is_synced_too(self) -> None:
        transport = await self.transport(fsync=True)
        deliveries = [Deferred.fromCoroutine(transport.deliver(outbound(b"1")))]
        deliveries.append(Deferred.fromCoroutine(transport.deliver(outbound(b"22"))))
        self.path.rename(self.folder / "old.jsonl")
        deliveries.append(Deferred.fromCoroutine(transport.deliver(outbound(b"333"))))
        self.may_sync.set()
        for sent in await gatherResults(deliveries):
            self.assertTrue(sent.delivered)
        self.assertEqual(sorted(self.synced[-2:]), [4, 5])

    async def test_cancelling_ends_at_once_and_stop_waits_for_the_disk(self) -> None:
        transport = await self.transport(fsync=True)
        delivery = Deferred.fromCoroutine(transport.deliver(outbound()))
        delivery.cancel()
        with self.assertRaises(CancelledError):
            await delivery
        stopped = Deferred.fromCoroutine(transport.stop())
        self.assertFalse(stopped.called)
        self.may_sync.set()
        await stopped


class CheckTests(SynchronousTestCase):
    def _check(self, path: str) -> list[str]:
        return [key for key, _ in JsonLinesPlugin().check(WEBHOOK, JsonLinesOptions(path=path))]

    def test_paths(self) -> None:
        for path in ("calls.jsonl", "a/b.jsonl", "/var/log/calls.jsonl", "a..b/c.jsonl"):
            self.assertEqual(self._check(path), [], path)
        for path in (
            "",
            "calls",
            "cubehook.db",
            "../x.jsonl",
            "a/../../x.jsonl",
            "x\0.jsonl",
            ".jsonl",
            "x/",
        ):
            self.assertEqual(self._check(path), ["options.path"], path)

    def test_interfaces_are_kept(self) -> None:
        plugin: Any = JsonLinesPlugin()
        verifyObject(ITransportPlugin, plugin)
        options = JsonLinesOptions(path="x.jsonl")
        verifyObject(ITransport, plugin.create(WEBHOOK, options, context_for(WEBHOOK)))
