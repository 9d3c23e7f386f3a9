"""Pure ASGI around every route."""
