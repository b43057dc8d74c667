"""
The API on the control socket, for commands on the same machine.

Whoever may open the socket may do everything: it is in the state folder, has the mode 0600, and belongs to
the service's user.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from cubehook import control
from cubehook.api.operations import Caller
from cubehook.net.site import AccessSite, LimitedRequest

_MODE = 0o600
_BACKLOG = 50
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of Linux's `struct ucred`."""


def caller(request: LimitedRequest) -> Caller:
    """Whoever is at the other end of the control socket, named by the user id that the kernel tells."""
    option = getattr(socket, "SO_PEERCRED", None)
    connection = getattr(getattr(request.channel, "transport", None), "socket", None)
    if option is None or connection is None:
        return Caller("a command")
    told = connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(told)
    return Caller(f"uid {user}")


class ControlListener:
    """
    Serves `site` on the control socket of `folder`.

    The caller holds the lock of the state folder: so a socket that is there already is one that a service
    left behind when it was killed, and is replaced.
    """

    def __init__(self, folder: Path, site: AccessSite, reactor: Any) -> None:
        self.path = folder / control.NAME
        self._folder = folder
        self._site = site
        self._reactor = reactor
        self._port: _Port | None = None

    def open(self) -> None:
        """Listen; OSError, whose `strerror` is in words, if that cannot be."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise FileExistsError(None, "something that is no socket is there: move it away")
            self.path.unlink()
        with control.short_path(self._folder) as path:
            port = _Port(os.fsencode(path), self._site, _BACKLOG, _MODE, self._reactor)
            # Nobody else may open it in the moment before its mode is set either.
            mask = os.umask(0o777 & ~_MODE)
            try:
                port.startListening()  # type: ignore[no-untyped-call]
            except CannotListenError as error:
                self._site.doStop()
                raise error.socketError from None
            finally:
                os.umask(mask)
        port.path = self.path
        self._port = port

    async def close(self) -> None:
        """Take the socket away, and close its connections once what is being answered is."""
        port, self._port = self._port, None
        if port is not None:
            await port.stop()
            self._site.close_connections()


class _Port(unix.Port):
    """Takes away its socket by a name that is good for longer than the one it was made with."""

    path: Path

    def stop(self) -> Deferred[None]:
        stopped: Deferred[None] = self.stopListening()  # type: ignore[no-untyped-call]
        return stopped

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Somebody may have taken it away, or its folder; Twisted's own would then never be done.
        with suppress(OSError):
            self.path.unlink()
        tcp.Port.connectionLost(self, reason)
