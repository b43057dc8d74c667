"""What is examined, and what the examinations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography import x509
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool

from cubehook.config import Config, Cube, Webhook
from cubehook.config_rules import endpoint_parts, is_tls
from cubehook.control import Control
from cubehook.doctor.clock import Opinion
from cubehook.doctor.state import Kept

T = TypeVar("T")
V = TypeVar("V", bound=Cube | Webhook)


class Running:
    """The service as it told of itself, by the API's own structs as plain values."""

    def __init__(
        self,
        control: Control,
        status: Mapping[str, Any],
        cubes: Mapping[str, Mapping[str, Any]],
        webhooks: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.control = control
        self.status = status
        self.cubes = cubes
        self.webhooks = webhooks


class Listener(msgspec.Struct, frozen=True):
    """
    An endpoint of `[listen]`, as `key` has it.

    `host` and `port` are where it can be called on this machine, `host` empty for all addresses; `port` is
    None for what is no TCP, or is not told by the endpoint itself.
    """

    key: str
    endpoint: str
    scheme: str
    host: str
    port: int | None

    @property
    def name(self) -> str:
        """The endpoint, for people: without the files of its certificates."""
        return f"{self.key} {self.endpoint.partition(':privateKey')[0]}"

    @property
    def is_for_cubes(self) -> bool:
        """It is what gateways call."""
        return self.key == "listen.cubes"

    @property
    def url(self) -> str:
        """Where it answers, without a path."""
        host = self.host or "127.0.0.1"
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


class Subject:
    """
    A service, running or not.

    `config` is None if the file cannot be used.  `cubes` and `webhooks` are all there are, the file's and
    others, as far as they are known; `opinions` collects what others say the time is.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config | None,
        folder: Path,
        running: Running | None,
        kept: Kept,
        now: Callable[[], float],
    ) -> None:
        self.reactor = reactor
        self.config = config
        self.folder = folder
        self.running = running
        self.kept = kept
        self.now = now
        # The control socket is not made for crowds.
        self._few = DeferredSemaphore(8)
        self.opinions: list[Opinion] = []
        self.holder: int | None = None
        """The process that has the state folder, whether or not it can be asked."""
        self.own_certificates: list[x509.Certificate] = []
        """In the files of our listeners, and judged already."""
        self.cubes: list[Cube] = _together(config.cubes if config else (), kept.cubes)
        self.webhooks: list[Webhook] = _together(config.webhooks if config else (), kept.webhooks)
        if running is not None:
            self.cubes = _as_they_run(self.cubes, running)

    @property
    def today(self) -> datetime:
        """Now, in UTC."""
        return datetime.fromtimestamp(self.now(), UTC)

    def wants_certificates(self, scheme: str) -> bool:
        """Whether gateways that call by `scheme` must show a certificate, which we have not."""
        return scheme == "https" and self.config is not None and self.config.listen.client_ca is not None

    def post(self, path: str) -> Deferred[Any]:
        """What the running service answers to a POST; fails with ControlError."""
        assert self.running is not None
        return self._few.run(self.in_thread, self.running.control.post, path)

    def get(self, path: str) -> Deferred[Any]:
        """What the running service has at `path`; fails with ControlError."""
        assert self.running is not None
        return self._few.run(self.in_thread, self.running.control.get, path)

    def in_thread(self, work: Callable[..., T], *arguments: object) -> Deferred[T]:
        """What `work`, which blocks, returns."""
        pool = self.reactor.getThreadPool()
        result: Deferred[T] = deferToThreadPool(self.reactor, pool, work, *arguments)
        return result

    def listeners(self, key: str) -> list[Listener]:
        """Those of `listen.KEY`."""
        if self.config is None:
            return []
        return [listener(f"listen.{key}", endpoint) for endpoint in getattr(self.config.listen, key)]


def listener(key: str, endpoint: str) -> Listener:
    """What an endpoint string tells of where it listens."""
    kind, arguments = endpoint_parts(endpoint)
    port = arguments.get("port", "")
    tells = kind in ("tcp", "tcp6", "ssl") and port.isdigit() and port != "0"
    host = arguments.get("interface", "")
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = ""
    if kind == "tcp6" and not host:
        host = "::1"
    return Listener(
        key, endpoint, "https" if is_tls(endpoint) else "http", host, int(port) if tells else None
    )


def _together(of_the_file: Sequence[V], others: Sequence[V]) -> list[V]:
    known = {each.id for each in of_the_file}
    return [*of_the_file, *(each for each in others if each.id not in known)]


def _as_they_run(known: list[Cube], running: Running) -> list[Cube]:
    """The cubes as the service has them, with what only the file tells of those that are the same."""
    by_id = {cube.id: cube for cube in known}
    found = []
    for id, view in running.cubes.items():
        shown = {name: view[name] for name in Cube.__struct_fields__ if name in view}
        same = by_id.get(id)
        if same is not None and all(
            msgspec.to_builtins(getattr(same, name)) == value for name, value in shown.items()
        ):
            found.append(same)
        else:
            found.append(msgspec.convert(shown, Cube))
    return found
