"""Commands about the service that runs here, one a module; most speak to it."""
