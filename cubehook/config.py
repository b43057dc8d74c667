"""
The configuration: TOML to frozen structs, every error reported at once.

The keys are the contract's; `etc/cubehook.toml` shows each with its default.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cubehook.events import CallState, Granularity

ALL_STATES = (CallState.ALERTING, CallState.CONNECTED, CallState.DISCONNECTED)
DEFAULT_RETRY = (2.0, 10.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0, 43200.0, 86400.0)


class Listen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Twisted endpoint strings."""

    cubes: tuple[str, ...] = ("tcp:8090",)
    console: tuple[str, ...] = ("tcp:8080:interface=127.0.0.1",)


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: str = "info"
    levels: dict[str, str] = {}
    format: str = "text"
    rotate_bytes: int = 10_000_000
    keep: int = 10


class Cube(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gateway; `id` is its key in the file."""

    id: str
    provider_url: str
    application_url: str
    enabled: bool = True
    description: str = ""
    default_region: str | None = None
    allow_from: tuple[str, ...] = ()


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One receiver; `id` is its key in the file.

    `timeout`, `retry`, `jitter` and `concurrency` are None where the webhook leaves
    them to `[delivery]`; `options` belongs to the transport, which validates it.
    """

    id: str
    name: str = ""
    description: str = ""
    url: str = ""
    method: str = "POST"
    enabled: bool = True
    states: tuple[CallState, ...] = ALL_STATES
    cubes: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    payload: str = "basic"
    granularity: Granularity = Granularity.CALL
    transport: str = "http"
    secret: str | None = None
    options: dict[str, object] = {}
    timeout: float | None = None
    retry: tuple[float, ...] | None = None
    jitter: float | None = None
    concurrency: int | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults for every webhook; `timeout` bounds the whole exchange, the body included."""

    timeout: float = 15.0
    retry: tuple[float, ...] = DEFAULT_RETRY
    jitter: float = 0.2
    concurrency: int = 8


class Egress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Networks that webhooks may not, or may all the same, be sent to.

    Link-local and metadata addresses stay denied whatever is written, and loopback
    unless allowed; everything else is allowed unless denied.
    """

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


class Manhole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ssh: str | None = None
    authorized_keys: Path | None = None
    telnet: str | None = None
    password_file: Path | None = None


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds; written as `90d`, `12h`, `30m` or `45s`."""

    calls: int = 90 * 86400
    deliveries: int = 30 * 86400


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Everything the service is told; relative paths are already resolved.

    `source` is the file it came from, None for the built-in defaults.
    """

    source: Path | None = None
    state_dir: Path = Path("var")
    database: str = "sqlite"
    listen: Listen = Listen()
    log: Log = Log()
    cubes: tuple[Cube, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    delivery: Delivery = Delivery()
    egress: Egress = Egress()
    manhole: Manhole = Manhole()
    retention: Retention = Retention()
