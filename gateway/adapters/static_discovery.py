"""A fixed list of OpenAI-compatible servers: an NPU vendor's, llama.cpp, a node that comes and goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aiohttp

from gateway.adapters.probed_fleet import Listing, Target
from gateway.protocol.plain import Engine


class StaticDiscovery:
    """`models` are expected there even before a server has answered; as a mapping, they say what the servers call each."""

    def __init__(self, urls: Sequence[str], models: Sequence[str] | Mapping[str, str], engine: Engine | None = None) -> None:
        names = {its_own: name for name, its_own in models.items()} if isinstance(models, Mapping) else {}
        self._listing = Listing(
            targets=[Target(url, url.rstrip("/"), engine, names) for url in urls],
            expected=dict.fromkeys(models, "static"),
        )

    async def listing(self, session: aiohttp.ClientSession) -> Listing:
        return self._listing
