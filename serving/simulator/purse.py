"""What tenants may spend: the gateway's own meters, of an installation whose one worker has all of each limit. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gateway.policy.account import Account, Shortage, Taken
from gateway.policy.limits import NO_LIMITS, Limits, Scope
from gateway.policy.meter import Kind, Meter, meters_of
from gateway.policy.window import Period, window_at

_MIDNIGHT_MS = (20_000 * 86_400 - 9 * 3600) * 1000  # in Seoul, on some day
_SEOUL_MS = 9 * 3_600_000
_LEAST_PLACE_S, _MOST_PLACE_S = 0.5, 60.0


class Purses:
    """By tenant; those without limits have none. `clock_s`: the time of day at 0 s."""

    def __init__(self, limits: Mapping[str, Limits], clock_s: float) -> None:
        self._began_ms = _MIDNIGHT_MS + clock_s * 1000.0
        self._accounts: dict[str, Account] = {}
        for tenant, of_tenant in limits.items():
            if of_tenant != NO_LIMITS:
                scope = Scope(f"tenant:{tenant}", of_tenant)
                meters = [Meter(scope.id, kind, limit, _SEOUL_MS) for kind, limit in meters_of(scope)]
                self._accounts[tenant] = Account(tenant, (scope,), meters)

    def take(self, tenant: str, tokens: int, now: float) -> Taken | float | None:
        """What the call holds; or after how many seconds it may fit, where it does not (never, where a month's are used up);
        None: no limit holds for it.
        """
        account = self._accounts.get(tenant)
        if account is None:
            return None
        tokens = min(tokens, account.most_tokens)
        if not account.fits(tokens, 0, now):
            self._open(account.shortages(tokens, 0, now), now)
            short = account.shortages(tokens, 0, now)
            if short:
                return max(self._wait_s(account, one, now) for one in short)
        return account.take(tokens, 0)

    def lasted(self, tenant: str, seconds: float) -> None:
        """A call of that tenant's took so long: what one that finds all of its places taken is told by."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.durations.see(seconds)

    def _open(self, shortages: list[Shortage], now: float) -> None:
        """A window that has not begun yet is opened; of one that runs, all is granted already."""
        now_ms = int(self._began_ms + now * 1000.0)
        for shortage in shortages:
            meter = shortage.meter
            if meter.granted != meter.limit or now >= meter.ends:
                window, left_ms = window_at(meter.period, now_ms, meter.calendar)
                meter.open_whole(window, now + left_ms / 1000.0)

    @staticmethod
    def _wait_s(account: Account, shortage: Shortage, now: float) -> float:
        if shortage.meter.period is Period.MONTH:
            return math.inf
        if shortage.meter.kind is Kind.CONCURRENT:
            lasts_s = account.durations.high if account.durations.seen else 1.0
            return float(math.ceil(min(max(lasts_s, _LEAST_PLACE_S), _MOST_PLACE_S)))
        return float(math.ceil(max(1.0, shortage.meter.wait_s(shortage.amount, now))))
