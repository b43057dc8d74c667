"""
What `ITransport` and `ITransportPlugin` promise, as tests that any transport can be put to.

Each class goes before `twisted.trial.unittest.TestCase` in a test case's bases, which says in a few
methods how a receiver is made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from cubehook.config import Egress, Webhook
from cubehook.delivery.answers import malformed
from cubehook.delivery.lanes import TIMEOUT_MARGIN
from cubehook.events import CallState
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin, Outbound, Sent
from cubehook.records import ErrorClass
from cubehook.testing.samples import LOOPBACK, call_outbound, lend, notice_outbound
from cubehook.testing.watching import Leftovers, blocking_seen, io_seen
from cubehook.text import printable
from cubehook.transports.registry import check_webhook, find_transports, plugin_problem

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Case
else:
    _Case = object

PATIENCE = 10.0
"""Seconds after which something counts as never happening."""

_SECRET_HEADER = "Bearer c0nformance"


class TransportCase(_Case):
    """What the classes of tests share; what a test case says of its transport."""

    plugin: ClassVar[Any]
    """The `ITransportPlugin` that is tried."""

    async def accepting(self) -> Webhook:
        """Make a receiver that takes everything; the settings of a webhook that leads to it."""
        raise NotImplementedError("say how a receiver is made that takes everything")

    async def arrived(self, count: int) -> Sequence[bytes]:
        """
        Wait until `count` messages have come to the receiver that was made last; all that have come.

        Each holds the event's body as it was sent.
        """
        raise NotImplementedError("say what has come to the receiver")

    async def failing(self) -> Webhook:
        """The settings of a webhook whose receiver cannot be reached, which shows at once."""
        raise NotImplementedError("say what leads nowhere")

    def lend(self, webhook: Webhook, egress: Egress = LOOPBACK) -> ITransportContext:
        """The context for a transport of `webhook`; its state folder is `self.folder`."""
        return lend(webhook, self.folder, egress=egress, reactor=self.reactor)

    @property
    def folder(self) -> Path:
        """A folder of this test alone."""
        if not hasattr(self, "_folder"):
            self._folder = Path(self.mktemp()).absolute()
            self._folder.mkdir(parents=True)
        return self._folder

    @property
    def reactor(self) -> Any:
        """The reactor that is lent; one that resolves names in its own way may take its place."""
        from twisted.internet import reactor

        return reactor

    # Ways to use a transport

    def make(self, webhook: Webhook, egress: Egress = LOOPBACK) -> Any:
        """A transport as the service makes one, which was not started."""
        problems = check_webhook(webhook, {webhook.transport: self.plugin})
        self.assertEqual(problems, [], "the plugin refuses these settings")
        options = msgspec.convert(webhook.options, self.plugin.options)
        return self.plugin.create(webhook, options, self.lend(webhook, egress))

    async def started(self, webhook: Webhook, egress: Egress = LOOPBACK) -> Any:
        """A transport that was started, and is stopped after the test unless `stop` was called."""
        transport = self.make(webhook, egress)
        await self._in_time(transport.start(), "start")
        self._running.append(transport)
        self.addCleanup(lambda: Deferred.fromCoroutine(self._clean(transport)))
        return transport

    async def _clean(self, transport: Any) -> None:
        if transport in self._running:
            await self.stop(transport)

    @property
    def _running(self) -> list[Any]:
        if not hasattr(self, "_started"):
            self._started: list[Any] = []
        return self._started

    async def stop(self, transport: Any) -> None:
        """Stop a transport that `started` made."""
        self._running.remove(transport)
        await self._in_time(transport.stop(), "stop")

    async def deliver(self, transport: Any, outbound: Outbound) -> Sent:
        """One attempt, which must end in its time; what it returned was checked."""
        margin = outbound.timeout + TIMEOUT_MARGIN
        sent = await self._in_time(transport.deliver(outbound), "deliver", margin)
        self.check_sent(sent)
        return sent  # type: ignore[no-any-return]

    async def delivered(self, transport: Any, outbound: Outbound) -> None:
        """One attempt that must succeed."""
        sent = await self.deliver(transport, outbound)
        self.assertTrue(sent.delivered, f"not delivered: {sent.error}")

    def _in_time(self, awaitable: Any, what: str, seconds: float = PATIENCE) -> Deferred[Any]:
        async def waited() -> Any:
            return await awaitable

        waiting = Deferred.fromCoroutine(waited())

        def late(result: Any, limit: float) -> Any:
            raise AssertionError(f"`{what}` did not end within {limit:g} s")

        return waiting.addTimeout(seconds, self.reactor, late)

    def check_sent(self, sent: Any) -> None:
        """What `deliver` returned can be kept, is consistent, and tells no secret."""
        self.assertIsNone(malformed(sent))
        if sent.delivered:
            self.assertIsNone(sent.error_class, "an attempt that delivered has no error class")
            self.assertFalse(sent.permanent or sent.gone, "delivered, and yet not to be tried again")
        else:
            self.assertIsInstance(sent.error_class, ErrorClass, "a failure has an error class")
            self.assertTrue(sent.error, "a failure says in words what went wrong")
            self.assertEqual(sent.error, printable(sent.error or "", 100_000), "unfit for a log")
        self.assertLessEqual(len(sent.response_body or ""), 64 << 10)
        for secret in (_SECRET_HEADER, *self._secrets):
            self.assertNotIn(secret, repr(sent), "a secret is shown")

    _secrets: Sequence[str] = ()

    def with_secrets(self, webhook: Webhook) -> Webhook:
        """`webhook` with a secret header, which must not be shown."""
        headers = {**webhook.headers, "Authorization": _SECRET_HEADER}
        webhook = msgspec.structs.replace(webhook, headers=headers)
        self._secrets = self.lend(webhook).secrets
        return webhook

    async def check_arrived(self, *outbounds: Outbound) -> None:
        """Each of `outbounds` has come to the receiver, its body whole."""
        arrived = list(await self._in_time(self.arrived(len(outbounds)), "arrived"))
        self.assertEqual(len(arrived), len(outbounds), arrived)
        for outbound in outbounds:
            for message in arrived:
                if outbound.body in message:
                    arrived.remove(message)
                    break
            else:
                self.fail(f"{outbound.body!r} has not come; there is {arrived}")


class TransportTests(TransportCase):
    """
    What every transport promises.

    Says what `plugin`, `accepting`, `arrived` and `failing` are.
    """

    def test_the_plugin_keeps_to_its_interface(self) -> None:
        self.assertIsNone(plugin_problem(self.plugin))
        verifyObject(ITransportPlugin, self.plugin)

    def test_it_is_announced(self) -> None:
        found, problems = find_transports()
        mine = [problem for problem in problems if type(self.plugin).__module__.partition(".")[0] in problem]
        self.assertIn(
            self.plugin.name,
            found,
            f"no module of a cubehook/plugins folder on the path holds it; {mine or problems}",
        )
        self.assertIs(type(found[self.plugin.name]), type(self.plugin))

    def test_importing_it_imports_no_reactor(self) -> None:
        program = (
            "import importlib, sys\n"
            f"importlib.import_module({type(self.plugin).__module__!r})\n"
            "sys.exit('twisted.internet.reactor' in sys.modules)\n"
        )
        path = os.pathsep.join(each or os.getcwd() for each in sys.path)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_its_options_are_explained(self) -> None:
        self.assertTrue((self.plugin.options.__doc__ or "").strip(), "the options have no docstring")

    async def test_misspelt_options_are_refused(self) -> None:
        webhook = await self.accepting()
        misspelt = msgspec.structs.replace(webhook, options={**webhook.options, "no_such_option": 1})
        problems = dict(check_webhook(misspelt, {webhook.transport: self.plugin}))
        self.assertIn("options.no_such_option", problems)

    async def test_checking_and_creating_do_no_io(self) -> None:
        webhook = await self.accepting()
        self.assertEqual(webhook.transport, self.plugin.name)
        self.make(webhook)  # once before, since it may import things
        options = msgspec.convert(webhook.options, self.plugin.options)
        context = self.lend(webhook)
        with io_seen() as seen:
            problems = list(self.plugin.check(webhook, options))
        self.assertEqual((problems, seen), ([], []))
        leftovers = await Leftovers.watch(self.reactor)
        with io_seen() as seen:
            transport = self.plugin.create(webhook, options, context)
        self.assertEqual(seen, [])
        verifyObject(ITransport, transport)
        self.assertEqual(await leftovers.none(), [])

    async def test_events_and_notices_arrive(self) -> None:
        webhook = self.with_secrets(await self.accepting())
        transport = await self.started(webhook)
        outbounds = [call_outbound(state=state) for state in CallState]
        # Text of every kind: what a gateway says, and line breaks as of a template.
        outbounds.append(call_outbound(calling_number='Zoë "Q" \\ ]…\u2028 \U0001f4de', body=None))
        outbounds.append(notice_outbound())
        for outbound in outbounds:
            await self.delivered(transport, outbound)
        await self.check_arrived(*outbounds)

    async def test_an_event_may_come_again(self) -> None:
        transport = await self.started(await self.accepting())
        first = call_outbound()
        await self.delivered(transport, first)
        for changes in ({"attempt": 2}, {"attempt": 3, "redelivery": True}):
            await self.delivered(transport, msgspec.structs.replace(first, **changes))
        self.assertGreaterEqual(len(await self._in_time(self.arrived(1), "arrived")), 1)

    async def test_several_at_once(self) -> None:
        transport = await self.started(await self.accepting())
        outbounds = [call_outbound() for _ in range(8)]
        sendings = [Deferred.fromCoroutine(self.delivered(transport, each)) for each in outbounds]
        await gatherResults(sendings, consumeErrors=True)
        await self.check_arrived(*outbounds)

    async def test_it_does_not_block_the_reactor(self) -> None:
        for webhook in (await self.accepting(), await self.failing()):
            transport = self.make(webhook)
            with blocking_seen() as seen:
                await self._in_time(transport.start(), "start")
                await self.deliver(transport, call_outbound())
                await self._in_time(transport.stop(), "stop")
            self.assertEqual(seen, [])

    async def test_a_receiver_that_is_away_fails_the_attempt_and_not_the_start(self) -> None:
        webhook = self.with_secrets(await self.failing())
        transport = await self.started(webhook)
        for attempt in (1, 2):
            sent = await self.deliver(transport, call_outbound(attempt=attempt))
            self.assertFalse(sent.delivered)
            self.assertFalse(sent.gone, "a receiver that is away has not said that it wants no more")
            self.assertFalse(sent.permanent, "it may be there again in a minute")

    async def test_stop_lets_go_of_everything(self) -> None:
        for webhook in (await self.accepting(), await self.failing()):
            # The first time, what is shared and stays may be made: threads, caches.
            for _ in range(2):
                leftovers = await Leftovers.watch(self.reactor)
                transport = await self.started(webhook)
                await self.deliver(transport, call_outbound())
                await self.stop(transport)
                left = await leftovers.none()
            self.assertEqual(left, [])

    async def test_stop_without_any_delivery(self) -> None:
        webhook = await self.accepting()
        for _ in range(2):
            leftovers = await Leftovers.watch(self.reactor)
            await self.stop(await self.started(webhook))
            left = await leftovers.none()
        self.assertEqual(left, [])

    async def test_stop_after_a_start_that_was_cancelled(self) -> None:
        webhook = await self.failing()
        for _ in range(2):
            leftovers = await Leftovers.watch(self.reactor)
            transport = self.make(webhook)
            starting = self._in_time(transport.start(), "start")
            _ = starting.addErrback(lambda failure: failure.trap(CancelledError))
            starting.cancel()
            await starting
            await self._in_time(transport.stop(), "stop")
            left = await leftovers.none()
        self.assertEqual(left, [])


class UnresponsiveReceiverTests(TransportCase):
    """For transports that wait for their receiver, or for a name server: says what `hanging` is."""

    async def hanging(self) -> Webhook:
        """The settings of a webhook whose receiver, or name server, never says anything."""
        raise NotImplementedError("say what keeps an attempt waiting")

    async def test_an_attempt_ends_in_its_time(self) -> None:
        transport = await self.started(await self.hanging())
        sent = await self.deliver(transport, call_outbound(timeout=0.2))
        self.assertFalse(sent.delivered)
        self.assertEqual(sent.error_class, ErrorClass.TIMEOUT)
        self.assertFalse(sent.permanent)

    async def test_cancelling_ends_an_attempt_at_once_and_leaves_nothing(self) -> None:
        webhook = await self.hanging()
        for _ in range(2):
            leftovers = await Leftovers.watch(self.reactor)
            transport = await self.started(webhook)
            attempts = [self._in_time(transport.deliver(call_outbound()), "deliver") for _ in range(3)]
            await deferLater(self.reactor, 0.05)
            ended: list[Any] = []
            for attempt in attempts:
                self.assertFalse(attempt.called, "it does not hang")
                _ = attempt.addBoth(ended.append)
                attempt.cancel()
            self.assertEqual(len(ended), 3, "cancelled, and yet not ended")
            await self.stop(transport)
            left = await leftovers.none()
        self.assertEqual(left, [])


class RecoveringReceiverTests(TransportCase):
    """For receivers that can come back: says what `mend` does."""

    async def mend(self) -> None:
        """Make the receiver of the last `failing` take everything from now on."""
        raise NotImplementedError("say how the receiver comes back")

    async def test_it_delivers_again_when_the_receiver_is_back(self) -> None:
        transport = await self.started(await self.failing())
        self.assertFalse((await self.deliver(transport, call_outbound())).delivered)
        await self.mend()
        outbound = call_outbound()
        deadline = self.reactor.seconds() + PATIENCE
        while not (sent := await self.deliver(transport, outbound)).delivered:
            self.assertLess(self.reactor.seconds(), deadline, f"still not delivered: {sent.error}")
            await deferLater(self.reactor, 0.1)
        arrived = await self._in_time(self.arrived(1), "arrived")
        self.assertTrue(any(outbound.body in message for message in arrived), arrived)


class EgressTests(TransportCase):
    """For transports that reach their receiver over a network."""

    async def test_nothing_goes_where_the_egress_policy_lets_nothing_go(self) -> None:
        transport = await self.started(await self.accepting(), Egress(deny=("0.0.0.0/0", "::/0")))
        sent = await self.deliver(transport, call_outbound())
        self.assertEqual((sent.delivered, sent.error_class), (False, ErrorClass.BLOCKED))
        self.assertIn("egress.deny", sent.error or "", "the error names the rule")
        self.assertEqual(list(await self._in_time(self.arrived(0), "arrived")), [])
