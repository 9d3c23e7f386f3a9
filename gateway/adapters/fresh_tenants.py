"""Asks a tenant store at most once a second for each key."""

from __future__ import annotations

from gateway.ports import Clock, Principal, TenantStore


class FreshTenants:
    """What the store has said of a valid key is believed for `fresh_s` seconds, which bounds how long a revoked one still works.

    Keys are found by Python's dictionary, whose hash is secret to the process: how long a look takes tells nothing of a key. A
    key that is not asked for any more is forgotten with the next look through all of them.
    """

    def __init__(self, store: TenantStore, clock: Clock, *, fresh_s: float = 1.0) -> None:
        self._store = store
        self._clock = clock
        self._fresh_s = fresh_s
        self._found: dict[str, tuple[float, Principal]] = {}
        self._look_at = 0.0

    async def principal(self, secret: str) -> Principal | None:
        now = self._clock.monotonic()
        found = self._found.get(secret)
        if found is not None and now < found[0]:
            return found[1]
        principal = await self._store.principal(secret)
        if now >= self._look_at:
            self._forget(now)
        if principal is not None:
            self._found[secret] = (now + self._fresh_s, principal)
        return principal

    def _forget(self, now: float) -> None:
        self._found = {secret: found for secret, found in self._found.items() if now < found[0]}
        self._look_at = now + self._fresh_s
