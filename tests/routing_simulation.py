"""A fleet in virtual time, to see what a way of choosing replicas is worth: cache hits, time to first token, fairness.

`python -m tests.routing_simulation` prints the table that docs/routing.md quotes. The model is simple on purpose and knows
nothing of how the router guesses: a replica reads prompts one after the other, skipping what its cache holds (least recently
used goes first); then it writes all its answers together, each step taking longer the more there are. It does not model
preemption, chunked prefill or the network. Work comes as sessions at random times, whose turns follow one another
after a time to think. The same seed gives every policy the same sessions.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from gateway.policy.routing import Flight, Router, Work

READ_TOKENS_PER_S = 8000.0  # prompt tokens, of a replica of speed 1
STEP_S, STEP_PER_CALL_S = 0.020, 0.0006  # one token for every running call
MOST_RUNNING = 64
CACHE_TOKENS = 200_000
BYTES_PER_TOKEN = 4
ALLOWANCE_TOKENS = 256  # what the gateway guesses for every answer

_SYLLABLES = "".join(random.Random(0).choices("가나다라마바사아자차카타파하는을를이에서고지며면습니다 ", k=50_000)).encode()


@dataclass(frozen=True)
class Server:
    id: str
    speed: float = 1.0


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
class Scenario:
    """`tenants` are the shares of the traffic; each tenant has a system prompt of its own."""

    sessions_per_s: float
    speeds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    tenants: tuple[float, ...] = (30, 20, 15, 10, 10, 5, 5, 5)
    system_tokens: tuple[int, int] = (300, 1500)
    turns: float = 6.0
    think_s: float = 20.0
    user_tokens: tuple[int, int] = (20, 250)
    reply_tokens: tuple[int, int] = (50, 300)
    lasts_s: float = 300.0

    def sessions(self, seed: int) -> list[Session]:
        rng = random.Random(seed)
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


@dataclass
class Call:
    session: Session
    turn: int
    prompt: bytes
    prompt_tokens: int
    came_s: float = 0.0
    flight: object = None

    @property
    def reply_tokens(self) -> int:
        return self.session.turns[self.turn].reply_tokens


class Policy(Protocol):
    def choose(self, call: Call, servers: Sequence[Server], now: float) -> Server: ...
    def began(self, call: Call, server: Server, now: float) -> object: ...
    def first_token(self, flight: object, now: float) -> None: ...
    def ended(self, flight: object, tokens: int, now: float) -> None: ...


class AtRandom:
    def __init__(self) -> None:
        self._rng = random.Random(1)

    def choose(self, call: Call, servers: Sequence[Server], now: float) -> Server:
        return self._rng.choice(servers)

    def began(self, call: Call, server: Server, now: float) -> object:
        return server

    def first_token(self, flight: object, now: float) -> None: ...

    def ended(self, flight: object, tokens: int, now: float) -> None: ...


class LeastCalls(AtRandom):
    """The fewest calls in flight, then the one chosen longest ago."""

    def __init__(self) -> None:
        self._ranks: dict[Server, tuple[int, int]] = {}
        self._turns = count(1)

    def choose(self, call: Call, servers: Sequence[Server], now: float) -> Server:
        return min(servers, key=lambda server: self._ranks.get(server, (0, 0)))

    def began(self, call: Call, server: Server, now: float) -> object:
        self._ranks[server] = self._ranks.get(server, (0, 0))[0] + 1, next(self._turns)
        return server

    def ended(self, flight: object, tokens: int, now: float) -> None:
        assert isinstance(flight, Server)
        calls, turn = self._ranks[flight]
        self._ranks[flight] = calls - 1, turn


class Routed:
    """Ours. It is told no speeds, and of answers' lengths only a guess that is the same for all."""

    def __init__(self, named: Callable[[Session], str] = lambda session: session.tenant) -> None:
        self.router: Router[Server] = Router()
        self._named = named
        self._work: Work | None = None

    def choose(self, call: Call, servers: Sequence[Server], now: float) -> Server:
        self._work = Work(call.prompt, len(call.prompt) // BYTES_PER_TOKEN + ALLOWANCE_TOKENS, self._named(call.session))
        chosen = self.router.pick(self._work, servers, now)
        assert chosen is not None
        return chosen

    def began(self, call: Call, server: Server, now: float) -> object:
        assert self._work is not None
        return self.router.began(server.id, self._work, now)

    def first_token(self, flight: object, now: float) -> None:
        assert isinstance(flight, Flight)
        self.router.first_token(flight, now)

    def ended(self, flight: object, tokens: int, now: float) -> None:
        assert isinstance(flight, Flight)
        self.router.ended(flight, tokens, now)


class PrefixCache:
    """How many tokens from its start are held of each tenant's system prompt and of each session's own part."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, int] = OrderedDict()
        self._tokens = 0

    def hit(self, session: Session, prompt_tokens: int) -> int:
        system = min(self._held.get(session.tenant, 0), session.system_tokens)
        if system < session.system_tokens:
            return system
        return system + min(self._held.get(session.id, 0), prompt_tokens - system)

    def add(self, session: Session, tokens: int) -> None:
        self._put(session.id, tokens - session.system_tokens)
        self._put(session.tenant, session.system_tokens)  # later, for it is evicted after what follows it
        while self._tokens > CACHE_TOKENS:
            self._tokens -= self._held.popitem(last=False)[1]

    def _put(self, name: str, tokens: int) -> None:
        held = self._held.pop(name, 0)
        self._held[name] = max(held, tokens)
        self._tokens += self._held[name] - held


@dataclass
class Replica:
    """One engine. What it was given, in tokens, and the tokens in flight added up over time, are for judging fairness."""

    server: Server
    cache: PrefixCache = field(default_factory=PrefixCache)
    queue: deque[Call] = field(default_factory=deque)
    reading: bool = False
    running: int = 0
    given: int = 0
    in_flight: int = 0
    token_seconds: float = 0.0
    _changed_s: float = 0.0

    def take(self, tokens: int, now: float) -> None:
        self.token_seconds += self.in_flight * (now - self._changed_s)
        self._changed_s = now
        self.in_flight += tokens
        self.given += max(tokens, 0)

    def may_read(self) -> bool:
        return bool(self.queue) and not self.reading and self.running < MOST_RUNNING

    def reading_s(self, uncached: int) -> float:
        return (uncached / READ_TOKENS_PER_S * (1 + self.running / MOST_RUNNING) + self._step_s()) / self.server.speed

    def writing_s(self, tokens: int) -> float:
        return tokens * self._step_s() / self.server.speed

    def _step_s(self) -> float:
        return STEP_S + STEP_PER_CALL_S * self.running


@dataclass
class Outcome:
    prompt_tokens: int = 0
    hit_tokens: int = 0
    first_token_s: list[float] = field(default_factory=list)
    load: dict[str, float] = field(default_factory=dict)  # given tokens over the fair share of them, by server
    in_flight: dict[str, float] = field(default_factory=dict)  # the same of the tokens in flight, on average

    @property
    def hit_share(self) -> float:
        return self.hit_tokens / self.prompt_tokens

    @property
    def most_of_fair(self) -> float:
        return max(self.load.values())

    def ttft_s(self, share: float) -> float:
        ordered = sorted(self.first_token_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Simulation:
    """Events in the order of their time; each is a function that may add further ones."""

    def __init__(self, scenario: Scenario, seed: int, policy: Policy) -> None:
        self._policy = policy
        self._servers = [Server(f"r{number}", speed) for number, speed in enumerate(scenario.speeds)]
        self._replicas = {server.id: Replica(server) for server in self._servers}
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._outcome = Outcome()
        for session in scenario.sessions(seed):
            system = _message("system", session.tenant, session.system_tokens)
            self._at(session.starts_s, self._come, Call(session, 0, *_next_prompt(b"[" + system, session, 0)))

    def run(self) -> Outcome:
        now = 0.0
        while self._events:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
        total_speed = sum(server.speed for server in self._servers)
        given = sum(replica.given for replica in self._replicas.values())
        seconds = sum(replica.token_seconds for replica in self._replicas.values())
        for name, replica in self._replicas.items():
            fair = replica.server.speed / total_speed
            self._outcome.load[name] = replica.given / (given * fair)
            self._outcome.in_flight[name] = replica.token_seconds / (seconds * fair)
        return self._outcome

    def _at(self, when: float, do: Callable[..., None], *what: object) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), lambda now: do(now, *what)))

    def _come(self, now: float, call: Call) -> None:
        server = self._policy.choose(call, self._servers, now)
        call.came_s, call.flight = now, self._policy.began(call, server, now)
        replica = self._replicas[server.id]
        replica.take(call.prompt_tokens + call.reply_tokens, now)
        replica.queue.append(call)
        self._read(now, replica)

    def _read(self, now: float, replica: Replica) -> None:
        if replica.may_read():
            call, replica.reading = replica.queue.popleft(), True
            hit = replica.cache.hit(call.session, call.prompt_tokens)
            self._outcome.hit_tokens += hit
            self._outcome.prompt_tokens += call.prompt_tokens
            self._at(now + replica.reading_s(call.prompt_tokens - hit), self._write, replica, call)

    def _write(self, now: float, replica: Replica, call: Call) -> None:
        self._policy.first_token(call.flight, now)
        self._outcome.first_token_s.append(now - call.came_s)
        replica.reading = False
        replica.running += 1
        replica.cache.add(call.session, call.prompt_tokens)
        self._at(now + replica.writing_s(call.reply_tokens), self._end, replica, call)
        self._read(now, replica)

    def _end(self, now: float, replica: Replica, call: Call) -> None:
        self._policy.ended(call.flight, call.reply_tokens, now)
        replica.running -= 1
        replica.take(-call.prompt_tokens - call.reply_tokens, now)
        replica.cache.add(call.session, call.prompt_tokens + call.reply_tokens)
        self._read(now, replica)
        following = call.turn + 1
        if following < len(call.session.turns):
            said = call.prompt[:-1] + b"," + _message("assistant", f"{call.session.id} {call.turn}", call.reply_tokens)
            prompt = _next_prompt(said, call.session, following)
            self._at(now + call.session.turns[following].think_s, self._come, Call(call.session, following, *prompt))


def _next_prompt(said: bytes, session: Session, turn: int) -> tuple[bytes, int]:
    prompt = said + b"," + _message("user", f"{session.id} {turn}?", session.turns[turn].user_tokens) + b"]"
    return prompt, session.system_tokens + sum(
        one.user_tokens + (one.reply_tokens if number < turn else 0) for number, one in enumerate(session.turns[: turn + 1])
    )


def _message(role: str, name: str, tokens: int) -> bytes:
    start = random.Random(name).randrange(len(_SYLLABLES) // 6) * 3
    text = _SYLLABLES[start : start + tokens * BYTES_PER_TOKEN]
    return b'{"role":"%b","content":"%b %b"}' % (role.encode(), name.encode(), text)


CHAT = Scenario(sessions_per_s=2.2)
ONE_PROMPT = Scenario(sessions_per_s=10.0, tenants=(90, 5, 5), system_tokens=(1500, 1500), turns=0.1, lasts_s=240)
ONE_TENANT = Scenario(sessions_per_s=2.0, tenants=(70, 10, 10, 10))
UNEQUAL = Scenario(sessions_per_s=2.2, speeds=(4.0, 1.0))
POLICIES: dict[str, Callable[[], Policy]] = {"random": AtRandom, "least calls": LeastCalls, "daemun": Routed}


def outcomes(scenario: Scenario, seeds: Sequence[int]) -> Iterator[tuple[str, int, Outcome]]:
    for seed in seeds:
        for name, policy in POLICIES.items():
            yield name, seed, Simulation(scenario, seed, policy()).run()


if __name__ == "__main__":
    for title, scenario in {"chat": CHAT, "one prompt": ONE_PROMPT, "one tenant": ONE_TENANT, "unequal": UNEQUAL}.items():
        for name, seed, outcome in outcomes(scenario, range(3)):
            ttft = f"{outcome.ttft_s(0.5):7.3f} {outcome.ttft_s(0.99):7.3f}"
            shares = " ".join(f"{load:.2f}" for load in outcome.load.values())
            flying = " ".join(f"{load:.2f}" for load in outcome.in_flight.values())
            print(f"{title:10} {name:12} {seed} {len(outcome.first_token_s):6} {outcome.hit_share:6.3f} {ttft}  {shares} | {flying}")
