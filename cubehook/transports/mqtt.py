"""
Delivery to a topic of an MQTT broker, with QoS 1.

The plugin and what it checks; the protocol is spoken in `mqtt_session`, which needs paho-mqtt.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec
from zope.interface import implementer

from cubehook.config import Webhook
from cubehook.interfaces import ITransport, ITransportContext, ITransportPlugin
from cubehook.net.tls import TlsOptions, check_tls
from cubehook.transports.broker_url import read_broker_url
from cubehook.transports.brokers import BrokerTransport, check_headers, check_tls_is_used
from cubehook.transports.libraries import needs, noted
from cubehook.transports.messages import LONGEST_VALUE, Pattern

LIBRARY: Final = "paho.mqtt.client"
EXTRA: Final = "mqtt"
PORTS: Final = {"mqtt": 1883, "mqtts": 8883}

LONGEST_TOPIC: Final = 65_535
LONGEST_CLIENT_ID: Final = 256
"""Far more than what a broker must take (23), far less than what a packet holds."""

# MQTT 5, section 1.5.4: no control characters in its texts.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class MqttOptions(TlsOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The `options` of a webhook over MQTT, whose `url` is mqtt://user:password@host:port.

    In `topic`, {webhook}, {cube}, {state}, {call}, {calling_number} and {called_number} are replaced.
    Over mqtts:// TLS is spoken. Files are PEM, relative to the state folder, and read again when they change.
    """

    topic: Annotated[str, msgspec.Meta(description="what each message is published to")]
    retain: Annotated[
        bool,
        msgspec.Meta(description="have the broker keep the last message of a topic for who subscribes later"),
    ] = False
    client_id: Annotated[
        str | None,
        msgspec.Meta(description="who we are to the broker, by default cubehook- and the webhook's id"),
    ] = None
    version: Annotated[
        Literal["5", "3.1.1"],
        msgspec.Meta(description="of MQTT; over 3.1.1 a broker cannot say that it did not take a message"),
    ] = "5"


@implementer(ITransportPlugin)
class MqttPlugin:
    """Announces the transport `mqtt`."""

    name = "mqtt"
    options = MqttOptions

    @property
    def description(self) -> str:
        return noted("An MQTT message with QoS 1 for each event", LIBRARY, EXTRA)

    def check(self, webhook: Webhook, options: MqttOptions) -> list[tuple[str, str]]:
        problems = needs(LIBRARY, EXTRA)
        example = "mqtt://user:password@mq.example.com"
        try:
            url = read_broker_url(webhook.url, PORTS)
        except ValueError as error:
            problems.append(("url", f"{error}, such as {example}"))
        else:
            if url.path is not None:
                problems.append(("url", f"a URL without a path, such as {example}: the topic is an option"))
            if url.password is not None and not url.user:
                problems.append(("url", "a URL with a user where there is a password"))
        problems += _check_texts(options)
        problems += [
            (f"headers.{name}", "a value without control characters")
            for name, value in webhook.headers.items()
            if _UNFIT.search(value)
        ]
        if options.version != "5" and webhook.headers:
            problems.append(("headers", 'none with options.version "3.1.1", whose messages have no headers'))
        return (
            problems
            + check_headers(webhook.headers)
            + check_tls(options)
            + check_tls_is_used(webhook.url, "mqtts", options)
        )

    def create(self, webhook: Webhook, options: MqttOptions, context: ITransportContext) -> ITransport:
        from cubehook.transports.mqtt_session import MqttSpeaker

        url = read_broker_url(webhook.url, PORTS)
        tls = options if url.scheme == "mqtts" else None
        return BrokerTransport(context, url, tls, MqttSpeaker(url, webhook, options, context))


def _check_texts(options: MqttOptions) -> list[tuple[str, str]]:
    problems = []
    client_id = options.client_id
    if client_id is not None and (
        not client_id or _UNFIT.search(client_id) or len(client_id.encode()) > LONGEST_CLIENT_ID
    ):
        problems.append(
            (
                "options.client_id",
                f"a text of 1 to {LONGEST_CLIENT_ID} bytes without control characters, or none",
            )
        )
    expected = _expected_topic(options.topic)
    if expected is not None:
        problems.append(("options.topic", expected))
    return problems


def _expected_topic(text: str) -> str | None:
    """What a topic to publish to must be, if `text` is not."""
    try:
        topic = Pattern(text)
    except ValueError as error:
        return str(error)
    literal = topic.literal
    if not text:
        return "a topic such as calls/{cube}/{state}"
    if "+" in literal or "#" in literal:
        return "a topic without + and #, which only subscribers may use"
    if text.startswith("$"):
        return "a topic that does not begin with $, which is the broker's own"
    if _UNFIT.search(literal):
        return "a topic without control characters"
    if len(literal.encode()) + LONGEST_VALUE * len(topic.names) > LONGEST_TOPIC:
        return f"a topic of at most {LONGEST_TOPIC} bytes, each placeholder counted as {LONGEST_VALUE}"
    return None
