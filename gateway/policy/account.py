"""May this call be made? All the meters of one caller, asked and taken from together: from all of them, or from none.

The tightest level holds, because every level is asked. `gateway.policy.meter` is one limit; who grants is an adapter's matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.policy.estimate import Learned
from gateway.policy.limits import Scope
from gateway.policy.meter import UNITS, Meter, Unit

_UNBOUNDED = 2**62


@dataclass(frozen=True, slots=True)
class Shortage:
    """A meter that has less than a call needs."""

    meter: Meter
    amount: int


class Account:
    """Of one key: its own limits, its project's, its tenant's. `scopes` are those that the meters were made for."""

    __slots__ = ("calls", "durations", "micro_krw", "most_micro_krw", "most_tokens", "requests", "scopes", "tenant", "tokens")

    def __init__(self, tenant: str, scopes: tuple[Scope, ...], meters: Sequence[Meter]) -> None:
        self.tenant = tenant
        self.scopes = scopes
        self.durations = Learned()  # of its calls, in seconds
        self.calls = [meter for meter in meters if UNITS[meter.kind] is Unit.CALLS]
        self.requests = [meter for meter in meters if UNITS[meter.kind] is Unit.REQUESTS]
        self.tokens = [meter for meter in meters if UNITS[meter.kind] is Unit.TOKENS]
        self.micro_krw = [meter for meter in meters if UNITS[meter.kind] is Unit.MICRO_KRW]
        self.most_tokens = min([meter.limit for meter in self.tokens], default=_UNBOUNDED)
        self.most_micro_krw = min([meter.limit for meter in self.micro_krw], default=_UNBOUNDED)

    def fits(self, tokens: int, micro_krw: int, now: float) -> bool:
        return (
            _have(self.requests, 1, now)
            and _have(self.tokens, tokens, now)
            and _have(self.calls, 1, now)
            and _have(self.micro_krw, micro_krw, now)
        )

    def shortages(self, tokens: int, micro_krw: int, now: float) -> list[Shortage]:
        """What keeps the call from being made; nothing where it fits."""
        needs = [(self.calls, 1), (self.requests, 1), (self.tokens, tokens), (self.micro_krw, micro_krw)]
        return [Shortage(meter, amount) for meters, amount in needs for meter in meters if meter.lacks(amount, now)]

    def take(self, tokens: int, micro_krw: int) -> Taken:
        """Of all meters; `fits` was true. The result's `is_low` says whether more should be asked for soon."""
        is_low = False
        windows: list[int] = []
        for meter in self.requests:
            windows.append(meter.window)
            is_low |= meter.take(1)
        for meter in self.tokens:
            windows.append(meter.window)
            is_low |= meter.take(tokens)
        for meter in self.calls:
            is_low |= meter.take(1)
        for meter in self.micro_krw:
            windows.append(meter.window)
            is_low |= meter.take(micro_krw)
        return Taken(self, tokens, micro_krw, windows, is_low)

    def tightest(self, unit: Unit, now: float) -> Meter | None:
        """The meter of that unit which has least left; of those whose window is over, the limit counts."""
        meters = self.requests if unit is Unit.REQUESTS else self.tokens
        return min(meters, key=lambda meter: remaining(meter, now), default=None)


def _have(meters: list[Meter], amount: int, now: float) -> bool:
    for meter in meters:  # noqa: SIM110 (a generator costs more than all of them)
        if meter.granted - meter.spent < amount or now >= meter.ends:
            return False
    return True


def remaining(meter: Meter, now: float) -> int:
    """What the whole limit has left, as far as this worker knows."""
    if now >= meter.ends:
        return meter.limit
    return min(meter.limit, max(0, meter.left + max(0, meter.left_elsewhere)))


class Taken:
    """What a call holds of its account. Settled once; a second time changes nothing."""

    __slots__ = ("_account", "_micro_krw", "_settled", "_tokens", "_windows", "is_low")

    def __init__(self, account: Account, tokens: int, micro_krw: int, windows: list[int], is_low: bool) -> None:
        self._account = account
        self._tokens = tokens
        self._micro_krw = micro_krw
        self._windows = windows
        self._settled = False
        self.is_low = is_low

    def settle(self, requests: int, tokens: int, micro_krw: int) -> None:
        """The call is over and has used this much; `requests` is 0 where it was never served."""
        if self._settled:
            return
        self._settled = True
        account, windows, at = self._account, self._windows, 0
        for meter in account.requests:
            if requests:
                meter.reserved -= 1  # it stays spent
            else:
                meter.settle(windows[at], 1, 0)
            at += 1
        for meter in account.tokens:
            meter.settle(windows[at], self._tokens, tokens)
            at += 1
        for meter in account.calls:
            meter.settle(meter.window, 1, 0)
        for meter in account.micro_krw:
            meter.settle(windows[at], self._micro_krw, micro_krw)
            at += 1
