"""The HTTP surface: turns requests into calls and replies into bytes, and decides nothing."""
