"""Asks a tenant store at most once a second for each key, and goes on for a while when it does not answer."""

from __future__ import annotations

import asyncio
import logging

from gateway.errors import StoreUnavailable
from gateway.ports import Clock, Principal, TenantStore

log = logging.getLogger(__name__)

_ANSWER_S = 0.9  # with `fresh_s` less than the 2 s in which a revoked key must be refused
_TROUBLE_S = 1.0  # for so long after a failure known keys do not wait for the store
_AGAIN_S = 0.25  # between two asks while there is trouble


class _Known:
    """What the store said of a key, and until when that is taken for fresh, and for true if the store does not answer."""

    __slots__ = ("believed_until", "fresh_until", "principal")

    def __init__(self, principal: Principal, fresh_until: float, believed_until: float) -> None:
        self.principal = principal
        self.fresh_until = fresh_until
        self.believed_until = believed_until


class FreshTenants:
    """What the store has said of a valid key is believed for `fresh_s` seconds, which bounds how long a revoked one still works.

    While the store does not answer, it is believed for `believe_s` seconds since the store last said so; then, as for keys that
    are not known, StoreUnavailable is raised. Whoever asks for a known key while there is trouble does not wait.

    Keys are found by Python's dictionary, whose hash is secret to the process: how long a look takes tells nothing of a key. A
    key that is not asked for any more is forgotten with the next look through all of them.
    """

    def __init__(self, store: TenantStore, clock: Clock, *, fresh_s: float = 1.0, believe_s: float = 60.0) -> None:
        self._store = store
        self._clock = clock
        self._fresh_s = fresh_s
        self._believe_s = max(fresh_s, believe_s)
        self._known: dict[str, _Known] = {}
        self._asks: dict[str, asyncio.Task[Principal | None]] = {}
        self._look_at = 0.0
        self._failed_at = -_TROUBLE_S
        self._troubled = False

    async def principal(self, secret: str) -> Principal | None:
        """Raises StoreUnavailable."""
        now = self._clock.monotonic()
        known = self._known.get(secret)
        if known is not None and now < known.fresh_until:
            return known.principal
        ask = self._asks.get(secret)
        since_failure = now - self._failed_at
        if self._troubled and since_failure < _TROUBLE_S:
            if ask is None and since_failure >= _AGAIN_S:
                ask = self._ask(secret)
            if known is not None and now < known.believed_until:
                return known.principal
            if ask is None:
                raise StoreUnavailable
        try:
            return await asyncio.shield(ask or self._ask(secret))  # others may wait for the same
        except StoreUnavailable:
            known = self._known.get(secret)
            if known is None or self._clock.monotonic() >= known.believed_until:
                raise
            return known.principal

    def _ask(self, secret: str) -> asyncio.Task[Principal | None]:
        ask = self._asks[secret] = asyncio.create_task(self._answer(secret))
        ask.add_done_callback(self._answered)
        return ask

    async def _answer(self, secret: str) -> Principal | None:
        """What the store says, kept. Raises StoreUnavailable."""
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(_ANSWER_S):
                principal = await self._store.principal(secret)
        except StoreUnavailable as problem:
            self._fail(str(problem.__cause__ or problem) or type(problem.__cause__).__name__)
            raise
        except TimeoutError as problem:
            self._fail(f"nothing came for {_ANSWER_S} s")
            raise StoreUnavailable from problem
        finally:
            del self._asks[secret]
        self._succeed()
        if asked_at >= self._look_at:
            self._forget(asked_at)
        if principal is None:
            self._known.pop(secret, None)
        else:
            self._known[secret] = _Known(principal, asked_at + self._fresh_s, asked_at + self._believe_s)
        return principal

    def _answered(self, ask: asyncio.Task[Principal | None]) -> None:
        if not ask.cancelled():
            ask.exception()  # nobody may have waited for it

    def _fail(self, why: str) -> None:
        self._failed_at = self._clock.monotonic()
        if not self._troubled:
            self._troubled = True
            said = " ".join(why.split())
            log.warning("The store of keys does not answer (%s); known keys work for %.0f s more.", said, self._believe_s)

    def _succeed(self) -> None:
        if self._troubled:
            self._troubled = False
            log.warning("The store of keys answers again.")

    def _forget(self, now: float) -> None:
        self._known = {secret: known for secret, known in self._known.items() if now < known.believed_until}
        self._look_at = now + self._fresh_s
