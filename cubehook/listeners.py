"""The ports that gateways, browsers and programs call: opened, moved and closed."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.task import deferLater
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from cubehook.config import Listen
from cubehook.config_rules import endpoint_parts, is_tls
from cubehook.events import Micros
from cubehook.net import inherited
from cubehook.net.admission import Admission
from cubehook.net.site import AccessSite, LimitedRequest

if TYPE_CHECKING:
    from cubehook.net.server_tls import Demands, ServerTls

BACKLOG = 1024
"""Connections that may wait to be accepted: a gateway may open one for each message, all at once."""

OTHER_FILES = 400
"""Open files that are no connections of listeners: the database's, logs, connections to receivers."""

WIND_DOWN_SECONDS = 0.5
"""For which gateways that are in the middle of a call get answers before connections are closed."""

CONSOLE = "listen.console"
CUBES = "listen.cubes"

_log = Logger()


class ListenError(Exception):
    """An endpoint, that of `key`, cannot be listened on; the text says which, why, and what to do."""

    def __init__(self, key: str, endpoint: str, words: str) -> None:
        super().__init__(f"cannot listen on {endpoint} ({key}): {words}")
        self.key = key
        self.endpoint = endpoint
        self.words = words


class _Group:
    """The endpoints of one key, which serve the same and count their connections together."""

    def __init__(self, key: str, root: IResource, admission: Admission) -> None:
        self.key = key
        self.root = root
        self.admission = admission
        self.open: dict[str, IListeningPort] = {}
        self.tls: dict[str, ServerTls] = {}
        """Of those that are open and speak TLS."""


class Listeners:
    """
    Everything of `[listen]`, as `listen` has it until it is changed.

    `access` hears of every finished request, `counted` of every connection that was refused, and
    `without_tls` of every one that came to nothing in TLS.
    """

    def __init__(
        self,
        reactor: Any,
        listen: Listen,
        now: Callable[[], Micros],
        access: Callable[[LimitedRequest], None],
        counted: Callable[[], object],
        without_tls: Callable[[], object] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self.listen = listen
        """As it is."""
        self._now = now
        self._access = access
        self._counted = counted
        self._without_tls = without_tls
        self._groups: list[_Group] = []
        self._sites: list[AccessSite] = []
        self._closed = False

    # Opening

    def open(self, cubes: IResource, console: IResource, known: Callable[[str], bool]) -> None:
        """
        Serve `cubes` to gateways and `console` to browsers and programs.

        Addresses that are `known` find places among the gateways' connections.  Raises ListenError; what
        was opened until then is for `close_at_once`.
        """
        listen = self.listen
        for key, root, who in ((CUBES, cubes, known), (CONSOLE, console, None)):
            admission = Admission(
                key,
                _most_connections(key, listen),
                listen.max_connections_per_address,
                self._reactor.seconds,
                known=who,
                counted=self._counted,
            )
            group = _Group(key, root, admission)
            self._groups.append(group)
            for endpoint in _endpoints(key, listen):
                self._open(group, endpoint, listen)

    def _open(self, group: _Group, endpoint: str, listen: Listen) -> None:
        if self._closed:
            raise ListenError(group.key, endpoint, "the service is stopping")
        site = AccessSite(group.root, self._access, self._now, self._reactor, group.admission)
        if is_tls(endpoint):
            site.tls = self._tls(group.key, endpoint, listen)
            site.tls.harder = site.let_come_again
        port = self._port(group.key, endpoint, site, site.tls)
        if site.tls is not None:
            group.tls[endpoint] = site.tls
            site.tls.warn()
        site.plain = getattr(port, "factory", None) is site
        # Twisted's 50 overflow in a busy moment, and who finds no place tries again a second later.  Of a
        # socket of systemd's, its unit decides.
        if isinstance(port, Port) and "backlog=" not in endpoint and not inherited.is_inherited(endpoint):
            port.socket.listen(BACKLOG)
        group.open[endpoint] = port
        self._sites.append(site)

    def _tls(self, key: str, endpoint: str, listen: Listen) -> ServerTls:
        from cubehook.net.certificates import TlsFileError
        from cubehook.net.server_tls import ServerTls

        name, demands = _name(key, endpoint, listen), _demands(key, listen)
        try:
            return ServerTls(name, endpoint, demands, self._reactor.seconds, self._without_tls)
        except TlsFileError as error:
            raise ListenError(key, endpoint, str(error)) from None

    def port(self, key: str, endpoint: str, factory: IProtocolFactory) -> IListeningPort:
        """A port for somebody else's use; ListenError if there can be none."""
        tls = self._tls(key, endpoint, self.listen) if is_tls(endpoint) else None
        return self._port(key, endpoint, factory, tls)

    def _port(
        self, key: str, endpoint: str, factory: IProtocolFactory, tls: ServerTls | None
    ) -> IListeningPort:
        outcome: list[IListeningPort | Failure] = []
        try:
            if tls is None:
                listening = inherited.server(self._reactor, endpoint)
            else:
                listening = tls.endpoint(self._reactor)
        except inherited.InheritedError as error:
            raise ListenError(key, endpoint, str(error)) from None
        _ = listening.listen(factory).addBoth(outcome.append)
        # Every endpoint that can be written in the configuration listens at once or fails at once.
        port = outcome[0]
        if isinstance(port, Failure):
            reason = getattr(port.value, "socketError", port.value)
            words = getattr(reason, "strerror", None) or str(reason)
            raise ListenError(
                key, endpoint, f"{words}. Is it running already, or does another program use the port?"
            )
        _log.info("Listening on {address} ({key})", address=_address(port), key=key)
        return port

    def closed(self) -> list[str]:
        """Endpoints that should be listened on and are not, in words."""
        return [
            f"nobody listens on {endpoint} ({group.key})"
            for group in self._groups
            for endpoint in _endpoints(group.key, self.listen)
            if not getattr(group.open.get(endpoint), "connected", endpoint in group.open)
        ]

    @property
    def outlive_us(self) -> bool:
        """Whether gateways can connect also while there is no service, and are answered by the next."""
        cubes = self.listen.cubes
        return bool(cubes) and all(map(inherited.is_inherited, cubes))

    def console_urls(self) -> list[str]:
        """How a browser on this machine gets to the console."""
        return [
            url
            for group in self._groups
            if group.key == CONSOLE
            for endpoint, port in group.open.items()
            for url in _urls(port, endpoint)
        ]

    # TLS

    def tls(self) -> list[ServerTls]:
        """Everything that speaks TLS."""
        return [each for group in self._groups for each in group.tls.values()]

    def reload_certificates(self) -> list[str]:
        """Read all certificates and keys again; in words, why some stay as they were."""
        return [words for each in self.tls() if (words := each.refresh(forced=True)) is not None]

    # Changing

    async def change(self, listen: Listen) -> None:
        """
        Listen as `listen` says; connections that are open stay so, and where something else is demanded over
        TLS they end with their next answers.

        Raises ListenError, and then everything is as it was.
        """
        wanted = {group.key: _endpoints(group.key, listen) for group in self._groups}
        new = [
            (group, each) for group in self._groups for each in wanted[group.key] if each not in group.open
        ]
        gone = [
            (group, each) for group in self._groups for each in group.open if each not in wanted[group.key]
        ]
        demanded = self._demanded(listen)
        opened: list[tuple[_Group, str]] = []
        made_room: list[tuple[_Group, str]] = []
        try:
            for group, endpoint in new:
                in_the_way = [each for each in gone if _same_place(endpoint, each[1])]
                for each in in_the_way:
                    gone.remove(each)
                    await self._close(*each)
                    made_room.append(each)
                self._open(group, endpoint, listen)
                opened.append((group, endpoint))
        except ListenError:
            for each in opened:
                await self._close(*each)
            for group, endpoint in made_room:
                self._open_again(group, endpoint)
            raise
        for each in gone:
            await self._close(*each)
        if self._closed:
            return
        for group in self._groups:
            group.open = {endpoint: group.open[endpoint] for endpoint in wanted[group.key]}
            group.admission.limit(_most_connections(group.key, listen), listen.max_connections_per_address)
        for tls, demands, made in demanded:
            tls.use(demands, made)
            tls.warn()
        for group in self._groups:
            for endpoint, tls in group.tls.items():
                tls.name = _name(group.key, endpoint, listen)
        self.listen = listen
        self._sites = [site for site in self._sites if site.in_use]

    def _demanded(self, listen: Listen) -> list[tuple[ServerTls, Demands, tuple[Any, Any]]]:
        """What those that stay will demand of clients, where that is something else."""
        from cubehook.net.certificates import TlsFileError

        changes = []
        for group in self._groups:
            if not group.tls:
                continue
            demands = _demands(group.key, listen)
            if demands == _demands(group.key, self.listen):
                continue
            for endpoint, tls in group.tls.items():
                try:
                    changes.append((tls, demands, tls.made(demands)))
                except TlsFileError as error:
                    raise ListenError(group.key, endpoint, str(error)) from None
        return changes

    def _open_again(self, group: _Group, endpoint: str) -> None:
        try:
            self._open(group, endpoint, self.listen)
        except ListenError as error:
            if not self._closed:
                _log.critical(
                    "{error} It was open until now, and stays closed until a reload", error=str(error)
                )

    async def _close(self, group: _Group, endpoint: str) -> None:
        port = group.open.pop(endpoint, None)
        group.tls.pop(endpoint, None)
        if port is None:
            # The service stops, and has closed it meanwhile.
            return
        address = _address(port)
        await _stopped(port)
        _log.info("Listening on {address} no more ({key})", address=address, key=group.key)

    # Closing

    async def close(self) -> None:
        """Let in nobody else."""
        self._closed = True
        for group in self._groups:
            ports, group.open = list(group.open.values()), {}
            for port in ports:
                await _stopped(port)

    async def wind_down(self) -> None:
        """
        Give those whose connections are open the time to ask once more, and close with the answer.

        Who has just asked over a connection that we close would not know whether that arrived.
        """
        for site in self._sites:
            site.wind_down()
        end = self._reactor.seconds() + WIND_DOWN_SECONDS
        while any(site.in_use for site in self._sites) and self._reactor.seconds() < end:
            await deferLater(self._reactor, WIND_DOWN_SECONDS / 20, lambda: None)

    def close_connections(self) -> None:
        """Close what is open: a connection that waits for its answer after that, others at once."""
        for site in self._sites:
            site.close_connections()

    def close_at_once(self) -> None:
        """Before the reactor runs, let go of what was opened."""
        for group in self._groups:
            for port in group.open.values():
                port.stopListening()
            group.open = {}


def allow_many_connections() -> None:
    """Use as many file descriptors as the system lets us: it hands out few for the sake of old programs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names a limit that it does not grant.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _endpoints(key: str, listen: Listen) -> tuple[str, ...]:
    return listen.cubes if key == CUBES else listen.console


def _name(key: str, endpoint: str, listen: Listen) -> str:
    """The setting that an endpoint is, as `listen.cubes[0]`."""
    endpoints = _endpoints(key, listen) if key in (CUBES, CONSOLE) else ()
    return f"{key}[{endpoints.index(endpoint)}]" if endpoint in endpoints else key


def _demands(key: str, listen: Listen) -> Demands:
    """What is asked of clients of `key` over TLS: browsers can be asked for nothing, and are never old."""
    from cubehook.net.server_tls import Demands

    return Demands(listen.tls_minimum, listen.client_ca) if key == CUBES else Demands()


def _most_connections(key: str, listen: Listen) -> int:
    """How many connections the listeners of `key` may have, as far as open files go."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    each = max(8, (files - OTHER_FILES) // 2) if files != resource.RLIM_INFINITY else sys.maxsize
    most = min(listen.max_connections, each)
    if most < listen.max_connections:
        _log.warn(
            "{key}: {most} connections may be open, not the {wanted} of listen.max_connections, as the "
            "system lets this process have {files} open files: raise that (LimitNOFILE, ulimit -n)",
            key=key,
            most=most,
            wanted=listen.max_connections,
            files=files,
        )
    return most


def _same_place(one: str, other: str) -> bool:
    """Whether two endpoints may want the same port or socket, so that they cannot both be open."""
    places = []
    for text in (one, other):
        kind, arguments = endpoint_parts(text)
        places.append(
            ("unix", arguments.get("address")) if kind == "unix" else ("port", arguments.get("port"))
        )
    return places[0] == places[1] and places[0][1] is not None


def _address(port: IListeningPort) -> str:
    host: Any = port.getHost()
    if hasattr(host, "port"):
        return f"{host.host}:{host.port}"
    return str(getattr(host, "name", host))


def _urls(port: IListeningPort, endpoint: str) -> list[str]:
    """How a browser on this machine gets there; empty if it cannot, as through a unix socket."""
    host: Any = port.getHost()
    address = getattr(host, "host", None)
    if address is None:
        return []
    loopback = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104
    name = loopback.get(address, f"[{address}]" if ":" in address else address)
    return [f"{'https' if is_tls(endpoint) else 'http'}://{name}:{host.port}"]


async def _stopped(port: IListeningPort) -> None:
    result: Deferred[Any] | None = port.stopListening()
    if result is not None:
        await result
