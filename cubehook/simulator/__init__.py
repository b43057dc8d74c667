"""A CUBE that isn't, and a webhook receiver: for people without a router, for tests and for load."""
