"""The fleet in virtual time: the gateway's admission, limits and routing, the allocator and the autoscaler, as they are, before
models of engines. `scenario` says what is simulated, `visit` who comes, `run` lets it happen, `result` is what came of it.
"""
