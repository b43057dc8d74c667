"""The units for systemd in etc/: systemd takes every line of them, and finds them tight."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ETC = Path(__file__).parent.parent / "etc"


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not installed")
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        for name in ("cubehook.service", "cubehook.socket"):
            # Only an installed command can be verified; where ours is installed differs.
            text = re.sub(r"/opt/cubehook/bin/\w+", sys.executable, (ETC / name).read_text())
            (self.folder / name).write_text(text)

    def analyze(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def test_systemd_understands_them(self) -> None:
        units = [str(path) for path in sorted(self.folder.iterdir())]
        status, text = self.analyze("verify", "--man=no", *units)
        # Other units of this machine may be out of order.
        self.assertEqual([line for line in text.splitlines() if "cubehook" in line], [], status)

    def test_systemd_would_complain(self) -> None:
        unit = self.folder / "cubehook.service"
        unit.write_text(unit.read_text() + "\n[Service]\nProtectSystems=strict\n")
        self.assertIn("ProtectSystems", self.analyze("verify", "--man=no", str(unit))[1])

    def test_the_service_is_exposed_to_little(self) -> None:
        status, text = self.analyze("security", "--offline=yes", str(self.folder / "cubehook.service"))
        self.assertEqual(status, 0, text)
        found = re.search(r"exposure level for cubehook.service: ([0-9.]+)", text)
        assert found is not None, text
        # docs/operations.md names it.
        self.assertLessEqual(float(found[1]), 1.5)

    def test_what_would_end_tls(self) -> None:
        # Seen by running the TLS tests with prctl(PR_SET_MDWE): cffi cannot make callbacks then.
        self.assertNotRegex((ETC / "cubehook.service").read_text(), r"(?m)^MemoryDenyWriteExecute=(?!no)")
