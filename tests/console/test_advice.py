"""What to look at when a cube is not registered."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cubehook.api.cubes import Cube, CubeRegistration
from cubehook.console.advice import advice
from cubehook.records import RegistrationState


def steps(state: RegistrationState, error: str | None = None, **more: Any) -> str:
    registration = CubeRegistration(
        state=state,
        registration_id=None,
        since="2024-11-23T16:00:00.000000Z",
        last_message_at=None,
        last_probe_at=None,
        failure_count=1,
        last_error=error,
        reason="",
    )
    settings = {
        "provider_url": "http://192.0.2.1:8090/cisco_xcc",
        "application_url": "http://192.0.2.20:8090/xcc/hq",
        "allow_from": (),
        "pins": (),
        "ca_file": None,
        "client_certificate": None,
        "client_key": None,
        "tls_minimum": "1.2",
        **more,
    }
    cube = Cube(
        id="hq",
        provisioned=False,
        enabled=True,
        description="",
        default_region=None,
        registration=registration,
        calls_active=0,
        counters={},
        **settings,
    )
    return "\n".join(advice(cube))


class Advice(SynchronousTestCase):
    def test_none_is_needed(self) -> None:
        for state in (RegistrationState.REGISTERED, RegistrationState.DISABLED):
            self.assertEqual(steps(state, "refused the connection"), "")

    def test_by_what_was_met(self) -> None:
        for error, words in (
            ("192.0.2.1:8090 refused the connection", "Nothing listens at `192.0.2.1:8090`"),
            ("timed out after 5 s", "does not answer"),
            ("its name cannot be looked up (dns)", "is not known here"),
            ("its certificate is of an unknown authority", "certificate is not accepted"),
            (
                "No TLS connection to x: the router speaks no TLS of version 1.2",
                "ip http tls-version TLSv1.2",
            ),
            (
                "No TLS connection to x can be made: cubes.hq.ca_file: x cannot be read",
                "names for secure mode",
            ),
            ("the gateway's certificate is not pinned", "`cubehook pin` shows it"),
            ("it answered 404", "ends in `/cisco_xcc`"),
            ("it answered 401", "asks for a login"),
        ):
            first = steps(RegistrationState.UNREGISTERED, error).splitlines()[0]
            self.assertIn(words, first)

    def test_refused(self) -> None:
        self.assertIn(
            "`remote-url` must be `http://192.0.2.20:8090/xcc/hq` to the letter",
            steps(RegistrationState.REJECTED),
        )

    def test_silent(self) -> None:
        self.assertIn("it must reach `192.0.2.20:8090`", steps(RegistrationState.SILENT))
        self.assertNotIn("allowed addresses", steps(RegistrationState.SILENT))
        self.assertNotIn("trustpoint", steps(RegistrationState.SILENT))
        secure = steps(RegistrationState.SILENT, application_url="https://192.0.2.20:8443/xcc/hq")
        self.assertIn("it needs a trustpoint", secure)
        self.assertIn("allowed addresses", steps(RegistrationState.SILENT, allow_from=("192.0.2.0/24",)))

    def test_no_step_twice(self) -> None:
        for state in RegistrationState:
            told = steps(state, "refused").splitlines()
            self.assertEqual(len(told), len(set(told)))
