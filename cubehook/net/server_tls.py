"""
How a listener speaks TLS: what it shows, whom it asks for a certificate, and why somebody was not let in.

Endpoint strings are Twisted's (`ssl:8443:privateKey=...:certKey=...`), and of sockets that systemd opens
(`systemd:domain=INET:name=cubes:privateKey=...`).  Twisted itself would read the files of the former once,
and show what it read for as long as the process lives; for the latter it knows no TLS.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import DiffieHellmanParameters
from twisted.logger import Logger, LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from zope.interface import implementer

from cubehook.config_rules import endpoint_parts, without_tls
from cubehook.net import inherited
from cubehook.net.certificates import (
    Identity,
    Stamp,
    TlsFileError,
    not_in_force,
    read_certificates,
    read_identity,
    stamp,
    trust_in,
)
from cubehook.net.tls import DEFAULT_MINIMUM, REASONS, is_old, make_context

LOOK_SECONDS: Final = 1.0
"""How often files are looked at, at most, when somebody connects."""

LOG_SECONDS: Final = 60.0
"""How often it is said, at most, that there is no TLS with somebody."""


class Demands(msgspec.Struct, frozen=True):
    """What is asked of clients: the oldest version of TLS, and a certificate that `client_ca` vouches for."""

    minimum: str = DEFAULT_MINIMUM
    client_ca: Path | None = None


def problem(endpoint: str) -> str | None:
    """Why the files of an endpoint with TLS cannot be used, in words; None if they can."""
    try:
        _Files(endpoint).identity()
    except TlsFileError as error:
        return str(error)
    return None


class _Files:
    """The files that an endpoint names."""

    def __init__(self, endpoint: str) -> None:
        _, arguments = endpoint_parts(endpoint)
        self.key = Path(arguments["privateKey"])
        self.certificate = Path(arguments.get("certKey") or self.key)
        chain, self.dh = arguments.get("extraCertChain"), arguments.get("dhParameters")
        self.chain = None if chain is None else Path(chain)

    def identity(self) -> Identity:
        chain = None if self.chain is None else ("extraCertChain", self.chain)
        return read_identity("certKey", self.certificate, "privateKey", self.key, chain)


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """
    TLS at one endpoint, that of the setting `name`.

    Its files are looked at when somebody connects, every `LOOK_SECONDS` at most, and read again when they
    changed; where they cannot be used, what was read before stays in use, and the log says why.  The
    constructor raises TlsFileError.  `counted` hears of each client with whom there was no TLS.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        endpoint: str,
        demands: Demands,
        seconds: Callable[[], float],
        counted: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        """The setting, for people; another one once endpoints before it come or go."""
        self._endpoint = endpoint
        self._demands = demands
        self._seconds = seconds
        self._counted = counted
        self._files = _Files(endpoint)
        self.harder: Callable[[], object] = lambda: None
        """Called when clients that are in may not be let in again; to be set by whose they are."""
        self._stamps = self._seen = self._stamped()
        self._authorities = self._authorities_stamp()
        self._context, self.identity = self.made(demands)
        self._look_at = seconds() + LOOK_SECONDS
        self._why = ""
        """What was wrong with the client certificate that was refused last."""
        self._untold: dict[LogLevel, int] = {}
        self._tell_at: dict[LogLevel, float] = {}

    def endpoint(self, reactor: Any) -> IStreamServerEndpoint:
        """What to listen with; `inherited.InheritedError` if systemd hands over no socket for it."""
        kind, arguments = endpoint_parts(self._endpoint)
        if kind == "systemd":
            return _OverTls(inherited.server(reactor, without_tls(self._endpoint)), self)
        endpoint: IStreamServerEndpoint = SSL4ServerEndpoint(
            reactor,
            int(arguments["port"]),
            self,
            int(arguments.get("backlog", 50)),
            arguments.get("interface", ""),
        )
        return endpoint

    def made(self, demands: Demands) -> tuple[SSL.Context, Identity]:
        """A context for such demands with the files as they are, to be given to `use`; TlsFileError."""
        files = self._files
        identity = files.identity()
        settings: dict[str, Any] = identity.options()
        if files.dh is not None:
            settings["dhParameters"] = DiffieHellmanParameters.fromFile(FilePath(files.dh))
        authorities: list[x509.Certificate] = []
        if demands.client_ca is not None:
            authorities = read_certificates("listen.client_ca", demands.client_ca)
            settings["trustRoot"] = trust_in(authorities)
        try:
            context = make_context(demands.minimum, **settings)
            for each in authorities:
                # Tells clients that have several certificates which to show.
                context.add_client_ca(X509.from_cryptography(each))
            return context, identity
        except (SSL.Error, OSError) as error:
            # A key that is too short, for instance, or nonsense in dhParameters.
            reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
            words = ", ".join(reason[-1] for reason in reasons) or str(error)
            raise TlsFileError(f"certKey: {files.certificate} cannot be used: {words}") from error

    def use(self, demands: Demands, made: tuple[SSL.Context, Identity]) -> None:
        """From now on, demand this of those who connect."""
        self._demands = demands
        self._context, self.identity = made
        self._authorities = self._authorities_stamp()
        self.harder()

    def warn(self) -> None:
        """Say in the log what is unsafe about this."""
        if is_old(self._demands.minimum):
            self._log.warn(
                "{name}: TLS {minimum} and its weak ciphers are allowed (listen.tls_minimum): whoever is in "
                "between may be able to read and change what gateways say. Update the routers, and take that "
                "setting away",
                name=self.name,
                minimum=self._demands.minimum,
            )

    def refresh(self, forced: bool = False) -> str | None:
        """
        Read the files again if they changed, or in any case if `forced`.

        In words, why what was read before has to stay in use; None where it has not.  Files that do not fit
        together may be on their way to: that is told once they were found so twice.
        """
        stamps, authorities = self._stamped(), self._authorities_stamp()
        if stamps == self._stamps and not forced:
            return None
        changed = stamps != self._stamps
        new, self._seen = stamps != self._seen, stamps
        try:
            made = self.made(self._demands)
        except TlsFileError as error:
            if new and not forced:
                return None
            self._stamps = stamps
            self._log.error(
                "{name}: {error}; the certificate from before, which ends on {ends}, stays in use",
                name=self.name,
                error=str(error),
                ends=f"{self.identity.ends:%Y-%m-%d}",
            )
            return f"{self.name}: {error}; the certificate from before stays in use"
        self._stamps = stamps
        self._context, self.identity = made
        before, self._authorities = self._authorities, authorities
        if authorities != before:
            self.harder()
        if changed:
            self._log.info(
                "{name}: the certificate in {file} was read again; it ends on {ends}",
                name=self.name,
                file=self._files.certificate,
                ends=f"{self.identity.ends:%Y-%m-%d}",
            )
        return None

    @property
    def ends(self) -> datetime.datetime:
        """When what is shown can be used no longer."""
        return self.identity.ends

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        now = self._seconds()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self.refresh()
        connection = SSL.Connection(self._context, None)
        if self._demands.client_ca is not None:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return connection

    def _verify(self, _: Any, certificate: Any, error: int, depth: int, accepted: int) -> bool:
        if not accepted:
            self._why = REASONS.get(error, f"OpenSSL verification error {error}")
            if error == 10:
                self._why = f"it {not_in_force(certificate.to_cryptography()) or 'has expired'}"
        return bool(accepted)

    def lost(self, address: str, known: bool, reason: Failure) -> None:
        """A connection from `address` ended so; if that was over TLS, it is counted and told."""
        error = reason.value
        # Its subclasses tell of connections that just ended.
        if type(error) is not SSL.Error:
            return
        self._counted()
        words = self._words(error)
        # Whoever finds the port may try it; a gateway that cannot get through loses calls.
        level = LogLevel.warn if known else LogLevel.info
        self._untold[level] = self._untold.get(level, 0) + 1
        now = self._seconds()
        if now < self._tell_at.get(level, 0.0):
            return
        self._tell_at[level] = now + LOG_SECONDS
        count = self._untold.pop(level)
        self._log.emit(
            level,
            "{name}: no TLS with {address}: {words}{more}",
            name=self.name,
            address=address,
            words=words,
            more=f"; {count} failed since this was last said" if count > 1 else "",
        )

    def _words(self, error: SSL.Error) -> str:
        entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
        told = ", ".join(entry[-1] for entry in entries) or "ended"
        why, self._why = self._why, ""
        for reason, words in _REASONS:
            if reason in told:
                filled = words.format(
                    minimum=self._demands.minimum, file=self._files.certificate, why=why or "not known"
                )
                return f"{filled} (OpenSSL: {told})"
        return f"OpenSSL says {told}"

    def _authorities_stamp(self) -> Stamp:
        return None if self._demands.client_ca is None else stamp(self._demands.client_ca)

    def _stamped(self) -> list[Stamp]:
        files = self._files
        named = (files.key, files.certificate, files.chain, files.dh, self._demands.client_ca)
        return [stamp(Path(each)) for each in named if each is not None]


@implementer(IStreamServerEndpoint)
class _OverTls:
    """`endpoint`, with TLS before what listens there."""

    def __init__(self, endpoint: IStreamServerEndpoint, tls: ServerTls) -> None:
        self._endpoint = endpoint
        self._tls = tls

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self._endpoint.listen(TLSMemoryBIOFactory(self._tls, False, protocolFactory))


# What OpenSSL says; the first that fits is told.
_REASONS: Final = (
    ("http request", "plain HTTP was spoken: the router's remote-url must begin with https here"),
    ("unsupported protocol", "it speaks only older versions of TLS than {minimum} (listen.tls_minimum)"),
    ("alert protocol version", "it speaks only other versions of TLS than ours, from {minimum} on"),
    ("no shared cipher", "it has no cipher that is good enough (listen.tls_minimum)"),
    ("peer did not return a certificate", "it showed no certificate, and listen.client_ca wants one"),
    ("certificate verify failed", "its certificate is not trusted: {why} (listen.client_ca)"),
    ("unknown ca", "it does not trust our certificate in {file}: it needs a trustpoint for who signed that"),
    ("alert", "it refused ours, the certificate in {file} perhaps"),
)
