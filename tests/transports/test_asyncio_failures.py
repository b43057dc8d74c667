"""What is said of a connection that failed, whatever a library wrapped it in."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

from twisted.trial.unittest import SynchronousTestCase

from cubehook.net.egress import BlockedError
from cubehook.records import ErrorClass
from cubehook.transports.asyncio_failures import explain_asyncio


class WrappedError(Exception):
    pass


def wrapped(error: BaseException, *, told: bool) -> BaseException:
    """As libraries do: raised anew while `error` is handled, `told` from it or not."""
    try:
        try:
            raise error
        except BaseException as cause:
            if told:
                raise WrappedError("of a library's own") from cause
            raise WrappedError("of a library's own")  # noqa: B904
    except WrappedError as outer:
        return outer


class ExplainTests(SynchronousTestCase):
    def test_each_cause_has_a_class_and_words(self) -> None:
        untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
        untrusted.verify_message = "Hostname mismatch, certificate is not valid for 'bus'."
        for error, error_class, words in (
            (
                BlockedError("the rule", "127.0.0.1", "bus"),
                ErrorClass.BLOCKED,
                "bus resolves to 127.0.0.1: the rule",
            ),
            (untrusted, ErrorClass.TLS, "not trusted: Hostname mismatch, certificate is not valid for 'bus'"),
            (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] x"), ErrorClass.TLS, "TLS failed"),
            (socket.gaierror(socket.EAI_NONAME, "x"), ErrorClass.DNS, "does not resolve"),
            (ConnectionRefusedError(errno.ECONNREFUSED, "x"), ErrorClass.CONNECTION_REFUSED, "refused"),
            (OSError(errno.EHOSTUNREACH, "x"), ErrorClass.CONNECTION_REFUSED, "no route"),
            (OSError(errno.ETIMEDOUT, "x"), ErrorClass.TIMEOUT, "did not answer"),
            (
                OSError("Multiple exceptions: a, b"),
                ErrorClass.CONNECTION_REFUSED,
                "Multiple exceptions: a, b",
            ),
            (ConnectionResetError(errno.ECONNRESET, "x"), ErrorClass.CONNECTION_LOST, "closed"),
            (BrokenPipeError(errno.EPIPE, "x"), ErrorClass.CONNECTION_LOST, "closed"),
            (asyncio.IncompleteReadError(b"", 1), ErrorClass.CONNECTION_LOST, "closed"),
        ):
            for each in (error, wrapped(error, told=True), wrapped(error, told=False)):
                explained = explain_asyncio(each)
                assert explained is not None, each
                self.assertEqual(explained[0], error_class, each)
                self.assertIn(words, explained[1])

    def test_what_is_nobodys_doing_is_not_explained(self) -> None:
        for error in (ValueError("x"), TimeoutError(), wrapped(KeyError("x"), told=True)):
            self.assertIsNone(explain_asyncio(error))

    def test_causes_that_go_round_in_a_circle(self) -> None:
        error = ValueError("x")
        error.__cause__ = KeyError("y")
        error.__cause__.__cause__ = error
        self.assertIsNone(explain_asyncio(error))
