"""Where clients put their key: OpenAI's send `Authorization: Bearer KEY`, Anthropic's `x-api-key: KEY`."""

from __future__ import annotations


def presented(authorization: str, x_api_key: str) -> str:
    """The key in these two headers' values, an empty string for none. A bearer token comes first."""
    return bearer(authorization) or x_api_key.strip()


def bearer(authorization: str) -> str:
    """The key in an Authorization header (RFC 6750, 2.1), or an empty string."""
    scheme, _, credentials = authorization.partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""
