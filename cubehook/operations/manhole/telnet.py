"""The telnet door: users and passwords, in clear text, for this machine only."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.conch.telnet import ECHO, NAWS, SGA, Telnet
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook import __version__
from cubehook.operations.manhole.doors import LOGIN_SECONDS, Doors, FullError, peer_of
from cubehook.operations.manhole.keys import Keys
from cubehook.operations.manhole.passwords import UnsafeFileError, matches, nobody, read_users
from cubehook.operations.manhole.screen import Screen
from cubehook.operations.manhole.session import Session, Visitor
from cubehook.text import printable

DOOR = "telnet"

TTYPE = b"\x18"
_IS, _SEND = b"\x00", b"\x01"

_ATTEMPTS = 3
"""Passwords that one connection may try."""

_LONGEST_WAIT = 8.0
_FORGOTTEN = 60.0
"""Seconds after which wrong passwords no longer delay."""

_LONGEST_WORD = 256

_log = Logger(namespace="cubehook.operations.manhole")


class Delays:
    """How long a password must wait for its verdict: the longer, the more wrong ones came of late."""

    def __init__(self) -> None:
        self._failures = 0
        self._last = 0.0

    def wait(self, now: float) -> float:
        """Seconds to wait before a password is looked at."""
        if now - self._last > _FORGOTTEN:
            self._failures = 0
        return min(_LONGEST_WAIT, 2.0 ** (self._failures - 1)) if self._failures else 0.0

    def failed(self, now: float) -> None:
        """A password was wrong."""
        self._failures += 1
        self._last = now


def telnet_factory(doors: Doors, passwords: Callable[[], Path]) -> Factory:
    """What answers at the telnet door, to the users of the file that `passwords` tells."""
    try:
        if not read_users(passwords()):
            _log.warn(
                "Nobody can come into the manhole over telnet: {path} has no users", path=str(passwords())
            )
    except UnsafeFileError as error:
        _log.error("Nobody can come into the manhole over telnet: {why}", why=str(error))
    return _Factory(doors, passwords)


class _Factory(Factory):
    noisy = False

    def __init__(self, doors: Doors, passwords: Callable[[], Path]) -> None:
        self._doors = doors
        self._passwords = passwords
        self._delays = Delays()

    def buildProtocol(self, addr: Any) -> Any:
        if not self._doors.admits(DOOR, peer_of(addr)):
            return None
        protocol = _Connection(self._doors, self._passwords, self._delays)
        protocol.factory = self
        return protocol


class _Connection(Telnet):
    """One connection: first a login, then a session."""

    transport: Any

    def __init__(self, doors: Doors, passwords: Callable[[], Path], delays: Delays) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._doors = doors
        self._passwords = passwords
        self._delays = delays
        self._keys = Keys()
        self._screen = Screen()
        self._terminal = b""
        self._word = ""
        self._user: str | None = None
        self._attempts = 0
        self._judging: Deferred[Any] | None = None
        self._session: Session | None = None
        self._timer: IDelayedCall | None = None
        self._over = False

    # Options

    def connectionMade(self) -> None:
        self._peer = peer_of(self.transport.getPeer())
        self._doors.connected(DOOR, self)
        self._timer = self._doors.reactor.callLater(LOGIN_SECONDS, self.abort)
        self.negotiationMap[NAWS] = self._size
        self.negotiationMap[TTYPE] = self._kind
        for wanted in (self.will(ECHO), self.will(SGA), self.do(NAWS), self.do(TTYPE)):
            # Whoever does not know an option says so, or nothing.
            wanted.addErrback(lambda failure: None)
        self._say(f"cubehook {__version__}\r\nuser: ")

    def enableLocal(self, option: bytes) -> bool:
        return option in (ECHO, SGA)

    def enableRemote(self, option: bytes) -> bool:
        if option == TTYPE:
            self.requestNegotiation(TTYPE, _SEND)
        return option in (NAWS, TTYPE, SGA)

    def disableLocal(self, option: bytes) -> None:
        pass

    def disableRemote(self, option: bytes) -> None:
        pass

    def _size(self, data: list[bytes]) -> None:
        joined = b"".join(data)
        if len(joined) != 4:
            return
        width, height = struct.unpack("!HH", joined)
        if self._session is not None:
            self._session.resize(width, height)
        else:
            self._screen.resize(width, height)

    def _kind(self, data: list[bytes]) -> None:
        joined = b"".join(data)
        if joined[:1] == _IS:
            self._terminal = joined[1:].lower()

    # Login

    def applicationDataReceived(self, data: bytes) -> None:
        if self._session is not None:
            self._session.data(data.replace(b"\x00", b""))
        elif self._judging is None and not self._over:
            self._login(data)

    def _login(self, data: bytes) -> None:
        for key in self._keys.feed(data.replace(b"\x00", b"")):
            if key.name in ("ctrl-c", "ctrl-d"):
                self._end("")
                return
            if key.name in ("text", "paste"):
                self._word = (self._word + key.text.replace("\n", ""))[:_LONGEST_WORD]
                if self._user is None:
                    self._say(printable(key.text))
            elif key.name == "backspace" and self._word:
                self._word = self._word[:-1]
                if self._user is None:
                    self._say("\b \b")
            elif key.name == "ctrl-u":
                if self._user is None:
                    self._say("\b \b" * len(self._word))
                self._word = ""
            elif key.name == "enter":
                word, self._word = self._word, ""
                self._say("\r\n")
                if self._user is not None:
                    self._judge(self._user, word)
                    return
                self._user = word
                self._say("password: ")

    def _judge(self, user: str, password: str) -> None:
        judging = self._judging = Deferred.fromCoroutine(self._verdict(user, password))
        _ = judging.addCallbacks(self._judged, self._not_judged)

    async def _verdict(self, user: str, password: str) -> bool:
        reactor = self._doors.reactor
        wait = self._delays.wait(reactor.seconds())
        if wait:
            await deferLater(reactor, wait)
        try:
            hashed = read_users(self._passwords()).get(user)
        except UnsafeFileError as error:
            _log.error("Manhole: nobody can come in over telnet: {why}", why=str(error))
            hashed = None
        # Unknown users take as long.
        right: bool = await deferToThread(matches, password, hashed or nobody())
        if not right or hashed is None:
            self._delays.failed(reactor.seconds())
            _log.warn(
                "Manhole: a password was refused: telnet, {peer}, as user {user}",
                peer=self._peer,
                user=printable(user, 100),
            )
            # A wrong password takes longer than a right one, however few there were.
            await deferLater(reactor, self._delays.wait(reactor.seconds()))
            return False
        return True

    def _judged(self, right: bool) -> None:
        self._judging = None
        if self._over:
            return
        user, self._user = self._user or "", None
        if right:
            self._enter(user)
            return
        self._attempts += 1
        if self._attempts >= _ATTEMPTS:
            self._end("wrong\r\n")
        else:
            self._say("wrong\r\nuser: ")

    def _not_judged(self, failure: Failure) -> None:
        self._judging = None
        if not self._over:
            _log.failure("Manhole: a password could not be judged", failure)
            self._end("")

    def _enter(self, user: str) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._doors.known(DOOR, self)
        editing = self._terminal not in (b"", b"dumb", b"unknown")
        self._screen.colour = editing
        try:
            self._session = self._doors.session(
                Visitor(user, DOOR, self._peer), self, self._screen, editing=editing
            )
        except FullError as error:
            self._end(f"{error}\r\n")
            return
        self._session.start()

    # The session's terminal, and the doors' connection

    def write(self, data: bytes) -> None:
        self._write(data.replace(b"\xff", b"\xff\xff"))

    def leave(self, status: int) -> None:
        if self._session is not None:
            self._doors.left(self._session)
        self._over = True
        self.transport.loseConnection()

    def close(self, why: str) -> None:
        if self._session is None and not self._over:
            self._end(f"\r\n{why}\r\n")

    def abort(self) -> None:
        self._over = True
        self.transport.abortConnection()

    def _say(self, text: str) -> None:
        self.write(text.encode("utf-8", "backslashreplace"))

    def _end(self, text: str) -> None:
        self._say(text)
        self._over = True
        self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._judging is not None:
            self._judging.cancel()
        if self._session is not None:
            self._doors.left(self._session)
        self._doors.disconnected(DOOR, self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
