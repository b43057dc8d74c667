"""
The `cubehook` command.

Exit status: 0 done, 1 failed, 2 wrong usage.  Errors go to standard error.  Each command
imports what it needs only when it runs: `--help` and `--version` stay quick.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cubehook

if TYPE_CHECKING:
    from msgspec.inspect import Field

    from cubehook.config import Config
    from cubehook.interfaces import ITransportPlugin


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (the process's arguments if None) names; its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = _parser().parse_args(arguments[:1]).command
    run, _ = _COMMANDS[command]
    try:
        status = run(arguments[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter's own flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, _COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="cubehook",
        usage="cubehook [--help] [--version] COMMAND ...",
        description="Call events of Cisco CUBE gateways, as webhooks.",
        epilog=f"commands:\n{commands}\n\n"
        "`cubehook COMMAND --help` tells more.  The service itself is started by `twistd -n cubehook`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cubehook {cubehook.__version__}")
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _check(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="cubehook check",
        description="Validate a configuration file and print what it would run.  Nothing is opened or sent.",
    )
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="by default ./cubehook.toml, else /etc/cubehook/cubehook.toml",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, errors included")
    parser.add_argument(
        "--render", metavar="WEBHOOK", help="print what this webhook would be sent of sample events"
    )
    arguments = parser.parse_args(argv)

    from cubehook import config_reader

    path = arguments.file or config_reader.find()
    if path is None:
        places = " nor ".join(str(place) for place in config_reader.PLACES)
        parser.error(f"name a file: there is neither {places}")
    try:
        config = config_reader.load(path)
    except config_reader.ConfigErrors as errors:
        if arguments.json:
            problems = [
                {"key": problem.key, "expected": problem.expected, "found": problem.found}
                for problem in errors.problems
            ]
            _print_json({"file": str(path), "valid": False, "errors": problems})
        print(errors, file=sys.stderr)
        return 1
    if arguments.render is not None:
        return _render(config, arguments.render, as_json=arguments.json)
    if arguments.json:
        _print_json({"file": str(path), "valid": True, "runs": _plan(config)})
    else:
        print(f"{path} is valid.\n\n{_plan_text(config)}")
    return 0


def _render(config: Config, name: str, *, as_json: bool) -> int:
    from cubehook.delivery.payload import preview

    webhook = next((each for each in config.webhooks if each.id == name), None)
    if webhook is None:
        print(f"cubehook check: there is no webhook {name!r} in this file", file=sys.stderr)
        return 1
    bodies = preview(webhook)
    if as_json:
        _print_json([{"event": event, "body": body} for event, body in bodies])
    else:
        print("\n\n".join(f"{event}\n{body}" for event, body in bodies))
    return 0


def _plan(config: Config) -> dict[str, Any]:
    """What a service with this configuration would run, without anything secret."""
    from cubehook.config_rules import shown_url

    return {
        "state_dir": str(config.state_dir),
        "database": config.database,
        "listen": {"cubes": config.listen.cubes, "console": config.listen.console},
        "manhole": {"ssh": config.manhole.ssh, "telnet": config.manhole.telnet},
        "cubes": [
            {
                "id": cube.id,
                "enabled": cube.enabled,
                "provider_url": cube.provider_url,
                "application_url": cube.application_url,
                "allow_from": cube.allow_from,
            }
            for cube in config.cubes
        ],
        "webhooks": [
            {
                "id": webhook.id,
                "enabled": webhook.enabled,
                "transport": webhook.transport,
                "url": shown_url(webhook.url),
                "states": webhook.states,
                "cubes": webhook.cubes,
                "payload": webhook.payload,
                "granularity": webhook.granularity,
            }
            for webhook in config.webhooks
        ],
        "retention_seconds": {
            "calls": config.retention.calls,
            "deliveries": config.retention.deliveries,
        },
    }


def _plan_text(config: Config) -> str:
    plan = _plan(config)
    listen, manhole = plan["listen"], plan["manhole"]
    rows = [
        ("state", plan["state_dir"]),
        ("database", plan["database"]),
        *(("gateways", endpoint) for endpoint in listen["cubes"]),
        *(("console", endpoint) for endpoint in listen["console"] or ["closed"]),
        *((f"manhole {door}", endpoint) for door, endpoint in manhole.items() if endpoint),
    ]
    for cube in plan["cubes"]:
        off = "" if cube["enabled"] else "  (disabled)"
        rows.append((f"cube {cube['id']}", f"{cube['provider_url']} -> {cube['application_url']}{off}"))
    for webhook in plan["webhooks"]:
        off = "" if webhook["enabled"] else "  (disabled)"
        receiver = f"{webhook['transport']} {webhook['url']}".rstrip()
        what = f"{', '.join(webhook['states'])} of {', '.join(webhook['cubes']) or 'every cube'}"
        rows.append((f"webhook {webhook['id']}", f"{receiver}: {what}{off}"))
    if not plan["cubes"]:
        rows.append(("cubes", "none in this file"))
    if not plan["webhooks"]:
        rows.append(("webhooks", "none in this file"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows)


def _transports(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="cubehook transports",
        description="List the transports that are installed, with the options a webhook may give them.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with a JSON Schema of the options")
    arguments = parser.parse_args(argv)

    from cubehook.transports.registry import find_transports

    plugins, problems = find_transports()
    found = [plugins[name] for name in sorted(plugins)]
    if arguments.json:
        _print_json([_transport(plugin) for plugin in found])
    else:
        print("\n\n".join(_transport_text(plugin) for plugin in found))
    for problem in problems:
        print(f"cubehook transports: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _transport(plugin: ITransportPlugin) -> dict[str, Any]:
    from cubehook.schemas import schema

    return {
        "name": plugin.name,
        "description": plugin.description,
        "options": schema(plugin.options),
    }


def _transport_text(plugin: ITransportPlugin) -> str:
    import inspect

    from msgspec.inspect import StructType, type_info

    from cubehook.config_words import described

    lines = [f"{plugin.name}: {plugin.description}"]
    about = inspect.getdoc(plugin.options)
    lines += [f"    {line}".rstrip() for line in about.splitlines()] if about else []
    options = type_info(plugin.options)
    if isinstance(options, StructType) and options.fields:
        lines += ["", "    options:"]
        for field in options.fields:
            lines.append(f"      {field.encode_name}: {described(field.type)}, {_default_text(field)}")
            schema = getattr(field.type, "extra_json_schema", None) or {}
            lines += [f"          {line}" for line in schema.get("description", "").splitlines()]
    return "\n".join(lines)


def _default_text(field: Field) -> str:
    import msgspec

    if field.required:
        return "required"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if default is None:
        return "optional"
    return f"by default {msgspec.json.encode(default, enc_hook=str).decode()}"


def _simulate(argv: Sequence[str]) -> int:
    from cubehook.simulator.commands import simulate

    return simulate(argv)


def _sink(argv: Sequence[str]) -> int:
    from cubehook.simulator.commands import sink

    return sink(argv)


def _pin(argv: Sequence[str]) -> int:
    from cubehook.commands.pin import pin

    return pin(argv)


def _backup(argv: Sequence[str]) -> int:
    from cubehook.commands.backup import backup

    return backup(argv)


def _restore(argv: Sequence[str]) -> int:
    from cubehook.commands.backup import restore

    return restore(argv)


def _redeliver(argv: Sequence[str]) -> int:
    from cubehook.commands.redeliver import redeliver

    return redeliver(argv)


def _reload(argv: Sequence[str]) -> int:
    from cubehook.commands.reload import reload

    return reload(argv)


def _rotate_secret(argv: Sequence[str]) -> int:
    from cubehook.commands.rotate_secret import rotate_secret

    return rotate_secret(argv)


def _doctor(argv: Sequence[str]) -> int:
    from cubehook.commands.doctor import doctor

    return doctor(argv)


def _ios(argv: Sequence[str]) -> int:
    from cubehook.commands.ios import ios

    return ios(argv)


def _manhole_password(argv: Sequence[str]) -> int:
    from cubehook.commands.manhole_password import manhole_password

    return manhole_password(argv)


def _token(argv: Sequence[str]) -> int:
    from cubehook.commands.token import token

    return token(argv)


def _enable(argv: Sequence[str]) -> int:
    from cubehook.commands.enable import enable

    return enable(argv)


def _tail(argv: Sequence[str]) -> int:
    from cubehook.commands.tail import tail

    return tail(argv)


def _trace(argv: Sequence[str]) -> int:
    from cubehook.commands.trace import trace

    return trace(argv)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "backup": (_backup, "write the state folder to a file, also while the service runs"),
    "check": (_check, "validate a configuration file and print what it would run"),
    "doctor": (_doctor, "find out what is wrong, also with a router's output pasted"),
    "enable": (_enable, "send again to a webhook that was disabled while it was in use"),
    "ios": (_ios, "print the IOS configuration to paste on a cube's router"),
    "manhole-password": (_manhole_password, "make a password for the manhole's telnet door"),
    "pin": (_pin, "show the certificate of a cube's router, and the setting that pins it"),
    "redeliver": (_redeliver, "send again what was delivered or given up"),
    "reload": (_reload, "let the running service read its configuration again"),
    "restore": (_restore, "put a backup back"),
    "rotate-secret": (_rotate_secret, "give a webhook a new signing secret"),
    "simulate": (_simulate, "play a gateway: register, probe and place calls"),
    "sink": (_sink, "receive webhooks, verify their signatures and show them"),
    "tail": (_tail, "show events as they happen"),
    "token": (_token, "list, make and remove tokens for the REST API and the console"),
    "trace": (_trace, "write down what a gateway says and is told, for some minutes"),
    "transports": (_transports, "list the transports that are installed, with their options"),
}
