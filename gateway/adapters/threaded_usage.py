"""Sums over the ledger for a running gateway: asked in a thread of its own, one question after the other, so no call waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gateway.adapters.schema import StoreUnusable
from gateway.errors import UsageUnavailable
from gateway.ledger_query import Group, LedgerQuery, LedgerStore, UsageSum


class ThreadedUsage:
    """Use as `async with`. The store is used, and closed, in that thread alone."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "usage")

    async def __aenter__(self) -> ThreadedUsage:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    async def sums(self, query: LedgerQuery, groups: Sequence[Group]) -> list[UsageSum]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._store.sums, query, groups)
        except StoreUnusable as problem:
            raise UsageUnavailable from problem
