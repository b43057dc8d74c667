"""
The manhole: a Python prompt inside the running service, over SSH and telnet.

`doors` is what the service opens and closes; `ssh` and `telnet` are the doors, and need Twisted's conch,
which costs memory: nothing here is imported unless a door is configured.  A `session` joins an `editor` (from
keys to lines), an `interpreter` (from lines to results), and the `namespace` that a prompt begins with.
"""
