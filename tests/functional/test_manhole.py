"""The manhole of the real service, through the `ssh` and `telnet` that its users have."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import termios
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from cubehook.operations.manhole.passwords import hash_password
from cubehook.simulator.sink import Behaviour
from tests.functional.control import ask
from tests.functional.harness import PATIENCE, Process, Service, free_port, twistd
from tests.functional.test_main_job import MainJobCase, reactor

SSH, TELNET = shutil.which("ssh"), shutil.which("telnet")
PASSWORD = "correct horse"
PROMPT = ">>> "


class Typist(Process):
    """A program in a terminal of its own, and who types there."""

    # Whatever is written, the colours are for eyes.
    _COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
    _PARTIAL = re.compile(rb"\x1b(\[[0-9;]*)?$|[\xc0-\xff][\x80-\xbf]{0,2}$")

    _raw = b""

    def outReceived(self, data: bytes) -> None:
        self._raw += data
        whole = self._PARTIAL.sub(b"", self._raw)
        self._raw = self._raw[len(whole) :]
        super().outReceived(self._COLOUR.sub(b"", whole))

    def type(self, text: str) -> None:
        self.transport.write(text.encode())  # type: ignore[union-attr]

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for it; what came before is not looked at again."""
        found = await self.wait_for(pattern, self._read)
        self._read = found.end()
        return found

    _read = 0

    async def run(self, text: str) -> str:
        """Type a line, and wait for the next prompt; what was shown between."""
        start = len(self.text)
        self.type(text + "\r")
        await self.wait_for(r"\n>>> ", start)
        self._read = len(self.text)
        return self.text[start:]

    def resize(self, width: int, height: int) -> None:
        size = struct.pack("HHHH", height, width, 0, 0)
        fcntl.ioctl(self.transport.fd, termios.TIOCSWINSZ, size)  # type: ignore[union-attr]


class ManholeCase(MainJobCase):
    doors = ""

    async def begin_with_doors(self, **begun: Any) -> None:
        # A socket's path must be short.
        self.home = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)
        self.ssh_port, self.telnet_port = free_port(), free_port()
        self.keys = self.home / "operators.keys"
        self.keys.touch(0o600)
        passwords = self.home / "manhole.passwd"
        passwords.write_text(f"bob:{hash_password(PASSWORD, b'0123456789abcdef')}\n")
        passwords.chmod(0o600)
        manhole = (
            f'retry = [0.1]\n[manhole]\nauthorized_keys = "{self.keys}"\n'
            f'password_file = "{passwords}"\n{self.doors}\n'
        )
        manhole = manhole.replace("SSH", str(self.ssh_port)).replace("TELNET", str(self.telnet_port))
        await self.begin(webhook=manhole.replace("HOME", str(self.home)), **begun)

    def make_key(self, name: str, *, known: bool = True, kind: str = "ed25519") -> Path:
        key = self.home / name
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"{name}@noc", "-f", str(key)]
        subprocess.run(command, check=True)
        if known:
            with self.keys.open("a") as file:
                file.write(key.with_suffix(".pub").read_text())
        return key

    def arguments(self, key: Path, *options: str) -> list[str]:
        """Of ssh, without anything that this machine's users have set."""
        return [
            *("-F", "/dev/null", "-p", str(self.ssh_port), "-i", str(key), "-l", "anybody"),
            *("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "LogLevel=ERROR"),
            *("-o", f"UserKnownHostsFile={self.home / 'known'}", "-o", "StrictHostKeyChecking=accept-new"),
            *("-o", "BatchMode=yes"),
            *options,
            "127.0.0.1",
        ]

    async def ssh(
        self, key: Path, command: str | None, *options: str, given: bytes | None = None
    ) -> tuple[int, str, str]:
        """Run one command over ssh; exit status, standard output and standard error."""
        arguments = [*self.arguments(key, *options), *([] if command is None else [command])]
        running = getProcessOutputAndValue(SSH, arguments, env=os.environ, stdinBytes=given)
        output, errors, status = await running.addTimeout(PATIENCE, reactor)
        return status, output.decode(), errors.decode()

    def terminal(self, program: str | None, arguments: list[str], term: str = "xterm-256color") -> Typist:
        """Start a program in a terminal."""
        assert program is not None
        typist = Typist()
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "TERM": term, "LANG": "C.UTF-8"}
        reactor.spawnProcess(typist, program, [program, *arguments], env=environment, usePTY=True)
        self.addCleanup(lambda: Deferred.fromCoroutine(typist.kill()))
        return typist

    async def prompt(self, key: Path) -> Typist:
        """A session over ssh."""
        typist = self.terminal(SSH, self.arguments(key, "-tt"))
        await typist.says(PROMPT)
        return typist

    async def telnet(self, *, term: str = "xterm-256color", password: str = PASSWORD) -> Typist:
        """A session over telnet."""
        typist = self.terminal(TELNET, ["127.0.0.1", str(self.telnet_port)], term)
        await typist.says("user: ")
        typist.type("bob\r")
        await typist.says("password: ")
        typist.type(f"{password}\r")
        return typist

    def log(self) -> str:
        assert self.service.process is not None
        return self.service.process.text

    async def logged(self, pattern: str) -> None:
        assert self.service.process is not None
        await self.service.process.wait_for(pattern)

    async def fail_a_call(self) -> None:
        """Place a call of which each event is refused for good."""
        await self.stop_sink()
        await self.start_sink(Behaviour(status=400))
        self.call()


def fingerprint_of(path: Path) -> str:
    """What ssh itself says of a key or of the first of known hosts."""
    command = ["ssh-keygen", "-l", "-f", str(path)]
    return subprocess.run(command, check=True, capture_output=True).stdout.decode().split()[1]


class SshTests(ManholeCase):
    if SSH is None:
        skip = "there is no ssh (Debian's openssh-client)"
    doors = 'ssh = "tcp:SSH:interface=127.0.0.1"'

    async def test_tables(self) -> None:
        await self.begin_with_doors()
        ann = self.make_key("ann")
        self.call()
        await self.until(lambda: self.states() == ["ALERTING", "CONNECTED", "DISCONNECTED"])

        status, output, _ = await self.ssh(ann, "status()")
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r"\ncubes +1 of 1 registered\n")
        self.assertRegex(output, r"\nready +yes\n")
        _, output, _ = await self.ssh(ann, "cubes")
        self.assertRegex(output, r"\nhq +registered +\S+ \S+ +\S+ \S+ ago +0\n")
        for text in ("cubes.hq", "cubes['hq']", "[each for each in cubes][0]"):
            _, output, _ = await self.ssh(ann, text)
            self.assertRegex(output, rf"\nprovider URL +http://127.0.0.1:{self.gateway_port}/", text)
        _, output, _ = await self.ssh(ann, "webhooks; webhooks.crm")
        self.assertRegex(output, r"\ncrm +healthy +0 +0 +0 ")
        self.assertRegex(output, r"\nto +POST http://127.0.0.1:")
        _, output, _ = await self.ssh(ann, "calls(state='disconnected', since='1h')")
        [row] = output.splitlines()[1:]
        self.assertIn(" answered", row)
        number = self.accepted()[0]["calling_number"]
        self.assertIn(number, row)
        call = row.split()[0]
        _, output, _ = await self.ssh(ann, f"x = await calls['{call}']\nx; len(x.deliveries)")
        self.assertIn(number, output)
        self.assertIn("disconnected", output)
        self.assertTrue(output.endswith("\n3\n"), output)
        _, output, _ = await self.ssh(ann, "deliveries(webhook='crm', limit=2); _[0].webhook; _.upper()")
        self.assertEqual(output.count(" delivered "), 2)
        self.assertIn("The list goes on: _.more", output)
        self.assertTrue(output.endswith("'crm'\n'CRM'\n"), output)
        program = "n = 0\nasync for each in deliveries:\n    n += each.attempts\nprint(n)"
        self.assertEqual((await self.ssh(ann, program))[1], "3\n")

    async def test_what_an_operator_does(self) -> None:
        await self.begin_with_doors()
        ann = self.make_key("ann")
        await self.fail_a_call()

        async def failed() -> str:
            _, output, _ = await self.ssh(ann, "[each.status for each in await deliveries]")
            return output if output.count("failed") == 3 else ""

        await self.poll(failed)
        _, output, _ = await self.ssh(ann, "deliveries(status='failed')\ndeliveries[_[-1]]")
        self.assertIn("answered 400", output)
        self.assertIn("attempt 1 ", output)
        await self.stop_sink()
        await self.start_sink()
        status, output, _ = await self.ssh(ann, "rows = await deliveries\nredeliver(rows[-1])")
        self.assertEqual(status, 0, output)
        await self.until(lambda: self.states() == ["ALERTING"])

        status, output, _ = await self.ssh(ann, "register('hq')")
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r"\nregistration +registered\n")
        _, output, _ = await self.ssh(ann, "trace('hq', 1); trace(cubes.hq, 0)")
        self.assertRegex(output, r"\ntrace +on until ")
        self.assertRegex(output, r"\ntrace +off\n")
        self.assertTrue((self.service.folder / "state" / "log" / "trace-hq.log").exists())
        done = ("trace_cube", "trace_cube", "register_cube", "redeliver_one")

        async def recorded() -> bool:
            changes = (await ask(self.service, "GET", "/audit")).body["items"]
            told = [(each["action"], each["who"].partition(" ")[0]) for each in changes]
            return told[:4] == [(action, "manhole:") for action in done]

        await self.poll(recorded)
        _, output, _ = await self.ssh(
            ann, "loglevel('cubehook.xcc', 'debug')\nloglevel('cubehook.xcc.client')"
        )
        self.assertRegex(output, r"\ncubehook.xcc.client +debug\n")
        for wrong in (
            "register('nowhere')",
            "redeliver('nothing')",
            "calls['nothing']",
            "calls(colour='red')",
            "calls(since='yesterday')",
            "deliveries(status='lost')",
            "trace('hq', -1)",
            "loglevel('cubehook', 'loud')",
            "for each in calls: pass",
            "input()",
            "_.more",
        ):
            status, output, _ = await self.ssh(ann, wrong)
            self.assertEqual(status, 1, wrong)
            if wrong != "_.more":
                self.assertNotIn("Traceback", output, wrong)

    async def test_the_configuration_is_read_again(self) -> None:
        await self.begin_with_doors()
        ann, bob = self.make_key("ann"), self.make_key("bob", known=False)
        good = self.service.config.read_text()
        self.service.config.write_text(f'{good}[retention]\ncalls = "long"\n')
        status, output, _ = await self.ssh(ann, "reload()")
        self.assertEqual(status, 1, output)
        self.assertIn('retention.calls: expected a duration such as "90d"', output)
        self.assertNotIn("Traceback", output)
        # Who may come in is told by another file from now on.
        others = self.home / "others.keys"
        others.write_text(bob.with_suffix(".pub").read_text())
        others.chmod(0o600)
        moved = good.replace(str(self.keys), str(others)).replace('state_dir = "state"', 'state_dir = "new"')
        self.service.config.write_text(moved)
        _, output, _ = await self.ssh(ann, "reload()")
        self.assertRegex(output, r"settings changed +manhole.authorized_keys\n")
        self.assertRegex(output, r"warning +takes effect only at a restart: state_dir\n")
        self.assertEqual((await self.ssh(bob, "print(1)"))[:2], (0, "1\n"))
        self.assertEqual((await self.ssh(ann, "print(1)"))[0], 255)

    async def test_a_prompt(self) -> None:
        await self.begin_with_doors()
        ann = self.make_key("ann")
        typist = await self.prompt(ann)
        self.assertIn("hq", await typist.run("cubes"))
        # A name, an attribute, and what there is to choose from.
        typist.type("cub\t")
        await typist.says("es")
        typist.type(".\t\t")
        await typist.says(r"hq +keys\(")
        typist.type("h\t\r")
        await typist.says("provider URL")
        await typist.says(PROMPT)
        self.assertIn("\r\n42\r\n", await typist.run("6 * 7"))
        self.assertIn("\r\n84\r\n", await typist.run("_ * 2"))
        self.assertIn("\r\nNone of it\r\n", await typist.run("sleep(0.01); print('None of it')"))
        self.assertIn("ZeroDivisionError: division by zero", await typist.run("1 / 0"))
        self.assertIn("SyntaxError", await typist.run("1 +"))
        self.assertIn("'naïve 漢字'", await typist.run("'naïve 漢字'"))
        # A block, typed.
        for text in ("for i in range(2):\r", "print('line', i)\r", "\r"):
            typist.type(text)
            await typist.says(r"\r\n")
        await typist.says(r"line 0\r\nline 1\r\n")
        await typist.says(PROMPT)
        # What waits is not waited for any longer.
        typist.type("sleep(1000)\r")
        await self.logged(r"typed: sleep\(1000\)")
        typist.type("\x03")
        await typist.says("Cancelled")
        await typist.says(PROMPT)
        typist.type("while True:\r    await sleep(0.01)\r\r")
        await self.logged(r"typed: while True")
        typist.type("\x03")
        await typist.says("Cancelled")
        await typist.says(PROMPT)
        typist.type("nonsense\x03")
        await typist.says(r"\^C")
        # Received text does nothing to the terminal.
        shown = await typist.run(r"print('\x1b]0;title\x07')")
        self.assertIn(r"\x1b]0;title\x07", shown.split("\n", 1)[1])
        shown = await typist.run("print('x' * 100_000)")
        self.assertIn("cut: a command may put out", shown)
        self.assertLess(len(shown), 70_000)
        self.assertIn("\r\n1\r\n", await typist.run("1"))
        typist.type("\x04")
        await typist.ended()
        self.assertEqual(typist.exit_code, 0)
        await self.logged(r"ann@noc \(ssh, from 127\.0\.0\.1:\d+\) has come")
        await self.logged(r"ann@noc \(ssh, from 127\.0\.0\.1:\d+\) typed: 6 \* 7")
        await self.logged(r"ann@noc \(ssh, from 127\.0\.0\.1:\d+\) has left after \d+ s")

    async def test_tables_fit_the_terminal_as_it_is(self) -> None:
        await self.begin_with_doors()
        typist = await self.prompt(self.make_key("ann"))
        for width in (120, 50):
            typist.resize(width, 30)
            shown = ""

            async def resized(width: int = width) -> bool:
                return f"\r\n{width}\r\n" in await typist.run("status()._screen.width")

            await self.poll(resized)
            shown = await typist.run("webhooks")
            self.assertIs("under way" in shown, width == 120, shown)
            self.assertTrue(all(len(line) <= width for line in shown.splitlines()), shown)

    async def test_two_at_once_and_what_they_remember(self) -> None:
        await self.begin_with_doors()
        ann, bob = self.make_key("ann"), self.make_key("bob", kind="rsa")
        first, second = await self.prompt(ann), await self.prompt(bob)
        await first.run("x = 'of ann'")
        self.assertIn("NameError", await second.run("x"))
        shown = await first.run("status()")
        self.assertIn("ann@noc (ssh", shown)
        self.assertIn("bob@noc (ssh", shown)
        for typist in (first, second):
            typist.type("exit\r")
            await typist.ended()
        again = await self.prompt(ann)
        again.type("x\x1b[A")
        await again.says("x = 'of ann'")
        history = self.service.folder / "state" / "manhole-history"
        self.assertEqual(stat.S_IMODE(history.stat().st_mode), 0o600)

    async def test_who_may_come_in(self) -> None:
        await self.begin_with_doors()
        ann, eve = self.make_key("ann"), self.make_key("eve", known=False)
        self.assertEqual((await self.ssh(ann, "1"))[1], "1\n")
        status, output, errors = await self.ssh(eve, "1")
        self.assertEqual((status, output), (255, ""))
        self.assertIn("Permission denied (publickey)", errors)
        await self.logged("a key was refused: from 127.0.0.1:[0-9]+, as user anybody: unknown key")
        # The file is read each time: both ways.
        pub = eve.with_suffix(".pub").read_text()
        self.keys.write_text(pub)
        self.assertEqual((await self.ssh(eve, "1"))[0], 0)
        self.assertEqual((await self.ssh(ann, "1"))[0], 255)
        self.keys.write_text(f'from="192.0.2.1" {pub}')
        self.assertEqual((await self.ssh(eve, "1"))[0], 255)
        self.keys.write_text(pub)
        self.keys.chmod(0o666)
        self.assertEqual((await self.ssh(eve, "1"))[0], 255)
        await self.logged("can be changed by others than its owner")

        path = self.service.folder / "state" / "ssh_host_ed25519_key"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        fingerprint = fingerprint_of(path)
        self.assertIn(fingerprint, self.log())
        self.assertEqual(fingerprint_of(self.home / "known"), fingerprint)

    async def test_a_prompt_and_nothing_else(self) -> None:
        await self.begin_with_doors()
        ann = self.make_key("ann")
        status, _, errors = await self.ssh(ann, None, "-W", f"127.0.0.1:{self.service.console_port}")
        self.assertNotEqual(status, 0)
        self.assertIn("forwarding failed", errors)
        status, _, errors = await self.ssh(
            ann, "1", "-o", "ExitOnForwardFailure=yes", "-R", f"{free_port()}:127.0.0.1:1"
        )
        self.assertNotEqual(status, 0)
        self.assertIn("forwarding failed", errors)
        status, _, errors = await self.ssh(ann, "sftp", "-s")
        self.assertNotEqual(status, 0)

    async def test_commands_and_scripts_have_an_exit_status(self) -> None:
        await self.begin_with_doors()
        ann = self.make_key("ann")
        self.assertEqual(await self.ssh(ann, "print('a'); 1"), (0, "a\n1\n", ""))
        status, output, _ = await self.ssh(ann, "1 / 0")
        self.assertEqual(status, 1)
        self.assertIn("ZeroDivisionError", output)
        script = b"for i in range(2):\n    print(i)\n\nx = sleep(0)\nawait x\nlen(cubes)\n"
        self.assertEqual(await self.ssh(ann, None, "-T", given=script), (0, "0\n1\n1\n", ""))
        self.assertEqual((await self.ssh(ann, "raise SystemExit"))[0], 0)
        self.assertEqual((await self.ssh(ann, "1"))[1], "1\n")

    async def test_the_service_stops_while_they_are_inside(self) -> None:
        await self.begin_with_doors()
        ann = self.make_key("ann")
        idle, waiting = await self.prompt(ann), await self.prompt(ann)
        waiting.type("sleep(1000)\r")
        await self.logged(r"typed: sleep\(1000\)")
        assert self.service.process is not None
        await self.service.process.stop(signal.SIGTERM)
        for typist in (idle, waiting):
            await typist.ended()
            self.assertIn("cubehook is stopping.", typist.text)
        self.assertNotIn("Unhandled", self.log())
        self.assertNotIn("Traceback", self.log())

    async def test_a_lost_connection_is_a_session_that_is_over(self) -> None:
        await self.begin_with_doors()
        ann = self.make_key("ann")
        typist = await self.prompt(ann)
        typist.type("while True:\r    await sleep(0.01)\r\r")
        await self.logged(r"typed: while True")
        await typist.kill()
        await self.logged("has left after")
        self.assertNotIn("here ", (await self.ssh(ann, "status()"))[1])


class TelnetTests(ManholeCase):
    if TELNET is None:
        skip = "there is no telnet (Debian's telnet)"
    doors = 'telnet = "tcp:TELNET:interface=127.0.0.1"'

    async def test_a_prompt(self) -> None:
        await self.begin_with_doors()
        await self.logged("The manhole is open for telnet .* in clear text")
        typist = await self.telnet(password="wrong")
        await typist.says("wrong")
        await typist.says("user: ")
        typist.type("bob\r")
        await typist.says("password: ")
        typist.type(f"{PASSWORD}\r")
        await typist.says(PROMPT)
        self.assertNotIn(PASSWORD, typist.text)
        self.assertIn("registered", await typist.run("cubes"))
        self.assertIn("\r\n2\r\n", await typist.run("1 + 1"))
        self.assertIn("'ÿ'", await typist.run("'ÿ'"))
        typist.type("sta\t")
        await typist.says(r"tus\(")
        typist.type(")\r")
        await typist.says("of 1 registered")
        await typist.says(PROMPT)
        typist.resize(50, 30)

        async def resized() -> bool:
            return "\r\n50\r\n" in await typist.run("status()._screen.width")

        await self.poll(resized)
        typist.type("\x04")
        await typist.ended()
        await self.logged(r"a password was refused: telnet, from 127\.0\.0\.1:\d+, as user bob")
        await self.logged(r"bob \(telnet, from 127\.0\.0\.1:\d+\) typed: 1 \+ 1")
        self.assertNotIn(PASSWORD, self.log())

    async def test_three_wrong_passwords_are_enough(self) -> None:
        await self.begin_with_doors()
        typist = await self.telnet(password="wrong")
        for password in ("wrong", ""):
            await typist.says("user: ")
            typist.type("eve\r")
            await typist.says("password: ")
            typist.type(f"{password}\r")
        await typist.ended()
        self.assertEqual(self.log().count("a password was refused"), 3)

    async def test_a_terminal_that_knows_no_commands(self) -> None:
        await self.begin_with_doors()
        typist = await self.telnet(term="dumb")
        await typist.says(">>> ")
        typist.type("1 + 1x\x7f\r")
        await typist.says(r"\r\n2\r\n")
        self.assertNotIn("\x1b", typist.text)

    async def test_the_service_stops_while_they_are_inside(self) -> None:
        await self.begin_with_doors()
        typist = await self.telnet()
        await typist.says(PROMPT)
        stranger = self.terminal(TELNET, ["127.0.0.1", str(self.telnet_port)])
        await stranger.says("user: ")
        assert self.service.process is not None
        await self.service.process.stop(signal.SIGTERM)
        await typist.ended()
        await stranger.ended()
        self.assertIn("cubehook is stopping.", typist.text)
        self.assertNotIn("Traceback", self.log())


class _Client(Protocol):
    """Speaks no telnet, and keeps what it is told."""

    def __init__(self) -> None:
        self.text = ""
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.text += data.decode("latin-1")
        for entry in list(self._waiting):
            if entry[0] in self.text:
                self._waiting.remove(entry)
                entry[1].callback(None)

    async def says(self, text: str) -> None:
        if text not in self.text:
            waiting: Deferred[None] = Deferred()
            self._waiting.append((text, waiting))
            await waiting.addTimeout(PATIENCE, reactor)

    def type(self, text: str) -> None:
        self.transport.write(text.encode())  # type: ignore[union-attr]


class UnixSocketTests(ManholeCase):
    doors = 'telnet = "unix:HOME/manhole.sock"'

    async def test_a_socket_for_its_owner_alone(self) -> None:
        await self.begin_with_doors()
        path = self.home / "manhole.sock"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        client = await connectProtocol(UNIXClientEndpoint(reactor, str(path)), _Client())
        self.addCleanup(client.transport.abortConnection)
        await client.says("user: ")
        client.type("bob\n")
        await client.says("password: ")
        client.type(f"{PASSWORD}\n")
        await client.says(">>> ")
        client.type("6 * 7\n")
        await client.says("\r\n42\r\n")
        await self.logged(r"bob \(telnet, from this machine\) typed: 6 \* 7")


class StartingTests(TestCase):
    timeout = 120

    async def test_a_busy_port_is_told(self) -> None:
        folder = Path(self.mktemp()).resolve()
        folder.mkdir(0o700)
        (folder / "keys").touch(0o600)
        service = Service(self, folder)
        service.webhooks = (
            f'[manhole]\nssh = "tcp:{service.console_port}:interface=127.0.0.1"\nauthorized_keys = "keys"\n'
        )
        service.write_config()
        process = twistd(self, folder, "--config", str(service.config))
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertIn("(manhole.ssh): Address already in use", process.text)

    async def test_a_host_key_that_others_may_read_is_told(self) -> None:
        folder = Path(self.mktemp()).resolve()
        (folder / "state").mkdir(0o700, parents=True)
        (folder / "keys").touch(0o600)
        (folder / "state" / "ssh_host_ed25519_key").touch(0o644)
        service = Service(self, folder)
        service.webhooks = (
            f'[manhole]\nssh = "tcp:{free_port()}:interface=127.0.0.1"\nauthorized_keys = "keys"\n'
        )
        service.write_config()
        process = twistd(self, folder, "--config", str(service.config))
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertIn("cannot open the manhole: the host key", process.text)
