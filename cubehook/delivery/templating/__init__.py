"""
Templates: a part of Jinja2 that makes JSON, and cannot do harm or take long.

`language` says what a template may say, `filters` what it can do to values, `environment` keeps Jinja2 to
both, `meter` tells what it may cost, and `program` compiles and runs it.

Where a value stands decides how it is written (`writing`): inside the quotes of a JSON text as a part of that
text, elsewhere as a JSON value of its own.  So no value can end a text or begin a key, and the natural way to
write one is the safe one.

There are no calls, so nothing of Python can be reached, and no macros, so nothing recurs; Jinja2's sandbox
stands behind that as a second fence.  Modules of this package import Jinja2: the service imports them only
for a webhook that has a template.
"""
