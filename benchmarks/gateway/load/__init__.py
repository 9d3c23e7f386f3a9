"""Load generators, each a process of its own on the load's core: `python -m benchmarks.gateway.load PLAN`, all in JSON."""
