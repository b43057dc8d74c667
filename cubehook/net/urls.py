"""A URL as it may be shown: the log of attempts is read by more people than may know a webhook's secrets."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"

_USER = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*@")
_HOST = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*")
_PART = re.compile(r"([?&#])")
_SIGN = re.compile(r"[/?&#;=@:]")
_NAME = re.compile(r"(?:\A|(?<=[;/]))([^=;/]*)=")
# Names of parameters that carry a secret hold one of these; `code` is what Azure's functions take.
_SECRET = re.compile(r"token|secret|pass|pwd|key|sig|auth|cred|jwt|hmac|code|session", re.IGNORECASE)
# What nobody names a thing: Slack, Discord, Teams, Telegram and their kin put a token in the path.
_RANDOM = re.compile(
    r"(?=[A-Za-z0-9]*[0-9])(?=[A-Za-z0-9]*[A-Za-z])[A-Za-z0-9]{16}"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    re.IGNORECASE | re.ASCII,
)


def masked_url(text: str) -> str:
    """
    `text` with `***` for user and password, for the value of each parameter whose name sounds secret, and
    for each part of the path that looks random.

    Takes any text.  A secret in the path that looks like a word cannot be told from one, and stays.
    """
    text = _USER.sub(lambda found: f"{found[1] or ''}//{MASK}@", text)
    found = _HOST.match(text)
    end = found.end() if found else 0
    return text[:end] + "".join(map(_masked, _PART.split(text[end:])))


def secrets_in(url: str) -> list[str]:
    """What `masked_url` would not show of `url`."""
    shown = set(_SIGN.split(masked_url(url)))
    return [piece for piece in _SIGN.split(url) if piece not in shown]


def _masked(part: str) -> str:
    part = "/".join(
        MASK if _RANDOM.search(piece) and "=" not in piece else piece for piece in part.split("/")
    )
    # What follows a `;` is another parameter to some, and to others still the same value: mask it too.
    for name in _NAME.finditer(part):
        if _SECRET.search(unquote(name[1])):
            return part[: name.end()] + MASK
    return part
