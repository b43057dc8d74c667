"""The commands `cubehook simulate` and `cubehook sink`, each with a reactor of its own."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, TextIO

import msgspec
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from cubehook import config_rules
from cubehook.delivery.signing import decode_secret
from cubehook.net.certificates import TlsFileError
from cubehook.simulator.gateway import Observer, Settings
from cubehook.simulator.latencies import Percentiles
from cubehook.simulator.load import HAPPENINGS, Load, LoadResult, NotRegisteredError, run_load
from cubehook.simulator.observers import Recorder, Story
from cubehook.simulator.provider import Probing
from cubehook.simulator.scenarios import DEFAULT_MIX, NAMES, Traffic, parse_mix
from cubehook.simulator.sink import Behaviour, Received, Sink, Summary
from cubehook.simulator.tls import VERSIONS as TLS_VERSIONS
from cubehook.simulator.tls import Secure, read_secure
from cubehook.text import printable


def simulate(argv: Sequence[str]) -> int:
    """Run `cubehook simulate` with these arguments; the exit status."""
    parser = _simulate_parser()
    arguments = parser.parse_args(argv)
    load = _load(arguments, parser)
    try:
        record = None if arguments.record is None else arguments.record.open("ab", buffering=0)
    except OSError as error:
        return _failed("simulate", f"{arguments.record}: {error.strerror}")
    with ExitStack() as files:
        observers: list[Observer] = []
        out = _Output(sys.stdout)
        story = _Output(sys.stderr) if arguments.json else out
        if record is not None:
            observers.append(Recorder(files.enter_context(record), _wall_clock))
        if not arguments.load:
            say = _sayer(story)
            where = f"{load.gateway.listen}, path {load.gateway.path}"
            say(f"a gateway at {where} waits for an application at {load.gateway.remote_url}")
            if load.gateway.secure is not None:
                say(f"it shows a certificate with the fingerprint {load.gateway.secure.pin}")
            observers.append(Story(say))

        async def main(reactor: Any, stop: Deferred[None]) -> int:
            out.until(stop)
            story.until(stop)
            try:
                result = await run_load(reactor, load, observers, stop=stop)
            except NotRegisteredError as error:
                return _failed("simulate", str(error))
            out.line(msgspec.json.encode(result).decode() if arguments.json else _report(result))
            return int(out.gone or story.gone)

        return _run("simulate", main)


def sink(argv: Sequence[str]) -> int:
    """Run `cubehook sink` with these arguments; the exit status."""
    parser = _sink_parser()
    arguments = parser.parse_args(argv)
    if arguments.fail is None and arguments.share is not None:
        parser.error("--share says how many requests get the status of --fail: name that too")
    try:
        store = None if arguments.store is None else arguments.store.open("ab", buffering=0)
    except OSError as error:
        return _failed("sink", f"{arguments.store}: {error.strerror}")
    with ExitStack() as files:
        if store is not None:
            files.enter_context(store)

        out = _Output(sys.stdout)

        async def main(reactor: Any, stop: Deferred[None]) -> int:
            out.until(stop)
            left = arguments.count

            def received(one: Received) -> None:
                nonlocal left
                line = msgspec.json.encode(one.stored()) if store is not None or arguments.json else b""
                if store is not None:
                    store.write(line + b"\n")
                if not arguments.quiet:
                    out.line(line.decode() if arguments.json else _line(one))
                if left is not None:
                    left -= 1
                    if left == 0 and not stop.called:
                        stop.callback(None)

            # Without anybody to tell, a request costs less.
            wanted = store is not None or not arguments.quiet or left is not None
            receiver = Sink(
                reactor,
                _wall_clock,
                secrets=arguments.secret,
                behaviour=_behaviour(arguments),
                first=arguments.first,
                seconds=arguments.seconds,
                random=Random(arguments.seed),  # noqa: S311 - for play
                received=received if wanted else None,
            )
            await receiver.start(arguments.listen)
            (_Output(sys.stderr) if arguments.json else out).line(f"receiving at {receiver.url}")
            await stop
            await receiver.stop()
            summary = receiver.summary()
            out.line(msgspec.json.encode(summary).decode() if arguments.json else _told(summary))
            return int(out.gone)

        return _run("sink", main)


def _run(command: str, main: Callable[[Any, Deferred[None]], Coroutine[Deferred[Any], Any, int]]) -> int:
    """
    Run `main` in the reactor; the exit status is what it returns.

    The Deferred it is given fires when the process is told to end, which then waits for it.
    """

    async def body(reactor: Any) -> None:
        stop: Deferred[None] = Deferred()
        done: Deferred[None] = Deferred()

        def shutting_down() -> Deferred[None]:
            if not stop.called:
                stop.callback(None)
            return done

        reactor.addSystemEventTrigger("before", "shutdown", shutting_down)
        try:
            status = await main(reactor, stop)
        except CannotListenError as error:
            status = _failed(command, f"cannot listen at port {error.port}: {error.socketError}")
        finally:
            done.callback(None)
        raise SystemExit(status)

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(body(reactor)))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0


def _wall_clock() -> int:
    return time.time_ns() // 1000


def _failed(command: str, error: str) -> int:
    print(f"cubehook {command}: {error}", file=sys.stderr)
    return 1


class _Output:
    """Lines to whoever reads `file`; once nobody does any more, `gone`, and nothing more is written."""

    def __init__(self, file: TextIO) -> None:
        self.gone = False
        self._file = file
        self._stop: Deferred[None] | None = None

    def until(self, stop: Deferred[None]) -> None:
        """Fire `stop`, unless it has fired, when nobody reads any more."""
        self._stop = stop

    def line(self, text: str) -> None:
        if self.gone:
            return
        try:
            print(text, file=self._file, flush=True)
        except BrokenPipeError:
            self.gone = True
            # The interpreter's own flush must not complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            if self._stop is not None and not self._stop.called:
                self._stop.callback(None)


def _sayer(output: _Output) -> Callable[[str], None]:
    def say(sentence: str) -> None:
        output.line(f"{datetime.now().astimezone():%H:%M:%S.%f} {sentence}")

    return say


# Arguments.


def _checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argument's type that reports the ValueErrors of `check` in its words."""

    def convert(text: str) -> Any:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _number(least: float, most: float = float("inf"), above: bool = False) -> Callable[[str], float]:
    def check(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a number") from None
        if not least <= number <= most or (above and number == least):
            limits = f"{'above' if above else 'at least'} {least:g}"
            raise ValueError(f"it must be {limits}" + (f" and at most {most:g}" if most < 1e300 else ""))
        return number

    return _checked(check)


def _whole(least: int, most: int = 1 << 62) -> Callable[[str], int]:
    def check(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not least <= number <= most:
            raise ValueError(
                f"it must be at least {least}" + (f" and at most {most}" if most < 1 << 62 else "")
            )
        return number

    return _checked(check)


def _happening(text: str) -> tuple[float, str]:
    seconds, equals, name = text.partition("=")
    if not equals or name not in HAPPENINGS:
        raise ValueError(f"{text!r} is not SECONDS=WHAT, with one of {', '.join(HAPPENINGS)}")
    return _number(0)(seconds), name


_SECONDS = _number(0, above=True)
_SHARE = _number(0, 1)


def _simulate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cubehook simulate",
        description="A CUBE that isn't: takes registrations, probes, and makes calls.",
        epilog=f"scenarios: {', '.join(NAMES)}",
    )
    parser.add_argument(
        "--listen",
        type=_checked(config_rules.endpoint),
        default="tcp:8090:interface=127.0.0.1",
        metavar="ENDPOINT",
        help="where applications register (default: %(default)s)",
    )
    parser.add_argument("--path", default="/cisco_xcc", help="its path (default: %(default)s)")
    parser.add_argument(
        "--remote-url",
        type=_checked(config_rules.gateway_url),
        required=True,
        metavar="URL",
        help="the application's URL, as `remote-url` on a router",
    )

    calls = parser.add_argument_group("calls")
    calls.add_argument("--rate", type=_number(0, above=True), default=1.0, help="calls a second (default: 1)")
    calls.add_argument("--regular", action="store_true", help="at equal intervals, not as in life")
    calls.add_argument(
        "--mix",
        type=_checked(parse_mix),
        default=DEFAULT_MIX,
        metavar="NAME=WEIGHT,...",
        help="scenarios and their weights (default: an office's day)",
    )
    calls.add_argument("--count", type=_whole(1), help="how many (default: no end)")
    calls.add_argument("--seed", type=int, default=1, help="the same seed makes the same calls (default: 1)")
    calls.add_argument("--speed", type=_SECONDS, default=1.0, help="how much faster than life (default: 1)")
    calls.add_argument(
        "--hold-seconds", type=_SECONDS, default=30.0, help="mean length of a conversation (default: 30)"
    )
    calls.add_argument("--max-calls", type=_whole(1), help="never more in progress than this")
    calls.add_argument("--duplicates", type=_SHARE, default=0.0, help="share of calls with a repeated event")
    calls.add_argument("--swaps", type=_SHARE, default=0.0, help="share of calls with two events swapped")
    calls.add_argument("--late", type=_SHARE, default=0.0, help="share of calls told from the middle on")

    wire = parser.add_argument_group("connections and the prober")
    wire.add_argument("--connections", type=_whole(1, 10_000), default=8, help="at once (default: 8)")
    wire.add_argument(
        "--persistent",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep connections, or make one for each message",
    )
    wire.add_argument("--line-breaks", type=_SHARE, default=0.5, help="share of messages with line breaks")
    wire.add_argument(
        "--max-connections", type=_whole(1), default=5, help="`ip http max-connections` (default: 5)"
    )
    wire.add_argument("--message-exchange-max-failures", type=_whole(0), default=1, help="(default: 1)")
    wire.add_argument("--response-timeout", type=_SECONDS, default=10.0, help="seconds (default: 10)")
    wire.add_argument("--probing-max-failures", type=_whole(1), default=3, help="(default: 3)")
    wire.add_argument("--probing-interval-keepalive", type=_SECONDS, default=120.0, help="(default: 120)")
    wire.add_argument("--probing-interval-negative", type=_SECONDS, default=10.0, help="(default: 10)")
    wire.add_argument(
        "--prober-loss",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="lose events while the prober is negative, as routers do",
    )

    wire.add_argument(
        "--at",
        type=_checked(_happening),
        action="append",
        default=[],
        metavar="SECONDS=WHAT",
        help=f"what happens so long after the first registration: {', '.join(HAPPENINGS)}; may be repeated",
    )

    secure = parser.add_argument_group("secure mode (uc secure-wsapi)")
    secure.add_argument(
        "--tls", action="store_true", help="take registrations over TLS, with a certificate of its own making"
    )
    secure.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="with this certificate and its chain instead (PEM)"
    )
    secure.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="its key, if that is not in the same file"
    )
    secure.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="authorities of applications (default: any)"
    )
    secure.add_argument("--tls-version", choices=TLS_VERSIONS, help="the only version that it speaks")

    load = parser.add_argument_group("load and measurement")
    load.add_argument("--load", action="store_true", help="no story; measure the answers")
    load.add_argument("--warm-up", type=_number(0), metavar="SECONDS", help="before measuring (default: 5)")
    load.add_argument("--duration", type=_SECONDS, metavar="SECONDS", help="of measuring; with --load")
    load.add_argument(
        "--finish", type=_SECONDS, metavar="SECONDS", help="wait so long for the last calls to end"
    )
    load.add_argument(
        "--with-sink",
        type=_checked(config_rules.endpoint),
        metavar="ENDPOINT",
        help="receive webhooks here, in the same process",
    )
    load.add_argument(
        "--secret",
        type=_checked(decode_secret),
        action="append",
        default=[],
        help="whsec_...: the sink checks signatures; may be repeated",
    )
    load.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="add a JSON line for every notification answered with 200, at once",
    )
    load.add_argument("--json", "--report-json", action="store_true", help="the report as JSON on stdout")
    return parser


def _secure(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Secure | None:
    certificate, key, authorities = arguments.tls_cert, arguments.tls_key, arguments.tls_ca
    if not (arguments.tls or certificate):
        if key or authorities or arguments.tls_version:
            parser.error("--tls-key, --tls-ca and --tls-version are for --tls or --tls-cert")
        return None
    if key and not certificate:
        parser.error("--tls-key is that of --tls-cert")
    try:
        return read_secure(certificate, key, authorities, arguments.tls_version)
    except TlsFileError as error:
        parser.error(str(error))


def _load(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Load:
    if not arguments.load and (arguments.duration or arguments.warm_up):
        parser.error("--duration and --warm-up are for --load")
    if not arguments.path.startswith("/"):
        parser.error("--path begins with a slash")
    secure = _secure(arguments, parser)
    if secure is None and arguments.remote_url.startswith("https:"):
        parser.error("--remote-url is https: that needs --tls, as on a router")
    return Load(
        gateway=Settings(
            remote_url=arguments.remote_url,
            listen=arguments.listen,
            path=arguments.path,
            probing=Probing(
                exchange_max_failures=arguments.message_exchange_max_failures,
                response_timeout=arguments.response_timeout,
                max_failures=arguments.probing_max_failures,
                keepalive=arguments.probing_interval_keepalive,
                negative=arguments.probing_interval_negative,
            ),
            max_connections=arguments.max_connections,
            connections=arguments.connections,
            persistent=arguments.persistent,
            line_breaks=arguments.line_breaks,
            negative_loss=arguments.prober_loss,
            secure=secure,
            speed=arguments.speed,
        ),
        traffic=Traffic(
            mix=arguments.mix,
            seed=arguments.seed,
            rate=arguments.rate,
            regular=arguments.regular,
            count=arguments.count,
            hold_seconds=arguments.hold_seconds,
            max_calls=arguments.max_calls,
            duplicates=arguments.duplicates,
            swaps=arguments.swaps,
            late=arguments.late,
        ),
        warm_up=(5.0 if arguments.warm_up is None else arguments.warm_up) if arguments.load else 0.0,
        duration=arguments.duration,
        finish=arguments.finish,
        sink=arguments.with_sink,
        secrets=tuple(arguments.secret),
        happenings=tuple(arguments.at),
        patience=None,
    )


def _sink_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cubehook sink",
        description="A webhook receiver: verifies signatures, shows or stores what comes, fails when told.",
        epilog="A path may name a behaviour: /status/500 /stall/10 /drop /retry-after/5 /flaky/0.3 /gone",
    )
    parser.add_argument(
        "--listen",
        type=_checked(config_rules.endpoint),
        default="tcp:9000:interface=127.0.0.1",
        metavar="ENDPOINT",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--secret",
        type=_checked(decode_secret),
        action="append",
        default=[],
        help="whsec_...: check signatures, and answer 401 to bad ones; may be repeated",
    )
    parser.add_argument("--store", type=Path, metavar="FILE", help="add what comes as JSON lines")
    parser.add_argument("--quiet", action="store_true", help="show nothing but the summary")
    parser.add_argument("--json", action="store_true", help="JSON lines, the last one the summary")
    parser.add_argument("--count", type=_whole(1), help="end after so many requests")
    parser.add_argument("--seed", type=int, default=1, help="of --share and /flaky (default: 1)")
    how = parser.add_argument_group("behaviour")
    answer = how.add_mutually_exclusive_group()
    answer.add_argument("--status", type=_whole(200, 599), help="answer everything so")
    answer.add_argument("--fail", type=_whole(200, 599), metavar="STATUS", help="answer a --share so")
    answer.add_argument("--drop", action="store_true", help="cut the connection without an answer")
    answer.add_argument(
        "--retry-after", type=_whole(0), metavar="SECONDS", help="answer 503 with this header"
    )
    how.add_argument("--share", type=_SHARE, help="of requests that --fail is for (default: 1)")
    how.add_argument("--stall", type=_number(0), default=0.0, metavar="SECONDS", help="before each answer")
    how.add_argument(
        "--for", dest="seconds", type=_number(0), metavar="SECONDS", help="so long from the first request"
    )
    how.add_argument("--first", type=_whole(1), metavar="N", help="for so many requests")
    return parser


def _behaviour(arguments: argparse.Namespace) -> Behaviour:
    status = arguments.status or arguments.fail or (200 if arguments.retry_after is None else 503)
    return Behaviour(
        status=status,
        share=1.0 if arguments.share is None else arguments.share,
        stall=arguments.stall,
        drop=arguments.drop,
        retry_after=arguments.retry_after,
    )


# What is shown.


def _line(one: Received) -> str:
    """A delivery in a line."""
    when = f"{datetime.fromtimestamp(one.at / 1e6).astimezone():%H:%M:%S.%f}"
    payload = one.payload
    if payload is None:
        what = f"no event: {printable(one.body.decode('utf-8', 'replace'), 80)!r}"
    else:
        calling = printable(payload.calling_number or "withheld", 60)
        called = printable(payload.called_number or "unknown", 60)
        what = f"{printable(payload.call_state, 20):<12} {calling} -> {called}"
    late = "" if one.latency is None else f"  {one.latency * 1000:.1f} ms"
    status = "cut" if one.status is None else str(one.status)
    signature = "" if one.signature == "unchecked" else f"  signature {one.signature}"
    repeat = "  again" if one.repeat else ""
    identifier = f"  {printable(one.id, 60)}" if one.id else ""
    return f"{when} {what}{identifier}{signature}{late}  {status}{repeat}"


def _told(summary: Summary) -> str:
    return (
        f"{summary.received} received: {summary.accepted} accepted, {summary.refused} refused; "
        f"{summary.unique} unique ids, {summary.repeats} repeats, {summary.bad_signatures} bad signatures, "
        f"{summary.malformed} no events, {summary.order_violations} out of order\n"
        f"from notification to arrival: {_spread(summary.latency)}"
    )


def _spread(figures: Percentiles) -> str:
    if figures.p50_ms is None:
        return "nothing measured"
    return f"p50 {figures.p50_ms:.1f} ms, p99 {figures.p99_ms:.1f} ms, at most {figures.max_ms:.1f} ms"


def _report(result: LoadResult) -> str:
    counters = result.counters
    lost = counters.lost_negative + counters.lost_unregistered
    lines = [
        f"{result.calls} calls in {result.seconds:.1f} s ({result.calls_per_second:g} a second), "
        f"{result.unfinished_calls} unfinished",
        f"{result.answers} notifications answered ({result.answers_per_second:g} a second), "
        f"{result.failures} failed, {lost} lost, {counters.filtered} not subscribed to",
        f"answers: {_spread(result.answer)}",
        f"from event to answer: {_spread(result.event_to_answer)}; "
        f"at most {result.greatest_backlog} waited for a connection",
        f"prober: {counters.probes} probes, {counters.probes_failed} failed",
    ]
    lines += [f"failed exchanges: {number} x {word}" for word, number in counters.failures.items()]
    if result.webhooks is not None and result.webhook is not None:
        lines.append(f"webhooks ({result.expected_webhooks} events): {_told(result.webhooks)}")
        lines.append(f"without the warm-up: {_spread(result.webhook)}")
    return "\n".join(lines)
