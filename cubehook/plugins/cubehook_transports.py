"""The transports that come with cubehook."""

from cubehook.transports.amqp import AmqpPlugin
from cubehook.transports.http import HttpPlugin
from cubehook.transports.jsonl import JsonLinesPlugin
from cubehook.transports.mqtt import MqttPlugin

amqp = AmqpPlugin()
http = HttpPlugin()
jsonl = JsonLinesPlugin()
mqtt = MqttPlugin()
