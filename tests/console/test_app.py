"""Whoever asks for a page: what is let in, what is turned away, and how the answer is guarded."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.console.support import Browser


class FrameTests(TestCase):
    async def test_sign_in_page(self) -> None:
        page = await Browser(session=None, pages=["signin"]).get("/sign-in")
        self.assertEqual(page.status, 200)
        self.assertIn("Sign in", page.text)

    async def test_missing_page(self) -> None:
        page = await Browser(pages=["signin"]).get("/nowhere")
        self.assertEqual(page.status, 404)
        self.assertIn("There is no such page", page.text)
