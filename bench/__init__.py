"""Load and latency benchmarks: `python -m bench`, or `make bench`."""
