"""Who is let in, how many, and for how long; without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from twisted.conch.error import ValidPublicKey
from twisted.conch.ssh.keys import Key
from twisted.cred.credentials import SSHPrivateKey
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.config import Manhole
from cubehook.operations.manhole import telnet
from cubehook.operations.manhole.doors import (
    CLOSE_SECONDS,
    LOGIN_SECONDS,
    MOST_SESSIONS,
    MOST_STRANGERS,
    Doors,
    FullError,
)
from cubehook.operations.manhole.inside import Inside
from cubehook.operations.manhole.screen import Screen
from cubehook.operations.manhole.session import IDLE_SECONDS, Session, Visitor
from cubehook.operations.manhole.ssh import KeyChecker

PEER = IPv4Address("TCP", "192.0.2.9", 50000)


class Port:
    """A port that is listened on."""

    def __init__(self, endpoint: str, factory: Any) -> None:
        self.endpoint = endpoint
        self.factory = factory
        self.stopped = False

    def stopListening(self) -> None:
        self.stopped = True


class Ending:
    """A terminal that keeps what it is sent."""

    def __init__(self) -> None:
        self.shown = b""
        self.status: int | None = None

    def write(self, data: bytes) -> None:
        self.shown += data

    def leave(self, status: int) -> None:
        self.status = status


class DoorsCase(TestCase):
    ssh: str | None = "tcp:2222"
    telnet: str | None = "unix:/run/telnet"

    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        (self.folder / "keys").touch(0o600)
        (self.folder / "passwords").touch(0o600)
        settings = Manhole(
            ssh=self.ssh,
            telnet=self.telnet,
            authorized_keys=self.folder / "keys",
            password_file=self.folder / "passwords",
        )
        self.ports: dict[str, Port] = {}
        nothing: Any = None
        inside = Inside(
            service=None,
            reactor=self.clock,
            now=lambda: 0,
            cubes=nothing,
            webhooks=nothing,
            store=nothing,
            redelivery=nothing,
            logs=nothing,
            traces=nothing,
            trace=nothing,
            problems=list,
            reload=nothing,
            record=nothing,
        )
        self.doors = Doors(inside, settings, self.folder, self._listen)
        self.doors.open()

    def _listen(self, key: str, endpoint: str, factory: Factory) -> Any:
        factory.doStart()
        self.ports[key] = Port(endpoint, factory)
        return self.ports[key]

    def connect(self, key: str) -> tuple[Any, StringTransport]:
        """A connection to a door; None if it takes none."""
        protocol = self.ports[key].factory.buildProtocol(PEER)
        transport = StringTransport(peerAddress=PEER)
        if protocol is not None:
            protocol.makeConnection(transport)
        return protocol, transport

    def session(self) -> tuple[Session, Ending]:
        ending = Ending()
        return self.doors.session(Visitor("ann", "ssh", "from 192.0.2.9:1"), ending, Screen()), ending


class LimitTests(DoorsCase):
    def test_a_unix_socket_is_the_owners_alone_unless_told_otherwise(self) -> None:
        self.assertEqual(self.ports["manhole.telnet"].endpoint, "unix:/run/telnet:mode=600")
        self.assertEqual(self.ports["manhole.ssh"].endpoint, "tcp:2222")

    def test_whoever_does_not_log_in_is_cut_off(self) -> None:
        for key in self.ports:
            _, transport = self.connect(key)
            self.clock.advance(LOGIN_SECONDS - 1)
            self.assertFalse(transport.disconnected, key)
            self.clock.advance(1)
            self.assertTrue(transport.disconnected, key)

    def test_so_many_may_be_about_to_log_in(self) -> None:
        for key in self.ports:
            found = [self.connect(key)[0] for _ in range(MOST_STRANGERS)]
            self.assertNotIn(None, found)
            self.assertIsNone(self.connect(key)[0])
            found[0].connectionLost(Failure(ConnectionDone()))
            self.assertIsNotNone(self.connect(key)[0])

    def test_so_many_may_be_inside(self) -> None:
        sessions = [self.session()[0] for _ in range(MOST_SESSIONS)]
        self.assertRaises(FullError, self.session)
        self.assertEqual(len(self.doors.visitors()), MOST_SESSIONS)
        self.doors.left(sessions[0])
        self.session()

    def test_whoever_types_nothing_leaves(self) -> None:
        session, ending = self.session()
        session.start()
        self.clock.advance(IDLE_SECONDS - 1)
        session.data(b"x")
        self.clock.advance(IDLE_SECONDS - 1)
        self.assertIsNone(ending.status)
        self.clock.advance(1)
        self.assertEqual(ending.status, 0)
        self.assertIn(b"Nobody typed for 30 minutes.", ending.shown)

    def test_closing_ends_all_and_waits_no_longer_than_it_must(self) -> None:
        session, ending = self.session()
        session.start()
        _, transport = self.connect("manhole.telnet")
        stranger, _ = self.connect("manhole.ssh")
        closing = Deferred.fromCoroutine(self.doors.close())
        self.assertTrue(all(port.stopped for port in self.ports.values()))
        self.assertIn(b"cubehook is stopping.", ending.shown)
        self.assertEqual(ending.status, 0)
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(self.connect("manhole.ssh")[0])
        self.assertNoResult(closing)
        stranger.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(CLOSE_SECONDS)
        self.assertTrue(transport.disconnected)


class WrongPasswordTests(DoorsCase):
    def test_each_verdict_takes_longer_whoever_asks(self) -> None:
        self.patch(telnet, "deferToThread", maybeDeferred)
        for before, after in ((0, 1), (1, 2), (2, 4)):
            protocol, transport = self.connect("manhole.telnet")
            protocol.dataReceived(b"ann\r\0guess\r\0")
            self.clock.advance(before + after - 0.1)
            self.assertNotIn(b"wrong", transport.value())
            # The second wait begins when the first has ended.
            self.clock.advance(0.1)
            self.clock.advance(after)
            self.assertIn(b"wrong", transport.value())
            self.assertNotIn(b"guess", transport.value())


class TypingAheadTests(DoorsCase):
    def test_what_is_typed_while_something_runs_comes_after_it(self) -> None:
        session, ending = self.session()
        session.start()
        session.data(b"sleep(5)\r")
        session.data(b"6 * 7\r")
        self.assertNotIn(b"42", ending.shown)
        self.clock.advance(5)
        self.assertIn(b"\r\n42\r\n", ending.shown)

    def test_an_interrupt_forgets_it(self) -> None:
        session, ending = self.session()
        session.start()
        session.data(b"sleep(5)\r")
        session.data(b"6 * 7\r")
        session.data(b"\x03")
        self.assertIn(b"Cancelled.", ending.shown)
        self.clock.advance(5)
        self.assertNotIn(b"42", ending.shown)


class KeyCheckerTests(SynchronousTestCase):
    """A key proves nothing unless who shows it has its other half."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.ann = Key(ed25519.Ed25519PrivateKey.generate())
        self.write(self.ann)

    def write(self, key: Key) -> None:
        line = key.public().toString("OPENSSH").decode().split()[:2]
        self.path.write_text(" ".join([*line, "ann"]) + "\n")
        self.path.chmod(0o600)

    def login(self, shown: Key, signer: Key | None, name: bytes = b"ssh-ed25519") -> Any:
        signature = None if signer is None else signer.sign(b"this session", name)
        data = None if signer is None else b"this session"
        credentials = SSHPrivateKey(b"anybody", name, shown.public().blob(), data, signature)
        return self.successResultOf(KeyChecker(lambda: self.path).requestAvatarId(credentials))

    def test_a_signature_is_wanted(self) -> None:
        self.assertEqual(self.login(self.ann, self.ann), b"ann")
        self.assertRaises(ValidPublicKey, self.login, self.ann, None)

    def test_it_is_that_of_the_key(self) -> None:
        eve = Key(ed25519.Ed25519PrivateKey.generate())
        self.assertRaises(UnauthorizedLogin, self.login, self.ann, eve)
        self.assertRaises(UnauthorizedLogin, self.login, eve, eve)
        self.assertRaises(UnauthorizedLogin, self.login, eve, None)

    def test_sha_1_proves_nothing(self) -> None:
        old = Key(rsa.generate_private_key(public_exponent=65537, key_size=2048))
        self.write(old)
        self.assertEqual(self.login(old, old, b"rsa-sha2-512"), b"ann")
        self.assertRaises(UnauthorizedLogin, self.login, old, old, b"ssh-rsa")
