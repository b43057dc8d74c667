"""The transports that come with cubehook."""

from cubehook.transports.http import HttpPlugin
from cubehook.transports.jsonl import JsonLinesPlugin

http = HttpPlugin()
jsonl = JsonLinesPlugin()
