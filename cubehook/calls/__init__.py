"""Connections in, calls out: what a gateway tells of legs becomes the events of calls.  No I/O, no clock."""
