"""
The one step that turns a gateway's word into work: understand, commit, pass on.

A notification is handed in and the work goes on whether or not anyone still waits for it: a
handler that is cancelled because its gateway hung up takes nothing back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cubehook.calls.tracker import Changes, Tracker
from cubehook.delivery.dispatcher import Dispatcher
from cubehook.events import Event, Micros
from cubehook.ids import Ids
from cubehook.interfaces import IIntake, IJournal, StoreFullError
from cubehook.records import Delivery, Notification
from cubehook.xcc import messages as xcc

ANSWER_SECONDS = 2.0
"""How long an answer may wait for its commit (contract, section 6)."""

_EVENT_NAMES: dict[type, str] = {
    xcc.Created: "created",
    xcc.CallDelivery: "callDelivery",
    xcc.Alerting: "alerting",
    xcc.Redirected: "redirected",
    xcc.Connected: "connected",
    xcc.Transferred: "transferred",
    xcc.Disconnected: "disconnected",
    xcc.HandoffLeave: "handoffLeave",
    xcc.HandoffJoin: "handoffJoin",
    xcc.MediaForkingEvent: "mediaForking",
    xcc.UnknownEvent: "unknown",
}


class _Work:
    """What one notification caused, on its way to the disk."""

    __slots__ = ("answer", "deliveries", "events", "released", "since")

    def __init__(self, events: Sequence[Event], deliveries: list[Delivery], since: float) -> None:
        self.events = events
        self.deliveries = deliveries
        self.since = since
        self.released = False
        self.answer: Deferred[None] = Deferred()


@implementer(IIntake)
class Intake:
    """
    Feeds each cube's tracker and commits what it says, then starts the deliveries.

    `on_event` hears of every event once it is kept (or, while the store is away, held).
    """

    _log = Logger()

    def __init__(
        self,
        *,
        trackers: Mapping[str, Tracker],
        journal: IJournal,
        dispatcher: Dispatcher,
        ids: Ids,
        reactor: IReactorTime,
        on_event: Callable[[Event], None],
    ) -> None:
        self._trackers = trackers
        self._journal = journal
        self._dispatcher = dispatcher
        self._ids = ids
        self._reactor = reactor
        self._on_event = on_event
        self._waiting: deque[_Work] = deque()
        self._timer: IDelayedCall | None = None

    def connection_data(
        self, cube: str, message: xcc.NotifyXccConnectionData, raw: bytes, at: Micros
    ) -> Deferred[None]:
        """See `IIntake.connection_data`."""
        if self._journal.full:
            # Before the tracker hears of it: what it has told cannot be told again.
            return fail(StoreFullError())
        try:
            changes = self._trackers[cube].connection_data(message, at)
        except Exception:
            # Refusing it would make the gateway stop sending; kept, it can be looked into.
            self._log.failure("A notification of cube {cube} could not be understood; it is kept", cube=cube)
            changes = Changes([], [])
        return self._keep(
            self._notification(cube, _EVENT_NAMES[type(message.event)], changes, raw, at), changes
        )

    def authorize(
        self, cube: str, message: xcc.SolicitXccConnectionAuthorize, raw: bytes, at: Micros
    ) -> None:
        """Learn a call's numbers from a solicitation; its answer waits for nothing."""
        if not self._journal.full:
            changes = self._trackers[cube].authorize(message, at)
            _ = self._keep(self._notification(cube, "authorize", changes, raw, at), changes)

    def call_ends(self, changes: Changes) -> Deferred[None]:
        """Keep and pass on the ends that a tracker inferred (a reload, a sweep)."""
        return self._keep(None, changes)

    def notice(self, event: Event) -> Deferred[None]:
        """Keep and pass on what the service has to tell of itself, if anyone wants to know."""
        return self._keep(None, Changes([], [event]))

    def _notification(
        self, cube: str, message: str, changes: Changes, raw: bytes, at: Micros
    ) -> Notification:
        return Notification(
            id=self._ids.next(at),
            cube=cube,
            call=changes.about.id if changes.about else None,
            at=at,
            message=message,
            body=raw,
        )

    async def settled(self) -> None:
        """Wait until everything handed in so far is committed or held."""
        for work in list(self._waiting):
            done: Deferred[None] = Deferred()
            _ = work.answer.addBoth(_tell, done)
            await done

    def _keep(self, notification: Notification | None, changes: Changes) -> Deferred[None]:
        deliveries: list[Delivery] = []
        for event in changes.events:
            deliveries += self._dispatcher.deliveries_for(event)
        work = _Work(changes.events, deliveries, self._reactor.seconds())
        self._waiting.append(work)
        committed = self._journal.accept(notification, changes.calls, changes.events, deliveries)
        _ = committed.addCallbacks(self._committed, self._refused, callbackArgs=(work,), errbackArgs=(work,))
        if not work.released:
            if self._journal.degraded:
                self._release_waiting(float("inf"))
            elif self._timer is None:
                self._timer = self._reactor.callLater(ANSWER_SECONDS, self._overdue)
        return work.answer

    def _committed(self, _: None, work: _Work) -> None:
        self._release(work)
        waiting = self._waiting
        while waiting and waiting[0].released:
            waiting.popleft()

    def _refused(self, failure: Failure, work: _Work) -> None:
        self._log.failure(
            "The store refused what a notification changed; its {count} deliveries go on from memory only",
            failure,
            count=len(work.deliveries),
        )
        self._committed(None, work)

    def _overdue(self) -> None:
        self._timer = None
        self._release_waiting(self._reactor.seconds() - ANSWER_SECONDS)
        if self._waiting:
            wait = self._waiting[0].since + ANSWER_SECONDS - self._reactor.seconds()
            self._timer = self._reactor.callLater(max(0.01, wait), self._overdue)

    def _release_waiting(self, latest: float) -> None:
        """Answer and pass on, in order, what began to wait at `latest` or before."""
        waiting = self._waiting
        while waiting and (waiting[0].released or waiting[0].since <= latest):
            self._release(waiting.popleft())

    def _release(self, work: _Work) -> None:
        if work.released:
            return
        work.released = True
        try:
            for event in work.events:
                self._on_event(event)
            if work.deliveries:
                self._dispatcher.enqueue(work.deliveries)
        except Exception:
            self._log.failure("What a notification caused could not be passed on; it is kept")
        work.answer.callback(None)

    def stop(self) -> None:
        """Let go of the timer; nothing may be handed in any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _tell(result: object, done: Deferred[None]) -> object:
    done.callback(None)
    return result
