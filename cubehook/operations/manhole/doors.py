"""Opens and closes the manhole's doors, and knows who is inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from cubehook.config import Manhole
from cubehook.operations.manhole.history import Histories
from cubehook.operations.manhole.inside import Inside
from cubehook.operations.manhole.screen import Screen
from cubehook.operations.manhole.session import Session, Terminal, Visitor

MOST_SESSIONS = 16
MOST_STRANGERS = 16
"""Connections of which it is not known whose they are, at each door."""

LOGIN_SECONDS = 60.0
"""How long a connection may take to tell whose it is."""

CLOSE_SECONDS = 2.0
"""How long the doors' connections may take to end when the service stops."""

HOST_KEY = "ssh_host_ed25519_key"
HISTORY = "manhole-history"

_STOPPING = "cubehook is stopping."

_log = Logger(namespace="cubehook.operations.manhole")


class Connection(Protocol):
    """A connection to a door."""

    def close(self, why: str) -> None:
        """End it, in words if it has a terminal."""

    def abort(self) -> None:
        """End it now."""


class DoorError(Exception):
    """A door cannot be opened; the text says why and what to do."""


class FullError(Exception):
    """There are as many sessions as there may be."""


class Doors:
    """
    The doors of `settings` to what is `inside`; what they keep is in `folder`.

    `listen` opens a port for an endpoint, by the name of its key, or raises what the service raises of ports.
    """

    def __init__(
        self,
        inside: Inside,
        settings: Manhole,
        folder: Path,
        listen: Callable[[str, str, Factory], IListeningPort],
    ) -> None:
        self._inside = inside
        self._settings = settings
        self._folder = folder
        self.reactor = inside.reactor
        self._listen = listen
        self._histories = Histories(folder / HISTORY)
        self._ports: list[IListeningPort] = []
        self._sessions: list[Session] = []
        self._connections: dict[Connection, bool] = {}
        self._strangers: dict[str, int] = {}
        self._left: Deferred[None] | None = None
        self._closed = False

    def open(self) -> None:
        """Open them; raises what `listen` raises, and DoorError."""
        settings = self._settings
        if settings.ssh is not None and settings.authorized_keys is not None:
            from cubehook.operations.manhole.keyfiles import HostKeyError
            from cubehook.operations.manhole.ssh import ssh_factory

            try:
                factory = ssh_factory(self, self._key_file, self._folder / HOST_KEY)
            except HostKeyError as error:
                raise DoorError(str(error)) from None
            self._ports.append(self._listen("manhole.ssh", _guarded(settings.ssh), factory))
        if settings.telnet is not None and settings.password_file is not None:
            from cubehook.operations.manhole.telnet import telnet_factory

            self._ports.append(
                self._listen(
                    "manhole.telnet",
                    _guarded(settings.telnet),
                    telnet_factory(self, self._password_file),
                )
            )
            _log.warn(
                "The manhole is open for telnet on {endpoint}: passwords and all that is typed go over it in "
                "clear text; prefer manhole.ssh",
                endpoint=settings.telnet,
            )

    def change(self, settings: Manhole) -> None:
        """Let in by other files from now on; where the doors are stays as it is."""
        self._settings = settings

    def _key_file(self) -> Path:
        assert self._settings.authorized_keys is not None
        return self._settings.authorized_keys

    def _password_file(self) -> Path:
        assert self._settings.password_file is not None
        return self._settings.password_file

    # Who is inside

    def visitors(self) -> list[str]:
        """Who has a session."""
        return [str(session.visitor) for session in self._sessions]

    def session(
        self,
        visitor: Visitor,
        terminal: Terminal,
        screen: Screen,
        *,
        editing: bool = True,
        newline: str = "\r\n",
    ) -> Session:
        """A new session; FullError.  `left` must be told of its end."""
        if self._closed or len(self._sessions) >= MOST_SESSIONS:
            _log.warn(
                "Manhole: {visitor} is turned away, as there are {count} sessions",
                visitor=str(visitor),
                count=len(self._sessions),
            )
            raise FullError(f"There are {len(self._sessions)} sessions already.")
        session = Session(
            self._inside,
            visitor,
            terminal,
            screen,
            self._histories,
            visitors=self.visitors,
            editing=editing,
            newline=newline,
        )
        self._sessions.append(session)
        return session

    def left(self, session: Session) -> None:
        """A session is over."""
        session.ended()
        if session in self._sessions:
            self._sessions.remove(session)

    # Connections

    def admits(self, door: str, peer: str) -> bool:
        """Whether a door takes another connection now."""
        if self._closed:
            return False
        if self._strangers.get(door, 0) >= MOST_STRANGERS:
            _log.warn(
                "Manhole: a connection from {peer} is refused, as {count} others have not logged in at "
                "{door} yet",
                peer=peer,
                count=MOST_STRANGERS,
                door=door,
            )
            return False
        return True

    def connected(self, door: str, connection: Connection) -> None:
        """A connection was made."""
        self._connections[connection] = True
        self._strangers[door] = self._strangers.get(door, 0) + 1
        if self._closed:
            connection.close(_STOPPING)

    def known(self, door: str, connection: Connection) -> None:
        """It is known whose a connection is."""
        if self._connections.get(connection):
            self._connections[connection] = False
            self._strangers[door] -= 1

    def disconnected(self, door: str, connection: Connection) -> None:
        """A connection is no more."""
        self.known(door, connection)
        self._connections.pop(connection, None)
        if not self._connections and self._left is not None:
            left, self._left = self._left, None
            left.callback(None)

    # Closing

    async def close(self) -> None:
        """Let nobody in any more, and end every session."""
        self._closed = True
        ports, self._ports = self._ports, []
        for port in ports:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped
        for session in list(self._sessions):
            session.close(_STOPPING)
            self.left(session)
        for connection in list(self._connections):
            connection.close(_STOPPING)
        if self._connections:
            self._left = Deferred()
            timer = self.reactor.callLater(CLOSE_SECONDS, self._abort)
            try:
                await self._left
            finally:
                if timer.active():
                    timer.cancel()

    def _abort(self) -> None:
        for connection in list(self._connections):
            connection.abort()


def _guarded(endpoint: str) -> str:
    """`endpoint`; a Unix socket of which no mode is said is the owner's alone."""
    if endpoint.startswith("unix:") and ":mode=" not in endpoint:
        return f"{endpoint}:mode=600"
    return endpoint


def peer_of(address: Any) -> str:
    """Where a connection comes from, in words."""
    host = getattr(address, "host", None)
    return f"from {host}:{address.port}" if host is not None else "from this machine"
