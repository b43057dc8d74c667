"""
Holding one webhook back while its receiver is in trouble: by its breaker, with what is told and kept of it.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cubehook import config
from cubehook.delivery.breaker import Breaker, State
from cubehook.delivery.deadlines import Alarm
from cubehook.delivery.means import TOLD_AFTER, Means
from cubehook.delivery.schedule import LONGEST_HOLD
from cubehook.events import Micros, iso
from cubehook.interfaces import Sent
from cubehook.records import Trouble
from cubehook.text import printable

_SAVED_HOLD: Micros = 10_000_000
"""A hold shorter than this is not worth being kept over a restart."""


class Holding:
    """
    Whether `webhook` may be sent to, as its `breaker` has it.

    `over` is called when a hold is over, and answers with a call of the method of that name.  `trouble`
    is what an earlier one left.  Nothing is told nor waited for before `open` and after `close`.
    """

    _log = Logger()

    def __init__(
        self,
        webhook: config.Webhook,
        defaults: config.Delivery,
        means: Means,
        trouble: Trouble | None,
        over: Callable[[], None],
    ) -> None:
        self._webhook = webhook
        self._means = means
        self.breaker = Breaker(
            defaults.concurrency if webhook.concurrency is None else webhook.concurrency,
            webhook.breaker or defaults.breaker,
        )
        patience = defaults.disable_after if webhook.disable_after is None else webhook.disable_after
        self._patience: Micros = patience * 1_000_000
        self._alarm = Alarm(means.reactor, means.now, over)
        self._open = False
        self._told = False
        """An observer was told that it fails, or was disabled: it is to be told when that is over."""
        self._saved = False
        """The store holds a trouble of it."""
        if trouble is not None:
            self.breaker.restore(trouble)
            self._told = trouble.told
            self._saved = True

    def open(self) -> None:
        """Wait for the end of the hold that it was in, if any."""
        self._open = True
        if self.breaker.held_until is not None:
            self._alarm.at(self.breaker.held_until)

    def close(self) -> None:
        self._open = False
        self._alarm.cancel()

    def clock_set(self, by: Micros) -> None:
        """The clock was set by so much; a hold lasts no longer for that."""
        self.breaker.clock_set(by, self._means.now())
        if self._open and self.breaker.held_until is not None:
            self._alarm.cancel()
            self._alarm.at(self.breaker.held_until)
            if self._saved:
                self._save(self.trouble)

    @property
    def trouble(self) -> Trouble | None:
        """Why it is held back, for who takes its place; None if it is not."""
        breaker = self.breaker
        if breaker.state is State.CLOSED:
            return None
        now = self._means.now()
        return Trouble(
            failing_since=breaker.failing_since or now,
            held_until=breaker.held_until or now,
            openings=breaker.openings,
            told=self._told,
        )

    def failed(self, sent: Sent, now: Micros, *, trial: bool) -> None:
        """
        An attempt failed; hold back if the receiver asked for that, or fails too often.

        One that no further attempt could mend says nothing of the receiver.
        """
        breaker, hold = self.breaker, sent.hold
        if hold is not None and hold > 0.0:
            until = breaker.asked(now, now + int(min(hold, LONGEST_HOLD) * 1_000_000))
            self._hold(until, now, answer(sent))
        elif not sent.permanent and breaker.failed(
            now, self._means.random(), trial=trial, unavailable=hold is not None
        ):
            assert breaker.held_until is not None
            self._hold(breaker.held_until, now, sent.error or answer(sent))

    def out_of_patience(self, sent: Sent, now: Micros) -> str | None:
        """Why it had better be disabled after an attempt that went as `sent`; None if it need not."""
        since = self.breaker.failing_since
        if not self._patience or since is None or now - since < self._patience:
            return None
        return f"it has failed since {iso(since)}, the last time with: {sent.error or answer(sent)}"

    def over(self, *, something_to_try: bool) -> None:
        """The time may have come to try the receiver, or to take it for well for want of anything to try."""
        breaker, held_until = self.breaker, self.breaker.held_until
        if held_until is None:
            return
        if self._means.now() < held_until:
            self._alarm.at(held_until)
        elif something_to_try or breaker.openings:
            breaker.try_once()
        else:
            self.release()

    def release(self) -> None:
        """It is sent to again."""
        since = self.breaker.failing_since
        self.breaker.release()
        self._log.info("Webhook {webhook} is sent to again", webhook=self._webhook.id)
        if self._saved:
            self._save(None)
        self._means.tell(self._webhook, self._means.observer.released)
        if self._told:
            self._told = False
            self._means.tell(self._webhook, self._means.observer.recovered, since or self._means.now())

    def disabled(self, now: Micros) -> None:
        """It is disabled.  Enabled again, it is tried once before the rest, and its recovery is told."""
        self.close()
        breaker = self.breaker
        since = breaker.failing_since or now
        self._save(Trouble(failing_since=since, held_until=now, openings=breaker.openings, told=True))

    def _hold(self, until: Micros, now: Micros, why: str) -> None:
        if not self._open:
            return
        breaker, since = self.breaker, self.breaker.failing_since
        if breaker.failures == 1 or breaker.openings == 1:
            self._log.warn(
                "Webhook {webhook} is held back for {seconds:.0f} s, failures in a row: {failures}; {why}",
                webhook=self._webhook.id,
                seconds=(until - now) / 1_000_000,
                failures=breaker.failures,
                why=printable(why),
            )
        self._alarm.at(until)
        self._means.tell(self._webhook, self._means.observer.held, until, why)
        if not self._told and since is not None and now - since >= TOLD_AFTER * 1_000_000:
            self._told = True
            self._log.error(
                "Webhook {webhook} has been failing for {seconds:.0f} s: {why}. Its events wait",
                webhook=self._webhook.id,
                seconds=(now - since) / 1_000_000,
                why=printable(why),
            )
            self._means.tell(self._webhook, self._means.observer.failing, since, why)
        if until - now >= _SAVED_HOLD:
            self._save(self.trouble)

    def _save(self, trouble: Trouble | None) -> None:
        self._saved = trouble is not None
        saving = Deferred.fromCoroutine(self._means.store.save_trouble(self._webhook.id, trouble))
        _ = saving.addErrback(self._not_saved)

    def _not_saved(self, failure: Failure) -> None:
        self._log.failure("How webhook {webhook} stands was not stored", failure, webhook=self._webhook.id)


def answer(sent: Sent) -> str:
    """What the receiver answered, in words that follow its name."""
    return f"answered {sent.status}" if sent.status is not None else "asked for it"
