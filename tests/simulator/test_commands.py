"""`cubehook simulate` and `cubehook sink` as processes, and their arguments."""

from __future__ import annotations

import io
import json
import signal
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import treq
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cubehook.simulator import commands
from tests.functional.harness import Process, free_port, spawn
from tests.simulator.application import Application

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MAIN = "import sys; from cubehook.cli import main; sys.exit(main())"


def command(test: TestCase, *arguments: str) -> Process:
    return spawn(test, "-c", MAIN, *arguments)


def stop_reading(process: Process) -> None:
    """As `head` does when it has its lines."""
    assert process.transport is not None
    process.transport.closeStdout()


class ArgumentTests(SynchronousTestCase):
    def usage_error(self, run: Any, *arguments: str) -> str:
        errors = io.StringIO()
        with redirect_stderr(errors), redirect_stdout(io.StringIO()):
            end = self.assertRaises(SystemExit, run, arguments)
        self.assertEqual(end.code, 2)
        return errors.getvalue()

    def test_simulate(self) -> None:
        url = ("--remote-url", "http://192.0.2.20:8090/xcc/hq")
        for arguments, words in (
            ((), "--remote-url"),
            (("--remote-url", "https://192.0.2.20/x"), "needs --tls"),
            ((*url, "--tls-version", "1.1"), "are for --tls or --tls-cert"),
            ((*url, "--tls", "--tls-key", "x"), "that of --tls-cert"),
            ((*url, "--tls-cert", "/nonexistent"), "--tls-cert: /nonexistent cannot be read"),
            ((*url, "--tls", "--tls-ca", "/nonexistent"), "--tls-ca: /nonexistent cannot be read"),
            (("--remote-url", "nonsense"), "http"),
            ((*url, "--mix", "nonsense"), "no scenario 'nonsense'"),
            ((*url, "--rate", "0"), "above 0"),
            ((*url, "--rate", "nan"), "above 0"),
            ((*url, "--late", "2"), "at most 1"),
            ((*url, "--count", "x"), "not a whole number"),
            ((*url, "--listen", "tcp:x"), "port"),
            ((*url, "--path", "x"), "slash"),
            ((*url, "--duration", "5"), "--load"),
            ((*url, "--secret", "x"), "whsec_"),
            ((*url, "--at", "reload"), "SECONDS=WHAT"),
            ((*url, "--at", "5=explode"), "no-shutdown, forget"),
            ((*url, "--at", "x=reload"), "not a number"),
        ):
            self.assertIn(words, self.usage_error(commands.simulate, *arguments))

    def test_sink(self) -> None:
        for arguments, words in (
            (("--secret", "nonsense"), "whsec_"),
            (("--status", "99"), "at least 200"),
            (("--status", "500", "--drop"), "not allowed with"),
            (("--share", "0.5"), "--fail"),
            (("--stall", "-1"), "at least 0"),
        ):
            self.assertIn(words, self.usage_error(commands.sink, *arguments))

    def test_files_that_cannot_be_written(self) -> None:
        errors = io.StringIO()
        missing = str(Path(self.mktemp()) / "file")
        with redirect_stderr(errors):
            self.assertEqual(commands.sink(["--store", missing]), 1)
            url = "http://192.0.2.20/x"
            self.assertEqual(commands.simulate(["--remote-url", url, "--record", missing]), 1)
        self.assertEqual(errors.getvalue().count(f"{missing}: No such file or directory"), 2)


class ProcessTestCase(TestCase):
    async def end(self, process: Process) -> None:
        """Tell it to end, which it does in order."""
        process.send(signal.SIGTERM)
        await process.ended()
        self.assertEqual(process.exit_code, 0, process.text)


class SimulateTests(ProcessTestCase):
    async def simulate(self, *arguments: str) -> Process:
        application = self.application = Application(self)
        await application.start()
        port = free_port()
        boot = application.when(lambda message: True)
        process = command(
            self,
            "simulate",
            "--listen",
            f"tcp:{port}:interface=127.0.0.1",
            "--remote-url",
            application.url,
            *arguments,
        )
        await boot
        await application.register(f"http://127.0.0.1:{port}/cisco_xcc")
        return process

    async def test_story(self) -> None:
        process = await self.simulate("--count", "3", "--rate", "50", "--speed", "1000", "--mix", "answered")
        await process.ended()
        self.assertEqual(process.exit_code, 0, process.text)
        for words in (
            "waits for an application at http://127.0.0.1:",
            f"cubehook registered as {self.application.registration_id} for ALERTING",
            "call 1 rings",
            "call 1 is answered",
            "call 3 ended, cause 16",
            "27 notifications answered",
        ):
            self.assertIn(words, process.text)
        self.assertEqual(len(self.application.events()), 27)

    async def test_report_and_record_of_a_load(self) -> None:
        record = Path(self.mktemp()).absolute()
        process = await self.simulate(
            *("--load", "--json", "--count", "30", "--rate", "200", "--speed", "1000", "--mix", "busy"),
            *("--warm-up", "0", "--no-persistent", "--record", str(record)),
        )
        await process.ended()
        self.assertEqual(process.exit_code, 0, process.text)
        report = json.loads(process.text)
        self.assertEqual((report["calls"], report["answers"], report["failures"]), (30, 150, 0))
        self.assertEqual(len(record.read_text().splitlines()), 150)

    async def test_what_happens_to_the_gateway(self) -> None:
        process = await self.simulate("--mix", "long", "--at", "0=shutdown", "--at", "0.2=reload")
        await process.wait_for(
            "(?s)the registration is gone: the provider was shut down.*the gateway reloads: its calls"
        )
        await self.end(process)

    async def test_told_to_end_it_ends_in_order(self) -> None:
        process = await self.simulate("--mix", "long", "--speed", "20")
        await process.wait_for("call 1 is answered")
        await self.end(process)
        self.assertIn("notifications answered", process.text)

    async def test_busy_port(self) -> None:
        application = Application(self)
        await application.start()
        port = application.url.split(":")[2].partition("/")[0]
        process = command(
            self,
            "simulate",
            "--listen",
            f"tcp:{port}:interface=127.0.0.1",
            "--remote-url",
            "http://192.0.2.1/",
        )
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertIn(f"cannot listen at port {port}", process.text)
        self.assertNotIn("Traceback", process.text)

    async def test_whoever_reads_has_had_enough(self) -> None:
        process = await self.simulate("--mix", "answered", "--speed", "1000")
        await process.wait_for("call 1 is answered")
        stop_reading(process)
        await process.ended()
        self.assertEqual(process.exit_code, 1, process.text)
        self.assertNotIn("Traceback", process.text)


class SinkTests(ProcessTestCase):
    async def sink(self, *arguments: str) -> tuple[Process, str]:
        process = command(self, "sink", "--listen", "tcp:0:interface=127.0.0.1", *arguments)
        found = await process.wait_for(r"receiving at (http://\S+)\n")
        return process, found[1]

    async def post(self, url: str, body: bytes) -> int:
        answer = await treq.post(url, data=body, persistent=False, timeout=20)
        return int(answer.code)

    BODY = (
        b'{"call_state": "ALERTING", "called_number": "+1\\u001b[31m", "calling_number": null, '
        b'"timestamp": "2024-11-23T16:03:36.200940Z"}'
    )

    async def test_lines_store_and_summary(self) -> None:
        store = Path(self.mktemp()).absolute()
        process, url = await self.sink("--store", str(store), "--count", "2", "--fail", "503", "--first", "1")
        self.assertEqual(await self.post(url + "a", self.BODY), 503)
        self.assertEqual(await self.post(url + "a", self.BODY), 200)
        await process.ended()
        self.assertEqual(process.exit_code, 0, process.text)
        self.assertIn(r"ALERTING     withheld -> +1\x1b[31m", process.text)
        self.assertIn("2 received: 1 accepted, 1 refused", process.text)
        lines = [json.loads(line) for line in store.read_text().splitlines()]
        self.assertEqual([line["status"] for line in lines], [503, 200])
        self.assertEqual(lines[0]["body"].encode(), self.BODY)

    async def test_whoever_reads_has_had_enough(self) -> None:
        process, url = await self.sink()
        stop_reading(process)
        self.assertEqual(await self.post(url, self.BODY), 200)
        await process.ended()
        self.assertEqual(process.exit_code, 1, process.text)
        self.assertNotIn("Traceback", process.text)

    async def test_json(self) -> None:
        process, url = await self.sink("--json", "--count", "1")
        self.assertEqual(await self.post(url, self.BODY), 200)
        await process.ended()
        received, summary = [json.loads(line) for line in process.text.splitlines() if line[0] == "{"]
        self.assertEqual((received["body"].encode(), summary["accepted"]), (self.BODY, 1))

    async def test_signatures_are_shown(self) -> None:
        process, url = await self.sink("--secret", SECRET)
        self.assertEqual(await self.post(url, self.BODY), 401)
        await process.wait_for("signature the header webhook-id is missing .* 401")
        await self.end(process)
        self.assertIn("1 bad signatures", process.text)
        self.assertNotIn(SECRET, process.text)
