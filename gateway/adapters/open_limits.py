"""The limit store of an installation without limits: every call may be made, and nothing is reserved."""

from __future__ import annotations

from gateway.ports import Principal
from gateway.protocol.usage import Usage


class _Nothing:
    def settle(self, used: Usage) -> None:
        pass


class OpenLimits:
    async def reserve(self, principal: Principal, model: str) -> _Nothing:
        return _Nothing()
