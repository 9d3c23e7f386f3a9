"""A fleet in virtual time, to see what a way of choosing replicas is worth: cache hits, time to first token, fairness.

`python -m tests.routing_simulation` prints the table that docs/routing.md quotes. The model is simple on purpose and knows
nothing of how the router guesses: a replica reads prompts one after the other, skipping what its cache holds (least recently
used goes first); then it writes all its answers together, each step taking longer the more there are. It does not model
preemption, chunked prefill or the network. Work comes as sessions at random times, whose turns follow one another
after a time to think. The same seed gives every policy the same sessions.
"""

from __future__ import annotations

import heapq
import sys
import time
import timeit
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import fmean
from typing import Protocol

from gateway.policy.routing import Flight, Router, Work
from tests.chat_sessions import BYTES_PER_TOKEN, Session, Traffic, Turn, first_prompt, next_prompt, prompt_tokens, seeded

READ_TOKENS_PER_S = 8000.0  # prompt tokens, of a replica of speed 1
STEP_S, STEP_PER_CALL_S = 0.020, 0.0006  # one token for every running call
MOST_RUNNING = 64
CACHE_TOKENS = 200_000
ALLOWANCE_TOKENS = 256  # what the gateway guesses for every answer


@dataclass(frozen=True)
class Slow:
    """For a while the first replica is slower by this factor."""

    factor: float
    from_s: float
    until_s: float


@dataclass(frozen=True)
class Scenario:
    name: str
    traffic: Traffic
    speeds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    slow: Slow | None = None


@dataclass(frozen=True)
class Server:
    id: str
    speed: float = 1.0


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
        self._rng = seeded(1)

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
    """One engine; `given` adds up the tokens of its calls."""

    server: Server
    cache: PrefixCache = field(default_factory=PrefixCache)
    queue: deque[Call] = field(default_factory=deque)
    reading: bool = False
    running: int = 0
    given: int = 0
    slower: float = 1.0

    def may_read(self) -> bool:
        return bool(self.queue) and not self.reading and self.running < MOST_RUNNING

    def reading_s(self, uncached: int) -> float:
        return (
            (uncached / READ_TOKENS_PER_S * (1 + self.running / MOST_RUNNING) + self._step_s()) * self.slower / self.server.speed
        )

    def writing_s(self, tokens: int) -> float:
        return tokens * self._step_s() * self.slower / self.server.speed

    def _step_s(self) -> float:
        return STEP_S + STEP_PER_CALL_S * self.running


@dataclass
class Outcome:
    prompt_tokens: int = 0
    hit_tokens: int = 0
    first_token_s: list[float] = field(default_factory=list)
    load: dict[str, float] = field(default_factory=dict)  # given tokens over the fair share of them, by server

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
        for session in scenario.traffic.sessions(seed):
            call = Call(session, 0, first_prompt(session), prompt_tokens(session, 0))
            self._at(session.starts_s, self._come, call)
        if scenario.slow:
            self._at(scenario.slow.from_s, self._slow, scenario.slow.factor)
            self._at(scenario.slow.until_s, self._slow, 1.0)

    def run(self) -> Outcome:
        now = 0.0
        while self._events:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
        speeds = sum(server.speed for server in self._servers)
        given = sum(replica.given for replica in self._replicas.values())
        for name, replica in self._replicas.items():
            self._outcome.load[name] = replica.given / (given * replica.server.speed / speeds)
        return self._outcome

    def _slow(self, now: float, factor: float) -> None:
        self._replicas[self._servers[0].id].slower = factor

    def _at(self, when: float, do: Callable[..., None], *what: object) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), lambda now: do(now, *what)))

    def _come(self, now: float, call: Call) -> None:
        server = self._policy.choose(call, self._servers, now)
        call.came_s, call.flight = now, self._policy.began(call, server, now)
        replica = self._replicas[server.id]
        replica.given += call.prompt_tokens + call.reply_tokens
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
        replica.cache.add(call.session, call.prompt_tokens + call.reply_tokens)
        self._read(now, replica)
        following = call.turn + 1
        if following < len(call.session.turns):
            prompt = next_prompt(call.session, following, call.prompt)
            call = Call(call.session, following, prompt, prompt_tokens(call.session, following))
            self._at(now + call.session.turns[following].think_s, self._come, call)


CHAT = Scenario("chat, 8 tenants", Traffic(2.2))
ONE_PROMPT = Scenario("90 % of calls share one prompt", Traffic(16.0, tenants=(90, 5, 5), system_tokens=(1500, 1500), turns=0.1))
ONE_TENANT = Scenario("one tenant has 70 %", Traffic(2.2, tenants=(70, 10, 10, 10)))
TWO_SPEEDS = Scenario("speeds 4 and 1", Traffic(2.2), (4.0, 1.0))
THREE_SPEEDS = Scenario("speeds 3, 2, 1 and 1", Traffic(3.3), (3.0, 2.0, 1.0, 1.0))
SLOW = Scenario("chat, one is 5 times slower for a while", Traffic(2.2), slow=Slow(5.0, 50.0, 100.0))
SCENARIOS = (CHAT, ONE_PROMPT, ONE_TENANT, TWO_SPEEDS, THREE_SPEEDS, SLOW)
POLICIES: dict[str, Callable[[], Policy]] = {"random": AtRandom, "least calls": LeastCalls, "daemun": Routed}


def table(seeds: Sequence[int]) -> Iterator[str]:
    """Markdown. Means over the seeds, and the worst seed's load."""
    yield "| scenario | policy | cache hits | TTFT p50 | TTFT p99 | most load / fair |"
    yield "|---|---|---|---|---|---|"
    for scenario in SCENARIOS:
        for name, policy in POLICIES.items():
            outcomes = [Simulation(scenario, seed, policy()).run() for seed in seeds]
            hits = fmean(outcome.hit_share for outcome in outcomes)
            middle, late = (fmean(outcome.ttft_s(share) for outcome in outcomes) for share in (0.5, 0.99))
            most = max(outcome.most_of_fair for outcome in outcomes)
            yield f"| {scenario.name} | {name} | {hits:.1%} | {middle * 1e3:.0f} ms | {late * 1e3:.0f} ms | {most:.2f} |"


def cost_us(replicas: int, prompt_bytes: int) -> float:
    """Processor time of one call's way through the router: hashing, picking, beginning and ending."""
    router, servers, prompt = Router[Server](), [Server(f"r{number}") for number in range(replicas)], _prompt(prompt_bytes)
    numbers = count()

    def call() -> None:
        now = next(numbers) / 10_000
        work = Work(prompt, 300, "tenant")
        chosen = router.pick(work, servers, now)
        if chosen is not None:
            router.ended(router.began(chosen.id, work, now), 50, now + 1.0)

    return min(timeit.repeat(call, number=100, repeat=300, timer=time.process_time)) / 100 * 1e6


def _prompt(prompt_bytes: int) -> bytes:
    session = Session("s0", "t0", 0.0, 10_000, (Turn(0.0, 10_000, 0),))
    return first_prompt(session)[:prompt_bytes]


if __name__ == "__main__":
    for line in table(range(5)):
        sys.stdout.write(line + "\n")
    for replicas in (1, 2, 4):
        costs = ", ".join(f"{size:,} bytes {cost_us(replicas, size):.1f} µs" for size in (300, 5_000, 65_000))
        sys.stdout.write(f"{replicas} replicas, prompt of {costs}\n")
