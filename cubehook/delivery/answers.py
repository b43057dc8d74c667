"""Whether what a transport returned can be believed in form."""

from __future__ import annotations

import msgspec

from cubehook.interfaces import Sent

_FIELDS = Sent.__struct_fields__


def malformed(result: object) -> str | None:
    """
    Why `result`, of a transport's `deliver`, is no `Sent` that can be judged and kept; None if it is.

    A struct's constructor checks no types, and transports are anybody's.
    """
    if not isinstance(result, Sent):
        return f"it is a {type(result).__name__}, not a Sent"
    try:
        msgspec.convert({name: getattr(result, name) for name in _FIELDS}, Sent)
    except msgspec.ValidationError as error:
        return f"its Sent holds something of a wrong type: {error}"
    texts = (
        result.method,
        result.url,
        result.response_body,
        result.remote_address,
        result.error,
        result.note,
    )
    headers = (*result.request_headers.items(), *result.response_headers.items())
    try:
        "".join((*filter(None, texts), *(text for pair in headers for text in pair))).encode()
    except UnicodeEncodeError:
        return "its Sent holds halves of surrogate pairs, which cannot be kept"
    return None
