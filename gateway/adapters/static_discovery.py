"""A fixed list of OpenAI-compatible servers: an NPU vendor's, llama.cpp, a node that comes and goes."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp

from gateway.adapters.probed_fleet import Listing, Target


class StaticDiscovery:
    def __init__(self, urls: Sequence[str], models: Sequence[str]) -> None:
        self._listing = Listing(
            targets=[Target(id=url, base_url=url.rstrip("/")) for url in urls],
            expected=dict.fromkeys(models, "static"),
        )

    async def listing(self, session: aiohttp.ClientSession) -> Listing:
        return self._listing
