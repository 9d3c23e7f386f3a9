"""What a call costs: money by the kind of its tokens, exactly; and energy, as an estimate from figures of its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.protocol.usage import Usage


@dataclass(frozen=True, slots=True)
class Price:
    """KRW per million tokens, net: which is millionths of a KRW a token, so that whole numbers stay exact.

    `prompt` is for tokens that the engine computed, `cached` for those of the prompt that it had in its cache; `completion` for
    what is said, `reasoning` for what is thought before.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0

    def cost_ukrw(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int, reasoning_tokens: int) -> int:
        """In millionths of a KRW. Cached tokens are counted in the prompt's, reasoning ones in the completion's."""
        cached = min(cached_tokens, prompt_tokens)
        reasoning = min(reasoning_tokens, completion_tokens)
        return (
            (prompt_tokens - cached) * self.prompt
            + cached * self.cached
            + (completion_tokens - reasoning) * self.completion
            + reasoning * self.reasoning
        )


@dataclass(frozen=True, slots=True)
class Energy:
    """Wh per 1,000 tokens. Estimates: of a model's usual load on its usual machine, not measured for a call."""

    prompt_wh: float = 0.0
    completion_wh: float = 0.0

    def estimate_wh(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float:
        """What was cached is not computed again, and counts as nothing."""
        computed = max(prompt_tokens - cached_tokens, 0)
        return (computed * self.prompt_wh + completion_tokens * self.completion_wh) / 1000.0


FREE = Price()
NOTHING_KNOWN = Energy()


class Rates:
    """Prices and energy figures by model; the defaults are for models that the tables do not have."""

    def __init__(
        self,
        prices: Mapping[str, Price] | None = None,
        energies: Mapping[str, Energy] | None = None,
        *,
        price: Price = FREE,
        energy: Energy = NOTHING_KNOWN,
    ) -> None:
        self._prices = dict(prices or {})
        self._energies = dict(energies or {})
        self._price = price
        self._energy = energy

    def price(self, model: str) -> Price:
        return self._prices.get(model, self._price)

    def without_prices(self) -> Rates:
        """The same energy figures, for calls that nobody pays."""
        return Rates({}, self._energies, energy=self._energy)

    def cost_ukrw(self, model: str, used: Usage) -> int:
        return self.price(model).cost_ukrw(
            used.prompt_tokens, used.cached_tokens, used.completion_tokens or 0, used.reasoning_tokens
        )

    def energy(self, model: str) -> Energy:
        return self._energies.get(model, self._energy)


NO_RATES = Rates()
