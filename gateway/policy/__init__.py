"""Decisions: facts and the time in, a decision out. No I/O, no clock, no randomness, no environment, no logging."""
