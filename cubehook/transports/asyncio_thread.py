"""
One asyncio event loop in one thread, for transports whose library is written for asyncio.

The service runs on whichever reactor its user chose; most of these cannot run asyncio's tasks.  So the
transports that need a loop share one, beside the reactor: it begins with the first that borrows it and
ends with the last that gives it back.

No connection of the loop escapes the egress policy: names are resolved by the reactor's resolver and
through a filter, and every address, however it was come by, is checked before a socket is connected to
it.  A task that belongs to no borrower has no policy and may connect to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar, copy_context
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from weakref import WeakSet

from twisted.internet.address import IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver
from twisted.logger import Logger
from zope.interface import implementer

from cubehook.net.agent import LOOKUP_SECONDS
from cubehook.net.egress import BlockedError, EgressPolicy

GRACE: Final = 1.0
"""Seconds that tasks have to end once they are cancelled."""

_T = TypeVar("_T")
_log = Logger()


def borrow_loop(reactor: Any, egress: EgressPolicy) -> BorrowedLoop:
    """
    The shared loop, for one borrower; its connections are held to `egress`.

    To be called in the reactor's thread, and `give_back` to be called once for each.
    """
    global _current
    if _current is None:
        _current = _LoopThread()
    _current.borrowers += 1
    return BorrowedLoop(_current, reactor, egress)


class Watch:
    """What was connected, for as long as someone is watching."""

    def __init__(self) -> None:
        self.peer: str | None = None
        """Address and port of the last that a socket was connected to."""
        self.transports: list[asyncio.WriteTransport] = []
        """In the order they came to be; one that speaks TLS comes after the one that it is laid over."""
        self.connected: Callable[[], None] = lambda: None
        """Called when a socket is connected; TLS and what else there may be of a greeting follows."""
        self.lost: Callable[[], None] = lambda: None
        """Called when the other side has ended a connection, or it broke."""
        self.is_lost = False

    def listen(self, protocol: Any, half_open: bool = True) -> Any:
        """
        `protocol`, the end of whose connection is told here: not every library tells of it.

        Unless `half_open`, it may not wish to go on sending after the other side's last word: asyncio
        complains of that wish, where TLS does not allow it.
        """
        for name in ("eof_received", "connection_lost"):
            setattr(protocol, name, self._told(getattr(protocol, name), half_open))
        return protocol

    def _told(self, method: Callable[..., Any], half_open: bool) -> Callable[..., Any]:
        def told(*args: Any) -> Any:
            self.is_lost = True
            self.lost()
            wish = method(*args)
            return wish if half_open else None

        return told


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """To be used in the loop: tells of the connections that this task, or what it starts, makes within."""
    watch = Watch()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


class BorrowedLoop:
    """
    The loop as one transport sees it.  All methods belong to the reactor's thread.

    Tasks that a coroutine starts, also those of its library, belong to the borrower and end with it.
    """

    def __init__(self, thread: _LoopThread, reactor: Any, egress: EgressPolicy) -> None:
        self._thread = thread
        self._reactor = reactor
        self._egress = egress
        self._given_back = False
        # The rest is the loop's thread's.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lookups: dict[str, tuple[float, asyncio.Future[list[_Sockaddr]]]] = {}
        self._transports: WeakSet[asyncio.WriteTransport] = WeakSet()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> Deferred[_T]:
        """
        Run `coroutine` as a task of the loop; fires with what it returns or raises.

        Cancelling the Deferred ends it at once, with CancelledError, and cancels the task, which may take
        its time.  A task that is cancelled in the loop ends its Deferred with CancelledError too.
        """
        if self._given_back:
            coroutine.close()
            raise RuntimeError("the loop was given back")
        run = _Run(self, coroutine)
        self._thread.loop.call_soon_threadsafe(run.start)
        return run.deferred

    async def give_back(self) -> None:
        """
        Cancel what still runs, abort what is connected and wait for the end of both; the last borrower waits
        for the thread's end, too.

        Gives up waiting after a few seconds, says so in the log, and leaves behind what does not end.
        """
        global _current
        if self._given_back:
            return
        self._given_back = True
        thread = self._thread
        ended: Deferred[None] = Deferred()
        thread.call(lambda: thread.loop.create_task(self._end(ended)))
        orderly = False
        stopped = None
        try:
            orderly = await self._within_grace(ended)
        finally:
            thread.borrowers -= 1
            if _current is thread and not (orderly and thread.borrowers):
                _current = None
            if not thread.borrowers:
                stopped = thread.end(self._reactor)
        if stopped is not None and orderly and await self._within_grace(stopped):
            thread.join()

    async def _within_grace(self, ended: Deferred[None]) -> bool:
        """Whether `ended` fires before the loop must be taken to be stuck."""
        try:
            await ended.addTimeout(2 * GRACE, self._reactor)
        except DeferredTimeoutError:
            _log.error(
                "The thread of asyncio's event loop is stuck and is left behind: some library blocks it"
            )
            return False
        return True

    async def _end(self, ended: Deferred[None]) -> None:
        # In the loop; this task itself belongs to nobody.
        loop = self._thread.loop
        deadline = loop.time() + GRACE
        while self._tasks and loop.time() < deadline:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks), timeout=GRACE / 6)
        for transport in set(self._transports):
            transport.abort()
        if self._tasks:
            _log.error("{count} asyncio tasks did not end when cancelled: {tasks}", **_told(self._tasks))
        self._reactor.callFromThread(ended.callback, None)

    # In the loop's thread

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """`task` belongs to this borrower."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connected(self, transport: asyncio.WriteTransport) -> None:
        """`transport` belongs to this borrower."""
        self._transports.add(transport)

    def check(self, address: str) -> None:
        """Raise BlockedError if `address` may not be reached."""
        self._egress.check(address)

    async def addresses(self, host: str) -> list[_Sockaddr]:
        """
        The addresses of `host` that may be reached.

        BlockedError if it has none but others; socket.gaierror if it has none at all.
        """
        if not _is_literal(host):
            found = await self._resolved(host)
        else:
            found = [(_FAMILIES[ip_address(host).version], host, 0)]
        permitted = []
        blocked = None
        for each in found:
            try:
                self.check(each[1])
            except BlockedError as error:
                blocked = BlockedError(error.rule, error.address, None if each[1] == host else host)
            else:
                permitted.append(each)
        if permitted:
            return permitted
        if blocked is not None:
            raise blocked
        raise socket.gaierror(socket.EAI_NONAME, "the host name does not resolve to an address")

    async def _resolved(self, host: str) -> list[_Sockaddr]:
        # The resolver's threads are few, and a silent name server holds one: ask once for all who wait.
        loop = asyncio.get_running_loop()
        asked_at, lookup = self._lookups.get(host, (0.0, None))
        if lookup is None or lookup.done() or loop.time() > asked_at + LOOKUP_SECONDS:
            lookup = loop.create_future()
            self._lookups[host] = loop.time(), lookup
            answer = partial(self._thread.answer, lookup)
            self._reactor.callFromThread(_look_up, self._reactor.nameResolver, host, answer)
        try:
            return await asyncio.shield(lookup)
        finally:
            if lookup.done():
                self._lookups.pop(host, None)


class _Run:
    """A coroutine on its way through the loop, and the Deferred that waits for it in the reactor."""

    def __init__(self, borrower: BorrowedLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._borrower = borrower
        self._coroutine = coroutine
        self._task: asyncio.Task[Any] | None = None
        self._context = copy_context()
        self._context.run(_borrower.set, borrower)
        self.deferred: Deferred[Any] = Deferred(self._give_up)

    def _give_up(self, deferred: Deferred[Any]) -> None:
        self._borrower._thread.call(self._cancel)

    # In the loop's thread

    def start(self) -> None:
        loop = self._borrower._thread.loop
        self._task = loop.create_task(self._coroutine, context=self._context)
        self._task.add_done_callback(self._done)

    def _cancel(self) -> None:
        # It has started: what is asked of the loop is done in the order of asking.
        assert self._task is not None
        self._task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._report(self._fail, CancelledError())
            return
        error = task.exception()
        if error is None:
            self._report(self._succeed, task.result())
        else:
            self._report(self._fail, error)

    def _report(self, call: Callable[[Any], None], value: Any) -> None:
        self._borrower._reactor.callFromThread(call, value)

    # In the reactor's thread

    def _succeed(self, result: Any) -> None:
        if not self.deferred.called:
            self.deferred.callback(result)

    def _fail(self, error: BaseException) -> None:
        if not self.deferred.called:
            self.deferred.errback(error)


class _LoopThread:
    """A loop and the thread that it runs in."""

    def __init__(self) -> None:
        self.borrowers = 0
        self.loop = _GuardedLoop()
        self.loop.set_exception_handler(_unhandled)
        # A daemon, lest a library that blocks for ever keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="cubehook-asyncio", daemon=True)
        self._ending = False
        self._tell_end: Callable[[], None] = lambda: None
        self._thread.start()

    def call(self, function: Callable[[], object]) -> None:
        """Call `function` in the loop's thread, if that still lives."""
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile
            self.loop.call_soon_threadsafe(function)

    def answer(self, future: asyncio.Future[_T], result: _T) -> None:
        """Resolve `future`, from the reactor's thread."""
        self.call(lambda: None if future.done() else future.set_result(result))

    def end(self, reactor: Any) -> Deferred[None]:
        """Stop the loop; fires when nothing is left of it but the last steps of its thread."""
        ended: Deferred[None] = Deferred()
        self._tell_end = partial(reactor.callFromThread, ended.callback, None)
        self._ending = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        return ended

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while not self._ending:
            try:
                self.loop.run_forever()
            except BaseException:
                # asyncio lets SystemExit and KeyboardInterrupt through; there are other borrowers.
                _log.failure("A task of asyncio's event loop tried to end the process")
        try:
            self.loop.run_until_complete(self._sweep())
        except BaseException:
            _log.failure("asyncio's event loop did not end in an orderly way")
        finally:
            self.loop.close()
            self._tell_end()

    async def _sweep(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=GRACE / 2)
        await self.loop.shutdown_asyncgens()
        # Transports that were closed or aborted let go of their sockets in the loop's next rounds.
        for _ in range(3):
            await asyncio.sleep(0)


_current: _LoopThread | None = None
_borrower: ContextVar[BorrowedLoop] = ContextVar("cubehook_borrower")
_watch: ContextVar[Watch] = ContextVar("cubehook_watch")

_Sockaddr = tuple[socket.AddressFamily, str, int]
"""Family, address, and the scope of an IPv6 address."""
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class _GuardedLoop(asyncio.SelectorEventLoop):
    """A loop whose connections go where the egress policy of their borrower lets them, and nowhere else."""

    def create_task(self, coro: Any, **settings: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **settings)
        context = settings.get("context")
        borrower = _borrower.get(None) if context is None else context.get(_borrower)
        if borrower is not None:
            borrower.adopt(task)
        return task

    async def create_connection(self, protocol_factory: Any, *args: Any, **settings: Any) -> Any:
        watch = _watch.get(None)
        factory = protocol_factory if watch is None else lambda: watch.listen(protocol_factory())
        made = await super().create_connection(factory, *args, **settings)
        self._connected(made[0])
        return made

    async def start_tls(self, transport: Any, protocol: Any, *args: Any, **settings: Any) -> Any:
        watch = _watch.get(None)
        if watch is not None:
            watch.listen(protocol, half_open=False)
        upgraded: Any = await super().start_tls(transport, protocol, *args, **settings)
        self._connected(upgraded)
        return upgraded

    def _connected(self, transport: Any) -> None:
        borrower = _borrower.get(None)
        if borrower is not None:
            borrower.connected(transport)
        watch = _watch.get(None)
        if watch is not None:
            watch.transports.append(transport)

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[Any, ...]]:
        if isinstance(host, bytes):
            host = host.decode("ascii")
        if not isinstance(host, str) or not host or flags & socket.AI_PASSIVE:
            raise BlockedError("only connections to a host are allowed", str(host))
        kind = type or socket.SOCK_STREAM
        found = [
            (each, kind, proto, "", (address, port) if each is socket.AF_INET else (address, port, 0, scope))
            for each, address, scope in await self._asker(host).addresses(host)
            if family in (0, each)
        ]
        if not found:
            raise socket.gaierror(socket.EAI_FAMILY, "the host has no address of the family asked for")
        return found

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise BlockedError("only IP addresses may be connected to", str(address))
        host, port, *rest = address
        asker = self._asker(host)
        if not _is_literal(host):
            host = next(each[1] for each in await asker.addresses(host) if each[0] == sock.family)
        asker.check(host)
        await super().sock_connect(sock, (host, port, *rest))
        watch = _watch.get(None)
        if watch is not None:
            watch.peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            watch.connected()

    async def sock_sendto(self, *args: Any) -> int:
        raise NotImplementedError("datagrams are not guarded by the egress policy")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        # What blocks in a thread would outlive the loop, and its sockets would escape the egress policy.
        raise NotImplementedError("blocking calls have no threads here")

    def _asker(self, host: object) -> BorrowedLoop:
        borrower = _borrower.get(None)
        if borrower is None:
            raise BlockedError("it is asked for by nobody who borrowed the loop", str(host))
        return borrower


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # The message is asyncio's own and names no values; what a task returned or was given may be secret.
    error = context.get("exception")
    _log.error(
        "asyncio: {message}{error}",
        message=context.get("message", "something went wrong"),
        error=f" ({type(error).__name__})" if error is not None else "",
    )


def _told(tasks: set[asyncio.Task[Any]]) -> dict[str, Any]:
    names = sorted(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    return {"count": len(tasks), "tasks": ", ".join(names[:5])}


def _look_up(resolver: Any, host: str, answer: Callable[[list[_Sockaddr]], None]) -> None:
    resolver.resolveHostName(_Lookup(answer), host)


@implementer(IResolutionReceiver)
class _Lookup:
    """Gathers the addresses that the reactor's resolver finds."""

    def __init__(self, answer: Callable[[list[_Sockaddr]], None]) -> None:
        self._answer = answer
        self._found: list[_Sockaddr] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: Any) -> None:
        is_6 = isinstance(address, IPv6Address)
        self._found.append(
            (_FAMILIES[6 if is_6 else 4], address.host, int(address.scopeID or 0) if is_6 else 0)
        )

    def resolutionComplete(self) -> None:
        self._answer(self._found)
