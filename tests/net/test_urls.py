"""URLs made fit to show: nothing that sounds secret is left, everything else is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cubehook.net.urls import masked_url, secrets_in


class MaskTests(SynchronousTestCase):
    def test_what_is_not_secret_stays(self) -> None:
        for text in (
            "",
            "https://crm.example",
            "https://crm.example:8443/calls?site=hq&lang=en&flag#top",
            "http://[2001:db8::1]/a;v=1/b?x=a@b",
            "/calls",
            "https://a1b2c3d4e5f6a7b8c9.lambda.example/v2/calls",
            "https://h/api/v1/incoming-calls-2024/internationalizationes/1234567890123456789?id=a1b2c3d4e5f6a7b8c9",
            "nonsense \x1b{0}",
        ):
            self.assertEqual(masked_url(text), text)

    def test_values_of_parameters_that_sound_secret(self) -> None:
        for name in (
            "token",
            "access_token",
            "X-Amz-Signature",
            "apiKey",
            "SECRET",
            "password",
            "pwd",
            "sig",
            "auth",
            "code",
            "to%6Ben",
        ):
            self.assertEqual(
                masked_url(f"https://crm.example/c?a=1&{name}=s3cr3t&b=2#end"),
                f"https://crm.example/c?a=1&{name}=***&b=2#end",
            )

    def test_in_every_place_that_a_parameter_has(self) -> None:
        for text in (
            "https://h/?token=s3cr3t",
            "https://h/?a=1;token=s3cr3t",
            "https://h/?token=x;s3cr3t",
            "https://h/?token=a=s3cr3t",
            "https://h/?a=1&token=s3cr3t",
            "https://h/?a?token=s3cr3t",
            "https://h/#token=s3cr3t",
            "https://h/c;token=s3cr3t",
            "https://h/token=s3cr3t",
            "?token=s3cr3t",
        ):
            self.assertNotIn("s3cr3t", masked_url(text), text)
            self.assertIn("***", masked_url(text), text)

    def test_user_and_password(self) -> None:
        for text in ("https://me:s3cr3t@h/a", "https://s3cr3t@h/a", "https://me:a@s3cr3t@h/a"):
            self.assertEqual(masked_url(text), "https://***@h/a")
        self.assertEqual(masked_url("//me:s3cr3t@h/a"), "//***@h/a")

    def test_what_looks_random_in_a_path(self) -> None:
        for url, shown in (
            (
                "https://hooks.slack.com/services/T01AB/B02AB/Xk3jF9sLq0Zt7Wn5Pa8Rc2Dv",
                "/services/T01AB/B02AB/***",
            ),
            ("https://h/api/webhooks/1234567890/aB-cd_fGh1jKLmnopQRSTuv-xy", "/api/webhooks/1234567890/***"),
            (
                "https://h/3f2504e0-4f89-11d3-9a0c-0305e82c3301@x/In/0123456789abcdef0123456789ABCDEF",
                "/***/In/***",
            ),
            ("https://h/bot123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11/send?a=1", "/***/send?a=1"),
        ):
            self.assertEqual(masked_url(url), url[: url.index("/", 8)] + shown)

    def test_what_is_not_shown_is_known(self) -> None:
        url = "https://me:pa55word@h/services/Xk3jF9sLq0Zt7Wn5Pa8Rc2Dv?site=hq&token=abc;def"
        self.assertEqual(secrets_in(url), ["me", "pa55word", "Xk3jF9sLq0Zt7Wn5Pa8Rc2Dv", "abc", "def"])
        self.assertEqual(secrets_in("https://h:8443/calls?site=hq#top"), [])
        self.assertEqual(secrets_in(""), [])

    @settings(max_examples=100)
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        self.assertNotIn("s3cr3t", masked_url(f"{text}?token=s3cr3t"))
