"""`cubehook pin` against routers that show certificates, and such as do not."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from cubehook.commands.pin import pin
from cubehook.config_rules import pin as pin_rule
from cubehook.net import presented
from cubehook.net.certificates import pins_of
from cubehook.net.presented import Presented, PresentedError, look
from cubehook.simulator.tls import own_identity

ROUTER = own_identity(1024)


def damaged(what: bytes, by: bytes) -> x509.Certificate:
    """A certificate with `what` in it replaced."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "router")])
    first, last = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2020, 2040))
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, first, last)
    whole = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert what in whole
    return x509.load_der_x509_certificate(whole.replace(what, by))


CURVE_OF_NO_NAME = damaged(bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030177"))
NAME_OF_NO_TEXT = damaged(b"\x0c\x06router", b"\x0c\x06rout\xff\xff")


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

    def test_one_that_takes_for_ever(self) -> None:
        def drip(listening: socket.socket) -> None:
            peer, _ = listening.accept()
            with peer, contextlib.suppress(OSError):
                peer.recv(1 << 16)
                # A record of 16 KiB, in it a message of 64 KiB.
                peer.sendall(bytes.fromhex("1603034000 0200ffff"))
                while not over.wait(0.002):
                    peer.sendall(b"x")

        over = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=drip, args=(listening,))
            thread.start()
            began = time.monotonic()
            with self.assertRaisesRegex(PresentedError, "within 0.2 s"):
                look("127.0.0.1", listening.getsockname()[1], 0.2)
            took = time.monotonic() - began
            over.set()
            thread.join(10)
        # Byte by byte it is half a minute and more.
        self.assertLess(took, 10)

    def test_a_certificate_that_cannot_be_read(self) -> None:
        with self.assertRaises(ValueError):
            pins_of(CURVE_OF_NO_NAME)
        for certificate in (CURVE_OF_NO_NAME, NAME_OF_NO_TEXT):
            shown = Presented(certificate, "1.2", "AES")
            self.patch(presented, "look", lambda *_, shown=shown: shown)
            _, errors = self.run_pin("https://192.0.2.1/", status=1)
            self.assertIn("192.0.2.1 port 443: its certificate cannot be read", errors)

    def test_names_that_no_host_can_have(self) -> None:
        for name in ("a..b", f"{'a' * 64}.example"):
            _, errors = self.run_pin(f"https://{name}/", status=1)
            self.assertIn("no name that a host can have", errors)

    def test_nothing_to_see(self) -> None:
        with router(tls=False) as url:
            self.assertIn("hung up", self.run_pin(url, status=1)[1])
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        self.assertIn("refused", self.run_pin(f"https://127.0.0.1:{port}/", status=1)[1])
        self.assertIn("no certificate to pin", self.run_pin("http://192.0.2.1:8090/", status=1)[1])
        with self.assertRaises(SystemExit):
            self.run_pin("ftp://192.0.2.1/")
