"""
What the API answers when it cannot do what was asked.

`{"error": {"code", "message", "fields"?}}`: a code for programs, a sentence for people, and what is
wrong with each field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec


class ErrorDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong: `code` for programs, `message` for people, `fields` by the field's path."""

    code: str
    message: str
    fields: dict[str, str] = {}


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer with a status of 400 or more."""

    error: ErrorDetail


class ApiError(Exception):
    """The answer to a request that cannot be done; subclasses have their status and code."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The JSON that tells of it."""
        return msgspec.json.encode(ErrorBody(ErrorDetail(self.code, self.message, self.fields)))


class InternalError(ApiError):
    """A fault of ours, which the log tells of."""


class BadRequestError(ApiError):
    """The request cannot be read."""

    status = 400
    code = "bad_request"


class UnauthorizedError(ApiError):
    """The request does not say who asks, or not in a way that counts."""

    status = 401
    code = "unauthorized"


class ForbiddenError(ApiError):
    """Whoever asks may not do that."""

    status = 403
    code = "forbidden"


class NotFoundError(ApiError):
    """There is no such path, or nothing of that name."""

    status = 404
    code = "not_found"


class MethodNotAllowedError(ApiError):
    """The path is there, but does not take this method."""

    status = 405
    code = "method_not_allowed"


class ConflictError(ApiError):
    """What is asked for does not go with how things stand."""

    status = 409
    code = "conflict"


class PreconditionFailedError(ApiError):
    """What was to be changed is not as it was when the client looked at it (`If-Match`)."""

    status = 412
    code = "precondition_failed"


class TooLargeError(ApiError):
    """The body is larger than any that is taken."""

    status = 413
    code = "too_large"


class MediaTypeError(ApiError):
    """The body is not called JSON."""

    status = 415
    code = "unsupported_media_type"


class InvalidError(ApiError):
    """Fields have values that they cannot have; `fields` names each."""

    status = 422
    code = "invalid"


class TooManyRequestsError(ApiError):
    """There were too many requests that failed; `Retry-After` tells when to ask again."""

    status = 429
    code = "too_many_requests"


class UnavailableError(ApiError):
    """The service cannot do it at the moment."""

    status = 503
    code = "unavailable"
