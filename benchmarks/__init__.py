"""Measurements against others and against ourselves. Not part of what is installed; nothing imports them."""
