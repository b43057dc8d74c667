"""Signatures, against the specification's own verifier."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from twisted.trial.unittest import SynchronousTestCase

from cubehook.delivery.signing import SignatureError, decode_secret, new_secret, sign, verify

NOW = 1_732_377_816
KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
keys = st.binary(min_size=24, max_size=64)


class SecretTests(SynchronousTestCase):
    @given(keys)
    def test_a_secret_reads_back(self, key: bytes) -> None:
        self.assertEqual(key, decode_secret(new_secret(key)))

    def test_padding_may_be_left_out(self) -> None:
        self.assertEqual(KEY, decode_secret(new_secret(KEY).rstrip("=")))

    def test_what_is_wrong_is_said_and_the_secret_is_not(self) -> None:
        for text, said in (
            ("", "whsec_"),
            ("hunter2hunter2hunter2hunter2hunter2", "starts with whsec_"),
            ("WHSEC_" + base64.b64encode(KEY).decode(), "starts with whsec_"),
            ("whsec_hunter2-hunter2_hunter2hunter2hunter2", "is base64"),
            ("whsec_" + base64.b64encode(KEY).decode()[:9] + " hunter2", "is base64"),
            ("whsec_hunter2é", "is base64"),
            ("whsec_A", "is base64"),
            ("whsec_", "24 to 64 bytes before base64, not 0"),
            ("whsec_" + base64.b64encode(bytes(23)).decode(), "24 to 64 bytes before base64, not 23"),
            ("whsec_" + base64.b64encode(bytes(65)).decode(), "24 to 64 bytes before base64, not 65"),
        ):
            error = self.assertRaises(ValueError, decode_secret, text)
            self.assertIn(said, str(error))
            self.assertNotIn("hunter2", str(error))

    def test_too_little_randomness_makes_no_secret(self) -> None:
        self.assertRaises(ValueError, new_secret, bytes(23))
        self.assertRaises(ValueError, new_secret, bytes(65))


class SignTests(SynchronousTestCase):
    def test_the_example_of_the_specification(self) -> None:
        """From the reference libraries' own tests."""
        self.assertEqual(
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            sign(
                [decode_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1614265330,
                b'{"test": 2432232314}',
            ),
        )

    @given(keys, st.text(st.characters(codec="ascii", exclude_characters="."), min_size=1), st.text())
    @settings(max_examples=50)
    def test_their_library_makes_the_same(self, key: bytes, id: str, body: str) -> None:
        moment = datetime.fromtimestamp(NOW, UTC)
        self.assertEqual(Webhook(key).sign(id, moment, body), sign([key], id, NOW, body.encode()))

    def test_their_library_verifies_ours_with_either_secret_of_a_rotation(self) -> None:
        now = int(datetime.now(UTC).timestamp())
        headers = {
            "webhook-id": "a-1",
            "webhook-timestamp": str(now),
            "webhook-signature": sign([KEY, OTHER], "a-1", now, b"{}"),
        }
        for key in (KEY, OTHER):
            self.assertEqual({}, Webhook(new_secret(key)).verify(b"{}", headers))
        with self.assertRaises(WebhookVerificationError):
            Webhook(bytes(32)).verify(b"{}", headers)


class VerifyTests(SynchronousTestCase):
    def refused(
        self,
        said: str,
        *,
        id: str = "a-1",
        timestamp: str = str(NOW),
        signature: str | None = None,
        body: bytes = b"{}",
        now: float = NOW,
    ) -> None:
        signed = sign([KEY], "a-1", NOW, b"{}") if signature is None else signature
        error = self.assertRaises(SignatureError, verify, [KEY], id, timestamp, signed, body, now)
        self.assertIn(said, str(error))

    @given(st.lists(keys, min_size=1, max_size=3), st.text(max_size=20), st.binary(max_size=100), st.data())
    @settings(max_examples=50)
    def test_what_any_secret_signed_is_believed(
        self, secrets: list[bytes], id: str, body: bytes, data: st.DataObject
    ) -> None:
        id = id.encode("utf-8", "replace").decode()
        signature = sign(secrets, id, NOW, body)
        verify([data.draw(st.sampled_from(secrets))], id, str(NOW), signature, body, NOW)

    def test_the_library_s_signature_is_believed(self) -> None:
        theirs = Webhook(KEY).sign("a-1", datetime.fromtimestamp(NOW, UTC), "{}")
        verify([OTHER, KEY], "a-1", str(NOW), theirs, b"{}", NOW + 299.0)

    def test_any_change_is_noticed(self) -> None:
        self.refused("no signature matches", body=b"{ }")
        self.refused("no signature matches", id="a-2")
        self.refused("no signature matches", timestamp=str(NOW + 1))
        self.refused("no signature matches", signature=sign([OTHER], "a-1", NOW, b"{}"))

    def test_garbage_is_refused(self) -> None:
        good = sign([KEY], "a-1", NOW, b"{}")
        for signature in (
            "",
            "v1",
            "v1,",
            ",",
            "v2" + good[2:],
            good[:-1],
            good + "x",
            "v1,\udcff",
            good[3:],
        ):
            self.refused("no signature matches", signature=signature)
        for timestamp in ("", "now", "-1", "1.5", "1e9", "²", " 1", "9" * 5000):
            self.refused("whole number of seconds", timestamp=timestamp)

    def test_other_versions_beside_it_are_skipped(self) -> None:
        good = sign([KEY], "a-1", NOW, b"{}")
        verify([KEY], "a-1", str(NOW), f"v1a,abc {good} v9,x", b"{}", NOW)

    def test_old_and_future_ones_are_refused(self) -> None:
        self.refused("301 s old", now=NOW + 301)
        self.refused("301 s in the future", now=NOW - 301)
