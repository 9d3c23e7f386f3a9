"""The calls of the load: Korean text of a random length, no two alike, and an answer of a random length."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from benchmarks.overload.http_plan import LoadPlan, TierLoad

PROMPT_CHARACTERS = (200, 600)  # 100 to 300 tokens of the simulated engine
ANSWER_TOKENS = (8, 24)
ALLOWED_TOKENS = 128  # what clients allow, as they do, without knowing how long the answer becomes
_TEXT = "대문은 한국어 모델을 여럿이 나누어 쓰게 하는 문입니다. 차례를 기다리는 사람에게는 얼마나 기다릴지 알려 줍니다. "


@dataclass(frozen=True, slots=True)
class Request:
    tier: int
    port: int
    raw: bytes


class Requests:
    """One after the other, the same for the same seed."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._chance = random.Random(plan.seed)  # noqa: S311 - a seed is wanted, not a secret
        self._number = 0

    def next(self) -> Request:
        plan, chance = self._plan, self._chance
        self._number += 1
        (index,) = chance.choices(range(len(plan.tiers)), weights=[tier.share for tier in plan.tiers])
        tier, port = plan.tiers[index], plan.ports[self._number % len(plan.ports)]
        return Request(index, port, self._raw(tier, port))

    def _raw(self, tier: TierLoad, port: int) -> bytes:
        tokens = self._chance.randint(*ANSWER_TOKENS)
        long = self._chance.randint(*PROMPT_CHARACTERS)
        body = json.dumps(self._body(tier, long, tokens), ensure_ascii=False, separators=(",", ":")).encode()
        key = tier.keys[self._number % len(tier.keys)]
        head = [
            f"POST {self._plan.path} HTTP/1.1",
            f"host: 127.0.0.1:{port}",
            f"authorization: Bearer {key}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        if tier.patience_s is not None and self._plan.says_tier:
            head.append(f"x-daemun-max-wait-s: {tier.patience_s:g}")
        return "\r\n".join((*head, "", "")).encode() + body

    def _body(self, tier: TierLoad, characters: int, tokens: int) -> dict[str, object]:
        """`exact`: the engine is a real one, and is told to go on to the last token; a simulated one reads it in the prompt."""
        wish = f" [{self._chance.getrandbits(32):08x}] {tokens} tokens"
        text = (_TEXT * (characters // len(_TEXT) + 1))[: characters - len(wish)] + wish
        fields: dict[str, object] = {
            "model": self._plan.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens if self._plan.exact else ALLOWED_TOKENS,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        if self._plan.exact:
            fields["ignore_eos"] = True
        if self._plan.says_tier:
            fields["service_tier"] = tier.name
        return fields
