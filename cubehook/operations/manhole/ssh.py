"""The SSH door: public keys only, prompts and single commands only."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.conch.avatar import ConchUser
from twisted.conch.error import ValidPublicKey
from twisted.conch.interfaces import IConchUser, ISession
from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import BadKeyError, Key
from twisted.conch.ssh.session import SSHSession
from twisted.conch.ssh.transport import DISCONNECT_BY_APPLICATION, SSHServerTransport
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ISSHPrivateKey
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher
from twisted.python.components import registerAdapter
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook import __version__
from cubehook.operations.manhole.doors import LOGIN_SECONDS, Doors, FullError, peer_of
from cubehook.operations.manhole.keyfiles import Authorized, authorized, fingerprint, host_key
from cubehook.operations.manhole.passwords import UnsafeFileError
from cubehook.operations.manhole.screen import Screen
from cubehook.operations.manhole.session import Session, Visitor
from cubehook.text import printable

DOOR = "ssh"

MOST_SCRIPT = 1 << 16
"""Bytes that are taken to run from an `ssh` without a terminal."""

_ATTEMPTS = 8
"""Keys that one connection may try."""

_SIGNATURES = (
    b"ssh-ed25519",
    b"sk-ssh-ed25519@openssh.com",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"sk-ecdsa-sha2-nistp256@openssh.com",
    b"rsa-sha2-512",
    b"rsa-sha2-256",
)
"""What may prove that someone has a key; SHA-1, which ssh-rsa stands for, may not."""

_DUMB = (b"", b"dumb", b"unknown")

_log = Logger(namespace="cubehook.operations.manhole")


@implementer(ILogObserver)
class _Weighty:
    """Lets through what conch says that matters: it tells of each step of each connection."""

    def __call__(self, event: LogEvent) -> None:
        if event["log_level"] >= LogLevel.warn:
            globalLogPublisher(event)


_conch_log = Logger(namespace="twisted.conch", observer=_Weighty())


@implementer(ICredentialsChecker)
class KeyChecker:
    """Knows people by the keys in a file, which is asked for and read each time."""

    credentialInterfaces = (ISSHPrivateKey,)

    def __init__(self, path: Callable[[], Path]) -> None:
        self._path = path

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        try:
            key = Key.fromString(credentials.blob)
        except BadKeyError:
            raise UnauthorizedLogin("not a key") from None
        found = self._find(key)
        if credentials.algName not in _SIGNATURES:
            raise UnauthorizedLogin(
                f"signatures of the kind {printable(repr(credentials.algName))} are not taken"
            )
        if credentials.signature is None:
            raise ValidPublicKey
        kind, _ = getNS(credentials.signature)
        if kind != credentials.algName or not key.verify(credentials.signature, credentials.sigData):
            _log.warn("Manhole: a signature that is not by {name}'s key was refused", name=found.name)
            raise UnauthorizedLogin("the signature is not by this key")
        return succeed(found.name.encode("utf-8", "backslashreplace"))

    def _find(self, key: Key) -> Authorized:
        try:
            known = authorized(self._path())
        except UnsafeFileError as error:
            _log.error("Manhole: nobody can come in over SSH: {why}", why=str(error))
            raise UnauthorizedLogin("no keys") from None
        blob = key.blob()
        for each in known:
            if each.key.blob() == blob:
                return each
        raise UnauthorizedLogin("unknown key")


class _UserAuth(SSHUserAuthServer):
    _log = _conch_log
    transport: Any
    loginTimeout = int(LOGIN_SECONDS)
    attemptsBeforeDisconnect = _ATTEMPTS

    def _ebBadAuth(self, reason: Failure) -> Any:
        if self.method == b"publickey" and reason.check(UnauthorizedLogin):
            _log.warn(
                "Manhole: a key was refused: {peer}, as user {user}: {why}",
                peer=self.transport.peer,
                user=printable((self.user or b"").decode("utf-8", "replace"), 100),
                why=printable(str(reason.value)),
            )
        return super()._ebBadAuth(reason)  # type: ignore[no-untyped-call]


class _User(ConchUser):
    """Who came in; may open sessions, and nothing else: no forwarding, no files, no other channels."""

    def __init__(self, doors: Doors, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.doors = doors
        self.name = name
        self.channelLookup[b"session"] = _SessionChannel


@implementer(IRealm)
class _Realm:
    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        user = _User(self._doors, avatarId.decode())
        return IConchUser, user, lambda: None


class _Transport(SSHServerTransport):
    """One connection."""

    _log = _conch_log
    ourVersionString = f"SSH-2.0-cubehook_{__version__}".encode()
    transport: Any
    doors: Doors
    peer = ""
    _timer: IDelayedCall | None = None
    _in = False

    def connectionMade(self) -> None:
        self.peer = peer_of(self.transport.getPeer())
        self._in = True
        self.doors.connected(DOOR, self)
        # Conch's own limit begins only with the keys exchanged.
        self._timer = self.doors.reactor.callLater(LOGIN_SECONDS, self._tooLate)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def _tooLate(self) -> None:
        self.abort()

    def setService(self, service: Any) -> None:
        super().setService(service)  # type: ignore[no-untyped-call]
        if isinstance(service, SSHConnection):
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self.doors.known(DOOR, self)

    def sendExtInfo(self, extensions: Any) -> None:
        # Conch tells people of what kind our own key is; it is theirs that matter here.
        super().sendExtInfo([(b"server-sig-algs", b",".join(_SIGNATURES))])  # type: ignore[no-untyped-call]

    def receiveError(self, reasonCode: int, description: bytes) -> None:
        # Such as that the user has left, which `ssh` tells as an error.
        self._log.debug("The other side ended it: {why}", why=printable(repr(description)))

    def close(self, why: str) -> None:
        self.sendDisconnect(DISCONNECT_BY_APPLICATION, why.encode())

    def abort(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._in:
            self._in = False
            self.doors.disconnected(DOOR, self)
        super().connectionLost(reason)


class _Connection(SSHConnection):
    _log = _conch_log


class _SessionChannel(SSHSession):
    _log = _conch_log


class _Factory(SSHFactory):
    _log = _conch_log
    protocol = _Transport
    noisy = False
    services = {b"ssh-userauth": _UserAuth, b"ssh-connection": _Connection}

    def __init__(self, doors: Doors, portal: Portal, key: Key) -> None:
        self._doors = doors
        self.portal = portal
        self.publicKeys = {b"ssh-ed25519": key.public()}
        self.privateKeys = {b"ssh-ed25519": key}
        self.primes = None

    def buildProtocol(self, addr: Any) -> Any:
        if not self._doors.admits(DOOR, peer_of(addr)):
            return None
        protocol: Any = super().buildProtocol(addr)
        protocol.doors = self._doors
        return protocol


def ssh_factory(doors: Doors, keys: Callable[[], Path], key_path: Path) -> SSHFactory:
    """What answers at the SSH door, to those whose keys are in the file that `keys` tells; HostKeyError."""
    key = host_key(key_path)
    _log.info("The manhole's host key is {fingerprint} (ed25519)", fingerprint=fingerprint(key))
    try:
        if not authorized(keys()):
            _log.warn("Nobody can come into the manhole over SSH: {path} has no keys", path=str(keys()))
    except UnsafeFileError as error:
        _log.error("Nobody can come into the manhole over SSH: {why}", why=str(error))
    return _Factory(doors, Portal(_Realm(doors), [KeyChecker(keys)]), key)


@implementer(ISession)
class _Channel:
    """One session channel of a user: a prompt, a command, or a script."""

    def __init__(self, user: _User) -> None:
        self._user = user
        self._process: Any = None
        self._session: Session | None = None
        self._script: bytearray | None = None
        self._term: bytes | None = None
        self._screen = Screen()
        self._left = False

    # What ISession wants

    def getPty(self, term: bytes, windowSize: Any, modes: Any) -> None:
        self._term = term
        self.windowChanged(windowSize)
        self._screen.colour = term not in _DUMB

    def windowChanged(self, newWindowSize: Any) -> None:
        rows, columns = newWindowSize[:2]
        if self._session is not None:
            self._session.resize(columns, rows)
        else:
            self._screen.resize(columns, rows)

    def openShell(self, proto: Any) -> None:
        session = self._begin(proto, editing=self._term is not None and self._term not in _DUMB)
        if session is None:
            return
        if self._term is not None:
            session.start()
        else:
            self._script = bytearray()
        proto.makeConnection(self)

    def execCommand(self, proto: Any, command: bytes) -> None:
        session = self._begin(proto, editing=self._term is not None)
        if session is not None:
            # What the program at the other end says meanwhile is for nobody, but for Ctrl-C.
            proto.makeConnection(self)
            self._run(session, command)

    def eofReceived(self) -> None:
        if self._script is not None and self._session is not None:
            script, self._script = self._script, None
            self._run(self._session, bytes(script))
        elif self._session is not None and self._term is not None:
            self._session.data(b"\x04")

    def closed(self) -> None:
        if self._session is not None:
            self._user.doors.left(self._session)

    # What the protocol of a process wants of its transport

    def write(self, data: bytes) -> None:
        if data and self._session is not None and not self._left:
            if self._script is None:
                self._session.data(data)
            elif len(self._script) + len(data) <= MOST_SCRIPT:
                self._script += data
            else:
                self._refuse(f"At most {MOST_SCRIPT:,} bytes are taken to run.")

    def loseConnection(self) -> None:
        self.closed()

    # Sessions

    def _begin(self, proto: Any, *, editing: bool) -> Session | None:
        self._process = proto
        conn: Any = self._user.conn
        visitor = Visitor(self._user.name, DOOR, conn.transport.peer)
        try:
            self._session = self._user.doors.session(
                visitor,
                _Terminal(self),
                self._screen,
                editing=editing,
                newline="\n" if self._term is None else "\r\n",
            )
        except FullError as error:
            self._refuse(str(error))
        return self._session

    def _run(self, session: Session, command: bytes) -> None:
        try:
            text = command.decode()
        except UnicodeDecodeError:
            self._refuse("What is to be run is not text in UTF-8.")
            return
        _ = session.run(text).addCallback(lambda well: self.leave(0 if well else 1))

    def _refuse(self, why: str) -> None:
        if not self._left:
            self._process.errReceived(f"{why}\n".encode())
            self.leave(1)

    def send(self, data: bytes) -> None:
        if not self._left:
            self._process.outReceived(data)

    def leave(self, status: int) -> None:
        if self._left:
            return
        self._left = True
        if self._session is not None:
            self._user.doors.left(self._session)
        channel = self._process.session
        conn: Any = self._user.conn
        if channel in conn.channelsToRemoteChannel:
            conn.sendRequest(channel, b"exit-status", struct.pack(">L", status))
        channel.loseConnection()


class _Terminal:
    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def write(self, data: bytes) -> None:
        self._channel.send(data)

    def leave(self, status: int) -> None:
        self._channel.leave(status)


registerAdapter(_Channel, _User, ISession)
