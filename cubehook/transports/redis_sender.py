"""
The Redis client, as a webhook uses it: a few connections, a command at a time on each.

Not imported before a transport starts: this needs redis-py.  Its pool and its retries are not used: a
command that failed is told, and tried again only as the webhook's schedule says.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Connection, SSLConnection

from cubehook.net.tls import Tls
from cubehook.records import ErrorClass
from cubehook.text import printable
from cubehook.transports.asyncio_broker import Flight, Parcel, Sender
from cubehook.transports.asyncio_failures import explain_asyncio
from cubehook.transports.asyncio_thread import Watch, watching
from cubehook.transports.broker_url import BrokerUrl
from cubehook.transports.brokers import BrokerError, Phase
from cubehook.transports.redis_streams import PAYLOAD

CONNECTIONS: Final = 16
"""At most as many commands are under way, each on a connection of its own."""


class RedisSender(Sender):
    """Adds to streams at `url`, as the user that it names."""

    def __init__(
        self, url: BrokerUrl, *, database: int, tls: Tls | None, max_length: int | None, replicas: int
    ) -> None:
        self._url = url
        self._database = database
        self._tls = tls
        self._limit: tuple[str | int, ...] = () if max_length is None else ("MAXLEN", "~", max_length)
        self._replicas = replicas
        self._idle: list[_Line] = []
        self._places = asyncio.Semaphore(CONNECTIONS)

    async def send(self, parcel: Parcel, flight: Flight) -> str:
        fields: list[str | bytes] = []
        for name, value in parcel.labels.items():
            fields += (name, value)
        fields += (PAYLOAD, parcel.body)
        commands: list[tuple[Any, ...]] = [("XADD", parcel.place, *self._limit, "*", *fields)]
        if self._replicas:
            # Its time, which it keeps to a tenth of a second, is up before ours: to hear of the number.
            patience = parcel.timeout - min(0.5, parcel.timeout / 2)
            commands.append(("WAIT", self._replicas, max(1, int(patience * 1000))))
        async with self._places:
            replies = await self._exchange(commands, flight)
        self._judge(replies, parcel)
        return str(replies[0])

    async def close(self) -> None:
        await self._forget()

    async def _exchange(self, commands: list[tuple[Any, ...]], flight: Flight) -> list[Any]:
        line = await self._kept() or _Line(self._new())
        try:
            await line.connect(flight)
            flight.enter(Phase.CONFIRMING)
            replies = await line.ask(commands)
        except BaseException as error:
            # Also when time was up: what else is kept most likely leads to the same end.
            await line.cut()
            await self._forget()
            if not isinstance(error, Exception):
                raise
            raise _failed(error) from error
        self._idle.append(line)
        return replies

    async def _kept(self) -> _Line | None:
        while self._idle:
            line = self._idle.pop()
            if await line.is_fit():
                return line
            await line.cut()
        return None

    async def _forget(self) -> None:
        while self._idle:
            await self._idle.pop().cut()

    def _new(self) -> Connection:
        settings: dict[str, Any] = {
            "host": self._url.host,
            "port": self._url.port,
            "db": self._database,
            "username": self._url.user or None,
            "password": self._url.password,
            # Of an older protocol, but with all that is needed, and pushing nothing that was not asked for.
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": None,
        }
        if self._tls is None:
            return Connection(**settings)
        try:
            context = self._tls.standard()
        except ValueError as error:
            raise BrokerError(ErrorClass.TLS, str(error)) from None
        connection = SSLConnection(**settings)
        connection.ssl_context.context = context
        return connection

    def _judge(self, replies: list[Any], parcel: Parcel) -> None:
        for reply in replies:
            if isinstance(reply, exceptions.ResponseError):
                raise _refused(reply, parcel)
        if self._replicas and replies[1] < self._replicas:
            raise BrokerError(
                ErrorClass.OTHER,
                f"only {replies[1]} of {self._replicas} replicas had the event in time; it is in the stream, "
                "and will be once more",
            )


class _Line:
    """One connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._watch: Watch | None = None

    async def is_fit(self) -> bool:
        """Nothing has come on it since the last answer, not even its end."""
        try:
            return not await self._connection.can_read()
        except (OSError, exceptions.RedisError):
            return False

    async def connect(self, flight: Flight) -> None:
        """Connect and log in, if that was not done before."""
        if self._watch is not None:
            flight.peer = self._watch.peer
            return
        with watching() as watch:
            self._watch = watch

            def connected() -> None:
                flight.peer = watch.peer
                flight.enter(Phase.LOGGING_IN)

            watch.connected = connected
            await self._connection.connect()

    async def ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """The reply to each command, or the error that it was answered with."""
        packed = self._connection.pack_commands(commands)
        await self._connection.send_packed_command(packed, check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                reply = await self._connection.read_response()
            except exceptions.ResponseError as error:
                reply = error
            replies.append(reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply)
        return replies

    async def cut(self) -> None:
        """Drop it at once; what it has not sent yet is never sent."""
        if self._watch is not None:
            for transport in self._watch.transports:
                transport.abort()
        with contextlib.suppress(Exception):
            await self._connection.disconnect(nowait=True)


# What Redis says first, and what that means for whoever reads it.
_MEANING: Final = {
    "WRONGTYPE": "the key {place} holds something else than a stream",
    "MISCONF": "it takes no writes, since it cannot save to its disk (MISCONF)",
    "NOREPLICAS": "it takes no writes, since too few replicas are there (NOREPLICAS)",
    "BUSY": "it is busy with a script (BUSY)",
}
_RESTING: Final = ("BUSY",)
_NOT_SUPPORTED: Final = "it is a node of a cluster, which is not supported: use a server of its own"
_LOCKED: Final = "it asks for a password (NOAUTH), and the url has none"
_CODE: Final = re.compile(r"[A-Z]+(?= |\Z)")


def _refused(error: Exception, parcel: Parcel | None = None) -> BrokerError:
    """What an error means that Redis answered with."""
    text = str(error)
    found = _CODE.match(text)
    code = found[0] if found is not None else ""
    place = parcel.place if parcel is not None else ""
    hold = 0.0 if code in _RESTING else None
    if isinstance(error, exceptions.MasterDownError):
        words, hold = "it is a replica that has lost its primary (MASTERDOWN)", 0.0
    elif "unauthenticated" in text.lower():
        # What it says to a command that is longer than strangers may send.
        words = _LOCKED
    elif isinstance(error, exceptions.MovedError | exceptions.AskError | exceptions.ClusterDownError):
        words = _NOT_SUPPORTED
    elif isinstance(error, exceptions.ReadOnlyError):
        words = "it is a replica, which cannot be written to (READONLY): give the address of the primary"
    elif isinstance(error, exceptions.OutOfMemoryError):
        words = "it has reached its maxmemory (OOM): raise that, or set options.max_length"
    elif isinstance(error, exceptions.NoPermissionError):
        words = f"the user lacks a permission (NOPERM): {printable(text)}"
    elif code in _MEANING:
        words = _MEANING[code].format(place=place)
    elif "unknown command" in text.lower():
        words = f"it is too old, or a command is taken from it; streams need Redis 5: {printable(text)}"
    else:
        words = f"it answered: {printable(text)}"
    return BrokerError(ErrorClass.OTHER, words, hold=hold)


def _failed(error: Exception) -> BrokerError:
    """What an exception means that ended a connection; one that is a bug of ours is raised again."""
    if isinstance(error, BrokerError):
        return error
    explained = explain_asyncio(error)
    if explained is not None:
        return BrokerError(*explained)
    text = str(error)
    if isinstance(error, exceptions.BusyLoadingError):
        return BrokerError(ErrorClass.OTHER, "it is still loading its data (LOADING)", hold=0.0)
    if isinstance(error, exceptions.AuthenticationError):
        return BrokerError(ErrorClass.OTHER, _not_let_in(text))
    if isinstance(error, exceptions.ResponseError):
        return _refused(error)
    if isinstance(error, exceptions.ConnectionError):
        if "max number of clients" in text:
            return BrokerError(ErrorClass.OTHER, "it takes no more clients (maxclients)", hold=0.0)
        return BrokerError(ErrorClass.CONNECTION_LOST, "the connection was lost before the answer came")
    if isinstance(error, exceptions.RedisError | ValueError):
        return BrokerError(
            ErrorClass.OTHER, f"what answers there does not speak Redis as it should ({type(error).__name__})"
        )
    raise error


def _not_let_in(text: str) -> str:
    lower = text.lower()
    if "required" in lower:
        return _LOCKED
    if "without any password" in lower or "no password is set" in lower:
        return "it has no password for the user default, and the url has one"
    return "it refuses the user or password of the url (WRONGPASS)"
