"""cubehook's tests; `tests.run` runs them."""

from hypothesis import HealthCheck, settings

# Other processes of tests, and whatever else the machine does, make slow what is not.
settings.register_profile("cubehook", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cubehook")
