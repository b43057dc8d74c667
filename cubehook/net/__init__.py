"""The edge of the network: what may be reached, how, and how much of it is read."""
