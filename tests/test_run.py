"""The runner itself: no test is lost, and none that failed, whatever becomes of its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]

MODULE = """
import os
from twisted.trial.unittest import SynchronousTestCase
class Sample(SynchronousTestCase):
    def test_first(self):
        pass
    def test_second(self):
        {body}
"""
BODIES = {
    "good": "pass",
    "bad": "self.assertEqual('this', 'that')",
    "gone": "os._exit(7)",
    "left_out": "self.skipTest('there is none here')",
    "unloadable": "pass)",
}


class RunTests(SynchronousTestCase):
    def run_samples(self, *names: str, jobs: int) -> tuple[int, str]:
        folder = Path(self.mktemp()).absolute()
        samples = folder / "samples"
        samples.mkdir(parents=True)
        (samples / "__init__.py").touch()
        for name in names:
            (samples / f"test_{name}.py").write_text(MODULE.format(body=BODIES[name]))
        done = subprocess.run(
            [sys.executable, "-m", "tests.run", "--jobs", str(jobs), "--temp-directory", "temp", "samples"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
            capture_output=True,
            text=True,
            timeout=100,
        )
        return done.returncode, done.stdout

    def test_all_is_well(self) -> None:
        status, text = self.run_samples("good", "left_out", jobs=2)
        self.assertEqual((status, text.splitlines()[-1]), (0, "3 passed, 0 failed, 1 skipped"))
        self.assertIn("samples.test_left_out.Sample.test_second: there is none here", text)

    def test_what_fails_is_counted_and_told(self) -> None:
        status, text = self.run_samples("good", "bad", "gone", "unloadable", jobs=2)
        self.assertEqual((status, text.splitlines()[-1]), (1, "3 passed, 3 failed, 0 skipped"))
        told = text.rpartition("\nFailed:")[2]
        for name in (
            "samples.test_bad.Sample.test_second",
            "samples.test_gone: the process ended",
            "unloadable",
        ):
            self.assertIn(name, told)
        self.assertIn("'this' != 'that'", text)

    def test_one_process(self) -> None:
        status, text = self.run_samples("good", "bad", jobs=1)
        self.assertEqual((status, text.splitlines()[-1]), (1, "3 passed, 1 failed, 0 skipped"))
