"""Limits of an installation with one gateway worker: all of each limit is its own.

Its figures are in the lease file, from which the next process goes on; where that is lost, those of days and months come from the
ledger. Two workers at once would each allow all of a limit: the settings refuse that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from gateway.adapters.lease_file import LeaseFile
from gateway.adapters.ledger_sums import LedgerSums, figures_of
from gateway.adapters.meter_book import MeterBook
from gateway.policy.account import Account, Shortage
from gateway.policy.meter import Kind, Meter
from gateway.policy.window import window_at
from gateway.ports import Clock, Principal

_LOOK_S = 1.0


class LocalGrants:
    """Grants of the only worker. Use as `async with`."""

    def __init__(self, file: LeaseFile, clock: Clock, *, offset_ms: int, sums: LedgerSums | None = None) -> None:
        self._file = file
        self._clock = clock
        self._offset_ms = offset_ms
        self._sums = sums
        self._book = MeterBook(file, offset_ms)
        self._seeds: dict[tuple[str, Kind], tuple[int, int]] = {}

    async def __aenter__(self) -> LocalGrants:
        self._file.__enter__()
        self._go_on()
        if self._sums is not None:
            self._seeds = await figures_of(self._sums, self._now_ms(), self._offset_ms)
            for _, meters in self._book.tenants():
                for meter in meters:
                    self._seed(meter)
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._looking
        self._file.__exit__()

    def forgotten(self) -> int:
        return self._book.forgotten

    def meters(self, principal: Principal) -> list[Meter]:
        meters = self._book.meters(principal)
        for meter in meters:
            self._seed(meter)
        return meters

    async def more(self, tenant: str, shortages: Sequence[Shortage]) -> bool:
        """A window that has not begun yet is opened; of one that runs, all is granted already."""
        opened = False
        for shortage in shortages:
            meter = shortage.meter
            if meter.granted != meter.limit or self._clock.monotonic() >= meter.ends:
                window, left_ms = window_at(meter.period, self._now_ms(), meter.calendar)
                meter.open_whole(window, self._clock.monotonic() + left_ms / 1000)
                opened = True
        return opened

    def more_soon(self, account: Account) -> None:
        pass

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    def _seed(self, meter: Meter) -> None:
        """What the ledger knows of the running window, where that is more than the file did."""
        window, used = self._seeds.pop((meter.scope_id, meter.kind), (0, 0))
        known = meter.spent if window == meter.window else 0
        if window >= meter.window and used > known:
            meter.adopt(window, used - known)

    def _go_on(self) -> None:
        """From the files of processes that are gone: the one before this, or one that took its time to end."""
        for dead in self._file.dead():
            for record in dead.records():
                self._book.adopt(record)
            dead.drop()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._go_on()
            self._book.tidy(self._clock.monotonic())
