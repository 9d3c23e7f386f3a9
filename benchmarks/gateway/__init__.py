"""The gateway against its peers, on one core, in front of a scripted engine: `make bench-gateway`."""
