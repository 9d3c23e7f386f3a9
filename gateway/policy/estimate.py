"""What a call will probably use, before it has used it: tokens of its prompt and of its answer, learned for each tenant and
model.

No bytes-per-token is assumed: Korean has two or three bytes a token, English four, base64 one and a half, and the same tenant
tends to send the same. Nothing learned yet means that a token may be a single byte. The answer's allowance follows what the
tenant's answers really have, not the `max_tokens` that it sends: most clients send none, or a huge one.

Two ask, and are told what was learned from the same calls. Limits reserve what a call uses *at most*, since what it uses beyond
that is owed. The waiting room weighs calls, and routing replicas' load, by what they use *on average*: of many calls at once
that is what they come to, and a bound would keep room free that nobody uses.
"""

from __future__ import annotations

_TEMPLATE_TOKENS = 256  # what a chat template may add that the request does not show
_LEAST_SEEN = 3  # calls, before what was learned is believed
_LEARNS = 0.1  # weight of one more call
_FIRST_ANSWER_TOKENS = 256
_USUAL_TOKENS_A_BYTE = 1 / 4
_FEWEST_TOKENS_A_BYTE = 1 / 12  # long common words; a prompt that seems to have fewer still could not fit

Name = tuple[str, str]  # a tenant's and a model's


class Learned:
    """A mean, and how far from it a value usually is; both forget."""

    __slots__ = ("mean", "seen", "spread")

    def __init__(self) -> None:
        self.mean = 0.0
        self.spread = 0.0
        self.seen = 0

    def see(self, value: float) -> None:
        self.seen += 1
        weight = max(_LEARNS, 1.0 / self.seen)
        off = value - self.mean
        self.mean += weight * off
        if self.seen > 1:
            self.spread += weight * (abs(off) - self.spread)

    @property
    def high(self) -> float:
        """Above nearly all of them: of a normal distribution 99 %, of a long-tailed one about 95 %."""
        return self.mean + 3.0 * self.spread


class Habit:
    """One tenant's with one model."""

    __slots__ = ("_answer_tokens", "_tokens_a_byte")

    def __init__(self) -> None:
        self._tokens_a_byte = Learned()
        self._answer_tokens = Learned()

    def prompt_bound(self, prompt_bytes: int) -> int:
        """At most so many tokens, as far as was learned; surely so few, where nothing was."""
        if not prompt_bytes:
            return 0
        surely = prompt_bytes + _TEMPLATE_TOKENS
        if self._tokens_a_byte.seen < _LEAST_SEEN:
            return surely
        return min(surely, int(prompt_bytes * self._tokens_a_byte.high) + 1)

    def prompt_likely(self, prompt_bytes: int) -> int:
        """About so many; the fewest that are possible where nothing was learned."""
        seen = self._tokens_a_byte.seen >= _LEAST_SEEN
        return int(prompt_bytes * (self._tokens_a_byte.mean if seen else _FEWEST_TOKENS_A_BYTE))

    def answer_allowance(self, max_tokens: int | None, n: int) -> int:
        """For `n` answers: what this tenant's usually have at most, and never more than they may."""
        seen = self._answer_tokens.seen >= _LEAST_SEEN
        usual = int(self._answer_tokens.high) + 1 if seen else _FIRST_ANSWER_TOKENS
        return n * (usual if max_tokens is None or usual < max_tokens else max_tokens)

    def prompt_mean(self, prompt_bytes: int) -> int:
        """For weighing calls against each other."""
        seen = self._tokens_a_byte.seen >= _LEAST_SEEN
        return int(prompt_bytes * self._tokens_a_byte.mean) if seen else usual_prompt(prompt_bytes)

    def answer_mean(self, max_tokens: int | None, n: int) -> int:
        """The same, of `n` answers together."""
        seen = self._answer_tokens.seen >= _LEAST_SEEN
        usual = int(self._answer_tokens.mean) + 1 if seen else _FIRST_ANSWER_TOKENS
        return n * (usual if max_tokens is None or usual < max_tokens else max_tokens)

    def see(self, prompt_bytes: int, prompt_tokens: int, answer_tokens: int, n: int) -> None:
        """What a call has really used."""
        if prompt_bytes and prompt_tokens:
            self._tokens_a_byte.see(prompt_tokens / prompt_bytes)
        self._answer_tokens.see(answer_tokens / n)


def usual_prompt(prompt_bytes: int) -> int:
    """Where nothing was learned, and where nobody counts."""
    return int(prompt_bytes * _USUAL_TOKENS_A_BYTE)


class Habits:
    """Of the tenants and models that were seen last; the others are forgotten."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._habits: dict[Name, Habit] = {}
        self._old: dict[Name, Habit] = {}

    def of(self, tenant: str, model: str) -> Habit:
        name = (tenant, model)
        habit = self._habits.get(name)
        if habit is not None:
            return habit
        if len(self._habits) >= self._most // 2:  # two generations: as good as an order of use, and free while nothing is new
            self._old, self._habits = self._habits, {}
        habit = self._habits[name] = self._old[name] if name in self._old else Habit()
        return habit

    def __len__(self) -> int:
        return len(self._habits) + len(self._old)
