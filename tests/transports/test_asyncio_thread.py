"""The loop beside the reactor: who runs in it, what it may connect to, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.trial.unittest import TestCase

from cubehook.config import Egress
from cubehook.net.egress import BlockedError, policy_from
from cubehook.transports import asyncio_thread
from cubehook.transports.asyncio_thread import BorrowedLoop, borrow_loop
from tests.transports.support import LOOPBACK, NamedReactor, Names, Receiver

reactor: Any = installed
STRICT = Egress()


class LoopTestCase(TestCase):
    timeout = 30

    def borrow(self, egress: Egress = LOOPBACK, names: Names | None = None) -> BorrowedLoop:
        loop = borrow_loop(reactor if names is None else NamedReactor(names), policy_from(egress))
        self.addCleanup(lambda: Deferred.fromCoroutine(loop.give_back()))
        return loop

    def files(self) -> list[str]:
        return sorted(
            os.readlink(each.path) for each in os.scandir("/proc/self/fd") if os.path.islink(each.path)
        )

    def threads(self) -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "cubehook-asyncio"]


async def forever() -> None:
    await asyncio.Event().wait()


class Watched:
    """A coroutine that tells when it began and how it ended."""

    def __init__(self) -> None:
        self.began: Deferred[None] = Deferred()
        self.ended: Deferred[str] = Deferred()

    async def run(self, wait: Callable[[], Coroutine[Any, Any, None]] = forever) -> None:
        reactor.callFromThread(self.began.callback, None)
        how = "returned"
        try:
            await wait()
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            reactor.callFromThread(self.ended.callback, how)


class RunTests(LoopTestCase):
    async def test_the_result_comes_back_to_the_reactor(self) -> None:
        loop = self.borrow()
        here = threading.current_thread()

        async def work() -> threading.Thread:
            await asyncio.sleep(0)
            return threading.current_thread()

        there = await loop.run(work())
        self.assertEqual(there.name, "cubehook-asyncio")
        self.assertIs(threading.current_thread(), here)

    async def test_an_exception_comes_back_whole(self) -> None:
        async def work() -> None:
            raise ValueError("the words")

        with self.assertRaises(ValueError) as caught:
            await self.borrow().run(work())
        self.assertEqual(str(caught.exception), "the words")
        frames = []
        traceback = caught.exception.__traceback__
        while traceback is not None:
            frames.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        self.assertIn("work", frames)

    async def test_many_at_once(self) -> None:
        loop = self.borrow()

        async def work(number: int) -> int:
            await asyncio.sleep(0.001 * (number % 3))
            return number

        results = await gatherResults([loop.run(work(number)) for number in range(200)])
        self.assertEqual(results, list(range(200)))

    async def test_cancelling_ends_at_once_and_cancels_the_task(self) -> None:
        watched = Watched()
        run = self.borrow().run(watched.run())
        await watched.began
        run.cancel()
        self.assertTrue(run.called)
        with self.assertRaises(CancelledError):
            await run
        self.assertEqual(await watched.ended, "CancelledError")

    async def test_cancelling_before_it_began_never_begins_it(self) -> None:
        loop = self.borrow()
        began: list[int] = []
        may_go_on = threading.Event()

        async def block() -> None:
            may_go_on.wait(5)

        async def work() -> None:
            began.append(1)

        blocking = loop.run(block())
        run = loop.run(work())
        run.cancel()
        may_go_on.set()
        with self.assertRaises(CancelledError):
            await run
        await blocking
        await loop.run(asyncio.sleep(0))
        self.assertEqual(began, [])

    async def test_a_task_cancelled_in_the_loop_ends_its_deferred(self) -> None:
        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await forever()

        with self.assertRaises(CancelledError):
            await self.borrow().run(work())

    async def test_a_task_that_wants_to_end_the_process_ends_nobody_else(self) -> None:
        loop = self.borrow()

        async def leave() -> None:
            raise SystemExit(3)

        other = loop.run(asyncio.sleep(0.05, "done"))
        with self.assertRaises(SystemExit):
            await loop.run(leave())
        self.assertEqual(await other, "done")
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)


class LifeTests(LoopTestCase):
    async def test_one_thread_for_all_that_ends_with_the_last(self) -> None:
        await deferLater(reactor, 0)  # the reactor opens files of its own once it runs
        before = self.files()
        self.assertEqual(self.threads(), [])
        first, second = self.borrow(), self.borrow()
        self.assertEqual(len(self.threads()), 1)
        self.assertIs(
            await first.run(self._thread()), await second.run(self._thread()), "each has a loop of its own"
        )
        await first.give_back()
        self.assertEqual(len(self.threads()), 1)
        await second.run(asyncio.sleep(0))
        await second.give_back()
        self.assertEqual(self.threads(), [])
        self.assertEqual(self.files(), before)
        # And again.
        third = self.borrow()
        await third.run(asyncio.sleep(0))
        await third.give_back()
        self.assertEqual(self.threads(), [])
        self.assertEqual(self.files(), before)

    async def _thread(self) -> threading.Thread:
        return threading.current_thread()

    async def test_giving_back_ends_the_borrowers_tasks_and_no_others(self) -> None:
        mine, theirs = Watched(), Watched()
        left, stays = self.borrow(), self.borrow()
        of_a_library = Watched()

        async def library() -> None:
            self._kept = asyncio.get_running_loop().create_task(of_a_library.run())
            await mine.run()

        run = left.run(library())
        other = stays.run(theirs.run())
        await gatherResults([mine.began, theirs.began, of_a_library.began])
        await left.give_back()
        with self.assertRaises(CancelledError):
            await run
        self.assertEqual((await mine.ended, await of_a_library.ended), ("CancelledError", "CancelledError"))
        self.assertFalse(theirs.ended.called)
        other.cancel()
        with self.assertRaises(CancelledError):
            await other

    async def test_giving_back_cuts_what_is_still_connected(self) -> None:
        receiver = Receiver(self)
        left, stays = self.borrow(), self.borrow()
        kept: list[Any] = []

        async def connect() -> None:
            kept.append(await asyncio.open_connection("127.0.0.1", receiver.port))

        await left.run(connect())
        await stays.run(connect())
        while len(receiver.conversations) < 2:
            await deferLater(reactor, 0.01)
        await left.give_back()
        mine, theirs = receiver.conversations
        await mine.gone()
        self.assertFalse(theirs.is_lost)

    async def test_giving_back_twice_counts_once(self) -> None:
        first, second = self.borrow(), self.borrow()
        await first.give_back()
        await first.give_back()
        self.assertEqual(await second.run(asyncio.sleep(0, "alive")), "alive")

    async def test_after_giving_back_nothing_runs(self) -> None:
        loop, _ = self.borrow(), self.borrow()
        await loop.give_back()
        with self.assertRaises(RuntimeError):
            _ = loop.run(forever())

    async def test_a_task_that_does_not_end_is_told_and_left(self) -> None:
        self.patch(asyncio_thread, "GRACE", 0.2)
        loop = self.borrow()
        began: Deferred[None] = Deferred()

        async def stubborn() -> None:
            reactor.callFromThread(began.callback, None)
            for _ in range(1000):
                try:
                    await asyncio.sleep(0.5)
                except asyncio.CancelledError:
                    continue

        run = loop.run(stubborn())
        await began
        logged: list[Any] = []
        observer: Any = logged.append
        self.patch(asyncio_thread, "_log", Logger(observer=observer))
        await loop.give_back()
        self.assertIn("stubborn", str(logged))
        self.assertEqual(self.threads(), [])
        run.cancel()
        with self.assertRaises(CancelledError):
            await run

    async def test_a_library_that_blocks_the_loop_does_not_hold_up_the_stop(self) -> None:
        self.patch(asyncio_thread, "GRACE", 0.1)
        loop = self.borrow()
        may_go_on = threading.Event()
        self.addCleanup(may_go_on.set)
        began: Deferred[None] = Deferred()

        async def block() -> None:
            reactor.callFromThread(began.callback, None)
            may_go_on.wait(10)

        run = loop.run(block())
        await began
        stuck = self.threads()
        await loop.give_back()
        run.cancel()
        with self.assertRaises(CancelledError):
            await run
        # Others are not affected.
        fresh = self.borrow()
        self.assertEqual(await fresh.run(asyncio.sleep(0, "alive")), "alive")
        may_go_on.set()
        await self._end_of(stuck)

    async def _end_of(self, stuck: list[threading.Thread]) -> None:
        while any(each.is_alive() for each in stuck):
            await deferLater(reactor, 0.01)

    async def test_giving_back_ends_the_thread_also_when_it_is_cancelled(self) -> None:
        loop = self.borrow()
        began: Deferred[None] = Deferred()
        may_end = threading.Event()

        async def block() -> None:
            reactor.callFromThread(began.callback, None)
            may_end.wait(10)

        run = loop.run(block())
        await began
        [thread] = self.threads()
        giving_back = Deferred.fromCoroutine(loop.give_back())
        giving_back.cancel()
        with self.assertRaises(CancelledError):
            await giving_back
        may_end.set()
        await run
        await self._end_of([thread])

    async def test_nothing_is_warned_of(self) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            loop = self.borrow()
            watched = Watched()
            receiver = Receiver(self)

            async def connect() -> None:
                _, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
                try:
                    await watched.run()
                finally:
                    writer.close()

            run = loop.run(connect())
            await watched.began
            await loop.give_back()
            with self.assertRaises(CancelledError):
                await run
            del run, loop
            gc.collect()
        self.assertEqual([str(each.message) for each in told if "destroyed" in str(each.message)], [])


class EgressTests(LoopTestCase):
    async def _connect(self, host: Any, port: int, **settings: Any) -> str:
        _, writer = await asyncio.open_connection(host, port, **settings)
        peer: str = writer.get_extra_info("peername")[0]
        writer.close()
        await writer.wait_closed()
        return peer

    async def test_an_allowed_address(self) -> None:
        receiver = Receiver(self)
        self.assertEqual(await self.borrow().run(self._connect("127.0.0.1", receiver.port)), "127.0.0.1")

    async def test_a_literal_address_that_is_denied(self) -> None:
        receiver = Receiver(self)
        loop = self.borrow(STRICT)
        with self.assertRaises(BlockedError) as caught:
            await loop.run(self._connect("127.0.0.1", receiver.port))
        self.assertIn("loopback is denied; add 127.0.0.0/8 to egress.allow", str(caught.exception))
        for address in ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1%1", "0.0.0.0"):
            with self.assertRaises(BlockedError):
                await loop.run(self._connect(address, receiver.port))
        self.assertEqual(receiver.conversations, [])

    async def test_a_name_that_resolves_to_a_denied_address(self) -> None:
        receiver = Receiver(self)
        loop = self.borrow(STRICT, Names(evil=["127.0.0.1"]))
        with self.assertRaises(BlockedError) as caught:
            await loop.run(self._connect("evil", receiver.port))
        self.assertIn("evil resolves to 127.0.0.1: loopback is denied", str(caught.exception))
        self.assertEqual(receiver.conversations, [])

    async def test_of_several_addresses_those_that_are_allowed(self) -> None:
        receiver = Receiver(self)
        names = Names(mixed=["169.254.169.254", "127.0.0.1"])
        self.assertEqual(
            await self.borrow(LOOPBACK, names).run(self._connect("mixed", receiver.port)), "127.0.0.1"
        )

    async def test_a_socket_of_the_librarys_own(self) -> None:
        receiver = Receiver(self)
        loop = self.borrow(STRICT, Names(evil=["127.0.0.1"]))

        async def connect(host: str) -> None:
            with socket.socket() as own:
                own.setblocking(False)
                await asyncio.get_running_loop().sock_connect(own, (host, receiver.port))

        for host in ("127.0.0.1", "evil"):
            with self.assertRaises(BlockedError):
                await loop.run(connect(host))
        self.assertEqual(receiver.conversations, [])

    async def test_sockets_that_are_not_ip(self) -> None:
        async def connect() -> None:
            await asyncio.open_unix_connection("/var/run/docker.sock")

        with self.assertRaises(BlockedError):
            await self.borrow().run(connect())

    async def test_ways_around_the_guards_are_closed(self) -> None:
        loop = self.borrow()

        async def thread() -> None:
            await asyncio.to_thread(print)

        async def name() -> None:
            await asyncio.get_running_loop().getnameinfo(("127.0.0.1", 1))

        async def datagram() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
                own.setblocking(False)
                await asyncio.get_running_loop().sock_sendto(own, b"x", ("127.0.0.1", 1))

        for way in (thread, name, datagram):
            with self.assertRaises(NotImplementedError):
                await loop.run(way())

    async def test_each_borrower_has_its_own_policy_also_in_tasks_and_callbacks(self) -> None:
        receiver = Receiver(self)
        strict, allowed = self.borrow(STRICT), self.borrow(LOOPBACK)

        async def later() -> str:
            loop = asyncio.get_running_loop()
            result: asyncio.Future[str] = loop.create_future()

            def call() -> None:
                task = loop.create_task(self._connect("127.0.0.1", receiver.port))
                task.add_done_callback(
                    lambda done: (
                        result.set_exception(done.exception() or Exception())
                        if done.exception()
                        else result.set_result(done.result())
                    )
                )

            loop.call_later(0.001, call)
            return await result

        self.assertEqual(await allowed.run(later()), "127.0.0.1")
        with self.assertRaises(BlockedError):
            await strict.run(later())

    async def test_a_task_of_nobody_connects_to_nothing(self) -> None:
        receiver = Receiver(self)
        loop = self.borrow()

        async def escape() -> None:
            import contextvars

            connect = self._connect("127.0.0.1", receiver.port)
            await asyncio.get_running_loop().create_task(connect, context=contextvars.Context())

        with self.assertRaises(BlockedError):
            await loop.run(escape())

    async def test_a_name_that_does_not_exist(self) -> None:
        with self.assertRaises(socket.gaierror):
            await self.borrow(LOOPBACK, Names()).run(self._connect("nowhere", 1))

    async def test_a_silent_name_server_holds_up_nobody_and_is_asked_once(self) -> None:
        names = Names(silent=None, known=["127.0.0.1"])
        receiver = Receiver(self)
        loop = self.borrow(LOOPBACK, names)
        waiting = [loop.run(self._connect("silent", receiver.port)) for _ in range(3)]
        self.assertEqual(await loop.run(self._connect("known", receiver.port)), "127.0.0.1")
        waiting.append(loop.run(self._connect("silent", receiver.port)))
        await loop.run(asyncio.sleep(0.01))
        self.assertEqual(names.asked.count("silent"), 1)
        for run in waiting:
            run.cancel()
            with self.assertRaises(CancelledError):
                await run

    async def test_a_family_that_is_asked_for(self) -> None:
        receiver = Receiver(self)
        names = Names(both=["::1", "127.0.0.1"], six=["::1"])
        loop = self.borrow(Egress(allow=("127.0.0.0/8", "::1/128")), names)
        connect = self._connect("both", receiver.port, family=socket.AF_INET)
        self.assertEqual(await loop.run(connect), "127.0.0.1")
        with self.assertRaises(socket.gaierror):
            await loop.run(self._connect("six", receiver.port, family=socket.AF_INET))
