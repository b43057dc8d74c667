"""Passwords, keys and histories in their files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cubehook.operations.manhole.history import MOST, Histories
from cubehook.operations.manhole.keyfiles import HostKeyError, authorized, fingerprint, host_key
from cubehook.operations.manhole.passwords import (
    UnsafeFileError,
    hash_password,
    matches,
    nobody,
    read_users,
)
from cubehook.operations.manhole.telnet import Delays


class FileCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "file"

    def write(self, text: str, mode: int = 0o600) -> Path:
        self.path.write_text(text)
        self.path.chmod(mode)
        return self.path

    def mode(self, path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)


class PasswordTests(FileCase):
    def test_a_hash_matches_its_password_alone(self) -> None:
        hashed = hash_password("hunter2!", b"0123456789abcdef")
        self.assertTrue(matches("hunter2!", hashed))
        self.assertFalse(matches("hunter2", hashed))
        self.assertNotIn("hunter2", hashed)
        self.assertNotEqual(hash_password("hunter2!", b"fedcba9876543210"), hashed)

    def test_what_is_no_hash_matches_nothing(self) -> None:
        for hashed in ("", "hunter2!", "x", "$1$abc", "scrypt$99$AAAAAAAA$" + "A" * 24, nobody()):
            self.assertFalse(matches("hunter2!", hashed), hashed)
            self.assertFalse(matches("", hashed), hashed)

    def test_the_file(self) -> None:
        self.write("# who\n\nann:h1\n bob : h2 \nnobody\n#eve:h3\n")
        self.assertEqual(read_users(self.path), {"ann": "h1", "bob": "h2"})

    def test_a_file_that_others_can_change_lets_nobody_in(self) -> None:
        for mode in (0o620, 0o602):
            with self.assertRaises(UnsafeFileError) as caught:
                read_users(self.write("ann:h", mode))
            self.assertIn("chmod", str(caught.exception))
        self.assertRaises(UnsafeFileError, read_users, self.folder / "none")

    def test_wrong_passwords_take_longer_and_longer(self) -> None:
        delays = Delays()
        self.assertEqual(delays.wait(1000.0), 0.0)
        waits = []
        for _ in range(6):
            delays.failed(1000.0)
            waits.append(delays.wait(1000.0))
        self.assertEqual(waits, [1.0, 2.0, 4.0, 8.0, 8.0, 8.0])
        self.assertEqual(delays.wait(1061.0), 0.0)


class KeyTests(FileCase):
    def test_a_host_key_is_made_once_for_its_owner_alone(self) -> None:
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        key = host_key(self.path)
        self.assertEqual(key.type(), "Ed25519")
        self.assertEqual(self.mode(self.path), 0o600)
        self.assertEqual(host_key(self.path).blob(), key.blob())

    def test_a_host_key_that_others_may_read_is_not_used(self) -> None:
        host_key(self.path)
        self.path.chmod(0o640)
        with self.assertRaises(HostKeyError) as caught:
            host_key(self.path)
        self.assertIn("0640", str(caught.exception))

    def test_what_is_no_host_key(self) -> None:
        for text in (
            "",
            "nonsense",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        ):
            self.assertRaises(HostKeyError, host_key, self.write(text))
        self.assertRaises(HostKeyError, host_key, self.folder / "none" / "key")

    def test_whose_keys_are_authorized(self) -> None:
        ann, bob = (host_key(self.folder / name).public() for name in ("ann", "bob"))
        lines = [key.toString("OPENSSH").decode().split(" ")[:2] for key in (ann, bob)]
        first, second = (" ".join(parts) for parts in lines)
        self.write(f"# people\n\n{first} ann of night shift\n{second}\n")
        found = authorized(self.path)
        self.assertEqual([each.name for each in found], ["ann of night shift", fingerprint(bob)])
        self.assertEqual([each.key.blob() for each in found], [ann.blob(), bob.blob()])

    def test_keys_with_options_and_broken_ones_are_left_out(self) -> None:
        text = host_key(self.folder / "ann").public().toString("OPENSSH").decode().strip()
        self.write(f'from="192.0.2.1" {text}\nssh-ed25519 AAAA ann\nssh-ed25519\nnonsense\n')
        self.assertEqual(authorized(self.path), [])

    def test_keys_that_others_can_change(self) -> None:
        self.assertRaises(UnsafeFileError, authorized, self.write("", 0o666))


class HistoryTests(FileCase):
    def test_each_has_one_that_outlives_the_process(self) -> None:
        histories = Histories(self.path)
        for text in ("cubes", "cubes", "for i in x:\n    i", " "):
            histories.add("ann", text)
        histories.add("bob", "status()")
        self.assertEqual(Histories(self.path).of("ann"), ["cubes", "for i in x:\n    i"])
        self.assertEqual(Histories(self.path).of("bob"), ["status()"])
        self.assertEqual(Histories(self.path).of("eve"), [])
        self.assertEqual(self.mode(self.path), 0o600)

    def test_it_stays_bounded(self) -> None:
        histories = Histories(self.path)
        kept = histories.of("ann")
        for number in range(2 * MOST + 600):
            histories.add("ann", str(number))
        self.assertEqual(len(kept), MOST)
        self.assertEqual(Histories(self.path).of("ann"), kept)
        self.assertEqual(len(self.path.read_text().splitlines()), MOST)

    def test_without_its_file_there_is_one_all_the_same(self) -> None:
        histories = Histories(self.folder / "none" / "file")
        histories.add("ann", "cubes")
        self.assertEqual(histories.of("ann"), ["cubes"])

    def test_a_broken_file(self) -> None:
        self.write('nonsense\n["ann", "cubes"]\n[1]\n')
        self.assertEqual(Histories(self.path).of("ann"), ["cubes"])
