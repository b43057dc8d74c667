"""
Brings each event to the webhooks that want it.

What becomes of a delivery after that is the business of its webhook's lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook import config
from cubehook.config import receiver
from cubehook.delivery.lanes import Lanes
from cubehook.delivery.means import Backlog, Means, Observer, Status
from cubehook.delivery.payload import Renderer
from cubehook.delivery.window import WINDOW
from cubehook.events import CallState, Event, Granularity, Micros, Notice
from cubehook.ids import Ids
from cubehook.interfaces import IDeliveryStore, ITransport
from cubehook.records import Delivery, Trouble

_Route = tuple[str, CallState, Granularity]


class Dispatcher:
    """
    Delivers events to webhooks: at least once, in order within a call, each webhook for itself.

    - An event waits until its predecessor of the same call was delivered or given up, and until that
      is committed (or `window.RECORD_SECONDS` have passed: a store that is away stops nobody).
    - Calls never wait for each other, nor webhooks.  Of one webhook at most its `concurrency`
      attempts are under way.
    - A failed attempt is repeated by the webhook's schedule, then the delivery is given up (`failed`).
    - A receiver that asks for silence, or fails too often (`breaker`), is sent nothing for a while; after
      that one attempt is tried before the rest.  What is held back spends none of its schedule.
    - A receiver that says 410, or has failed for days, is disabled; what is pending for it stays so.
    - An event whose webhook gives it a lifetime is not sent after that (`expired`).
    - However much is pending, about `window` deliveries of each webhook are in memory.

    `ids` must be the one that numbers calls: a call's id tells whether it is older than what is on
    disk.  `random` returns 0 <= x < 1.  A transport belongs to the dispatcher from `add` on,
    which starts and stops it.
    """

    _log = Logger()

    def __init__(
        self,
        store: IDeliveryStore,
        ids: Ids,
        now: Callable[[], Micros],
        random: Callable[[], float],
        reactor: IReactorTime,
        defaults: config.Delivery,
        observer: Observer,
        *,
        window: int = WINDOW,
    ) -> None:
        self._means = Means(store, ids, now, random, reactor, observer, Renderer())
        self._defaults = defaults
        self._window = window
        self._lanes: dict[str, Lanes] = {}
        self._closing: set[Lanes] = set()
        self._all_closed: Deferred[None] | None = None
        self._running = False
        self._routes: dict[_Route, tuple[str, ...]] = {}
        self.wants_leg_events = False
        """Whether any webhook that is sent to wants an event for each leg."""

    # Which webhooks there are

    def add(
        self,
        webhook: config.Webhook,
        transport: ITransport,
        pending: int = 0,
        trouble: Trouble | None = None,
    ) -> None:
        """
        Deliver to `webhook` from now on, beginning with what is pending for it on disk.

        `pending` tells how many deliveries those are, for `status` to count from; `trouble` how it was held
        back in an earlier life.  ValueError if there is a webhook of that id.  One that is not `enabled`
        is sent nothing.
        """
        if webhook.id in self._lanes:
            raise ValueError(f"webhook {webhook.id} is there already: replace it")
        self._lanes[webhook.id] = self._new_lanes(webhook, transport, Backlog(pending), trouble)
        self._reroute()
        self._start(webhook.id)

    def replace(
        self,
        webhook: config.Webhook,
        transport: ITransport,
        grace: float | None = None,
        trouble: Trouble | None = None,
    ) -> Deferred[None]:
        """
        Deliver to `webhook` as it is now configured, in the place of the one with its id.

        Events are matched with the new settings at once; the first is sent after the attempts
        under way have ended, for which they have `grace` seconds (their own timeout if None).  Without
        `trouble` it is held back as it was if it leads to the same receiver as before, and else begins anew.
        Fires then; the work is done whether or not anyone waits.  KeyError if there is no
        such webhook.
        """
        old = self._lanes[webhook.id]
        if trouble is None and receiver(webhook) == receiver(old.webhook):
            trouble = old.trouble
        self._lanes[webhook.id] = self._new_lanes(webhook, transport, old.backlog, trouble)
        self._reroute()
        return self._close(old, grace)

    def use_defaults(self, defaults: config.Delivery) -> None:
        """Let these be the defaults of webhooks that are added or replaced from now on."""
        self._defaults = defaults

    def remove(self, webhook: str, grace: float | None = None) -> Deferred[None]:
        """
        Deliver nothing more to `webhook`; its pending deliveries are left to the store.

        Fires when the attempts under way have ended, after at most `grace` seconds (their own
        timeout if None).  KeyError if there is no such webhook.
        """
        lanes = self._lanes.pop(webhook)
        self._reroute()
        return self._close(lanes, grace)

    def _new_lanes(
        self, webhook: config.Webhook, transport: ITransport, backlog: Backlog, trouble: Trouble | None
    ) -> Lanes:
        return Lanes(
            webhook, transport, self._defaults, self._means, self._reroute, backlog, self._window, trouble
        )

    def _start(self, webhook: str) -> None:
        """Start a webhook's lanes, once no attempt of lanes that were there before is under way."""
        lanes = self._lanes.get(webhook)
        if lanes is None or not (self._running and lanes.webhook.enabled):
            return
        if not any(closing.webhook.id == webhook for closing in self._closing):
            lanes.start()

    def _close(self, lanes: Lanes, grace: float | None) -> Deferred[None]:
        """Close `lanes`, then start their successor; that goes on if what is returned is cancelled."""
        done: Deferred[None] = Deferred()
        timer = self._means.reactor.callLater(lanes.longest_attempt if grace is None else grace, lanes.abort)
        self._closing.add(lanes)

        def closed(result: Failure | None) -> None:
            if timer.active():
                timer.cancel()
            self._closing.discard(lanes)
            if isinstance(result, Failure):
                self._log.failure("Webhook {webhook} was not closed", result, webhook=lanes.webhook.id)
            self._start(lanes.webhook.id)
            done.callback(None)
            if not self._closing and self._all_closed is not None:
                all_closed, self._all_closed = self._all_closed, None
                all_closed.callback(None)

        _ = Deferred.fromCoroutine(lanes.close()).addBoth(closed)
        return done

    def _reroute(self) -> None:
        self._routes.clear()
        self.wants_leg_events = any(
            lanes.wanted and lanes.webhook.granularity is Granularity.CONNECTION
            for lanes in self._lanes.values()
        )

    # What is delivered

    def deliveries_for(self, event: Event) -> list[Delivery]:
        """
        A new delivery of `event` for each webhook that wants it, ids ascending.

        To be committed together with the event, then handed to `enqueue`.
        """
        payload = event.payload
        if isinstance(payload, Notice):
            webhooks = self._told(payload)
        else:
            assert event.granularity is not None
            route = (event.cube, payload.call_state, event.granularity)
            known = self._routes.get(route)
            webhooks = self._routes.setdefault(route, self._matching(route)) if known is None else known
        next_id = self._means.ids.next
        at = event.at
        return [Delivery(id=next_id(at), webhook=webhook, event=event, due_at=at) for webhook in webhooks]

    def _matching(self, route: _Route) -> tuple[str, ...]:
        cube, state, granularity = route
        return tuple(
            id
            for id, lanes in self._lanes.items()
            if lanes.wanted
            and lanes.webhook.granularity is granularity
            and state in lanes.webhook.states
            and (not lanes.webhook.cubes or cube in lanes.webhook.cubes)
        )

    def _told(self, notice: Notice) -> tuple[str, ...]:
        """The webhooks that `notice` is meant for: of a webhook, it is not itself told."""
        cube = notice.data.get("cube")
        return tuple(
            id
            for id, lanes in self._lanes.items()
            if lanes.wanted
            and notice.type in lanes.webhook.notices
            and notice.data.get("webhook") != id
            and (cube is None or not lanes.webhook.cubes or cube in lanes.webhook.cubes)
        )

    def enqueue(self, deliveries: Sequence[Delivery]) -> None:
        """
        Send `deliveries`, made by `deliveries_for`, each as soon as its turn comes.

        Called once they are committed; or, when the store cannot commit, once they were handed to it.
        """
        for delivery in deliveries:
            lanes = self._lanes.get(delivery.webhook)
            if lanes is not None:
                lanes.add(delivery)

    def send_again(self, webhook: str, deliveries: Sequence[Delivery]) -> None:
        """
        Send `deliveries` of `webhook`, ids ascending, which were over and are pending again and committed so.

        They keep their order within a call, and may come after younger events of it.
        """
        lanes = self._lanes.get(webhook)
        if lanes is not None:
            lanes.send_again(deliveries)

    def clock_set(self, by: Micros) -> None:
        """
        The clock was set by so much: what waits waits no longer for that.

        What is on disk alone is `IDeliveryStore`'s concern.
        """
        for lanes in self._lanes.values():
            lanes.clock_set(by)

    # Starting and stopping

    async def start(self) -> None:
        """
        Start every webhook, beginning with what is pending for it.

        Waits for none of them: a transport that is slow to start delays only its own webhook.
        """
        self._running = True
        for webhook in self._lanes:
            self._start(webhook)

    async def stop(self, grace: float) -> None:
        """
        Start no more attempts; return when those under way have ended and their transports stopped.

        What has not ended within `grace` seconds is cancelled, and stays pending for the next start.
        """
        self._running = False

        def abort() -> None:
            for lanes in list(self._closing):
                lanes.abort()

        timer = self._means.reactor.callLater(grace, abort)
        closed = [self._close(lanes, grace) for lanes in self._lanes.values() if lanes not in self._closing]
        for each in closed:
            await each
        if self._closing:
            self._all_closed = Deferred()
            await self._all_closed
        if timer.active():
            timer.cancel()

    def pending(self) -> dict[str, Micros | None]:
        """The webhooks that have something pending, and when the oldest such event in memory happened."""
        return {id: lanes.oldest for id, lanes in self._lanes.items() if lanes.backlog.pending}

    def status(self, webhook: str) -> Status:
        """How the deliveries of `webhook` stand; KeyError if there is no such webhook."""
        return self._lanes[webhook].status()

    def settings(self, webhook: str) -> config.Webhook:
        """How `webhook` is configured now; KeyError if there is no such webhook."""
        return self._lanes[webhook].webhook
