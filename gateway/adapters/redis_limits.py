"""Limits of several gateway workers: each gets slices of them from Redis in advance, so that a decision costs no network hop.

One task speaks with Redis, in rounds: all that is wanted, and once a second all that is to be told, goes out together. Whoever
needs more than what is there waits for the round that asks for it, and no longer than `_WAIT_S`.

What a worker that is gone had left goes back through its lease file: whichever worker of the machine finds it tells its figures
as its own. Where the machine is gone, too, what was leased stays spent until its window ends, and places of running calls until
they expire.

What Redis has lost is told again by those who hold it, in a time of grace. After that the ledger is asked for what was spent of
days and months by workers that are gone without a trace: nothing of these limits is given before (`gateway.policy.pool`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.adapters.lease_file import DeadLease, LeaseFile
from gateway.adapters.ledger_sums import COUNTED, Figures, LedgerSums, figures_of
from gateway.adapters.meter_book import MeterBook
from gateway.adapters.redis_link import PROBLEMS, Argument, Command, RedisLink, Script
from gateway.errors import LimitsUnavailable, UsageUnavailable
from gateway.policy.account import Account, Shortage
from gateway.policy.meter import Kind, Meter
from gateway.policy.pool import Given
from gateway.policy.window import Period, window_at
from gateway.ports import Clock, Principal

log = logging.getLogger(__name__)

_BEAT_S = 2.0
_LOOK_S = 1.0  # between two looks at what is idle, owed, or left by workers that are gone
_GRACE_MS = 4000  # two beats, in which all have noticed, and told again what they hold
_SILENCE_MS = 4000  # less than places last: after that nobody's are believed before all have told again
_PLACES_LAST_MS = 5000
_PLACES_RENEWED_S = 2.2  # before they expire for their worker
_PLACES_HELD_S = 4.0  # a worker that could not renew its places stops giving them out before others may have them
_WAIT_S, _WAIT_PIECES = 0.5, 5  # of a call, for one round
_ANSWER_S = 3.0  # of Redis, before the connection is given up
_OPEN_S = 10.0  # for a new connection, which takes several answers
_AGAIN_S = 0.5  # between two tries to connect
_ASK_AGAIN_S = 2.0  # the ledger, where it cannot be read
_READ_S = 5.0  # for the ledger to be read, before a worker that starts is ready all the same
_LOST_S = 5.0  # without Redis, before a share of the limit may be taken instead; longer than `_SILENCE_MS`
_KEPT_PART = 200  # an idle worker keeps one part in so many of a limit, over all workers half a per cent


@dataclass(frozen=True, slots=True)
class WithoutRedis:
    """`most_workers` None: what is leased is spent, and no more (hold). Else limit // most_workers of the next windows."""

    most_workers: int | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """A meter as it was when a round went out."""

    meter: Meter
    window: int
    told: int
    need: int
    settled: int


class RedisGrants:
    """Grants of one of several workers. Use as `async with`. Keys begin with `prefix`; all of one tenant are in one slot."""

    def __init__(
        self,
        url: str,
        file: LeaseFile,
        clock: Clock,
        *,
        offset_ms: int,
        without: WithoutRedis,
        sums: LedgerSums | None = None,
        prefix: str = "daemun",
    ) -> None:
        self._link = RedisLink(url)
        self._file = file
        self._clock = clock
        self._offset_ms = offset_ms
        self._without = without
        self._sums = sums
        self._prefix = prefix
        self._book = MeterBook(file, offset_ms)
        self._exchange = Script("exchange")
        self._beat = Script("beat")
        self._needs: dict[str, dict[Meter, int]] = {}
        self._wake = asyncio.Event()
        self._next_round: asyncio.Future[None] | None = None
        self._number = 0
        self._workers = 1
        self._beat_at = self._look_at = 0.0
        self._grace_until = 0.0
        self._lost_at: float | None = None
        self._ahead_s = clock.time() - clock.monotonic()  # the server's clock, less our monotonic one
        self._adopted: dict[Meter, set[str]] = {}  # workers that are gone, and not yet said to be
        self._dead: list[DeadLease] = []  # and their files
        self._tell_all = True
        self._epoch = -1
        self._settled: dict[Meter, tuple[int, int]] = {}  # window and figure, when the epoch was new
        self._known: Figures | None = None  # what the ledger had then
        self._is_read = asyncio.Event()
        self._to_read = asyncio.Event()

    async def __aenter__(self) -> RedisGrants:
        self._file.__enter__()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._round()
        except PROBLEMS as problem:
            await self._lose(problem)
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._read())]
        wait_s = self._grace_until - self._clock.monotonic()
        if wait_s > 0:  # the first worker of all: rather ready a little later than refusing its first calls
            await asyncio.sleep(wait_s)
        if self._lost_at is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_READ_S):
                    await self._is_read.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _tenant, meters in self._book.tenants():
            for meter in meters:
                meter.give_up(0)
        self._tell_all = True
        with contextlib.suppress(*PROBLEMS):
            async with asyncio.timeout(_WAIT_S):
                await self._round()
        await self._link.close()
        self._file.__exit__()

    def forgotten(self) -> int:
        return self._book.forgotten

    def meters(self, principal: Principal) -> list[Meter]:
        return self._book.meters(principal)

    async def more(self, tenant: str, shortages: Sequence[Shortage]) -> bool:
        now = self._clock.monotonic()
        for shortage in shortages:
            meter = shortage.meter
            if now < meter.ends and shortage.amount > meter.left + meter.left_elsewhere:
                return False  # known to be used up: the next beat looks again
        if self._lost_at is not None:
            return self._without_redis(shortages, now)
        if now < self._grace_until:
            raise LimitsUnavailable(retry_after_s=self._grace_until - now)
        of_tenant = self._needs.setdefault(tenant, {})
        for shortage in shortages:
            need = max(1, shortage.amount - (shortage.meter.left if now < shortage.meter.ends else 0))
            of_tenant[shortage.meter] = max(of_tenant.get(shortage.meter, 0), need)
        await self._after_next_round()
        if self._known is None:
            for shortage in shortages:
                if shortage.meter.kind in COUNTED and shortage.meter.lacks(shortage.amount, self._clock.monotonic()):
                    raise LimitsUnavailable(retry_after_s=_ASK_AGAIN_S)
        return True

    def more_soon(self, account: Account) -> None:
        if self._lost_at is None and self._clock.monotonic() >= self._grace_until:
            of_tenant = self._needs.setdefault(account.tenant, {})
            for meter in (*account.requests, *account.tokens, *account.calls, *account.micro_krw):
                if meter.left < meter.low:
                    meter.low = 0  # asked for once
                    of_tenant.setdefault(meter, 1)
            self._wake.set()

    async def _after_next_round(self) -> None:
        """Raises LimitsUnavailable."""
        if self._next_round is None:
            self._next_round = asyncio.get_running_loop().create_future()
        self._wake.set()
        next_round = self._next_round
        # In pieces: where this process had no time to look, the answer may lie there, and the whole time would be over at once.
        for _ in range(_WAIT_PIECES):
            await asyncio.wait((next_round,), timeout=_WAIT_S / _WAIT_PIECES)
            if next_round.done():
                return
        raise LimitsUnavailable(retry_after_s=_ANSWER_S)

    def _without_redis(self, shortages: Sequence[Shortage], now: float) -> bool:
        """Shares of windows that have begun since; raises LimitsUnavailable where there are none."""
        most_workers, lost_at = self._without.most_workers, self._lost_at or now
        if most_workers is None:
            raise LimitsUnavailable(retry_after_s=_LOST_S)
        if now < lost_at + _LOST_S:
            raise LimitsUnavailable(retry_after_s=lost_at + _LOST_S - now)
        opened = False
        for shortage in shortages:
            meter = shortage.meter
            if now >= meter.ends:
                window, left_ms = window_at(meter.period, int((now + self._ahead_s) * 1000), meter.calendar)
                share = meter.limit // most_workers
                if meter.period is Period.NONE:
                    meter.ends = now + _LOST_S
                    meter.grant(share)
                elif window > meter.window:
                    meter.open_share(window, now + left_ms / 1000, share)
                else:
                    continue
                opened = True
        return opened

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(self._beat_at, self._look_at) - self._clock.monotonic())):
                    await self._wake.wait()
            try:
                await self._round()
            except PROBLEMS as problem:
                await self._lose(problem)
                await asyncio.sleep(_AGAIN_S)

    async def _lose(self, problem: BaseException) -> None:
        """The connection goes, and whoever waits hears of it."""
        if self._lost_at is None:
            self._lost_at = self._clock.monotonic()
            log.warning("the limits' Redis cannot be asked (%s: %s)", type(problem).__name__, problem)
        self._needs.clear()
        self._round_over()
        await self._link.close()

    def _round_over(self) -> None:
        done, self._next_round = self._next_round, None
        if done is not None:
            done.set_result(None)

    async def _round(self) -> None:
        """One exchange with Redis. Raises one of PROBLEMS."""
        self._wake.clear()
        if not self._link.is_open:
            run_id = self._link.run_id
            async with asyncio.timeout(_OPEN_S):
                await self._link.open([self._exchange, self._beat])
            self._tell_all = self._tell_all or self._link.run_id != run_id or self._lost_at is not None
            self._beat_at = 0.0
        if self._clock.monotonic() >= self._beat_at:
            await self._say_alive()
        if self._clock.monotonic() >= self._look_at or self._tell_all:
            self._look_through()
        done, self._next_round = self._next_round, None
        try:
            await self._tell(self._wanted())
        finally:
            if done is not None:
                done.set_result(None)

    async def _say_alive(self) -> None:
        now = self._clock.monotonic()
        keys = [f"{self._prefix}:{{workers}}:epoch", f"{self._prefix}:{{workers}}:beats"]
        ((grace_ms, self._workers, epoch),) = await self._ask(
            [self._beat.call(keys, [self._link.run_id, self._file.owner, _GRACE_MS, _SILENCE_MS])]
        )
        self._beat_at = now + _BEAT_S
        if grace_ms:
            self._tell_all = self._tell_all or now >= self._grace_until
            self._grace_until = now + grace_ms / 1000
        if epoch != self._epoch:
            self._begin(epoch)
        if self._lost_at is not None:
            self._lost_at = None
            log.warning("the limits' Redis answers again")
        self._book.tidy(now)

    def _begin(self, epoch: int) -> None:
        """The store has begun anew, or this worker has: all that is known of what it may have forgotten is from before."""
        self._epoch = epoch
        self._adopt()
        self._settled = {meter: (meter.window, meter.settled) for _, meters in self._book.tenants() for meter in meters}
        self._tell_all = True
        self._known = None
        self._is_read.clear()
        self._to_read.set()

    async def _read(self) -> None:
        """Ask the ledger, once in each epoch: when all have told, so that what they settled before is in it by then."""
        while True:
            await self._to_read.wait()
            self._to_read.clear()
            await asyncio.sleep(max(0.0, self._grace_until - self._clock.monotonic()))
            epoch = self._epoch
            try:
                known = await self._from_ledger()
            except UsageUnavailable as problem:
                log.warning("the ledger cannot be read (%s): what Redis may have lost of days' and months' limits", problem)
                await asyncio.sleep(_ASK_AGAIN_S)
                self._to_read.set()
                continue
            if epoch == self._epoch:
                self._known = known
                self._tell_all = True
                self._is_read.set()
                self._wake.set()

    async def _from_ledger(self) -> Figures:
        if self._sums is None:
            return {}
        now_ms = int((self._clock.monotonic() + self._ahead_s) * 1000)
        return await figures_of(self._sums, now_ms, self._offset_ms)

    async def _ask(self, commands: Sequence[Command]) -> list[list[int]]:
        async with asyncio.timeout(_ANSWER_S):
            return await self._link.ask(commands)

    def _adopt(self) -> None:
        """Go on from the files of workers that are gone. A file goes when all that is in it was told."""
        for dead in self._file.dead():
            for record in dead.records():
                self._adopted.setdefault(self._book.adopt(record), set()).add(dead.owner)
            self._dead.append(dead)
        pending = set().union(*self._adopted.values())
        for dead in [dead for dead in self._dead if dead.owner not in pending]:
            dead.drop()
            self._dead.remove(dead)

    def _look_through(self) -> None:
        """What is to be told of each meter, or asked for."""
        self._adopt()
        now = self._clock.monotonic()
        self._look_at = now + _LOOK_S
        for tenant, meters in self._book.tenants():
            for meter in meters:
                need = self._judge(meter, now)
                if need is not None:
                    of_tenant = self._needs.setdefault(tenant, {})
                    of_tenant[meter] = max(need, of_tenant.get(meter, 0))
        self._tell_all = False

    def _judge(self, meter: Meter, now: float) -> int | None:
        """None: nothing to say."""
        is_used, refused = meter.is_used, meter.refused
        meter.is_used, meter.refused = False, 0
        owes, places = meter.spent > meter.granted, meter.kind is Kind.CONCURRENT
        if owes or meter in self._adopted or (self._tell_all and meter.window):
            return 0
        if now >= meter.ends and not places:
            return None
        keeps = 0 if places else meter.limit // (_KEPT_PART * self._workers)
        gives_up = not is_used and meter.left > keeps
        if gives_up:
            meter.give_up(keeps)
        if refused:
            return max(1, refused - meter.left)
        renews = places and meter.granted > 0 and now >= meter.ends - _PLACES_RENEWED_S
        return 0 if gives_up or renews else None

    def _wanted(self) -> list[tuple[str, list[_Told]]]:
        """All that is to be said, by tenant. In the time of grace nothing is asked for."""
        needs, self._needs = self._needs, {}
        now = self._clock.monotonic()
        wanted = []
        for tenant, of_tenant in needs.items():
            told = []
            for meter, need in of_tenant.items():
                if meter.kind is Kind.CONCURRENT and now >= meter.ends:
                    meter.give_up(0)  # others may have them by now
                window, settled = self._settled.get(meter, (0, 0))
                settled = settled if window == meter.window else 0
                told.append(_Told(meter, meter.window, meter.told(), need if now >= self._grace_until else 0, settled))
            wanted.append((tenant, told))
        return wanted

    async def _tell(self, wanted: list[tuple[str, list[_Told]]]) -> None:
        if not wanted:
            return
        gone = [set().union(*(self._adopted.get(one.meter, ()) for one in told)) for _, told in wanted]
        sent = self._clock.monotonic()
        commands = [self._command(tenant, told, workers) for (tenant, told), workers in zip(wanted, gone, strict=True)]
        answers = await self._ask(commands)
        for (_, told), workers, answer in zip(wanted, gone, answers, strict=True):
            self._ahead_s = answer[0] / 1000 - sent
            for number, one in enumerate(told):
                self._hear(one, Given(*answer[1 + 4 * number : 5 + 4 * number]), sent)
                left = self._adopted.pop(one.meter, set()) - workers
                if left:
                    self._adopted[one.meter] = left

    def _hear(self, one: _Told, given: Given, sent: float) -> None:
        ends = sent + (_PLACES_HELD_S if one.meter.kind is Kind.CONCURRENT else given.left_ms / 1000)
        one.meter.hear(one.window, one.told, given, ends)

    def _command(self, tenant: str, told: Sequence[_Told], gone: set[str]) -> Command:
        self._number += 1
        keys = [f"{self._prefix}:{{{tenant}}}:{one.meter.scope_id}:{one.meter.kind.value}" for one in told]
        arguments: list[Argument] = [self._file.owner, self._number, self._workers, self._offset_ms, 0, ",".join(sorted(gone))]
        for one in told:
            meter = one.meter
            lasts_ms = _PLACES_LAST_MS if meter.kind is Kind.CONCURRENT else 0
            arguments += [meter.period.value, meter.calendar.phase_ms, meter.limit, one.window, one.told, one.need, lasts_ms]
            arguments += [one.settled, *self._known_of(meter)]
        return self._exchange.call(keys, arguments)

    def _known_of(self, meter: Meter) -> tuple[int, int, int]:
        """What the ledger has, of which window, in which epoch; of minutes and of what runs nothing, for they are soon over."""
        if meter.kind not in COUNTED:
            return 0, 0, 0
        if self._known is None:
            return -1, 0, self._epoch
        window, used = self._known.get((meter.scope_id, meter.kind), (0, 0))
        return used, window, self._epoch
