"""Names as addresses, for transports that open their sockets without an endpoint."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IResolutionReceiver
from twisted.trial.unittest import TestCase

from cubehook.config import Egress, Webhook
from cubehook.net.egress import BlockedError
from tests.transports.support import Names, context_for

WEBHOOK = Webhook(id="queue", url="")


class AddressesTests(TestCase):
    def _addresses(
        self, host: str, egress: Egress | None = None, **names: list[str] | None
    ) -> Deferred[list[str]]:
        self.names = Names(**names)
        context = context_for(WEBHOOK, names=self.names, egress=egress or Egress())
        return Deferred.fromCoroutine(context.addresses(host))

    async def test_a_name_in_the_resolvers_order_each_once(self) -> None:
        found = await self._addresses("logs", logs=["2001:db8::5", "192.0.2.5", "192.0.2.5"])
        self.assertEqual(found, ["2001:db8::5", "192.0.2.5"])

    async def test_an_address_is_not_asked_for(self) -> None:
        for address in ("192.0.2.5", "2001:db8::5"):
            self.assertEqual(await self._addresses(address), [address])
            self.assertEqual(self.names.asked, [])

    async def test_what_the_policy_denies_is_left_out(self) -> None:
        self.assertEqual(await self._addresses("logs", logs=["127.0.0.1", "192.0.2.5"]), ["192.0.2.5"])

    async def test_nothing_left_is_told_with_the_name_and_the_rule(self) -> None:
        with self.assertRaises(BlockedError) as caught:
            await self._addresses("logs", Egress(deny=("192.0.2.0/24",)), logs=["192.0.2.5"])
        self.assertEqual(str(caught.exception), "logs resolves to 192.0.2.5: 192.0.2.0/24 is in egress.deny")
        for address in ("127.0.0.1", "::ffff:169.254.169.254"):
            with self.assertRaises(BlockedError):
                await self._addresses(address)

    async def test_an_unknown_name(self) -> None:
        with self.assertRaises(DNSLookupError):
            await self._addresses("logs")

    async def test_an_answer_that_nobody_waits_for_any_more(self) -> None:
        names = Names(logs=["192.0.2.5"])
        began: list[IResolutionReceiver] = []
        self.patch(names, "resolveHostName", lambda receiver, *_, **__: began.append(receiver))
        context = context_for(WEBHOOK, names=names)
        impatient = Deferred.fromCoroutine(context.addresses("logs"))
        patient = Deferred.fromCoroutine(context.addresses("logs"))
        impatient.cancel()
        with self.assertRaises(CancelledError):
            await impatient
        [receiver] = began
        receiver.addressResolved(IPv4Address("TCP", "192.0.2.5", 0))
        receiver.resolutionComplete()
        self.assertEqual(await patient, ["192.0.2.5"])

    async def test_a_silent_name_server_can_be_given_up_and_holds_one_question(self) -> None:
        names = Names(logs=None)
        context = context_for(WEBHOOK, names=names)
        for _ in range(3):
            waiting = Deferred.fromCoroutine(context.addresses("logs"))
            self.assertFalse(waiting.called)
            waiting.cancel()
            with self.assertRaises(CancelledError):
                await waiting
        self.assertEqual(names.asked, ["logs"])
