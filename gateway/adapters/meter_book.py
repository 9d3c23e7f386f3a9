"""All meters of this process, each with its record in the lease file, and what workers that are gone have left in theirs."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.adapters.lease_file import LeaseFile, Record
from gateway.policy.meter import NEVER, Kind, Meter, meters_of
from gateway.ports import Principal

most_meters = 20_000

Name = tuple[str, Kind]  # a scope's id, and which of its limits


class MeterBook:
    """`file` is open as long as the book is used."""

    def __init__(self, file: LeaseFile, offset_ms: int) -> None:
        self._file = file
        self._offset_ms = offset_ms
        self._by_tenant: dict[str, dict[Name, Meter]] = {}
        self.forgotten = 0

    def meters(self, principal: Principal) -> list[Meter]:
        """Of all the limits of this caller, as they are now."""
        found = []
        for scope in principal.scopes:
            for kind, limit in meters_of(scope):
                meter = self.meter(principal.tenant, scope.id, kind, limit)
                if meter.limit != limit:
                    meter.relimit(limit)
                found.append(meter)
        return found

    def meter(self, tenant: str, scope_id: str, kind: Kind, limit: int) -> Meter:
        of_tenant = self._by_tenant.setdefault(tenant, {})
        meter = of_tenant.get((scope_id, kind))
        if meter is None:
            kept = self._file.record(tenant, scope_id, kind, limit)
            meter = of_tenant[scope_id, kind] = Meter(scope_id, kind, limit, self._offset_ms, kept)
        return meter

    def adopt(self, record: Record) -> Meter:
        """What a worker that is gone has spent counts as spent here."""
        meter = self.meter(record.tenant, record.scope_id, record.kind, record.limit)
        if record.window:
            meter.adopt(record.window, record.spent)
        return meter

    def tenants(self) -> Iterator[tuple[str, list[Meter]]]:
        for tenant, meters in self._by_tenant.items():
            yield tenant, [*meters.values()]

    def __len__(self) -> int:
        return sum(map(len, self._by_tenant.values()))

    def tidy(self, now: float) -> None:
        """Drop meters of windows that are long over, with nothing owed, where there are many. `forgotten` says how often."""
        if len(self) <= most_meters:
            return
        self.forgotten += 1
        for tenant, meters in [*self._by_tenant.items()]:
            for name, meter in [*meters.items()]:
                owes = meter.spent > (0 if meter.kind is Kind.CONCURRENT else meter.granted)
                if meter.ends != NEVER and now - meter.ends > _KEPT_S and not owes:
                    del meters[name]
                    self._file.forget(*name)
            if not meters:
                del self._by_tenant[tenant]


_KEPT_S = 3600.0  # longer than any call lasts, so that what it owes at its end still finds its meter
