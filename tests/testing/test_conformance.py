"""The tests that transports are put to see what is wrong with those that break a promise."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import msgspec
from twisted.internet import reactor as installed
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportPlugin, Outbound, Sent
from cubehook.net.egress import BlockedError
from cubehook.records import ErrorClass
from cubehook.testing import (
    EgressTests,
    RecoveringReceiverTests,
    TransportTests,
    UnresponsiveReceiverTests,
    conformance,
    watching,
)

reactor: Any = installed


class Receivers:
    """What receivers there are, by host, and what came to them."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.away = True


RECEIVERS = Receivers()


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing much."""

    size: int = 1


@implementer(ITransport)
class Transport:
    """A good one: hands events to this process."""

    def __init__(self, webhook: Webhook, context: Any) -> None:
        self.host = webhook.url.removeprefix("memory://")
        self.webhook = webhook
        self.context = context
        self.reactor = context.reactor

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def deliver(self, outbound: Outbound) -> Sent:
        try:
            self.context.egress.check("127.0.0.1")
        except BlockedError as error:
            return self.failed(ErrorClass.BLOCKED, str(error))
        try:
            await self.send(outbound.body).addTimeout(outbound.timeout, self.reactor, self.late)
        except ConnectionError as error:
            return self.failed(ErrorClass.CONNECTION_REFUSED, str(error))
        except TimeoutError:
            return self.failed(ErrorClass.TIMEOUT, "it took too long")
        return Sent(delivered=True)

    def late(self, result: Any, seconds: float) -> None:
        raise TimeoutError

    def send(self, body: bytes) -> Deferred[None]:
        if self.host == "silent":
            return Deferred()
        if self.host == "away" and RECEIVERS.away:
            raise ConnectionError("nobody is there")
        RECEIVERS.taken.append(body)
        return deferLater(self.reactor, 0)

    def failed(self, error_class: ErrorClass, error: str) -> Sent:
        return Sent(delivered=False, error_class=error_class, error=error)


@implementer(ITransportPlugin)
class Plugin:
    name = "memory"
    description = "To this process"
    options: Any = Options
    transport: Any = Transport

    def check(self, webhook: Webhook, options: Any) -> list[tuple[str, str]]:
        return []

    def create(self, webhook: Webhook, options: Any, context: Any) -> Any:
        return self.transport(webhook, context)


class Hooks:
    """The methods that say how a receiver is made."""

    def _webhook(self, host: str) -> Webhook:
        RECEIVERS.taken.clear()
        RECEIVERS.away = True
        return Webhook(id="m", transport="memory", url=f"memory://{host}")

    async def accepting(self) -> Webhook:
        return self._webhook("here")

    async def failing(self) -> Webhook:
        return self._webhook("away")

    async def hanging(self) -> Webhook:
        return self._webhook("silent")

    async def mend(self) -> None:
        RECEIVERS.away = False

    async def arrived(self, count: int) -> Sequence[bytes]:
        return list(RECEIVERS.taken)


APART = {
    "test_it_is_announced",  # no plugin module holds it
    "test_importing_it_imports_no_reactor",  # this module does
}


def failing_tests(tried: Any, names: Sequence[str] = ()) -> set[str]:
    """Which of the tests (all, unless named) the plugin `tried` does not pass."""

    # In here, so that trial does not take it for one of our tests.
    class Kit(
        Hooks, TransportTests, UnresponsiveReceiverTests, RecoveringReceiverTests, EgressTests, TestCase
    ):
        plugin = tried

    result = TestResult()
    for name in names or [each for each in dir(Kit) if each.startswith("test_") and each not in APART]:
        Kit(name).run(result)
    return {test.id().rpartition(".")[2] for test, _ in (*result.failures, *result.errors)}


class KitTests(SynchronousTestCase):
    def _fails(self, broken: type, *names: str) -> None:
        """A plugin or transport breaks these promises, and no others."""
        plugin = broken() if issubclass(broken, Plugin) else Plugin()
        if not issubclass(broken, Plugin):
            plugin.transport = broken
        self.assertEqual(failing_tests(plugin), set(names))
        self.flushLoggedErrors()

    def test_a_good_one_passes(self) -> None:
        self._fails(Transport)

    def test_one_that_is_announced_nowhere_and_imports_the_reactor(self) -> None:
        self.assertEqual(failing_tests(Plugin(), sorted(APART)), APART)

    def test_one_that_only_says_that_it_delivers(self) -> None:
        class Broken(Transport):
            def send(self, body: bytes) -> Deferred[None]:
                return super().send(b"") if self.host != "here" else deferLater(self.reactor, 0)

        self._fails(
            Broken,
            "test_events_and_notices_arrive",
            "test_an_event_may_come_again",
            "test_several_at_once",
            "test_it_delivers_again_when_the_receiver_is_back",
        )

    def test_one_that_cuts_bodies(self) -> None:
        class Broken(Transport):
            def send(self, body: bytes) -> Deferred[None]:
                return super().send(body[:400])

        self._fails(
            Broken,
            "test_events_and_notices_arrive",
            "test_several_at_once",
            "test_it_delivers_again_when_the_receiver_is_back",
        )

    def test_one_that_takes_one_event_at_a_time_and_forgets_the_others(self) -> None:
        class Broken(Transport):
            busy = False

            def send(self, body: bytes) -> Deferred[None]:
                if self.busy:
                    return deferLater(self.reactor, 0)
                sending = super().send(body)
                self.busy = True

                def over(result: Any) -> Any:
                    self.busy = False
                    return result

                return sending.addBoth(over)

        self._fails(
            Broken,
            "test_several_at_once",
            "test_cancelling_ends_an_attempt_at_once_and_leaves_nothing",  # where the first of three hangs
        )

    def test_one_that_raises_what_the_network_does(self) -> None:
        class Broken(Transport):
            async def deliver(self, outbound: Outbound) -> Sent:
                if self.host == "away":
                    await self.send(outbound.body)
                return await super().deliver(outbound)

        self._fails(
            Broken,
            "test_a_receiver_that_is_away_fails_the_attempt_and_not_the_start",
            "test_it_delivers_again_when_the_receiver_is_back",
            "test_it_does_not_block_the_reactor",
            "test_stop_lets_go_of_everything",
        )

    def test_one_that_needs_its_receiver_to_start(self) -> None:
        class Broken(Transport):
            async def start(self) -> None:
                if self.host == "away":
                    await deferLater(self.reactor, 0)
                    raise ConnectionError("nobody is there")

        self._fails(
            Broken,
            "test_a_receiver_that_is_away_fails_the_attempt_and_not_the_start",
            "test_it_delivers_again_when_the_receiver_is_back",
            "test_it_does_not_block_the_reactor",
            "test_stop_lets_go_of_everything",
        )

    def test_one_that_never_recovers(self) -> None:
        self.patch(conformance, "PATIENCE", 0.5)

        class Broken(Transport):
            broken = False

            def send(self, body: bytes) -> Deferred[None]:
                try:
                    if self.broken:
                        raise ConnectionError("nobody was there")
                    return super().send(body)
                except ConnectionError:
                    self.broken = True
                    raise

        self._fails(Broken, "test_it_delivers_again_when_the_receiver_is_back")

    def test_one_that_tells_failures_badly(self) -> None:
        class Broken(Transport):
            sent: Any = None

            def failed(self, error_class: ErrorClass, error: str) -> Sent:
                return msgspec.structs.replace(super().failed(error_class, error), **self.sent)

        for sent in (
            {"error": None},
            {"error": ""},
            {"error": "red\x1b[31m"},
            {"error_class": None},
            {"error_class": "connection_refused"},
            {"response_headers": {"a": b"b"}},
            {"response_body": "x" * 70_000},
            {"remote_address": ("127.0.0.1", 80)},
        ):
            Broken.sent = sent
            plugin = Plugin()
            plugin.transport = Broken
            name = "test_a_receiver_that_is_away_fails_the_attempt_and_not_the_start"
            self.assertEqual(failing_tests(plugin, [name]), {name}, sent)

    def test_one_that_gives_up_events_because_the_receiver_is_away(self) -> None:
        class Broken(Transport):
            def failed(self, error_class: ErrorClass, error: str) -> Sent:
                return Sent(delivered=False, permanent=True, error_class=error_class, error=error)

        self._fails(
            Broken,
            "test_a_receiver_that_is_away_fails_the_attempt_and_not_the_start",
            "test_an_attempt_ends_in_its_time",
        )

    def test_one_that_shows_secrets(self) -> None:
        class Broken(Transport):
            def failed(self, error_class: ErrorClass, error: str) -> Sent:
                shown = dict(self.webhook.headers)
                return Sent(delivered=False, error_class=error_class, error=error, request_headers=shown)

        self._fails(Broken, "test_a_receiver_that_is_away_fails_the_attempt_and_not_the_start")

    def test_one_that_waits_for_ever(self) -> None:
        class Broken(Transport):
            async def deliver(self, outbound: Outbound) -> Sent:
                return await super().deliver(msgspec.structs.replace(outbound, timeout=60.0))

        self._fails(Broken, "test_an_attempt_ends_in_its_time")

    def test_one_that_cannot_be_cancelled(self) -> None:
        class Broken(Transport):
            def send(self, body: bytes) -> Deferred[None]:
                if self.host != "silent":
                    return super().send(body)

                async def stubborn() -> None:
                    try:
                        await Deferred()
                    except CancelledError:
                        await deferLater(reactor, 0.01)

                return Deferred.fromCoroutine(stubborn())

        self._fails(Broken, "test_cancelling_ends_an_attempt_at_once_and_leaves_nothing")

    def test_one_that_leaves_things_behind(self) -> None:
        left: list[Any] = []

        class Timer(Transport):
            async def stop(self) -> None:
                left.append(reactor.callLater(60, lambda: None))

        class Thread(Transport):
            async def stop(self) -> None:
                go_on = threading.Event()
                threading.Thread(target=go_on.wait, args=(60,)).start()
                left.append(go_on)

        class File(Transport):
            async def stop(self) -> None:
                left.append(socket.socket())

        self.patch(watching, "_PATIENCE", 0.05)
        for broken in (Timer, Thread, File):
            plugin = Plugin()
            plugin.transport = broken
            found = failing_tests(plugin)
            for thing in left:
                if isinstance(thing, threading.Event):
                    thing.set()
                elif isinstance(thing, socket.socket):
                    thing.close()
                elif thing.active():
                    thing.cancel()
            left.clear()
            self.assertLessEqual(
                {
                    "test_stop_lets_go_of_everything",
                    "test_stop_without_any_delivery",
                    "test_stop_after_a_start_that_was_cancelled",
                    "test_cancelling_ends_an_attempt_at_once_and_leaves_nothing",
                },
                found,
                broken,
            )

    def test_one_that_blocks(self) -> None:
        class Sleeping(Transport):
            def send(self, body: bytes) -> Deferred[None]:
                time.sleep(0.001)
                return super().send(body)

        class Resolving(Transport):
            async def start(self) -> None:
                socket.getaddrinfo("localhost", 80)

        for broken in (Sleeping, Resolving):
            self._fails(broken, "test_it_does_not_block_the_reactor")

    def test_one_that_knows_no_policy(self) -> None:
        class Broken(Transport):
            def __init__(self, webhook: Webhook, context: Any) -> None:
                super().__init__(webhook, context)
                self.context = mock.Mock(reactor=reactor)

        self._fails(Broken, "test_nothing_goes_where_the_egress_policy_lets_nothing_go")

    def test_a_plugin_whose_check_or_create_opens_things(self) -> None:
        class Checking(Plugin):
            def check(self, webhook: Webhook, options: Any) -> list[tuple[str, str]]:
                with open("/dev/null"):
                    return []

        class Creating(Plugin):
            def create(self, webhook: Webhook, options: Any, context: Any) -> Any:
                socket.socket().close()
                return super().create(webhook, options, context)

        for broken in (Checking, Creating):
            self._fails(broken, "test_checking_and_creating_do_no_io")

    def test_a_plugin_that_explains_nothing(self) -> None:
        class Silent(msgspec.Struct, forbid_unknown_fields=True):
            pass

        class Broken(Plugin):
            options = Silent

        self._fails(Broken, "test_its_options_are_explained")
