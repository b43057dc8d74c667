"""
Server endpoints of the configuration, among them sockets that systemd opened and hands over.

Twisted knows the latter as `systemd:`.  What it says when there is none is for programmers, and a Unix
socket it takes for its own: it would open it to everybody, and shut it for good at the end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.unix import Port
from twisted.logger import Logger
from zope.interface import implementer

from cubehook.text import printable

_PREFIX = "systemd:"
_FIRST = 3
"""The number of the first descriptor that systemd hands over."""

_taken: set[int] = set()
"""Descriptors that were listened on; what has their numbers since may be anything."""

_log = Logger()


class InheritedError(Exception):
    """systemd did not hand over what the endpoint names; the text says what is missing."""


def is_inherited(endpoint: str) -> bool:
    """Whether an endpoint string means a socket of systemd's."""
    return endpoint.lower().startswith(_PREFIX)


def server(reactor: Any, text: str) -> IStreamServerEndpoint:
    """The endpoint that `text` names; InheritedError if it is a socket of systemd's and that is not there."""
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except LookupError:
        if not is_inherited(text):
            raise
        raise InheritedError(
            "systemd handed over no such socket. Does the .socket unit name it so (FileDescriptorName), and "
            "was the service started by systemd?"
        ) from None
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        if endpoint.fileno in _taken:
            raise InheritedError("this socket was closed by a reload, and only a restart can bring it back")
        _check(endpoint.fileno, endpoint.addressFamily)
        _taken.add(endpoint.fileno)
        if endpoint.addressFamily == socket.AF_UNIX:
            return _UnixEndpoint(reactor, endpoint.fileno)
    return endpoint


def tell_unused(environ: MutableMapping[str, str]) -> None:
    """
    Say in the log which sockets of systemd's nothing listens on, and take their names out of `environ`.

    To be called once the endpoints that take others listen.
    """
    names = environ.pop("LISTEN_FDNAMES", "")
    # Twisted took out LISTEN_PID when it was imported, if that was this process.
    if not names or "LISTEN_PID" in environ:
        return
    for descriptor, name in enumerate(names.split(":"), _FIRST):
        if descriptor not in _taken:
            _log.warn(
                "systemd listens on a socket called {name} for cubehook, and no endpoint is configured that "
                "takes it, so whoever connects there waits for ever: write systemd:domain=INET:name={name}",
                name=printable(name),
            )


def _check(descriptor: int, family: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as found:
        if found.family != family:
            actual = socket.AddressFamily(found.family).name.removeprefix("AF_")
            raise InheritedError(f"the socket that systemd handed over is of another kind: domain={actual}")
        accepts = found.type == socket.SOCK_STREAM and found.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        )
        if not accepts:
            raise InheritedError(
                "the socket that systemd handed over does not listen: the .socket unit wants ListenStream "
                "and Accept=no"
            )


@implementer(IStreamServerEndpoint)
class _UnixEndpoint:
    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        found: Deferred[IListeningPort] = execute(self._adopt, protocolFactory)
        return found

    def _adopt(self, factory: IProtocolFactory) -> IListeningPort:
        os.set_blocking(self._descriptor, False)
        make: Any = _UnixPort._fromListeningDescriptor
        port = make(self._reactor, self._descriptor, factory)
        port.backlog = socket.SOMAXCONN
        port.startListening()
        os.close(self._descriptor)
        adopted: IListeningPort = port
        return adopted


class _UnixPort(Port):
    """A port on systemd's socket: the file is not ours, and the socket goes on to listen after our end."""

    _shouldShutdown = False

    def startListening(self) -> None:
        # A name that is no file's has no mode that could be set, and is not removed.
        self._bindPath = b"\0" + self._bindPath
        super().startListening()  # type: ignore[no-untyped-call]
