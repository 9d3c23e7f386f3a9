"""The limit store's decisions: what a call may need, whether that fits, what it is told where it does not.

Where grants come from is behind `Grants`: all of each limit for the only worker (`local_limits`), slices of it for one of several
(`redis_limits`). A call that fits what is granted already waits for nothing and nobody.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from gateway.call_error import CallError
from gateway.errors import InsufficientQuota, PromptOverLimit, RateLimitExceeded
from gateway.policy.account import Account, Shortage, Taken, remaining
from gateway.policy.estimate import Habit, Habits
from gateway.policy.meter import MICRO, UNITS, Kind, Meter, Unit
from gateway.policy.window import Period
from gateway.ports import Clock, Headers, Principal, Reservation
from gateway.protocol.openai import Request
from gateway.protocol.usage import Usage

CountTokens = Callable[[Request], Awaitable[int | None]]
Price = Callable[[str, Usage], int]  # of a model's tokens, in micro-KRW

_MOST_ACCOUNTS = 8192
_MOST_WAIT_S = 2.0  # for grants, over all tries of one call
_TURN_S = 0.05  # a window's turn is heard of a little late
_LEAST_PLACE_S, _MOST_PLACE_S = 0.5, 60.0

_LEVELS = {"tenant": ("tenant", "테넌트"), "project": ("project", "프로젝트"), "key": ("key", "키")}
_PER = {
    Kind.CONCURRENT: ("calls at once", "동시 호출"),
    Kind.REQUESTS_PER_MINUTE: ("requests a minute", "분당 요청"),
    Kind.REQUESTS_PER_DAY: ("requests a day", "일일 요청"),
    Kind.TOKENS_PER_MINUTE: ("tokens a minute", "분당 토큰"),
    Kind.TOKENS_PER_DAY: ("tokens a day", "일일 토큰"),
    Kind.TOKENS_PER_MONTH: ("tokens a month", "월간 토큰"),
    Kind.KRW_PER_MONTH: ("KRW a month", "월간 원"),
}


class Grants(Protocol):
    """Who says what may be spent."""

    def meters(self, principal: Principal) -> list[Meter]:
        """Of all the limits of this caller. Callers with a scope in common have its meters in common."""
        ...

    def forgotten(self) -> int:
        """How often meters were dropped. Whoever has kept some gets them anew when this has changed."""
        ...

    async def more(self, tenant: str, shortages: Sequence[Shortage]) -> bool:
        """Try to get what is lacking. False where that cannot be had now. Raises LimitsUnavailable where nobody can say."""
        ...

    def more_soon(self, account: Account) -> None:
        """Little is left: get more before it is needed, without anybody waiting for it."""
        ...


class Unlimited:
    """The reservation of a call that no limit holds for: it is only learned from."""

    __slots__ = ("_habit", "_request")

    def __init__(self, habit: Habit, request: Request) -> None:
        self._habit = habit
        self._request = request

    def settle(self, used: Usage | None) -> None:
        if used is not None:
            _learn(self._habit, self._request, used)

    def headers(self) -> Headers:
        return ()


async def count_nothing(request: Request) -> int | None:
    """Where no tokenizer can be asked."""
    return None


def free_of_charge(model: str, used: Usage) -> int:
    """Where there is no price table."""
    return 0


class Need:
    """What a call may use: tokens of its prompt, as far as known, and of its answers."""

    __slots__ = ("answer", "habit", "is_exact", "micro_krw", "prompt", "tokens")

    def __init__(self, habit: Habit, prompt: int, answer: int, *, is_exact: bool = False) -> None:
        self.habit = habit
        self.prompt = prompt
        self.answer = answer
        self.is_exact = is_exact
        self.tokens = prompt + answer
        self.micro_krw = 0


class MeteredLimits:
    """A LimitStore over `grants`. What it learns of calls goes into `habits`, also where they have no limits."""

    def __init__(
        self,
        grants: Grants,
        clock: Clock,
        habits: Habits | None = None,
        *,
        count_tokens: CountTokens = count_nothing,
        price: Price = free_of_charge,
    ) -> None:
        self.clock = clock
        self.price = price
        self._grants = grants
        self._count_tokens = count_tokens
        self._habits = Habits() if habits is None else habits
        self._accounts: dict[str, Account] = {}
        self._forgotten = 0

    async def reserve(self, principal: Principal, request: Request) -> Reservation:
        habit = self._habits.of(principal.tenant, request.model)
        if not principal.scopes:
            return Unlimited(habit, request)
        account = self._account(principal)
        if request.endpoint.counted:
            prompt, answer = habit.prompt_bound(len(request.prompt)), habit.answer_allowance(request.max_tokens, request.n)
        else:
            prompt = answer = 0
        need = self._bounded(Need(habit, prompt, answer), account, request)
        now = self.clock.monotonic()
        if prompt > account.most_tokens or not account.fits(need.tokens, need.micro_krw, now):
            need = await self._wait_for(account, need, request)
            now = self.clock.monotonic()
        taken = account.take(need.tokens, need.micro_krw)
        if taken.is_low:
            self._grants.more_soon(account)
        return Held(self, account, taken, request, need, now)

    def headers(self, account: Account) -> Headers:
        """How the tightest of the limits stand."""
        now = self.clock.monotonic()
        return (*_headers(account, Unit.REQUESTS, b"requests", now), *_headers(account, Unit.TOKENS, b"tokens", now))

    def _account(self, principal: Principal) -> Account:
        if self._forgotten != self._grants.forgotten():
            self._forgotten = self._grants.forgotten()
            self._accounts.clear()
        account = self._accounts.get(principal.key_id)
        if account is not None and (account.scopes is principal.scopes or account.scopes == principal.scopes):
            return account
        if len(self._accounts) >= _MOST_ACCOUNTS:
            self._accounts.clear()  # they are made anew from the grants' meters, which stay
        account = self._accounts[principal.key_id] = Account(principal.tenant, principal.scopes, self._grants.meters(principal))
        return account

    def _bounded(self, need: Need, account: Account, request: Request) -> Need:
        """Nobody needs more tokens at once than all of a limit: what an answer has beyond it is owed afterwards."""
        need.tokens = min(need.tokens, account.most_tokens)
        if account.micro_krw:
            need.micro_krw = min(self.price(request.model, Usage(need.prompt, need.answer)), account.most_micro_krw)
        return need

    async def _wait_for(self, account: Account, need: Need, request: Request) -> Need:
        """Until it fits; the need may have become smaller by being counted. Raises a CallError."""
        until = self.clock.monotonic() + _MOST_WAIT_S
        while True:
            now = self.clock.monotonic()
            shortages = account.shortages(need.tokens, need.micro_krw, now)
            if not shortages and (need.is_exact or need.prompt <= account.most_tokens):
                return need
            if shortages and now < until and await self._grants.more(account.tenant, shortages):
                continue
            counted = await self._counted(account, need, request, shortages)
            if counted is None:
                if shortages:
                    raise self._refusal(account, shortages)
                return need
            need = counted

    async def _counted(self, account: Account, need: Need, request: Request, shortages: Sequence[Shortage]) -> Need | None:
        """The need with the prompt as the model's tokenizer counts it. None where that would not help or cannot be had."""
        if need.is_exact or not request.endpoint.counted or not account.tokens:
            return None
        likely = min(need.habit.prompt_likely(len(request.prompt)) + need.answer, account.most_tokens)
        if not all(_has(shortage.meter, likely) for shortage in shortages):
            return None
        tokens = await self._count_tokens(request)
        if tokens is None:
            return None
        if tokens > account.most_tokens:
            raise _over_limit(account, tokens)
        return self._bounded(Need(need.habit, tokens, need.answer, is_exact=True), account, request)

    def _refusal(self, account: Account, shortages: Sequence[Shortage]) -> CallError:
        """By those that are used up. What only this worker has too little of would have been got."""
        now = self.clock.monotonic()
        used_up = [shortage for shortage in shortages if shortage.amount > shortage.meter.left + shortage.meter.left_elsewhere]
        shortages = used_up or shortages
        for shortage in shortages:
            shortage.meter.refused = max(shortage.meter.refused, shortage.amount)
        budgets = [shortage.meter for shortage in shortages if shortage.meter.period is Period.MONTH]
        if budgets:
            return InsufficientQuota(named=_named(budgets[0]), limit_headers=self.headers(account))
        waits = [(_wait_s(account, shortage, now), shortage.meter) for shortage in shortages]
        wait_s, meter = max(waits, key=lambda wait: wait[0])
        return RateLimitExceeded(named=_named(meter), retry_after_s=wait_s, limit_headers=self.headers(account))


class Held:
    """The reservation of a call that limits hold for."""

    __slots__ = ("_account", "_came", "_limits", "_need", "_request", "_taken")

    def __init__(self, limits: MeteredLimits, account: Account, taken: Taken, request: Request, need: Need, came: float) -> None:
        self._limits = limits
        self._account = account
        self._taken = taken
        self._request = request
        self._need = need
        self._came = came

    def settle(self, used: Usage | None) -> None:
        if used is None:
            self._taken.settle(0, 0, 0)
            return
        request, need = self._request, self._need
        prompt, answer = used.prompt_tokens, used.completion_tokens or 0
        if request.endpoint.counted and not prompt:
            # It worked for the call, and said nothing of the prompt: the client left early, or it never does.
            prompt = need.prompt if need.is_exact else need.habit.prompt_likely(len(request.prompt))
        _learn(need.habit, request, used)
        micro_krw = self._limits.price(request.model, used) if self._account.micro_krw else 0
        self._taken.settle(1, prompt + answer, micro_krw)
        if self._account.calls:
            self._account.durations.see(self._limits.clock.monotonic() - self._came)

    def headers(self) -> Headers:
        return self._limits.headers(self._account)


def _learn(habit: Habit, request: Request, used: Usage) -> None:
    if request.endpoint.counted and used.prompt_tokens:
        habit.see(len(request.prompt), used.prompt_tokens, used.completion_tokens or 0, request.n)


def _has(meter: Meter, tokens: int) -> bool:
    """Whether so many tokens might fit, where the bound of them did not."""
    return UNITS[meter.kind] is Unit.TOKENS and tokens <= meter.left + max(0, meter.left_elsewhere)


def _wait_s(account: Account, shortage: Shortage, now: float) -> float:
    """After how long this shortage is over: a window's turn, or for places what this caller's calls last."""
    if shortage.meter.kind is not Kind.CONCURRENT:
        return shortage.meter.wait_s(shortage.amount, now) + _TURN_S
    lasts_s = account.durations.high if account.durations.seen else 1.0
    return min(max(lasts_s, _LEAST_PLACE_S), _MOST_PLACE_S)


def _named(meter: Meter) -> dict[str, object]:
    """How messages name a limit."""
    level, level_ko = _LEVELS.get(meter.scope_id.partition(":")[0], ("key", "키"))
    per, per_ko = _PER[meter.kind]
    limit = meter.limit // MICRO if UNITS[meter.kind] is Unit.MICRO_KRW else meter.limit
    return {"level": level, "level_ko": level_ko, "limit": limit, "per": per, "per_ko": per_ko}


def _over_limit(account: Account, tokens: int) -> CallError:
    meter = min(account.tokens, key=lambda meter: meter.limit)
    return PromptOverLimit(param=None, retry_after_s=None, tokens=tokens, **_named(meter))


def _headers(account: Account, unit: Unit, name: bytes, now: float) -> Headers:
    meter = account.tightest(unit, now)
    if meter is None:
        return ()
    return (
        (b"x-ratelimit-limit-" + name, str(meter.limit).encode()),
        (b"x-ratelimit-remaining-" + name, str(remaining(meter, now)).encode()),
        (b"x-ratelimit-reset-" + name, reset_text(meter.ends - now).encode()),
    )


def reset_text(seconds: float) -> str:
    """As OpenAI writes it: `1s`, `6m0s`, `2h0m0s`; whole seconds, rounded up."""
    if seconds <= 0:
        return "0s"
    whole = math.ceil(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    text = f"{whole % 60}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
