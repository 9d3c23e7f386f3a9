"""How much may be sent to the engines before they have answered: learned from the time to first token.

The prompt tokens of calls that were sent and not answered yet are bounded by a window, as TCP bounds what is not acknowledged. It
is this, and not the number of running calls, that time to first token depends on, and it answers within one such time, where a
bound on running calls would take as long to work as calls take to end. An engine that holds fewer calls than it was said to,
or has slowed down, leaves calls unanswered, so that the window closes in front of it.

The window grows as TCP's does, doubling until the first sign of trouble, and shrinks as DCTCP's (Alizadeh et al., SIGCOMM 2010)
by half the share of calls that were late: one late call hardly moves it, all of them halve it. A call is late if it took more
than half of the target, unless its own prompt was most of what the engines had before them. Never less than one call a replica.
"""

from __future__ import annotations

from gateway.policy.ask import TIERS
from gateway.policy.drain import Pace
from gateway.policy.fair_queue import Call

_FIRST_TOKENS, _STEP_TOKENS, _MOST_TOKENS = 2048, 256, 1 << 24
_PACE_MEMORY_S = 2.0
_NEWS = 0.25  # of a round, in the share of late calls
_LEAST_FORGET_S, _MOST_FORGET_S = 0.5, 10.0


class AnswerWindow:
    def __init__(self, target_s: float) -> None:
        self._late_s = target_s / 2.0
        self._replicas = 1
        self._tokens = 0.0
        self._unanswered: dict[int, Call] = {}  # by ticket, the oldest first
        self._prompt_tokens = 0
        self.unanswered = [0] * len(TIERS)  # prompt tokens, by tier
        self._took_s = 0.0  # smoothed
        self._pace = Pace(_PACE_MEMORY_S)  # prompt tokens answered
        self._late_share = 0.0
        self._is_near = False
        self._round_began = 0.0
        self._answers = self._late = self._answered_tokens = 0
        self._was_full = False

    @property
    def tokens(self) -> int:
        return int(self._tokens)

    def resize(self, replicas: int) -> None:
        """What one replica has proven to bear, the new ones are trusted with."""
        replicas = max(1, replicas)
        self._tokens = self._tokens / self._replicas * replicas if self._tokens else float(_FIRST_TOKENS * replicas)
        self._replicas = replicas

    def has_room(self, prompt_tokens: int, part: float = 1.0) -> bool:
        """For a call that would be sent now. `part`: what is left is for calls of others."""
        if self.would_hold(prompt_tokens, part):
            return True
        self._was_full = True
        return False

    def would_hold(self, prompt_tokens: int, part: float = 1.0) -> bool:
        return len(self._unanswered) < self._replicas or self._prompt_tokens + prompt_tokens <= self._tokens * part

    def wait_s(self, prompt_tokens: float, now: float) -> float:
        """Until so many more could be sent, where the window is full."""
        pace = self._pace.per_s(now)
        return prompt_tokens / pace if pace > 0.0 else 0.0

    def sent(self, call: Call, now: float) -> None:
        self.forget(now)
        self._unanswered[call.ticket] = call
        self._prompt_tokens += call.ask.prompt_tokens
        self.unanswered[call.tier] += call.ask.prompt_tokens
        call.prompt_ahead = self._prompt_tokens

    def gone(self, call: Call) -> None:
        """Answered, or never will be."""
        if self._unanswered.pop(call.ticket, None) is not None:
            self._prompt_tokens -= call.ask.prompt_tokens
            self.unanswered[call.tier] -= call.ask.prompt_tokens

    def answered(self, call: Call, took_s: float, now: float) -> None:
        self.gone(call)
        self._took_s += (took_s - self._took_s) * (0.1 if self._took_s else 1.0)
        self._answers += 1
        self._answered_tokens += call.ask.prompt_tokens
        self._pace.add(call.ask.prompt_tokens, now)
        if 2 * self._replicas * call.ask.prompt_tokens <= call.prompt_ahead:
            self._late += took_s > self._late_s
            self._is_near = self._is_near or took_s > self._late_s / 2.0
        if call.started >= self._round_began:
            self._end_round()
            self._round_began = now

    def forget(self, now: float) -> None:
        """Calls that do not stream never say when they were answered: they count as long as the others take, twice over."""
        patience_s = min(max(2.0 * self._took_s, _LEAST_FORGET_S), _MOST_FORGET_S)
        while self._unanswered:
            call = next(iter(self._unanswered.values()))
            if call.started + patience_s > now:
                return
            self.gone(call)

    def _end_round(self) -> None:
        """All that was sent before the round began is answered, as far as one can tell."""
        share = self._late / self._answers
        self._late_share += (share - self._late_share) * _NEWS
        if self._late:
            self._tokens = max(self._tokens * (1.0 - self._late_share / 2.0), 1.0)
        elif self._was_full:
            grown = _STEP_TOKENS * self._replicas if self._is_near else self._answered_tokens
            self._tokens = min(self._tokens + grown, float(_MOST_TOKENS))
        self._answers = self._late = self._answered_tokens = 0
        self._was_full = False
