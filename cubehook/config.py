"""
The settings, as frozen structs: each field's type, bounds, rule and default.

The keys are the contract's; `etc/cubehook.toml` shows each with its default.
`cubehook.config_reader` makes these structs from a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from cubehook import config_rules as rules
from cubehook.events import CallState, Granularity, NoticeType

# Alone, `$` would also match before a line break at the end.
ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)"
Id: TypeAlias = Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
"""Names a cube or webhook in file names, metrics and URLs."""

LevelName: TypeAlias = Literal["debug", "info", "warn", "error", "critical"]

Endpoint: TypeAlias = Annotated[
    str,
    rules.rule(
        'a Twisted endpoint string such as "tcp:8090:interface=127.0.0.1"',
        rules.endpoint,
        resolve=rules.endpoint_in,
    ),
]
Network: TypeAlias = Annotated[
    str, rules.rule('a network such as "192.0.2.0/24", or an address', rules.network)
]
GatewayUrl: TypeAlias = Annotated[
    str, rules.rule("an http or https URL with a host", rules.gateway_url, rules.shown_url)
]
ReceiverUrl: TypeAlias = Annotated[str, rules.rule("the receiver's URL", rules.receiver_url, rules.shown_url)]
Region: TypeAlias = Annotated[str, rules.rule('a region of two capital letters, such as "US"', rules.region)]
HeaderName: TypeAlias = Annotated[str, rules.rule("the name of an HTTP header", rules.header_name)]
HeaderValue: TypeAlias = Annotated[str, rules.rule("the value of an HTTP header", rules.header_value, None)]
Secret: TypeAlias = Annotated[str, rules.rule("a text", str, None)]
Database: TypeAlias = Annotated[str, rules.rule('"sqlite"', rules.database, None)]
Duration: TypeAlias = Annotated[
    int, rules.rule('a duration such as "90d", "12h", "30m" or "45s"', rules.duration)
]
Patience: TypeAlias = Annotated[
    int, rules.rule('a duration such as "5d", or "never"', rules.duration_or_never)
]
"""Seconds, 0 for "never"."""
Pin: TypeAlias = Annotated[
    str,
    rules.rule(
        'the SHA-256 fingerprint of a certificate ("AB:CD:..."), or of its key ("sha256//...")', rules.pin
    ),
]
FileName: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
"""Of a file; relative to the state folder."""
TlsVersion: TypeAlias = Literal["1.0", "1.1", "1.2", "1.3"]
ProxyUrl: TypeAlias = Annotated[
    str, rules.rule("the http:// URL of a proxy, or an empty text", rules.proxy_url, rules.shown_url)
]
NoProxy: TypeAlias = Annotated[
    str, rules.rule('a host, a domain such as ".example.com", an address, a network, or "*"', rules.no_proxy)
]
Timeout: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=600)]
Wait: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=30 * 86400)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Concurrency: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1000)]

ALL_STATES = (CallState.ALERTING, CallState.CONNECTED, CallState.DISCONNECTED)
DEFAULT_RETRY = (2.0, 10.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0, 43200.0, 86400.0)


class Listen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Where the service listens: what the gateways call, and the console with the REST API.

    `tls_minimum` and `client_ca` are for listeners of `cubes` with TLS: the oldest version that is spoken,
    and who must vouch for the certificate of whoever calls.
    """

    cubes: Annotated[tuple[Endpoint, ...], msgspec.Meta(min_length=1)] = ("tcp:8090",)
    console: tuple[Endpoint, ...] = ("tcp:8080:interface=127.0.0.1",)
    max_connections: Annotated[int, msgspec.Meta(ge=8, le=1_000_000)] = 1000
    """Open at once, for the cubes' listeners together, and as many for the console's."""
    max_connections_per_address: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 250
    tls_minimum: TlsVersion = "1.2"
    client_ca: Path | None = None


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keep` counts the rotated files that stay beside the current one."""

    level: LevelName = "info"
    levels: dict[str, LevelName] = {}
    format: Literal["text", "json"] = "text"
    rotate_bytes: Annotated[int, msgspec.Meta(ge=10_000)] = 10_000_000
    keep: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10


class Cube(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One gateway; `id` is its key in the file.

    The last five settings are for a gateway in secure mode, whose `provider_url` is https: with `pins` its
    certificate must be one of these, whatever it says; else `ca_file`, or the platform, vouches for it.
    `client_certificate` is shown to it, and `tls_minimum` the oldest version of TLS that is spoken with it.
    """

    id: Id
    provider_url: GatewayUrl
    application_url: GatewayUrl
    enabled: bool = True
    description: str = ""
    default_region: Region | None = None
    allow_from: tuple[Network, ...] = ()
    pins: tuple[Pin, ...] = ()
    ca_file: FileName | None = None
    client_certificate: FileName | None = None
    client_key: FileName | None = None
    tls_minimum: TlsVersion = "1.2"


class Breaker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    When a webhook is held back because its receiver fails, and for how long.

    It opens after `failures` in a row, or when in the last `window` seconds at least `minimum` attempts
    were made and a share of `share` of them failed.  Then nothing is sent for `first` seconds,
    after which one attempt is tried; each time that fails the wait doubles, up to `longest`.
    """

    failures: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    minimum: Annotated[int, msgspec.Meta(ge=2, le=10_000)] = 20
    window: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 60.0
    first: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 2.0
    longest: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 300.0


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One receiver; `id` is its key in the file.

    What may be None is left to `[delivery]` where it is; `options` belongs to the transport, which
    validates it.  `expire` tells how many seconds an event of a state is worth sending.
    With the payload "template", either `template` or `preset` says how it is made.
    """

    id: Id
    name: str = ""
    description: str = ""
    url: ReceiverUrl = ""
    method: str = "POST"
    enabled: bool = True
    states: Annotated[tuple[CallState, ...], msgspec.Meta(min_length=1)] = ALL_STATES
    cubes: tuple[str, ...] = ()
    headers: dict[HeaderName, HeaderValue] = {}
    payload: Literal["basic", "full", "template"] = "basic"
    template: str | None = None
    preset: Literal["slack", "teams", "form"] | None = None
    encoding: Literal["json", "form"] = "json"
    notices: tuple[NoticeType, ...] = ()
    granularity: Granularity = Granularity.CALL
    transport: str = "http"
    secret: Secret | None = None
    options: dict[str, object] = {}
    timeout: Timeout | None = None
    retry: tuple[Wait, ...] | None = None
    jitter: Share | None = None
    concurrency: Concurrency | None = None
    expire: dict[CallState, Wait] = {}
    breaker: Breaker | None = None
    disable_after: Patience | None = None

    def __repr__(self) -> str:
        # The fields hold secrets, and a repr ends up in logs and tracebacks.
        return f"<Webhook {self.id!r}>"


def receiver(webhook: Webhook) -> tuple[object, ...]:
    """What decides how a webhook's receiver answers."""
    return webhook.transport, webhook.url, webhook.method, webhook.headers, webhook.options


class Delivery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults for every webhook; `timeout` bounds the whole exchange, the body included."""

    timeout: Timeout = 15.0
    retry: tuple[Wait, ...] = DEFAULT_RETRY
    jitter: Share = 0.2
    concurrency: Concurrency = 8
    breaker: Breaker = Breaker()
    disable_after: Patience = 5 * 86400
    """Seconds of failure after which a webhook is disabled."""
    secret_overlap: Duration = 86400
    """Seconds for which a webhook's former secret goes on signing beside its new one."""


class Egress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Networks that webhooks may not, or may all the same, be sent to.

    Link-local and metadata addresses stay denied whatever is written, and loopback
    unless allowed; everything else is allowed unless denied.  `proxy` is asked to connect (CONNECT) to every
    receiver that `no_proxy` does not name.
    """

    deny: tuple[Network, ...] = ()
    allow: tuple[Network, ...] = ()
    proxy: ProxyUrl = ""
    no_proxy: tuple[NoProxy, ...] = ()

    def __repr__(self) -> str:
        # The proxy's URL may hold a password.
        return f"<Egress deny={self.deny} allow={self.allow}>"


class Manhole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Python prompt inside the running service; a door is closed unless its endpoint is named."""

    ssh: Endpoint | None = None
    authorized_keys: Path | None = None
    telnet: Endpoint | None = None
    password_file: Path | None = None


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds; written as `90d`, `12h`, `30m` or `45s`."""

    calls: Duration = 90 * 86400
    deliveries: Duration = 30 * 86400


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Everything the service is told; relative paths are already resolved.

    `source` is the file it came from, None for the built-in defaults.
    """

    source: Path | None = None
    state_dir: Path = Path("var")
    database: Database = "sqlite"
    listen: Listen = Listen()
    log: Log = Log()
    cubes: tuple[Cube, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    delivery: Delivery = Delivery()
    egress: Egress = Egress()
    manhole: Manhole = Manhole()
    retention: Retention = Retention()
