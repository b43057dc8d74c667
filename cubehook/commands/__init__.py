"""Commands that speak to the running service, one a module."""
