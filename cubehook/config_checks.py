"""
What is wrong with settings although each field is right by itself: of a file, and of what is made later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect

from cubehook.config import Config, Cube, Listen, Manhole, Webhook
from cubehook.config_rules import is_local, is_tls
from cubehook.config_words import Problem, hint, in_line, inside, key_path, presented, shown
from cubehook.delivery.signing import decode_secret
from cubehook.delivery.templates import KEYS as PAYLOAD_KEYS
from cubehook.delivery.templates import mistakes as payload_mistakes

WebhookCheck: TypeAlias = Callable[[Webhook], Iterable[tuple[str, str]]]
"""What is wrong with a webhook in its transport's eyes: (key, what was expected) pairs."""


def cube_problems(cube: Cube, others: Iterable[Cube]) -> dict[str, str]:
    """What `cube` has that goes not with the others: what was expected and found, by its key."""
    problems: list[Problem] = []
    table = {"cubes": {cube.id: msgspec.to_builtins(cube)}}
    Checks(problems, table).cubes([*others, cube])
    return _told(problems, f"cubes.{cube.id}.")


def webhook_problems(webhook: Webhook, cubes: Collection[str], check_webhook: WebhookCheck) -> dict[str, str]:
    """
    What `webhook` has that does not fit together: what was expected and found, by its key.

    Its `cubes` must be among `cubes`; `check_webhook` judges what belongs to its transport.
    """
    problems: list[Problem] = []
    settings: dict[str, Any] = msgspec.to_builtins(webhook)
    table = {"webhooks": {webhook.id: settings}, "cubes": dict.fromkeys((*cubes, *webhook.cubes))}
    for number, cube in enumerate(webhook.cubes):
        if cube not in cubes:
            expected = "the id of a cube" + hint(cube, cubes)
            problems.append(Problem(f"webhooks.{webhook.id}.cubes[{number}]", expected, "another name"))
    Checks(problems, table).webhook(webhook, check_webhook)
    return _told(problems, f"webhooks.{webhook.id}.")


def _told(problems: Iterable[Problem], prefix: str) -> dict[str, str]:
    told: dict[str, str] = {}
    for problem in problems:
        words = f"expected {problem.expected}; found {problem.found}"
        key = problem.key.removeprefix(prefix)
        told[key] = f"{told[key]}; {words}" if key in told else words
    return told


class Checks:
    """Notes what is wrong although each field is right by itself."""

    def __init__(self, problems: list[Problem], table: dict[str, Any]) -> None:
        self._problems = problems
        self._table = table

    def config(self, config: Config, check_webhook: WebhookCheck) -> None:
        """Note everything that is wrong with `config`, whose broken fields have their defaults."""
        self._listen(config.listen)
        self.cubes(config.cubes)
        for webhook in config.webhooks:
            self.webhook(webhook, check_webhook)
        self._manhole(config.manhole)

    def _note(self, expected: str, *path: str | int, found: str | None = None) -> None:
        # What is wrong with a broken field was said already; its default is no news.
        key = key_path(path)
        if not self._is_noted(key):
            self._problems.append(Problem(key, expected, self._found(path) if found is None else found))

    def _is_noted(self, key: str) -> bool:
        inside = (f"{key}.", f"{key}[")
        return any(problem.key == key or problem.key.startswith(inside) for problem in self._problems)

    def _found(self, path: Sequence[str | int]) -> str:
        found: Any = self._table
        kind: Any = inspect.type_info(Config)
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return "nothing"
            kind = inside(kind, step)
        return presented(kind, found)

    def _listen(self, listen: Listen) -> None:
        taken: dict[str, str] = {}
        for name in ("cubes", "console"):
            endpoints = getattr(listen, name)
            if any(problem.key.startswith(f"listen.{name}") for problem in self._problems):
                # A broken list has the default, which nobody asked for; what was written can be compared.
                written = self._table["listen"].get(name)
                endpoints = map(str, written) if isinstance(written, list) else ()
            for number, endpoint in enumerate(endpoints):
                path = ("listen", name, number)
                other = taken.setdefault(endpoint, key_path(path))
                if other != key_path(path):
                    self._note("an endpoint of its own", *path, found=f"that of {other}")
                self._tls_files(endpoint, path)
        if listen.client_ca is not None:
            self._client_ca(listen)

    def _tls_files(self, endpoint: str, path: tuple[str, str, int]) -> None:
        if not is_tls(endpoint) or self._is_noted(key_path(path)):
            return
        from cubehook.net.server_tls import problem

        wrong = problem(endpoint)
        if wrong is not None:
            self._note("a certificate and its key in PEM files", *path, found=in_line(wrong))

    def _client_ca(self, listen: Listen) -> None:
        from cubehook.net.certificates import TlsFileError, read_certificates

        if not any(map(is_tls, listen.cubes)):
            self._note("an endpoint with privateKey in listen.cubes, to be for", "listen", "client_ca")
            return
        try:
            read_certificates("", listen.client_ca)  # type: ignore[arg-type]
        except TlsFileError as error:
            found = str(error).removeprefix(": ")
            self._note("authorities in a PEM file", "listen", "client_ca", found=in_line(found))

    def cubes(self, cubes: Sequence[Cube]) -> None:
        """Note which of `cubes` cannot be there beside those before it."""
        taken: dict[str, str] = {}
        for cube in cubes:
            other = taken.setdefault(cube.application_url, cube.id)
            if other != cube.id:
                self._note(
                    "a URL of its own",
                    *("cubes", cube.id, "application_url"),
                    found=f"that of {key_path(('cubes', other))}",
                )
            self._secure_mode(cube)

    def _secure_mode(self, cube: Cube) -> None:
        path = ("cubes", cube.id)
        given = [name for name in ("pins", "ca_file", "client_certificate") if getattr(cube, name)]
        if cube.tls_minimum != "1.2":
            given.append("tls_minimum")
        if given and not cube.provider_url.startswith("https://"):
            self._note(f"an https:// URL, as {given[0]} is set", *path, "provider_url")
        if cube.client_key is not None and cube.client_certificate is None:
            self._note("the certificate that client_key belongs to", *path, "client_certificate")
        if cube.pins and cube.ca_file is not None:
            self._note("no file, as pins decide alone", *path, "ca_file")

    def webhook(self, webhook: Webhook, check_webhook: WebhookCheck) -> None:
        """Note everything that is wrong with `webhook`."""
        path = ("webhooks", webhook.id)
        known = self._table.get("cubes", {})
        for number, cube in enumerate(webhook.cubes):
            if isinstance(known, dict) and cube not in known:
                expected = "the id of a cube in this file" + hint(cube, known)
                self._note(expected, *path, "cubes", number)
        names: dict[str, str] = {}
        for name in webhook.headers:
            other = names.setdefault(name.lower(), name)
            if other != name:
                self._note("each header once", *path, "headers", name, found=f"{other} as well")
        if webhook.secret is not None:
            try:
                decode_secret(webhook.secret)
            except ValueError as error:
                found = f"a text that is not shown: {error}"
                self._note("whsec_ and the base64 of 24 to 64 bytes", *path, "secret", found=found)
        self._payload(webhook, path)
        for key, expected in check_webhook(webhook):
            self._note(in_line(expected), *path, *key.split(".", 1))

    def _payload(self, webhook: Webhook, path: tuple[str, str]) -> None:
        if any(self._is_noted(key_path((*path, key))) for key in PAYLOAD_KEYS):
            return
        for key, expected, line in payload_mistakes(webhook):
            # There may be several in one template.
            found = self._found((*path, key)) if line is None else self._line((*path, key), line)
            self._problems.append(Problem(key_path((*path, key)), in_line(expected), found))

    def _line(self, path: Sequence[str], number: int) -> str:
        """Line `number` of a text as it is in the file, its variables not filled in."""
        text: Any = self._table
        for step in path:
            text = text[step]
        lines = text.split("\n")
        return shown(lines[number - 1].strip()) if number <= len(lines) else "another text"

    def _manhole(self, manhole: Manhole) -> None:
        if manhole.ssh is not None and manhole.authorized_keys is None:
            self._note("a file of public keys, as manhole.ssh is open", "manhole", "authorized_keys")
        if manhole.telnet is not None and manhole.password_file is None:
            self._note("a file of user:hash lines, as manhole.telnet is open", "manhole", "password_file")
        if manhole.telnet is not None and not is_local(manhole.telnet):
            self._note("a loopback interface or a unix: socket, as telnet is clear text", "manhole", "telnet")
        for name in ("authorized_keys", "password_file"):
            path = getattr(manhole, name)
            if path is not None and not path.is_file():
                self._note("a file that exists", "manhole", name)
