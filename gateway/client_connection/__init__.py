"""A client's HTTP/1.1 connection: the server's side of RFC 9112 as an asyncio protocol over httptools' parser, speaking ASGI 3.

uvicorn keeps the sockets, signals and the lifespan; this replaces its protocol class, because the gateway needs what that one
does not give: bounds on how large a request's head is, how slowly a client may send and read, and how many connections there
are; word of a lost connection in the moment of the loss; and half the processor time a request. No WebSockets, no upgrades.
"""

from gateway.client_connection.connection import ClientConnection
from gateway.client_connection.connections import Connections, Limits

__all__ = ["ClientConnection", "Connections", "Limits"]
