"""The transports that come with cubehook."""

from cubehook.transports.amqp import AmqpPlugin
from cubehook.transports.http import HttpPlugin
from cubehook.transports.jsonl import JsonLinesPlugin
from cubehook.transports.mqtt import MqttPlugin
from cubehook.transports.nats_jetstream import NatsPlugin
from cubehook.transports.redis_streams import RedisPlugin

amqp = AmqpPlugin()
http = HttpPlugin()
jsonl = JsonLinesPlugin()
mqtt = MqttPlugin()
nats = NatsPlugin()
redis = RedisPlugin()
