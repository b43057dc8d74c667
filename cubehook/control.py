"""
The control socket: how a command on the same machine speaks to the running service.

The service serves its API on a unix socket in its state folder, which only its own user may open.  This
is the commands' side, which waits without a reactor, and what both sides know of the socket's place.
"""

from __future__ import annotations

import errno
import http.client
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

NAME = "control.sock"

PATH_BYTES = 103
"""What a unix socket's path may have everywhere; Linux would take four more."""

_DESCRIPTORS = Path("/proc/self/fd")

_TIMEOUT = 60.0
"""Seconds that the service may take over an answer: counting a million deliveries takes a few."""


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """
    A path of the socket in `folder` that the system takes, while the context lasts.

    OSError if the folder cannot be opened, or (with ENAMETOOLONG) its path is too long and nothing
    shorter stands for it on this system.
    """
    path = folder / NAME
    if len(os.fsencode(path)) <= PATH_BYTES:
        yield str(path)
        return
    if not _DESCRIPTORS.is_dir():
        raise OSError(
            errno.ENAMETOOLONG,
            f"a unix socket's path may have {PATH_BYTES} bytes here: set a state_dir with a shorter path",
        )
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield str(_DESCRIPTORS / str(descriptor) / NAME)
    finally:
        os.close(descriptor)


class ControlError(Exception):
    """The service could not be spoken to; the text tells why and what to do."""


class NotRunningError(ControlError):
    """No service runs with this state folder."""


class RefusedError(ControlError):
    """The service refused; `code` says what kind of refusal it is, `fields` what is wrong with each field."""

    def __init__(self, status: int, code: str, message: str, fields: dict[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.fields = fields

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  {name}: {words}" for name, words in self.fields.items())])


class _Error(msgspec.Struct):
    code: str
    message: str
    fields: dict[str, str] = {}


class _Refusal(msgspec.Struct):
    error: _Error


class Control:
    """
    The service whose state folder is `folder`; each call waits for its answer.

    What is asked for and given back is JSON, as Python's own types.  Paths are those below `/api/v1`.
    Raises ControlError.
    """

    def __init__(self, folder: Path, timeout: float = _TIMEOUT) -> None:
        self._folder = folder
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """What is at `path`."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: object = None) -> Any:
        """The answer to `body`, posted to `path`."""
        return self._ask("POST", path, {} if body is None else body)

    def delete(self, path: str) -> Any:
        """Remove what is at `path`; what the service says of that, None if nothing."""
        return self._ask("DELETE", path, None)

    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[bytes]:
        """
        The lines of what is written at `path`, as they come, until the service ends them.

        Nothing is asked before the first is taken; closing the iterator closes the connection.
        """
        connection = _UnixConnection("cubehook", timeout=self._timeout)
        try:
            connection.sock = self._connected()
            connection.request("GET", f"/api/v1{path}", headers=dict(headers))
            response = connection.getresponse()
            if response.status >= 400:
                _ = _result(response.status, response.read())
            while line := response.readline():
                yield line
        except TimeoutError:
            raise ControlError(
                f"cubehook, running in {self._folder}, said nothing for {self._timeout:g} s"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(
                f"cubehook, running in {self._folder}, broke off: {str(error) or type(error).__name__}"
            ) from None
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: object) -> Any:
        connection = _UnixConnection("cubehook", timeout=self._timeout)
        try:
            connection.sock = self._connected()
            connection.request(
                method,
                f"/api/v1{path}",
                None if body is None else msgspec.json.encode(body),
                {} if body is None else {"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            return _result(response.status, response.read())
        except TimeoutError:
            raise ControlError(
                f"cubehook, running in {self._folder}, did not answer within {self._timeout:g} s"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(
                f"cubehook, running in {self._folder}, broke off: {str(error) or type(error).__name__}"
            ) from None
        finally:
            connection.close()

    def _connected(self) -> socket.socket:
        folder = self._folder
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(self._timeout)
        try:
            with short_path(folder) as path:
                connected.connect(path)
        except OSError as error:
            connected.close()
            raise self._unreachable(error) from None
        return connected

    def _unreachable(self, error: OSError) -> ControlError:
        folder = self._folder
        if isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionRefusedError):
            if not folder.is_dir():
                return NotRunningError(f"no cubehook is running here: there is no state folder {folder}")
            return NotRunningError(
                f"no cubehook is running with the state folder {folder}: nothing listens on its {NAME}"
            )
        if isinstance(error, PermissionError):
            return ControlError(
                f"this user may not open {folder / NAME}: run the command as the service's user"
            )
        return ControlError(f"{folder / NAME} cannot be opened: {error.strerror or error}")


class _UnixConnection(http.client.HTTPConnection):
    """A connection whose socket is connected already."""

    def connect(self) -> None:
        raise ConnectionError("the service closed the connection")


def _result(status: int, body: bytes) -> Any:
    try:
        if status < 400:
            return msgspec.json.decode(body) if body else None
        error = msgspec.json.decode(body, type=_Refusal).error
    except msgspec.MsgspecError:
        raise ControlError(f"the service gave an answer of a kind unknown here (status {status})") from None
    raise RefusedError(status, error.code, error.message, error.fields)
