"""A URL as it may be shown: the log of attempts is read by more people than may know a webhook's secrets."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"

_USER = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*@")
_PART = re.compile(r"([?&#])")
_NAME = re.compile(r"(?:\A|(?<=[;/]))([^=;/]*)=")
# Names of parameters that carry a secret hold one of these; `code` is what Azure's functions take.
_SECRET = re.compile(r"token|secret|pass|pwd|key|sig|auth|cred|jwt|hmac|code|session", re.IGNORECASE)


def masked_url(text: str) -> str:
    """
    `text` with `***` for user and password, and for the value of each parameter whose name sounds secret.

    Takes any text.  A secret that is a part of the path cannot be told from the rest, and stays.
    """
    text = _USER.sub(lambda found: f"{found[1] or ''}//{MASK}@", text)
    if "=" not in text:
        return text
    return "".join(map(_masked, _PART.split(text)))


def _masked(part: str) -> str:
    # What follows a `;` is another parameter to some, and to others still the same value: mask it too.
    for name in _NAME.finditer(part):
        if _SECRET.search(unquote(name[1])):
            return part[: name.end()] + MASK
    return part
