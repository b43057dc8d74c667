"""Announces the transport `syslog`."""

from cubehook_syslog.transport import SyslogPlugin

syslog = SyslogPlugin()
