"""cubehook's call events as syslog messages (RFC 5424) over UDP (RFC 5426)."""
