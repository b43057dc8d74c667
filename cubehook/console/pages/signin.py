"""Signing in, by an API token or a one-time link, and out."""

from __future__ import annotations

from cubehook.api.session import inner_path, session_secret, set_cookie
from cubehook.console.desk import Desk
from cubehook.console.routes import Answer, Visit, page


class Pages:
    """`/sign-in` and `/sign-out`; both tell nothing of the service."""

    def __init__(self, desk: Desk) -> None:
        self._doors = desk.doors

    @page("GET", "/sign-in", signed_out=True)
    async def ask(self, visit: Visit) -> Answer:
        onward = inner_path(visit.query.text("next"))
        if visit.signed_in:
            return visit.go(onward)
        # Who only looks at a link, as the previews of messengers do, does not use it up.
        return visit.show("signin.html", code=visit.query.text("code"), onward=onward, error=None)

    @page("POST", "/sign-in", signed_out=True, viewers=True)
    async def enter(self, visit: Visit) -> Answer:
        form = visit.form
        onward = inner_path(form.text("next"))
        wait = self._doors.must_wait(visit.address)
        if wait:
            words = f"Too many attempts: try again in {wait} seconds"
            answer = visit.show("signin.html", status=429, code="", onward=onward, error=words)
            answer.headers["Retry-After"] = str(wait)
            return answer
        code = form.text("code")
        if code:
            secret = await self._doors.sign_in_by_link(code, visit.address)
            words = "This link is no longer good: it was used, or is too old"
        else:
            secret = await self._doors.sign_in(form.text("token"), visit.address)
            words = "No such token. It is the whole text, as it was shown when it was made"
        if secret is None:
            return visit.show("signin.html", status=403, code="", onward=onward, error=words)
        answer = visit.go(onward)
        answer.headers["Set-Cookie"] = set_cookie(secret, visit.secure, seconds=self._doors.session_seconds)
        return answer

    @page("POST", "/sign-out", viewers=True)
    async def leave(self, visit: Visit) -> Answer:
        secret = session_secret(visit.cookie, visit.secure)
        if secret is not None:
            await self._doors.sign_out(secret)
        answer = visit.go("/sign-in")
        answer.headers["Set-Cookie"] = set_cookie("", visit.secure, seconds=0)
        # Browsers forget what they kept of our pages.
        answer.headers["Clear-Site-Data"] = '"cache"'
        return answer
