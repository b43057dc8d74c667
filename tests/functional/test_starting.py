"""How the service starts, and how it says that it cannot."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.functional.harness import Service, spawn, twistd


class FolderCase(TestCase):
    timeout = 90

    def folder(self) -> Path:
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        return folder


class StartTests(FolderCase):
    async def test_every_error_of_the_configuration(self) -> None:
        folder = self.folder()
        (folder / "bad.toml").write_text('colour = 1\n[delivery]\ntimeout = "soon"\n[cubes.hq]\n')
        process = twistd(self, folder, "--config", str(folder / "bad.toml"))
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        for key in ("colour", "delivery.timeout", "cubes.hq.provider_url", "cubes.hq.application_url"):
            self.assertIn(key, process.text)
        self.assertNotIn("Traceback", process.text)

    async def test_an_empty_name_is_not_the_usual_places(self) -> None:
        process = twistd(self, self.folder(), "--config", "")
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertIn("expected a file that can be read", process.text)

    async def test_a_busy_port(self) -> None:
        service = Service(self, self.folder())
        with socket.create_server(("127.0.0.1", service.cubes_port)):
            service.write_config()
            process = twistd(self, service.folder, "--config", str(service.config))
            await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertRegex(
            process.text,
            rf"cannot listen on tcp:{service.cubes_port}\S* \(listen.cubes\): Address already in use",
        )
        self.assertNotIn("Traceback", process.text)

    async def test_a_state_folder_that_cannot_be(self) -> None:
        service = Service(self, self.folder())
        (service.folder / "state").write_text("a file")
        service.write_config()
        process = twistd(self, service.folder, "--config", str(service.config))
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertRegex(process.text, r"state folder \S+ cannot be written")
        self.assertNotIn("Traceback", process.text)

    async def test_a_file_that_is_no_database(self) -> None:
        service = Service(self, self.folder())
        (service.folder / "state").mkdir()
        (service.folder / "state" / "cubehook.db").write_bytes(b"certainly not a database " * 500)
        service.write_config()
        process = twistd(self, service.folder, "--config", str(service.config))
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertIn("cubehook.db", process.text)
        self.assertNotIn("Traceback", process.text)

    async def test_two_services_with_one_state_folder(self) -> None:
        service = Service(self, self.folder())
        await service.start()
        other = Service(self, self.folder(), extra="")
        other.write_config()
        other.config.write_text(
            other.config.read_text().replace('"state"', f'"{service.folder / "state"}"', 1)
        )
        process = twistd(self, other.folder, "--config", str(other.config))
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertNotIn("Traceback", process.text)
        self.assertEqual((await service.get("/readyz"))[0], 200)

    async def test_without_a_cube_it_says_what_to_add(self) -> None:
        service = Service(self, self.folder())
        process = await service.start()
        await process.wait_for(r"No cube is configured: add \[cubes.NAME\]")
        self.assertEqual((await service.get("/healthz"))[0], 200)
        await process.stop()


class DemoTests(FolderCase):
    async def test_a_newcomer_sees_calls(self) -> None:
        folder = self.folder()
        process = twistd(self, folder, "--demo")
        found = await process.wait_for(r"its state in (\S+);")
        state = Path(found[1])
        self.assertTrue(state.is_dir())
        console = (await process.wait_for(r"The console is at (\S+):"))[1]
        self.assertIn(f"by opening {console}sign-in?code=", process.text)
        await process.wait_for("cubehook is registered as")
        for word in ("rings", "answered", "ended"):
            await process.wait_for(rf"{word}\b.* ms, signed\]")
        await process.wait_for(r'\{"call_state":"ALERTING","called_number"')
        await process.stop(signal.SIGINT)
        self.assertFalse(state.exists())
        self.assertNotIn("Traceback", process.text)

    async def test_demo_takes_no_configuration(self) -> None:
        folder = self.folder()
        process = twistd(self, folder, "--demo", "--config", "x.toml")
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertIn("--demo brings its own configuration", re.sub(r"\s+", " ", process.text))


class CommandTests(FolderCase):
    async def test_check(self) -> None:
        folder = self.folder()
        (folder / "c.toml").write_text('[webhooks.crm]\nurl = "ftp://x"\n')
        run = "import sys; from cubehook.cli import main; sys.exit(main())"
        process = spawn(self, "-c", run, "check", str(folder / "c.toml"))
        await process.ended()
        self.assertEqual(process.exit_code, 1)
        self.assertIn("webhooks.crm.url", process.text)
