"""
The service: opens the rooms in order, joins them, and closes them in order.

Everything that can fail for a reason that the operator can mend (an unwritable folder, a database of
a newer version, a busy port) is opened in `privilegedStartService`, after the fork and before the
reactor runs, so that it ends the process with a sentence instead of a traceback.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from cubehook import __version__, config
from cubehook.calls.numbers import Numbers
from cubehook.calls.tracker import Changes, Tracker
from cubehook.delivery.dispatcher import Dispatcher
from cubehook.events import Event, Micros
from cubehook.ids import Ids
from cubehook.intake import Intake
from cubehook.net.egress import EgressPolicy, policy_from
from cubehook.net.site import AccessSite
from cubehook.operations.health import HealthResource
from cubehook.operations.logs import Logs
from cubehook.operations.metrics import Metrics
from cubehook.records import Attempt, Delivery, DeliveryStatus, Registration
from cubehook.store.store import Store, StoreError
from cubehook.transports.context import TransportContext
from cubehook.transports.registry import create, find_transports
from cubehook.xcc.client import GatewayClient, gateway_agent
from cubehook.xcc.registrar import Registrar
from cubehook.xcc.resource import Gateway, XccResource

SWEEP_SECONDS = 60.0
"""How often orphaned calls are looked for."""

RETENTION_SECONDS = 3600.0
"""How often history past its retention is deleted."""

STOP_GRACE = 5.0
"""How long deliveries under way may take to finish when the service stops."""


class StartError(SystemExit):
    """The service cannot start; its text tells the operator why, the exit status is 1."""


def wall_clock() -> Micros:
    """Now, as every timestamp of ours tells it."""
    return time.time_ns() // 1000


class CubehookService(Service):
    """
    All of cubehook between a configuration and a reactor.

    `running` fires once the listeners answer and every cube has begun to register.
    """

    _log = Logger()

    def __init__(self, settings: config.Config, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self.metrics = Metrics()
        self.logs = Logs(settings.state_dir / "log", settings.log, reactor, wall_clock)
        self.store = Store(settings.state_dir / "cubehook.db", reactor, wall_clock)
        self.registrars: dict[str, Registrar] = {}
        self.trackers: dict[str, Tracker] = {}
        self.running: Deferred[None] = Deferred()
        self._ports: list[IListeningPort] = []
        self._timers: dict[str, IDelayedCall] = {}
        self._starting: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        """Open the logs, the store and the ports; StartError where that fails."""
        super().privilegedStartService()
        folder = self._settings.state_dir
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            self.logs.open()
        except OSError as error:
            raise StartError(f"cubehook: cannot write to the state folder {folder}: {error.strerror}") from None
        try:
            self.store.open_now()
        except StoreError as error:
            self.logs.close()
            raise StartError(f"cubehook: {error}") from None
        self._wire()
        listen = self._settings.listen
        try:
            self._listen("cubes", listen.cubes, self._resource.resource())
            self._listen("console", listen.console, self._health.resource())
        except StartError:
            self.store.close_now()
            self.logs.close()
            raise
