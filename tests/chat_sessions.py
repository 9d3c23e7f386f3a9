"""Korean chat sessions at random times, the same for the same seed: what the simulated fleet is asked.

Sessions of a tenant begin with its system prompt. Each turn's prompt is the whole history so far, as the JSON that a client
sends; lengths in tokens are what the simulation counts by.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from zlib import crc32

BYTES_PER_TOKEN = 4


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 (to be repeated, not to be secret)


_SYLLABLES = "".join(seeded(0).choices("가나다라마바사아자차카타파하는을를이에서고지며면습니다", k=50_000)).encode()


@dataclass(frozen=True)
class Turn:
    think_s: float
    user_tokens: int
    reply_tokens: int


@dataclass(frozen=True)
class Session:
    id: str
    tenant: str
    starts_s: float
    system_tokens: int
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Traffic:
    """`tenants` are their shares of it; each has its own system prompt. Turns and thinking are means, lengths are ranges."""

    sessions_per_s: float
    tenants: tuple[float, ...] = (30, 20, 15, 10, 10, 5, 5, 5)
    system_tokens: tuple[int, int] = (300, 1500)
    turns: float = 6.0
    think_s: float = 20.0
    user_tokens: tuple[int, int] = (20, 250)
    reply_tokens: tuple[int, int] = (50, 300)
    lasts_s: float = 150.0

    def sessions(self, seed: int) -> list[Session]:
        rng = seeded(seed)
        system = [rng.randint(*self.system_tokens) for _ in self.tenants]
        sessions, now = list[Session](), 0.0
        while (now := now + rng.expovariate(self.sessions_per_s)) < self.lasts_s:
            (tenant,) = rng.choices(range(len(self.tenants)), self.tenants)
            turns = [
                Turn(rng.expovariate(1 / self.think_s), rng.randint(*self.user_tokens), rng.randint(*self.reply_tokens))
                for _ in range(max(1, min(30, round(rng.expovariate(1 / self.turns)))))
            ]
            sessions.append(Session(f"s{len(sessions)}", f"t{tenant}", now, system[tenant], tuple(turns)))
        return sessions


def first_prompt(session: Session) -> bytes:
    return b"[" + _message("system", session.tenant, session.system_tokens) + b"," + _question(session, 0)


def next_prompt(session: Session, turn: int, before: bytes) -> bytes:
    """The prompt of this turn, from that of the turn before."""
    reply = _message("assistant", f"{session.id} {turn - 1}", session.turns[turn - 1].reply_tokens)
    return before[:-1] + b"," + reply + b"," + _question(session, turn)


def prompt_tokens(session: Session, turn: int) -> int:
    replies = sum(one.reply_tokens for one in session.turns[:turn])
    return session.system_tokens + replies + sum(one.user_tokens for one in session.turns[: turn + 1])


def _question(session: Session, turn: int) -> bytes:
    return _message("user", f"{session.id} {turn}?", session.turns[turn].user_tokens) + b"]"


def _message(role: str, name: str, tokens: int) -> bytes:
    start = crc32(name.encode()) % (len(_SYLLABLES) // 6) * 3
    text = _SYLLABLES[start : start + tokens * BYTES_PER_TOKEN]
    return b'{"role":"%b","content":"%b %b"}' % (role.encode(), name.encode(), text)
