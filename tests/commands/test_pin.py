"""`cubehook pin` against routers that show certificates, and such as do not."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from cubehook.commands.pin import pin
from cubehook.config_rules import pin as pin_rule
from cubehook.net.certificates import pins_of
from cubehook.simulator.tls import own_identity

ROUTER = own_identity(1024)


@contextmanager
def router(version: int = SSL.TLS1_2_VERSION, ask: bool = False, tls: bool = True) -> Iterator[str]:
    """The URL of somebody who shakes one hand."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    shown = ROUTER.options()
    context.use_certificate(shown["certificate"])
    context.use_privatekey(shown["privateKey"])
    if ask:
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            if not tls:
                peer.recv(1 << 16)
                return
            connection = SSL.Connection(context, peer)
            connection.set_accept_state()
            try:
                connection.do_handshake()
                connection.recv(1)
            except SSL.Error:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}/cisco_xcc"
        thread.join(10)


class PinTests(SynchronousTestCase):
    def run_pin(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        out, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(errors):
            self.assertEqual(pin(arguments), status, errors.getvalue())
        return out.getvalue(), errors.getvalue()

    def test_what_is_shown_is_what_the_configuration_takes(self) -> None:
        own, of_key = pins_of(ROUTER.certificate)
        with router() as url:
            told, _ = self.run_pin(url)
        line = told.splitlines()[-1]
        self.assertEqual(line, f'pins = ["{own}"]')
        self.assertEqual((pin_rule(own), pin_rule(of_key)), (own, of_key))
        for words in (of_key, "CN=IOS-Self-Signed-Certificate-", "expired on 2020-01-01", "RSA, 1024 bits"):
            self.assertIn(words, told)
        # As IOS writes it.
        sha1 = ROUTER.certificate.fingerprint(hashes.SHA1()).hex().upper()
        self.assertIn(" ".join(sha1[start : start + 8] for start in range(0, 40, 8)), told)

    def test_for_programs(self) -> None:
        with router() as url:
            told = json.loads(self.run_pin(url, "--json")[0])
        self.assertEqual((told["fingerprint"], told["key_fingerprint"]), pins_of(ROUTER.certificate))
        self.assertEqual((told["host"], told["tls"], told["pinned"]), ("127.0.0.1", "1.2", False))

    def test_an_old_router(self) -> None:
        for version, name in ((SSL.TLS1_VERSION, "1.0"), (SSL.TLS1_1_VERSION, "1.1")):
            with router(version) as url:
                told, _ = self.run_pin(url)
            self.assertIn(f'tls_minimum = "{name}"', told)

    def test_one_that_wants_our_certificate(self) -> None:
        with router(ask=True) as url:
            self.assertIn(pins_of(ROUTER.certificate)[0], self.run_pin(url)[0])

    def test_nothing_to_see(self) -> None:
        with router(tls=False) as url:
            self.assertIn("hung up", self.run_pin(url, status=1)[1])
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        self.assertIn("refused", self.run_pin(f"https://127.0.0.1:{port}/", status=1)[1])
        self.assertIn("no certificate to pin", self.run_pin("http://192.0.2.1:8090/", status=1)[1])
        with self.assertRaises(SystemExit):
            self.run_pin("ftp://192.0.2.1/")
