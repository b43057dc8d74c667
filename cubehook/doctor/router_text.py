"""
Reads what was copied from a router's terminal: `show running-config`, whole or in part, and `show wsapi
registration all`, in any order and together.

Such text is untidy: prompts and the commands themselves, `--More--` with the backspaces that wiped it out,
carriage returns, lost indentation, lines that the terminal wrapped.  So nothing here depends on
indentation, what is not known is passed over, and no text raises.  What it means is for
`cubehook.doctor.router` to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec


class Provider(msgspec.Struct):
    """A `provider` of `uc wsapi`; `shutdown` is None where neither it nor its `no` stands there."""

    name: str
    shutdown: bool | None = None
    remote_urls: list[tuple[int | None, str]] = []
    """Each with its number, if it has one."""


class Service(msgspec.Struct):
    """`uc wsapi`, or `uc secure-wsapi`; None stands for what is not said."""

    secure: bool
    source_address: str | None = None
    source_vrf: str | None = None
    max_failures: int | None = None
    response_timeout: int | None = None
    probing_max_failures: int | None = None
    keepalive: int | None = None
    negative: int | None = None
    providers: list[Provider] = []

    def provider(self, name: str) -> Provider | None:
        """The provider of that name, in small letters."""
        return next((each for each in self.providers if each.name == name), None)


class Interface(msgspec.Struct):
    """One of the router's interfaces, with its IPv4 addresses."""

    name: str
    addresses: list[str] = []
    vrf: str | None = None
    shutdown: bool = False


class Http(msgspec.Struct):
    """The router's own web server; None stands for what is not said."""

    server: bool | None = None
    secure_server: bool | None = None
    secure_port: int | None = None
    max_connections: int | None = None
    session_modules: str | None = None
    secure_session_modules: str | None = None
    access_class: str | None = None


class RunningConfig(msgspec.Struct):
    """What is of interest in a router's configuration; `whole` if all of it was given, not a section."""

    whole: bool = False
    services: list[Service] = []
    http: Http = msgspec.field(default_factory=Http)
    interfaces: list[Interface] = []


class RegistrationShown(msgspec.Struct):
    """One registration as `show wsapi registration all` prints it; None stands for what is not there."""

    provider: str | None = None
    """In small letters."""
    index: str | None = None
    id: str | None = None
    app_url: str | None = None
    app_name: str | None = None
    prov_url: str | None = None
    prober_state: str | None = None
    events: list[str] | None = None
    """As the router writes them, in capital letters."""


class RouterText(msgspec.Struct):
    """
    All that was found; None for an output that is not there.

    `silent` if nothing stands in the text but prompts.
    """

    config: RunningConfig | None = None
    registrations: list[RegistrationShown] | None = None
    silent: bool = False


def read(text: str) -> RouterText:
    """What `text` shows of a router."""
    return _Reader().read(list(_lines(text)))


# Making lines of it.

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_]?)")
_MORE = re.compile(r" ?(?:<-{2,3}|-{2,3}) ?more ?(?:-{2,3}>?)(?: ?\([^)\n\r]{0,20}\))?", re.IGNORECASE)
_WIPED = re.compile(r"\x08+[ \x08]*")
_BREAKS = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufeff\u200b]")
_PROMPT = re.compile(r"[A-Za-z0-9][\w.:/-]{0,62}(?P<mode>\([A-Za-z0-9 _.:-]{1,40}\))?[#>](?P<typed>.*)")
_LONG = 60
"""Columns from which on a line may have been wrapped by a terminal."""


class _Line(msgspec.Struct):
    text: str
    typed: bool
    """It stands after a prompt."""
    long: bool


def _lines(text: str) -> Iterator[_Line]:
    """The lines that say something."""
    text = _WIPED.sub("", _MORE.sub("", _ESCAPES.sub("", text)))
    for raw in _BREAKS.split(text):
        line = _UNSEEN.sub("", raw).replace("\t", " ").replace("\xa0", " ").rstrip()
        bare = line.strip()
        prompt = _PROMPT.fullmatch(bare)
        if prompt is not None:
            bare = prompt["typed"].strip()
        if bare:
            yield _Line(bare, prompt is not None, len(line) >= _LONG)


# Understanding them.

_SERVICE = re.compile(r"uc (secure-)?wsapi", re.IGNORECASE)
_NO_SERVICE = re.compile(r"no uc (secure-)?wsapi", re.IGNORECASE)
_PROVIDER = re.compile(r"provider (\w+)", re.IGNORECASE)
_REMOTE_URL = re.compile(r"remote-url(?: +([0-9]{1,3})(?= |$))?(?: +(\S+))?", re.IGNORECASE)
_SOURCE = re.compile(r"source-address +(\S+)(?: +vrf +(\S+))?.*", re.IGNORECASE)
_NUMBERS = tuple(
    (re.compile(pattern + r" +([0-9]{1,9})\b.*", re.IGNORECASE), name)
    for pattern, name in (
        (r"message-exchange +max[- ]failures", "max_failures"),
        (r"response-timeout", "response_timeout"),
        (r"probing +max-failures", "probing_max_failures"),
        (r"probing +interval +keepalive", "keepalive"),
        (r"probing +interval +negative", "negative"),
    )
)
_UNSAID = re.compile(
    r"no +(message-exchange|response-timeout|probing|source-address|remote-url|provider)\b.*", re.IGNORECASE
)
_RULE = re.compile(r"[=\-*_]{4,}")
_FIELD = re.compile(
    r"(?P<name>registration +index|registration|id|app *url|app *name|prov(?:ider)? *url|prober +state|"
    r"conn(?:ection)? *events *filter|media *events *filter|blocking\w*)\b *(?P<sign>[:=]?) *(?P<value>.*)",
    re.IGNORECASE,
)
_EVENTS = re.compile(r"[A-Z_| ,]+")
_URL = re.compile(r"https?://", re.IGNORECASE)
_WHOLE = re.compile(
    r"current configuration *:.*|building configuration.*|hostname \S+|version [0-9.]+|interface \S.*|"
    r"dial-peer voice .*|boot-start-marker|line vty .*",
    re.IGNORECASE,
)
_HTTP = re.compile(r"(?P<no>no )? *ip http +(?P<rest>.*)", re.IGNORECASE)
_OTHER_HTTP = re.compile(r"(?:no )?(?:ip )?http +client .*", re.IGNORECASE)
_INTERFACE = re.compile(r"interface +(\S.*)", re.IGNORECASE)
_ADDRESS = re.compile(r"ip address +([0-9.]{7,15}) .*", re.IGNORECASE)
_VRF = re.compile(r"(?:ip )?vrf forwarding +(\S+).*", re.IGNORECASE)


class _Reader:
    def __init__(self) -> None:
        self._config: RunningConfig | None = None
        self._registrations: list[RegistrationShown] | None = None
        self._service: Service | None = None
        self._provider: Provider | None = None
        self._interface: Interface | None = None
        self._shown: RegistrationShown | None = None
        self._shown_provider: str | None = None
        self._listing = False
        """What comes is a list of registrations."""

    def read(self, lines: list[_Line]) -> RouterText:
        at = 0
        while at < len(lines):
            line = lines[at]
            following = lines[at + 1] if at + 1 < len(lines) else None
            text, took = _unwrapped(line, following)
            self._take(text, line.typed, following)
            at += took
        return RouterText(self._config, self._registrations, not lines)

    @property
    def _running(self) -> RunningConfig:
        if self._config is None:
            self._config = RunningConfig()
        return self._config

    @property
    def _listed(self) -> list[RegistrationShown]:
        if self._registrations is None:
            self._registrations = []
        return self._registrations

    def _take(self, text: str, typed: bool, following: _Line | None) -> None:
        if text == "!":
            self._interface = None
            return
        if self._command(text) or _RULE.fullmatch(text):
            return
        if self._of_a_registration(text, following) or self._of_a_service(text):
            return
        if typed and text.lower() in ("exit", "end", "conf t", "configure terminal"):
            return
        # Whatever else it is, it is no longer part of what came before.
        self._service = self._provider = None
        self._of_the_rest(text)

    def _command(self, text: str) -> bool:
        """A command that shows something: what comes is its output."""
        words = text.lower().split()
        if words[:1] == ["do"]:
            words = words[1:]
        if not words or len(words) < 2 or not "show".startswith(words[0]) or len(words[0]) < 2:
            return False
        self._service = self._provider = self._interface = self._shown = None
        self._listing = words[1] == "wsapi" and len(words) > 2 and "registration".startswith(words[2])
        if self._listing:
            _ = self._listed
        elif "running-config".startswith(words[1]) and len(words[1]) > 2:
            running = self._running
            running.whole = running.whole or len(words) == 2
        return True

    # Registrations

    def _of_a_registration(self, text: str, following: _Line | None) -> bool:
        provider = _PROVIDER.fullmatch(text)
        headed = following is not None and _RULE.fullmatch(following.text) is not None
        if provider is not None and (self._listing or headed):
            self._listing, self._service, self._provider = True, None, None
            self._shown_provider, self._shown = provider[1].lower(), None
            _ = self._listed
            return True
        found = _FIELD.fullmatch(text)
        if found is None or self._service is not None:
            return False
        name = re.sub(r"[ _]+", "", found["name"].lower())
        if not found["sign"] and name not in ("registration", "registrationindex"):
            return False
        if name in ("registration", "registrationindex") and not (self._listing or found["sign"]):
            return False
        self._listing = True
        self._field(name, found["value"].strip())
        return True

    def _field(self, name: str, value: str) -> None:
        known = {
            "registrationindex": "index",
            "registration": "index",
            "id": "id",
            "appurl": "app_url",
            "appname": "app_name",
            "provurl": "prov_url",
            "providerurl": "prov_url",
            "proberstate": "prober_state",
        }.get(name)
        shown = self._shown
        # A list may have lost its headings: a field that is there already begins another registration.
        if shown is None or known == "index" or (known is not None and getattr(shown, known) is not None):
            shown = self._shown = RegistrationShown(provider=self._shown_provider)
            self._listed.append(shown)
        if known is not None:
            setattr(shown, known, value or None)
        elif name.startswith("conn"):
            shown.events = [event for event in re.split(r"[|, ]+", value.upper()) if event]
        if known == "id":
            parts = value.lower().split(":")
            if len(parts) >= 3 and parts[1]:
                shown.provider = parts[1]
        elif known == "prov_url" and shown.provider is None and "cisco_" in value.lower():
            shown.provider = value.lower().rpartition("cisco_")[2].strip("/") or None

    # `uc wsapi`

    def _of_a_service(self, text: str) -> bool:
        began = _SERVICE.fullmatch(text)
        if began is not None:
            secure = began[1] is not None
            self._listing, self._interface, self._provider = False, None, None
            services = self._running.services
            self._service = next((each for each in services if each.secure == secure), None)
            if self._service is None:
                self._service = Service(secure)
                services.append(self._service)
            return True
        gone = _NO_SERVICE.fullmatch(text)
        if gone is not None:
            secure = gone[1] is not None
            self._running.services = [each for each in self._running.services if each.secure != secure]
            self._service = self._provider = None
            return True
        if self._service is None:
            return False
        return self._setting(self._service, text)

    def _setting(self, service: Service, text: str) -> bool:
        for pattern, name in _NUMBERS:
            number = pattern.fullmatch(text)
            if number is not None:
                setattr(service, name, int(number[1]))
                return True
        source = _SOURCE.fullmatch(text)
        if source is not None:
            service.source_address, service.source_vrf = source[1], source[2]
            return True
        provider = _PROVIDER.fullmatch(text)
        if provider is not None:
            name = provider[1].lower()
            self._provider = service.provider(name)
            if self._provider is None:
                self._provider = Provider(name)
                service.providers.append(self._provider)
            return True
        return self._of_a_provider(text) or _UNSAID.fullmatch(text) is not None

    def _of_a_provider(self, text: str) -> bool:
        provider = self._provider
        if provider is None:
            return False
        words = " ".join(text.lower().split())
        if words in ("no shutdown", "no shut", "shutdown", "shut"):
            provider.shutdown = not words.startswith("no")
            return True
        url = _REMOTE_URL.fullmatch(text)
        if url is None:
            return False
        if url[2] is not None:
            provider.remote_urls.append((int(url[1]) if url[1] else None, url[2]))
        return True

    # The rest of a configuration

    def _of_the_rest(self, text: str) -> None:
        http = _HTTP.fullmatch(text)
        if http is not None:
            self._http(self._running.http, http["no"] is None, http["rest"].lower().split())
            return
        if _OTHER_HTTP.fullmatch(text):
            return
        if _WHOLE.fullmatch(text):
            self._running.whole = True
        began = _INTERFACE.fullmatch(text)
        if began is not None:
            self._interface = Interface(began[1])
            self._running.interfaces.append(self._interface)
            return
        if self._interface is None:
            return
        address, vrf = _ADDRESS.fullmatch(text), _VRF.fullmatch(text)
        if address is not None:
            self._interface.addresses.append(address[1])
        elif vrf is not None:
            self._interface.vrf = vrf[1]
        elif text.lower() == "shutdown":
            self._interface.shutdown = True

    def _http(self, http: Http, on: bool, words: list[str]) -> None:
        match words:
            case ["server"]:
                http.server = on
            case ["secure-server"]:
                http.secure_server = on
            case ["secure-port", port] if on and _is_number(port):
                http.secure_port = int(port)
            case ["max-connections" | "max-connection", most] if on and _is_number(most):
                http.max_connections = int(most)
            case ["active-session-modules", modules] if on:
                http.session_modules = modules
            case ["secure-active-session-modules", modules] if on:
                http.secure_session_modules = modules
            case ["access-class", *names] if on and names:
                http.access_class = names[-1]


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10


def _unwrapped(line: _Line, following: _Line | None) -> tuple[str, int]:
    """What `line` says with what was wrapped onto the next, and how many lines that took."""
    text = line.text
    if following is None or following.typed or " " in following.text or _RULE.fullmatch(following.text):
        return text, 1
    field = _FIELD.fullmatch(text)
    if field is not None and field["sign"] and "filter" in field["name"].lower().replace(" ", ""):
        if _EVENTS.fullmatch(following.text) and (line.long or text.endswith("|")):
            return text + following.text, 2
        return text, 1
    is_url = _REMOTE_URL.fullmatch(text) or (field is not None and "url" in field["name"].lower())
    if not is_url:
        return text, 1
    if text.lower().endswith(("url", "url:")) or re.fullmatch(r"remote-url +[0-9]{1,3}", text, re.IGNORECASE):
        return (f"{text} {following.text}", 2) if _URL.match(following.text) else (text, 1)
    if line.long and not _known(following.text):
        return text + following.text, 2
    return text, 1


def _known(text: str) -> bool:
    """It is a line of its own."""
    return (
        text == "!"
        or text.lower() in ("shutdown", "end", "exit")
        or _FIELD.fullmatch(text) is not None
        or _URL.match(text) is not None
    )
