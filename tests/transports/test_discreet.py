"""What a transport may not let out, however it is written."""

from __future__ import annotations

import base64

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from cubehook.config import Webhook
from cubehook.interfaces import ITransport, Outbound, Sent
from cubehook.transports.discreet import Discreet, Mask, MaskedError
from tests.transports.support import OTHER_SECRET, SECRET, outbound

WEBHOOK = Webhook(
    id="crm",
    url="https://me:url-pa55@crm.example/hooks/Xk3jF9sLq0Zt7Wn5?site=hq&token=query%2Dt0ken",
    headers={
        "Authorization": "Bearer header-t0ken",
        "Proxy-Authorization": "Basic " + base64.b64encode(b"me:basic-pa55").decode(),
        "X-Key": "plain-key",
        "X-Short": "1",
        "Content-Type": "application/json",
    },
    options={
        "url": "amqp://guest:broker-pa55@h/v",
        "nested": [{"SASL_password": "nested-pa55"}],
        "queue": "calls-queue",
        "auth_file": "keys/auth.pem",
        "routing_key": "routing.key",
        "port": 5672,
    },
)
SECRETS = (
    SECRET,
    OTHER_SECRET,
    SECRET[6:].rstrip("="),
    "url-pa55",
    "Xk3jF9sLq0Zt7Wn5",
    "query%2Dt0ken",
    "query-t0ken",
    "header-t0ken",
    "Bearer header-t0ken",
    "basic-pa55",
    "plain-key",
    "broker-pa55",
    "nested-pa55",
)


@implementer(ITransport)
class Telling:
    """Does to each call what it was given."""

    def __init__(self, outcome: Sent | Exception) -> None:
        self.outcome = outcome
        self.calls = 0

    async def _act(self) -> None:
        self.calls += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome

    async def start(self) -> None:
        await self._act()

    async def stop(self) -> None:
        await self._act()

    async def deliver(self, outbound: Outbound) -> Sent:
        await self._act()
        assert isinstance(self.outcome, Sent)
        return self.outcome


class MaskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mask = Mask(WEBHOOK, (SECRET, OTHER_SECRET))

    def test_every_secret_of_a_webhook(self) -> None:
        for secret in SECRETS:
            self.assertEqual(self.mask.text(f"a <{secret}>, twice <{secret}>"), "a <***>, twice <***>")

    def test_what_is_none_stays(self) -> None:
        for text in (
            "",
            "timed out after 15 s",
            "calls-queue keys/auth.pem routing.key 5672 guest site hq",
            "https://crm.example/hooks application/json",
        ):
            self.assertEqual(self.mask.text(text), text)

    def test_a_webhook_without_secrets(self) -> None:
        mask = Mask(Webhook(id="crm"), ())
        sent = Sent(delivered=False, error="anything")
        self.assertEqual(mask.text("anything"), "anything")
        self.assertIs(mask.sent(sent), sent)


class DiscreetTests(SynchronousTestCase):
    def made(self, outcome: Sent | Exception) -> Discreet:
        self.inner = Telling(outcome)
        discreet = Discreet(self.inner, Mask(WEBHOOK, (SECRET,)))
        verifyObject(ITransport, discreet)
        return discreet

    def failures(self, error: Exception) -> list[Failure]:
        """How each method fails."""
        made = self.made(error)
        return [
            self.failureResultOf(Deferred.fromCoroutine(work))
            for work in (made.start(), made.deliver(outbound()), made.stop())
        ]

    def test_what_was_sent_is_told_without_them(self) -> None:
        sent = Sent(
            delivered=False,
            url="https://h/?header-t0ken",
            request_headers={"Authorization": "Bearer header-t0ken", "Host": "h"},
            response_headers={"X-Echo": "plain-key", "Server": "x"},
            response_body='{"you sent": "plain-key"}',
            error="answered header-t0ken",
            note="through plain-key",
            remote_address="192.0.2.1:443",
        )
        found = self.successResultOf(Deferred.fromCoroutine(self.made(sent).deliver(outbound())))
        self.assertEqual(
            found,
            Sent(
                delivered=False,
                url="https://h/?***",
                request_headers={"Authorization": "***", "Host": "h"},
                response_headers={"X-Echo": "***", "Server": "x"},
                response_body='{"you sent": "***"}',
                error="answered ***",
                note="through ***",
                remote_address="192.0.2.1:443",
            ),
        )

    def test_every_text_of_what_is_told_is_looked_at(self) -> None:
        """A field that is added to `Sent` is to be looked at too, unless it can hold no secret."""
        texts = {
            field.name
            for field in msgspec.structs.fields(Sent)
            if "str" in str(field.type)
            and field.name not in ("method", "remote_address", "error_class", "phases")
        }
        for name in texts:
            value: object = {"X": "plain-key"} if name.endswith("headers") else "plain-key"
            sent = Sent(**{"delivered": False, name: value})  # type: ignore[arg-type]
            found = Mask(WEBHOOK, ()).sent(sent)
            self.assertNotIn("plain-key", repr(found), name)

    def test_what_holds_none_is_the_same_object(self) -> None:
        sent = Sent(delivered=True, status=200, response_body="ok", response_headers={"Server": "x"})
        self.assertIs(self.successResultOf(Deferred.fromCoroutine(self.made(sent).deliver(outbound()))), sent)
        made = self.made(sent)
        for work in (made.start(), made.stop()):
            self.successResultOf(Deferred.fromCoroutine(work))
        self.assertEqual(self.inner.calls, 2)

    def test_an_exception_that_tells_one_is_told_without_it(self) -> None:
        for failure in self.failures(OSError("cannot reach amqp://guest:broker-pa55@h")):
            self.assertIsInstance(failure.value, MaskedError)
            self.assertEqual(str(failure.value), "OSError: cannot reach amqp://guest:***@h")
            self.assertNotIn("broker-pa55", failure.getTraceback())
            # Where it was raised is still told.
            self.assertIn("_act", failure.getTraceback())

    def test_a_value_error_stays_one(self) -> None:
        for failure in self.failures(ValueError("no broker-pa55")):
            self.assertEqual((failure.type, str(failure.value)), (ValueError, "no ***"))

    def test_another_exception_is_left_as_it_is(self) -> None:
        error = OSError("refused")
        for failure in self.failures(error):
            self.assertIs(failure.value, error)
