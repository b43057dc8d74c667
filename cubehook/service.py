"""
The service: opens the rooms in order, joins them, and closes them in order.

Everything that can fail for a reason the operator can mend (an unwritable folder, a database of a
newer version, a busy port) is opened in `privilegedStartService`, after the fork and before the
reactor runs, so that it ends the process with a sentence instead of a traceback.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.web.resource import IResource

from cubehook import __version__, config
from cubehook.calls.numbers import Numbers
from cubehook.calls.tracker import Tracker
from cubehook.delivery.dispatcher import Dispatcher
from cubehook.events import Event, Micros
from cubehook.ids import Ids
from cubehook.intake import Intake
from cubehook.net.egress import Policy
from cubehook.net.site import AccessSite
from cubehook.operations.health import HealthResource
from cubehook.operations.logs import Logs
from cubehook.operations.metrics import Metrics
from cubehook.records import Attempt, Delivery, DeliveryStatus
from cubehook.store.store import Store, StoreError
from cubehook.transports.context import TransportContext
from cubehook.transports.registry import create, find_transports
from cubehook.xcc.registrar import Registrar
from cubehook.xcc.resource import Gateway, XccResource

SWEEP_SECONDS = 60.0
STOP_GRACE = 10.0


class StartError(SystemExit):
    """The service cannot start; its text is for the operator, and the exit status is 1."""


def wall_clock() -> Micros:
    return time.time_ns() // 1000
