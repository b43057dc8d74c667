"""The configuration: what is read, what is refused and in which words."""

from __future__ import annotations

import base64
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect
from twisted.trial.unittest import SynchronousTestCase

from cubehook import config_reader
from cubehook.config import Config, Cube, Egress, Webhook
from cubehook.config_checks import WebhookCheck
from cubehook.config_reader import ConfigErrors, defaults, read, state_dir
from cubehook.config_rules import (
    duration,
    endpoint_in,
    endpoint_parts,
    is_local,
    is_tls,
    shown_url,
    without_tls,
)
from cubehook.config_words import Problem
from cubehook.simulator.tls import own_identity, pem_of

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "etc" / "cubehook.toml"

CUBE = """
[cubes.hq]
provider_url = "http://192.0.2.1:8090/cisco_xcc"
application_url = "http://192.0.2.20:8090/xcc/hq"
"""
WEBHOOK = """
[webhooks.crm]
url = "https://api.example.com/calls"
"""


def content(webhook: Webhook) -> Iterable[tuple[str, str]]:
    return []


def decoded(kind: type, found: Any) -> Any:
    return Path(found) if kind is Path else found


def converted(struct: msgspec.Struct) -> msgspec.Struct:
    """`struct` as msgspec makes it from its own parts: ValidationError if a type or bound is not kept."""
    parts = msgspec.to_builtins(struct, enc_hook=str)
    return msgspec.convert(parts, type(struct), dec_hook=decoded)


class ConfigTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "cubehook.toml"

    def read(
        self,
        text: str,
        environ: Mapping[str, str] | None = None,
        check_webhook: WebhookCheck = content,
    ) -> Config:
        self.path.write_text(text, "utf-8")
        return read(self.path, check_webhook, environ or {})

    def errors(
        self,
        text: str,
        environ: Mapping[str, str] | None = None,
        check_webhook: WebhookCheck = content,
    ) -> ConfigErrors:
        return self.assertRaises(ConfigErrors, self.read, text, environ, check_webhook)  # type: ignore[no-any-return]

    def problems(self, text: str, **arguments: Any) -> dict[str, Problem]:
        """What is wrong, by key; each key once."""
        problems = self.errors(text, **arguments).problems
        by_key = {problem.key: problem for problem in problems}
        self.assertEqual(len(by_key), len(problems), problems)
        return by_key

    def problem(self, text: str, key: str, **arguments: Any) -> Problem:
        """The only thing that is wrong."""
        problems = self.problems(text, **arguments)
        self.assertEqual(list(problems), [key])
        return problems[key]


class Reading(ConfigTestCase):
    def test_an_empty_file_is_the_defaults(self) -> None:
        config = self.read("")
        self.assertEqual(config, msgspec.structs.replace(defaults(self.folder), source=self.path))
        self.assertEqual(config.state_dir, self.folder / "var")

    def test_every_kind_of_value(self) -> None:
        (self.folder / "operators.keys").touch()
        config = self.read(
            """
            state_dir = "/srv/cubehook"
            [listen]
            cubes = ["tcp:8090", "tcp6:8091"]
            console = []
            [log]
            level = "warn"
            levels = { "cubehook.xcc" = "debug" }
            format = "json"
            rotate_bytes = 20_000
            [cubes.hq]
            provider_url = "https://192.0.2.1/cisco_xcc"
            application_url = "http://192.0.2.20:8090/any/path/?x=1"
            default_region = "US"
            allow_from = ["192.0.2.0/24", "2001:db8::1"]
            pins = [
              "sha256 Fingerprint=abababababababababababababababababababababababababababababababab",
              "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
            ]
            client_certificate = "us.pem"
            client_key = "us.key"
            tls_minimum = "1.1"
            [webhooks.crm]
            name = "CRM"
            url = "https://api.example.com/calls"
            states = ["CONNECTED"]
            cubes = ["hq"]
            headers = { X-Key = "v" }
            payload = "full"
            granularity = "connection"
            options = { deep = [{ a = 1 }] }
            timeout = 3
            retry = []
            [delivery]
            retry = [1, 2.5]
            [manhole]
            ssh = "tcp:2222:interface=127.0.0.1"
            authorized_keys = "operators.keys"
            [retention]
            calls = "45s"
            """
        )
        self.assertEqual(config.state_dir, Path("/srv/cubehook"))
        self.assertEqual(config.listen.cubes, ("tcp:8090", "tcp6:8091"))
        self.assertEqual(config.listen.console, ())
        self.assertEqual(config.log.levels, {"cubehook.xcc": "debug"})
        self.assertEqual(config.log.rotate_bytes, 20_000)
        self.assertEqual(
            config.cubes,
            (
                Cube(
                    id="hq",
                    provider_url="https://192.0.2.1/cisco_xcc",
                    application_url="http://192.0.2.20:8090/any/path/?x=1",
                    default_region="US",
                    allow_from=("192.0.2.0/24", "2001:db8::1"),
                    pins=(":".join(["AB"] * 32), "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
                    client_certificate="us.pem",
                    client_key="us.key",
                    tls_minimum="1.1",
                ),
            ),
        )
        (webhook,) = config.webhooks
        # The structs take what they are given; that the values have the types they promise is ours.
        self.assertEqual(converted(webhook), webhook)
        self.assertEqual(webhook.options, {"deep": [{"a": 1}]})
        self.assertIsInstance(webhook.timeout, float)
        self.assertEqual(webhook.retry, ())
        self.assertEqual(config.delivery.retry, (1.0, 2.5))
        self.assertEqual(config.manhole.authorized_keys, self.folder / "operators.keys")
        self.assertEqual(config.retention.calls, 45)
        self.assertEqual(config.source, self.path)

    def test_paths_start_from_the_files_folder(self) -> None:
        self.assertEqual(self.read('state_dir = "../other"').state_dir, self.folder / "../other")

    def test_find_takes_the_first_that_exists(self) -> None:
        missing = self.folder / "missing"
        self.path.touch()
        self.patch(config_reader, "PLACES", (missing, self.path, EXAMPLE))
        self.assertEqual(config_reader.find(), self.path)
        self.patch(config_reader, "PLACES", (missing,))
        self.assertIsNone(config_reader.find())

    def test_a_place_that_may_not_be_looked_at_is_not_passed_over(self) -> None:
        closed = mock.Mock(spec=Path)
        closed.exists.side_effect = PermissionError
        self.patch(config_reader, "PLACES", (closed, EXAMPLE))
        self.assertIs(config_reader.find(), closed)


class StateFolder(ConfigTestCase):
    """Where a command finds the running service."""

    def folder_of(self, text: str, **environ: str) -> Path:
        self.path.write_text(text, "utf-8")
        return state_dir(self.path, environ)

    def test_as_the_service_reads_it(self) -> None:
        self.assertEqual(self.folder_of(""), self.read("").state_dir)
        self.assertEqual(self.folder_of('state_dir = "${D}/x"', D="/srv"), Path("/srv/x"))
        self.assertEqual(self.folder_of('state_dir = "here"'), self.folder / "here")

    def test_nothing_else_need_be_right(self) -> None:
        text = 'state_dir = "/srv"\ncolour = 1\n[webhooks.crm]\nheaders = { a = "${CRM_TOKEN}" }'
        self.assertEqual(self.folder_of(text), Path("/srv"))

    def test_where_it_cannot_be_told(self) -> None:
        for text in ("state_dir = 5", 'state_dir = ""', 'state_dir = "${D}/x"', "state_dir ="):
            self.assertRaises(ConfigErrors, self.folder_of, text)
        self.assertRaises(ConfigErrors, state_dir, self.folder / "none", {})


class Environment(ConfigTestCase):
    def test_variables_are_filled_in_anywhere(self) -> None:
        config = self.read(
            CUBE.replace("192.0.2.20:8090", "${HOST}:${PORT}")
            + WEBHOOK
            + 'headers = { Authorization = "Bearer ${TOKEN}" }\n'
            'options = { a = ["${TOKEN}", 1, { b = "${TOKEN}" }] }',
            {"HOST": "198.51.100.7", "PORT": "81", "TOKEN": "t${PORT}"},
        )
        self.assertEqual(config.cubes[0].application_url, "http://198.51.100.7:81/xcc/hq")
        # A value is not looked into again.
        self.assertEqual(config.webhooks[0].headers, {"Authorization": "Bearer t${PORT}"})
        self.assertEqual(config.webhooks[0].options, {"a": ["t${PORT}", 1, {"b": "t${PORT}"}]})

    def test_escapes(self) -> None:
        config = self.read(WEBHOOK + 'description = "$${A} $A $ $$ ${A}"', {"A": "x"})
        self.assertEqual(config.webhooks[0].description, "${A} $A $ $$ x")

    def test_a_missing_variable_is_named(self) -> None:
        problems = self.errors(WEBHOOK + 'options = { a = ["x", "${A}${B}"] }').problems
        self.assertEqual([problem.key for problem in problems], ["webhooks.crm.options.a[1]"] * 2)
        self.assertIn("variable A", problems[0].expected)
        self.assertIn("variable B", problems[1].expected)

    def test_a_variable_that_is_no_text(self) -> None:
        text = CUBE + 'description = "${WHO}"'
        problem = self.problem(text, "cubes.hq.description", environ={"WHO": os.fsdecode(b"a\xff")})
        self.assertEqual(problem.expected, "text in UTF-8 in the environment variable WHO")

    def test_an_ill_formed_variable(self) -> None:
        for text in ("${", "${A", "${}", "${A B}", "${1}"):
            problem = self.problem(WEBHOOK + f'name = "{text}"', "webhooks.crm.name", environ={"A": "x"})
            self.assertIn("${NAME}", problem.expected)

    def test_a_variables_value_must_fit_as_well(self) -> None:
        problem = self.problem(
            WEBHOOK + 'headers = { X = "${TOKEN}" }', "webhooks.crm.headers.X", environ={"TOKEN": "abc\n"}
        )
        self.assertIn("line break", problem.found)


class Refusals(ConfigTestCase):
    def refused(self, text: str, key: str, expected: str, found: str) -> None:
        problem = self.problem(text, key)
        self.assertIn(expected, problem.expected)
        self.assertIn(found, problem.found)

    def test_a_file_that_cannot_be_read(self) -> None:
        error = self.assertRaises(ConfigErrors, read, self.folder / "none", content, {})
        self.assertIn("No such file", str(error))
        error = self.assertRaises(ConfigErrors, read, self.folder, content, {})
        self.assertIn("expected a file that can be read", str(error))

    def test_not_utf8(self) -> None:
        self.path.write_bytes(b"# a\n# \xff\n")
        error = self.assertRaises(ConfigErrors, read, self.path, content, {})
        self.assertIn("line 2", str(error))

    def test_toml_errors_name_the_line(self) -> None:
        self.assertIn("line 3", str(self.errors('a = "x"\n\nb = [1 2]\n')))

    def test_toml_that_breaks_the_parser(self) -> None:
        self.assertIn("nested too deeply", str(self.errors("a = " + "[" * 100_000)))
        self.assertIn("expected TOML", str(self.errors("a = " + "9" * 5_000)))

    def test_every_error_at_once(self) -> None:
        problems = self.problems(
            """
            state_dri = "x"
            database = "mysql"
            [log]
            level = "loud"
            keep = 0
            [cubes.hq]
            provider_url = "ftp://192.0.2.1"
            allow_from = ["x", "192.0.2.0/24", 5]
            [cubes.b]
            provider_url = "http://192.0.2.2/"
            application_url = "http://192.0.2.20/x"
            [webhooks.crm]
            cubes = ["hq", "branch"]
            states = ["RINGING", "CONNECTED"]
            secret = "whsec_short"
            """
        )
        self.assertEqual(
            list(problems),
            [
                "state_dri",
                "database",
                "log.level",
                "log.keep",
                "cubes.hq.provider_url",
                "cubes.hq.application_url",
                "cubes.hq.allow_from[0]",
                "cubes.hq.allow_from[2]",
                "webhooks.crm.states[0]",
                "webhooks.crm.cubes[1]",
                "webhooks.crm.secret",
            ],
        )

    def test_the_words(self) -> None:
        errors = self.errors('state_dri = "x"\n[log]\nkeep = 0')
        self.assertEqual(
            str(errors),
            f"{self.path}: 2 errors\n"
            "  state_dri: expected a known key, perhaps state_dir; found an unknown one\n"
            "  log.keep: expected a whole number from 1 to 1000; found 0",
        )

    def test_unknown_keys(self) -> None:
        self.refused(WEBHOOK + "sttaes = []", "webhooks.crm.sttaes", "perhaps states", "unknown")
        self.refused("[webhook.crm]", "webhook", "perhaps webhooks", "unknown")
        self.refused("[retention]\nxyz = 1", "retention.xyz", "(calls, deliveries)", "unknown")
        self.refused(CUBE + 'id = "x"', "cubes.hq.id", "a known key", "unknown")
        self.refused('source = "x"', "source", "a known key", "unknown")

    def test_wrong_types(self) -> None:
        self.refused("listen = 5", "listen", "a table", "a number")
        self.refused("cubes = []", "cubes", "[cubes.name]", "a list")
        self.refused("[cubes]\nhq = 5", "cubes.hq", "a table", "a number")
        self.refused("[log]\nlevels = 'x'", "log.levels", "a table", "a text")
        self.refused("[log]\nkeep = true", "log.keep", "a whole number", "true")
        self.refused("[log]\nkeep = 1.5", "log.keep", "a whole number", "1.5")
        self.refused("[log]\nkeep = 1979-05-27", "log.keep", "a whole number", "a date or time")
        self.refused("[log]\nformat = []", "log.format", '"text"', "a list")
        self.refused("state_dir = 1", "state_dir", "a path", "1")
        self.refused('state_dir = ""', "state_dir", "a path", '""')
        self.refused("[delivery]\ntimeout = true", "delivery.timeout", "a number", "true")
        self.refused(WEBHOOK + 'enabled = "yes"', "webhooks.crm.enabled", "true or false", '"yes"')
        self.refused(WEBHOOK + 'cubes = "hq"', "webhooks.crm.cubes", "a list, each a text", "a text")
        self.refused(WEBHOOK + "states = []", "webhooks.crm.states", "at least 1", "an empty list")
        self.refused("[listen]\ncubes = []", "listen.cubes", "at least 1", "an empty list")

    def test_ranges(self) -> None:
        for value in ("0", "-1", "601", "nan", "inf", "1" * 400):
            self.refused(
                f"[delivery]\ntimeout = {value}", "delivery.timeout", "above 0 up to 600", value[:80]
            )
        self.refused("[delivery]\nretry = [1, -1]", "delivery.retry[1]", "from 0", "-1")
        self.refused("[delivery]\njitter = 1.1", "delivery.jitter", "from 0 to 1", "1.1")
        self.refused("[delivery]\nconcurrency = 0", "delivery.concurrency", "from 1", "0")
        self.refused("[log]\nrotate_bytes = 9", "log.rotate_bytes", "at least 10000", "9")

    def test_ids(self) -> None:
        for name in ("HQ", '"../x"', '"h q"', '""', "-a", "_a", '"hq\\n"', "a" * 65, '"é"'):
            text = CUBE.replace("cubes.hq", f"cubes.{name}")
            (problem,) = self.problems(text).values()
            self.assertIn("small letters", problem.expected)
        for name in ("0", "a-b_c", "a" * 64):
            self.assertEqual(self.read(CUBE.replace("cubes.hq", f"cubes.{name}")).cubes[0].id, name)

    def test_secure_mode_of_cubes(self) -> None:
        secure = (
            '[cubes.hq]\nprovider_url = "https://192.0.2.1/x"\napplication_url = "https://192.0.2.20/x"\n'
        )
        digest = "ab" * 32
        for text in (digest, digest.upper(), f"SHA256:{digest}", f"sha256 Fingerprint={digest}"):
            (cube,) = self.read(f'{secure}pins = ["{text}"]').cubes
            self.assertEqual(cube.pins, (":".join(["AB"] * 32),))
        for text in (
            "",
            "ab",
            digest + "ab",
            "sha1:" + digest,
            "sha256//" + "A" * 43,
            "sha256//" + "A" * 42 + "B=",
        ):
            self.refused(f'{secure}pins = ["{text}"]', "cubes.hq.pins[0]", "SHA-256 fingerprint", "neither")
        self.refused(f'{secure}tls_minimum = "1.4"', "cubes.hq.tls_minimum", "one of", "1.4")
        self.refused(f'{secure}ca_file = ""', "cubes.hq.ca_file", "characters", "")
        self.refused(
            f'{secure}client_key = "k"', "cubes.hq.client_certificate", "client_key belongs to", "nothing"
        )
        self.refused(f'{secure}ca_file = "a"\npins = ["{digest}"]', "cubes.hq.ca_file", "pins decide", '"a"')
        # What is meant to protect must not be without effect.
        plain = secure.replace("https://192.0.2.1", "http://192.0.2.1")
        for setting in (
            f'pins = ["{digest}"]',
            'ca_file = "a"',
            'client_certificate = "a"',
            'tls_minimum = "1.3"',
        ):
            key = setting.partition(" ")[0]
            self.refused(plain + setting, "cubes.hq.provider_url", f"https:// URL, as {key}", "http://")

    def test_endpoints(self) -> None:
        for text, why in [
            ("tcp:http", "port"),
            ("tcp:", "port"),
            ("tcp:70000", "port"),
            ("tcp:" + "9" * 5000, "port"),
            ("tcp:-1", "port"),
            ("tcp6:x", "port"),
            ("", "Unknown endpoint type"),
            ("8090", "Unknown endpoint type"),
            ("udp:8090", "Unknown endpoint type"),
            ("tcp:8090:backlogg=5", "does not take"),
            ("unix:", "names no socket"),
            ("ssl:443", "names no privateKey"),
            ("ssl:443:privateKey=", "names no privateKey"),
            ("ssl:443:privateKey=k:certKey=", "certKey is no file"),
            ("ssl:443:privateKey=k:sslmethod=TLSv1_METHOD", "listen.tls_minimum"),
            ("ssl:443:privateKey=k:key=x", "does not take key"),
            ("ssl:443:privateKey=k:backlog=x", "backlog"),
            ("systemd:domain=INET", "index= or name="),
            ("systemd:index=0", "domain"),
            ("systemd:domain=INET:index=x", "index"),
            ("systemd:domain=INET:name=x:certKey=c", "names no privateKey"),
            ("systemd:domain=INET:name=x:privateKey=k:certKey=", "certKey is no file"),
            ("stdio:", "standard input"),
        ]:
            self.refused(f'[listen]\ncubes = ["{text}"]', "listen.cubes[0]", "endpoint string", why)
        for text in [
            "tcp:0",
            "tcp:8090:interface=127.0.0.1:backlog=5",
            "tcp:port=8090",
            "tcp6:8090:interface=\\\\:\\\\:1",
            "unix:/run/cubehook.sock:mode=660",
            "systemd:domain=INET:index=0",
            "systemd:domain=INET6:name=cubes",
            "haproxy:tcp:8090",
        ]:
            self.assertEqual(len(self.read(f'[listen]\ncubes = ["{text}"]').listen.cubes), 1)

    def test_files_of_tls(self) -> None:
        identity = own_identity(1024)
        certificate, key = pem_of(identity)
        (self.folder / "us.pem").write_bytes(certificate)
        (self.folder / "us.key").write_bytes(key)
        (self.folder / "other.key").write_bytes(pem_of(own_identity(1024))[1])
        listen = self.read(
            '[listen]\ncubes = ["ssl:8443:us.key:us.pem", "unix:run/cubes.sock:mode=660", "unix:/run/x"]\n'
            'client_ca = "us.pem"\ntls_minimum = "1.3"'
        ).listen
        self.assertEqual(
            listen.cubes,
            (
                f"ssl:port=8443:privateKey={self.folder}/us.key:certKey={self.folder}/us.pem",
                f"unix:address={self.folder}/run/cubes.sock:mode=660",
                "unix:/run/x",
            ),
        )
        self.assertEqual((listen.client_ca, listen.tls_minimum), (self.folder / "us.pem", "1.3"))
        for files, found in (
            ("privateKey=us.key", f"certKey: {self.folder}/us.key holds no certificates in PEM"),
            ("privateKey=none.key:certKey=us.pem", f"privateKey: {self.folder}/none.key cannot be read"),
            ("privateKey=other.key:certKey=us.pem", "is not the key of the certificate in"),
            ("privateKey=us.key:certKey=us.pem:extraCertChain=us.key", "extraCertChain"),
        ):
            text = f'[listen]\nconsole = ["ssl:8443:{files}"]'
            self.refused(text, "listen.console[0]", "certificate and its key", found)
        self.refused('[listen]\nclient_ca = "us.pem"', "listen.client_ca", "privateKey", "us.pem")
        self.refused(
            '[listen]\ncubes = ["ssl:8443:us.key:us.pem"]\nclient_ca = "us.key"',
            "listen.client_ca",
            "authorities",
            "holds no certificates",
        )

        handed = "systemd:domain=INET:name=x:privateKey=us.key:certKey=us.pem"
        (endpoint,) = self.read(f'[listen]\nconsole = ["{handed}"]').listen.console
        self.assertTrue(is_tls(endpoint))
        self.assertIn(f"privateKey={self.folder}/us.key", endpoint)
        self.assertEqual(without_tls(endpoint), "systemd:domain=INET:name=x")
        self.assertFalse(is_tls(without_tls(endpoint)))

    def test_files_in_a_folder_with_a_colon(self) -> None:
        text = endpoint_in("ssl:8443:privateKey=a\\:b/us.key:interface=\\:\\:1", Path("/c:d"))
        self.assertEqual(
            endpoint_parts(text),
            ("ssl", {"port": "8443", "privateKey": "/c:d/a:b/us.key", "interface": "::1"}),
        )

    def test_an_endpoint_twice(self) -> None:
        self.refused(
            '[listen]\ncubes = ["tcp:1", "tcp:2"]\nconsole = ["tcp:2"]',
            "listen.console[0]",
            "of its own",
            "listen.cubes[1]",
        )

    def test_an_endpoint_twice_beside_a_broken_one(self) -> None:
        text = '[listen]\ncubes = ["tpc:1", "tcp:8080"]\nconsole = ["tcp:8090", "tcp:8080"]'
        # tcp:8090 is the default of a list that cannot be read: it is in nobody's way.
        self.assertEqual(list(self.problems(text)), ["listen.cubes[0]", "listen.console[1]"])
        for broken, key in (("5", "listen.cubes"), ("[5]", "listen.cubes[0]"), ("[]", "listen.cubes")):
            self.problem(f'[listen]\ncubes = {broken}\nconsole = ["tcp:8090"]', key)
        self.problem('[listen]\ncubess = ["tcp:8080"]', "listen.cubess")

    def test_gateway_urls(self) -> None:
        for url, why in [
            ("192.0.2.1:8090/cisco_xcc", "http://"),
            ("http:///cisco_xcc", "no host"),
            ("http://:8090/", "no host"),
            ("http://h:99999/", "port"),
            ("http://h:0/", "port"),
            ("http://[::1/", "cannot be read"),
            ("http://u:p@h/", "user name"),
            ("http://h/#x", "#"),
            ("http://h/a b", "spaces"),
            ("http://hé/", "ASCII"),
            ("", "ASCII"),
        ]:
            text = CUBE.replace("http://192.0.2.20:8090/xcc/hq", url)
            self.refused(text, "cubes.hq.application_url", "http or https URL", why)

    def test_two_cubes_with_one_application_url(self) -> None:
        text = CUBE + CUBE.replace("cubes.hq", "cubes.b")
        self.refused(text, "cubes.b.application_url", "of its own", "cubes.hq")
        # The same path on another host is told apart by other means.
        self.read(CUBE + CUBE.replace("cubes.hq", "cubes.b").replace("192.0.2.20", "192.0.2.21"))

    def test_receiver_urls(self) -> None:
        for url in ("api.example.com", "https://", "https:///x", "https://h/a b", "https://h/\\n"):
            text = WEBHOOK.replace("https://api.example.com/calls", url)
            self.refused(text, "webhooks.crm.url", "URL", "scheme://host")
        self.read(WEBHOOK.replace("https", "amqp"))

    def test_networks(self) -> None:
        for text in ("x", "192.0.2.0/33", "192.0.2", "", "::g"):
            self.refused(f'[egress]\ndeny = ["{text}"]', "egress.deny[0]", "a network", f'"{text}"')
        self.refused(
            '[egress]\nallow = ["192.0.2.7/24"]', "egress.allow[0]", "a network", "inside 192.0.2.0/24"
        )

    def test_regions(self) -> None:
        for text in ("us", "USA", "XX", ""):
            self.refused(
                CUBE + f'default_region = "{text}"', "cubes.hq.default_region", "region", f'"{text}"'
            )

    def test_durations(self) -> None:
        for text in ("90", "90 d", "0d", "-1d", "1w", "1d2h", "", "1.5h", "٣d"):
            problem = self.problem(f'[retention]\ncalls = "{text}"', "retention.calls")
            self.assertIn('"90d"', problem.expected)
        self.assertEqual(
            [duration(text) for text in ("90d", "12h", "30m", "45s")], [7776000, 43200, 1800, 45]
        )

    def test_headers(self) -> None:
        for name in ("a b", "a:b", "", "é", "a\\n"):
            (problem,) = self.problems(WEBHOOK + f'headers = {{ "{name}" = "x" }}').values()
            self.assertIn("name of an HTTP header", problem.expected)
        for value in ("a\\nb", "a\\r", "\\u0000", "\\u007f", "€", " a", "a "):
            self.refused(
                WEBHOOK + f'headers = {{ X = "{value}" }}',
                "webhooks.crm.headers.X",
                "HTTP header",
                "not shown",
            )
        self.refused(
            WEBHOOK + 'headers = { X-A = "1", x-a = "2" }', "webhooks.crm.headers.x-a", "once", "X-A as well"
        )

    def test_unknown_cubes(self) -> None:
        self.refused(CUBE + WEBHOOK + 'cubes = ["hq", "hqq"]', "webhooks.crm.cubes[1]", "perhaps hq", '"hqq"')
        self.refused(WEBHOOK + 'cubes = ["hq"]', "webhooks.crm.cubes[0]", "the id of a cube", '"hq"')
        # A cube with errors of its own is known all the same.
        self.refused(CUBE + "x = 1\n" + WEBHOOK + 'cubes = ["hq"]', "cubes.hq.x", "known key", "unknown")
        self.refused("cubes = 5\n" + WEBHOOK + 'cubes = ["hq"]', "cubes", "a table", "a number")

    def test_secrets(self) -> None:
        def secret(length: int) -> str:
            return WEBHOOK + f'secret = "whsec_{base64.b64encode(bytes(length)).decode()}"'

        for text in (secret(23), secret(65), WEBHOOK + 'secret = "whsec_!"', WEBHOOK + 'secret = "abc"'):
            self.refused(text, "webhooks.crm.secret", "24 to 64 bytes", "not shown")
        self.read(secret(24))
        self.read(secret(64))

    def test_the_database(self) -> None:
        self.refused('database = "mysql"', "database", '"sqlite"', "not shown")
        self.refused('database = "postgresql://h/d"', "database", '"sqlite"', "SQLite only")

    def test_the_manhole(self) -> None:
        (self.folder / "f").touch()
        self.refused('[manhole]\nssh = "tcp:2222"', "manhole.authorized_keys", "public keys", "nothing")
        self.refused('[manhole]\ntelnet = "unix:/t"', "manhole.password_file", "user:hash", "nothing")
        self.refused(
            '[manhole]\nssh = "tcp:2222"\nauthorized_keys = "none"',
            "manhole.authorized_keys",
            "a file that exists",
            '"none"',
        )
        for endpoint in (
            "tcp:2323",
            "tcp:2323:interface=192.0.2.1",
            "tcp:2323:0.0.0.0",
            "tcp6:2323",
            "haproxy:tcp:1",
        ):
            self.refused(
                f'[manhole]\ntelnet = "{endpoint}"\npassword_file = "f"',
                "manhole.telnet",
                "loopback",
                endpoint,
            )
        for endpoint in (
            "tcp:2323:interface=127.1.2.3",
            "tcp:2323:127.0.0.1",
            "unix:/t",
            "tcp6:1:interface=\\\\:\\\\:1",
        ):
            self.read(f'[manhole]\ntelnet = "{endpoint}"\npassword_file = "f"')

    def test_what_the_transport_says(self) -> None:
        def check(webhook: Webhook) -> Iterable[tuple[str, str]]:
            self.assertIsInstance(webhook, Webhook)
            if not webhook.url.startswith("https"):
                yield "url", "an https URL"
            yield "options.size", "a number"

        problems = self.problems(
            WEBHOOK.replace("https", "http") + 'options = { size = "hunter2" }', check_webhook=check
        )
        self.assertEqual(
            {key: str(problem) for key, problem in problems.items()},
            {
                "webhooks.crm.url": 'webhooks.crm.url: expected an https URL; found "http://api.example.com/calls"',
                "webhooks.crm.options.size": "webhooks.crm.options.size: expected a number; found a text",
            },
        )
        # A field that is broken by itself is not blamed a second time for its default.
        problems = self.problems("[webhooks.crm]\nurl = 5", check_webhook=check)
        self.assertEqual(list(problems), ["webhooks.crm.url", "webhooks.crm.options.size"])
        self.assertEqual(problems["webhooks.crm.options.size"].found, "nothing")

    def test_no_error_repeats_a_secret(self) -> None:
        secrets = [
            'database = "postgresql://u:hunter2@h/d"',
            "[webhooks.crm]\nsecret = 'hunter2'",
            "[webhooks.crm]\nsecret = ['hunter2']",
            "[webhooks.crm]\nsercet = 'hunter2'",
            "[webhooks.crm]\nheaders = 'hunter2'",
            "[webhooks.crm]\nheaders = ['hunter2']",
            "[webhooks.crm]\nheaders = { X = 'hunter2\\u0001' }".replace("'", '"'),
            "[webhooks.crm]\nheaders = { X = ['hunter2'] }",
            "[webhooks.crm]\nurl = 'https://u:hunter2@/'",
            "[webhooks.crm]\nurl = 'https://u:hunter2@h/ ?hunter2#hunter2'",
            "[webhooks.crm]\nurl = 'u:hunter2@h'",
            "[webhooks.crm]\noptions = 'hunter2'",
            "webhooks = 'hunter2'",
            "webhooks = ['hunter2']",
            "[cubes.hq]\nprovider_url = 'http://u:hunter2@h/'\napplication_url = 'http://h/?hunter2#'",
        ]
        for text in secrets:
            for written, environ in [(text, {}), (text.replace("hunter2", "${S}"), {"S": "hunter2"})]:
                self.assertNotIn("hunter2", str(self.errors(written, environ)), written)
        # What comes from the environment is never shown, wherever it is used.
        for line in (
            '[log]\nlevel = "${S}"',
            '[listen]\ncubes = ["tcp:1", "tcp:${S}"]',
            'state_dir = "${S}\\u0000"',
        ):
            error = str(self.errors(line, {"S": "hunter2"}))
            self.assertNotIn("hunter2", error)
            self.assertIn("${S}", error)

    def test_control_characters_are_escaped(self) -> None:
        for text in (
            '"a\\u001b[31m" = 1',
            '[log]\nlevel = "\\u001b[31m"',
            '[cubes."\\n"]',
            "[log.levels]\n'\x85' = 'x'",
        ):
            error = str(self.errors(text))
            self.assertTrue(error.replace("\n  ", "").isprintable(), repr(error))


KEYS = sorted(
    {field.name for kind in (Config, Cube, Webhook) for field in msgspec.structs.fields(kind)}
    | {"hq", "crm", "cubes", "ssh", "telnet", "a b", ""}
)
SCALARS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["${A}", "${", "tcp:1", "tcp:", "a:b:c\\", "http://h/", "http://[", "whsec_", "whsec_é", "1d"]
    ),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.datetimes(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


class Templates(ConfigTestCase):
    def found(self, webhook: str, **arguments: Any) -> list[tuple[str, str, str]]:
        errors = self.errors(f'[webhooks.x]\nurl = "https://x.example/"\n{webhook}', **arguments)
        return [(problem.key, problem.expected, problem.found) for problem in errors.problems]

    def test_every_mistake_of_a_template_is_told_with_its_line(self) -> None:
        template = '{\n  "a": {{ calling_numbr }},\n  "b": {{ cube | uper }}\n}'
        self.assertEqual(
            [
                (
                    "webhooks.x.template",
                    "a known name, perhaps calling_number, and not calling_numbr (line 2)",
                    r'"\"a\": {{ calling_numbr }},"',
                ),
                (
                    "webhooks.x.template",
                    "a known filter, perhaps upper, and not uper (line 3)",
                    r'"\"b\": {{ cube | uper }}"',
                ),
            ],
            self.found(f"payload = \"template\"\ntemplate = '''\n{template}\n'''"),
        )

    def test_what_does_not_go_together(self) -> None:
        ((key, _, found),) = self.found('preset = "slack"\npayload = "full"')
        self.assertEqual(("webhooks.x.payload", '"full"'), (key, found))
        ((key, _, found),) = self.found('payload = "template"')
        self.assertEqual(("webhooks.x.template", "nothing"), (key, found))

    def test_what_follows_from_another_error_is_no_news(self) -> None:
        for text in ('payload = "template"\npreset = "slak"', 'payload = "tmplate"\npreset = "slack"'):
            self.assertEqual(1, len(self.found(text)), text)
        self.assertEqual(1, len(self.found('payload = "template"\ntemplate = "${NONE}"')))

    def test_a_secret_from_the_environment_is_not_shown(self) -> None:
        template = """payload = "template"\ntemplate = '{"token": "${TOKEN}",}'"""
        ((_, expected, found),) = self.found(template, environ={"TOKEN": "hunter2"})
        self.assertIn("no comma", expected)
        self.assertIn("${TOKEN}", found)


class Hostile(ConfigTestCase):
    @given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
    @settings(max_examples=300)
    def test_any_toml_is_read_or_refused(self, table: dict[str, Any]) -> None:
        self.patch(tomllib, "loads", lambda text: table)
        try:
            config = self.read("", {"A": "x"})
        except ConfigErrors as errors:
            self.assertTrue(str(errors).replace("\n  ", "").isprintable())
        else:
            # What is let through fits the types, the bounds included.
            self.assertEqual(converted(config), config)


class Rules(SynchronousTestCase):
    def test_endpoint_parts(self) -> None:
        self.assertEqual(endpoint_parts("tcp:80"), ("tcp", {"port": "80"}))
        self.assertEqual(
            endpoint_parts("tcp:80:::1"), ("tcp", {"port": "80", "interface": "", "backlog": ""})
        )
        self.assertEqual(
            endpoint_parts(r"TCP6:80:interface=\:\:1:"),
            ("tcp6", {"port": "80", "interface": "::1"} | {"backlog": ""}),
        )
        self.assertEqual(endpoint_parts(""), ("", {}))

    def test_only_loopback_and_unix_are_local(self) -> None:
        self.assertTrue(is_local("tcp:1:interface=localhost"))
        self.assertFalse(is_local("tcp:1:interface=localhost.example.com"))
        self.assertFalse(is_local("ssl:1:interface=127.0.0.1.example.com"))
        self.assertFalse(is_local("systemd:domain=INET:index=0"))

    def test_a_url_is_shown_without_secrets(self) -> None:
        self.assertEqual(shown_url("https://u:p@h:1/a/b?c#d"), "https://h:1/a/b")
        self.assertEqual(shown_url("https://u:p@h?c"), "https://h")
        self.assertEqual(shown_url("u:p@h"), "...")
        self.assertEqual(shown_url(""), "")


class Example(ConfigTestCase):
    """etc/cubehook.toml shows every setting with its true default."""

    SETTING = re.compile(r"^#(?=[a-z_]+ = |\[)", re.MULTILINE)

    def setUp(self) -> None:
        super().setUp()
        self.text = EXAMPLE.read_text("utf-8")
        self.uncommented = self.SETTING.sub("", self.text)

    def test_as_it_is_it_changes_nothing(self) -> None:
        config = self.read(self.text)
        self.assertEqual(config, msgspec.structs.replace(defaults(self.folder), source=self.path))

    def test_with_everything_on_it_is_valid(self) -> None:
        for name in ("operators.keys", "manhole.passwd"):
            (self.folder / name).touch()
        secret = "whsec_" + base64.b64encode(bytes(32)).decode()
        on = self.uncommented.replace('payload = "basic"', 'payload = "template"')
        on = on.replace("http://192.0.2.1:8090", "https://192.0.2.1")
        # It needs a listener with TLS, and that its files.
        on = re.sub("(?m)^client_ca = .*$", "", on)
        for one in ("template", "preset"):  # of the two
            config = self.read(re.sub(f"(?m)^{one} = .*$", "", on), {"CRM_SECRET": secret})
            self.assertEqual([cube.id for cube in config.cubes], ["hq"])
            self.assertEqual(config.webhooks[0].secret, secret)

    def test_every_setting_is_there_with_its_default(self) -> None:
        self.compare(Config, tomllib.loads(self.uncommented), "", {"source"})

    def compare(self, kind: type[msgspec.Struct], table: dict[str, Any], path: str, skip: set[str]) -> None:
        fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name not in skip}
        self.assertEqual(set(table), set(fields), path)
        for name, field in fields.items():
            key = f"{path}{name}"
            default = (
                field.default_factory()
                if field.default is msgspec.NODEFAULT and not field.required
                else field.default
            )
            if name in ("cubes", "webhooks") and path == "":
                (example,) = table[name].values()
                self.compare(Cube if name == "cubes" else Webhook, example, f"{key}.", {"id"})
            elif isinstance(default, msgspec.Struct):
                self.compare(type(default), table[name], f"{key}.", set())
            elif field.required or default is None:
                continue  # there is no default to show: an example
            elif key.startswith("retention.") or name in ("disable_after", "secret_overlap"):
                self.assertEqual(duration(table[name]), default, key)
            else:
                shown = msgspec.json.decode(msgspec.json.encode(default, enc_hook=str))
                self.assertEqual(table[name], shown, key)

    def test_every_setting_is_explained(self) -> None:
        lines = self.text.splitlines()
        for number, line in enumerate(lines):
            if re.match(r"#?([a-z_]+ = |\[)", line):
                before = lines[number - 1]
                self.assertRegex(before, r"^# |^#?[a-z_]+ = |^#?\[", line)


class TypesAreKnown(SynchronousTestCase):
    def test_the_reader_knows_every_type_of_the_structs(self) -> None:
        """A field of a kind the reader cannot read fails here, not at somebody's start."""
        known = (
            inspect.BoolType
            | inspect.IntType
            | inspect.FloatType
            | inspect.StrType
            | inspect.LiteralType
            | inspect.EnumType
        )

        def walk(kind: Any, key: str) -> None:
            match kind:
                case inspect.StructType():
                    for field in kind.fields:
                        walk(field.type, f"{key}.{field.name}")
                case inspect.Metadata():
                    walk(kind.type, key)
                case inspect.UnionType():
                    members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
                    self.assertEqual(len(members), 1, key)
                    walk(members[0], key)
                case inspect.VarTupleType():
                    walk(kind.item_type, key)
                case inspect.DictType():
                    walk(kind.value_type, key)
                case inspect.CustomType():
                    self.assertIn(kind.cls, (Path, object), key)
                case _:
                    self.assertIsInstance(kind, known, key)

        walk(inspect.type_info(Config), "")


class ReprTests(SynchronousTestCase):
    """A repr ends up in logs and tracebacks."""

    def test_no_secret_is_in_one(self) -> None:
        webhook = Webhook(
            id="crm",
            url="https://h/?token=s3cret",
            headers={"X": "s3cret"},
            secret="whsec_s3cret",
            options={"password": "s3cret"},
        )
        config = Config(
            webhooks=(webhook,), egress=Egress(proxy="http://me:s3cret@proxy:3128", deny=("192.0.2.0/24",))
        )
        for value in (config, config.egress, webhook):
            for shown in (repr(value), str(value), f"{value!r}"):
                self.assertNotIn("s3cret", shown)
        self.assertIn("crm", repr(config))
        self.assertIn("192.0.2.0/24", repr(config))
