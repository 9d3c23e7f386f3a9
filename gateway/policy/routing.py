"""Which replica? Three scores from 0 to 1 for each, one weighted sum, and the highest wins.

- *Near*: the share of the prompt that the replica probably has in its cache (`gateway.policy.prefix`); a little for the
  session alone.
- *Light*: tokens in flight and lately given, relative to the measured speed, against the lightest replica.
- *Roomy*: what is left of the KV cache, where the engine tells.

Nearness does not count for a replica that has more than its fair share of the work already: that is what keeps a popular
prompt from making a hot spot. Who may be chosen at all (serves the model, ready, not draining, breaker closed) is filtered where
these facts change, by `gateway.policy.breaker` and the fleet, not once a call; here only those that the call has tried are.

Ties go to the replica that was chosen longest ago. The same facts give the same choice: rejected was power of two
choices, whose randomness a gateway of a few replicas does not need and a test cannot repeat.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import exp, fsum
from typing import Generic, Protocol, TypeVar

from gateway.policy.prefix import PrefixMemory, chain, entries_for, share

NEAR_WEIGHT, SESSION_WEIGHT, LIGHT_WEIGHT, ROOMY_WEIGHT = 1.0, 0.4, 1.5, 1.0
SOFT_CALLS = 6  # that make no great difference to an engine: added to every load before loads are compared
MOST_OF_FAIR, SPARE_CALLS = 1.15, 3  # nearness counts up to this multiple of the fair share and so many calls more

_TICK_S = 0.25  # how often what changes slowly is looked at
_RECENT_S = 60.0  # time constant of what counts as lately given
_COMFORTABLE = 0.5  # KV-cache usage up to which there is no pressure
_QUEUE_CALLS = 8  # calls waiting in the engine that halve its score
_TOLD_S = 10.0  # for how long an engine's word on its cache holds
_BATCH_CALLS = 32  # an engine's step takes about twice as long with so many calls as with one
_SPEED_KEPT = 0.98  # the share of what is known of the speed that each further call leaves: the last 50 calls or so
_LEAST_CALLS = 5  # before a replica's speed is believed
_MOST_SLOWER = 16.0  # no replica counts as slower than the fastest by more, or it could never show that it recovered


class Candidate(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Candidate)


class Work:
    """What a call brings to a replica, to be made once a call, however often it is tried.

    `prompt` is the prompt's JSON as the client sent it, of which a later turn's begins with an earlier turn's; `tokens` the
    estimate of prompt and answer together; `session` names whose calls should stay together, if anything does.
    """

    __slots__ = ("chain", "mark", "prompt_bytes", "tokens", "whole")

    def __init__(self, prompt: bytes, tokens: int, session: str = "") -> None:
        self.chain = chain(prompt)
        self.prompt_bytes = len(prompt)
        self.whole = share(len(self.chain), self.prompt_bytes)
        self.tokens = max(tokens, 1)
        self.mark = hash(session) if session else None


@dataclass(frozen=True, slots=True)
class Pressure:
    """What an engine says of its KV cache: the share in use, the calls that wait in it, its size in tokens if told."""

    kv_usage: float
    waiting: int = 0
    kv_tokens: int | None = None

    @property
    def room(self) -> float:
        """From 1, comfortable, to 0, full."""
        left = min(1.0, (1.0 - self.kv_usage) / (1.0 - _COMFORTABLE))
        return max(0.0, left) * _QUEUE_CALLS / (_QUEUE_CALLS + self.waiting)


class _Load:
    """What is known of one replica. `ahead` is the sum of its tokens in flight and of those lately given."""

    __slots__ = (
        "ahead",
        "calls",
        "ended",
        "memory",
        "produced",
        "recent",
        "room",
        "room_until",
        "speed",
        "tokens",
        "took_s",
        "turn",
    )

    def __init__(self) -> None:
        self.calls = self.tokens = self.turn = self.ended = 0
        self.ahead = self.recent = self.produced = self.took_s = 0.0
        self.speed = 0.0  # tokens a second of one call alone; 0 while unknown
        self.room, self.room_until = 1.0, 0.0
        self.memory = PrefixMemory()

    def learn(self, tokens: int, took_s: float, crowd: float) -> None:
        """A call got so many tokens in so many seconds while `crowd` calls shared the engine's steps."""
        self.produced = self.produced * _SPEED_KEPT + tokens * (1.0 + crowd / _BATCH_CALLS)
        self.took_s = self.took_s * _SPEED_KEPT + took_s
        self.ended += 1
        if self.ended >= _LEAST_CALLS:
            self.speed = self.produced / self.took_s


class _Loads(dict[str, _Load]):
    def __missing__(self, replica_id: str) -> _Load:
        load = self[replica_id] = _Load()
        return load


class _Team(Generic[R]):
    """Replicas that are chosen from together, and what of them changes slowly: seconds a token, and scores for room."""

    __slots__ = ("loads", "paces", "replicas", "rooms", "usual_pace")

    def __init__(self, replicas: Sequence[R], loads: list[_Load], now: float) -> None:
        self.replicas = replicas
        self.loads = loads
        self.paces = _paces([load.speed for load in loads])
        self.rooms = [ROOMY_WEIGHT * (load.room if now < load.room_until else 1.0) for load in loads]
        self.usual_pace = len(loads) / fsum(1.0 / pace for pace in self.paces)


class Flight:
    """A call on its replica, from `began` to `ended`."""

    __slots__ = ("crowd", "load", "since", "tokens")

    def __init__(self, load: _Load, tokens: int, now: float) -> None:
        self.load = load
        self.tokens = tokens
        self.crowd = load.calls
        self.since = now


class Router(Generic[R]):
    """All that is remembered between choices. Replicas need no introduction: one of which nothing is known counts as usual.

    Hand in the same sequence as long as the same replicas are ready: what is known of them is then not put together anew. And
    do not change a sequence that was handed in.
    """

    def __init__(self) -> None:
        self._loads = _Loads()
        self._teams: dict[int, _Team[R]] = {}
        self._turn = 0
        self._ticked_at = 0.0

    def pick(self, work: Work, replicas: Sequence[R], now: float, tried: Collection[str] = ()) -> R | None:
        """The best of `replicas`, all of which may be sent calls, less those in `tried`; None if none is left."""
        if tried:
            replicas = [replica for replica in replicas if replica.id not in tried]
        if len(replicas) < 2:
            return replicas[0] if replicas else None
        if now - self._ticked_at > _TICK_S:
            self._tick(now)
        team = self._teams.get(id(replicas))
        if team is None or team.replicas is not replicas:
            team = _Team(replicas, [self._loads[replica.id] for replica in replicas], now)
            self._teams[id(replicas)] = team
        return self._best(work, team)

    def began(self, replica_id: str, work: Work, now: float) -> Flight:
        """The call goes to this replica. Give the flight to `ended` whatever becomes of it."""
        if now - self._ticked_at > _TICK_S:
            self._tick(now)
        load = self._loads[replica_id]
        self._turn = load.turn = self._turn + 1
        load.tokens += work.tokens
        load.recent += work.tokens
        load.ahead += 2 * work.tokens
        load.memory.remember(work.chain, work.mark)
        flight = Flight(load, work.tokens, now)
        load.calls += 1
        return flight

    def first_token(self, flight: Flight, now: float) -> None:
        """Reading the prompt is over: what follows tells the speed, whatever of the prompt was in the cache."""
        flight.since = now

    def ended(self, flight: Flight, tokens: int, now: float) -> None:
        """The call is over, having got so many tokens (of completion)."""
        load = flight.load
        load.calls -= 1
        load.tokens -= flight.tokens
        load.ahead -= flight.tokens
        took_s = now - flight.since
        if tokens > 0 and took_s > 0.0:
            load.learn(tokens, took_s, (flight.crowd + load.calls) / 2)

    def told(self, replica_id: str, pressure: Pressure, now: float) -> None:
        """The engine's word on its KV cache, which holds for some seconds."""
        load = self._loads[replica_id]
        load.room, load.room_until = pressure.room, now + _TOLD_S
        if pressure.kv_tokens is not None:
            load.memory.resize(entries_for(pressure.kv_tokens))
        self._teams.clear()

    def forget(self, known: Collection[str]) -> None:
        """What the replicas that are not `known` had in their caches is gone; all else too, once their last call has ended."""
        for replica_id in [replica_id for replica_id in self._loads if replica_id not in known]:
            if self._loads[replica_id].calls:
                self._loads[replica_id].memory.clear()
            else:
                del self._loads[replica_id]
        self._teams.clear()

    def in_flight_tokens(self, replica_id: str) -> int:
        return self._loads[replica_id].tokens if replica_id in self._loads else 0

    def speed(self, replica_id: str) -> float | None:
        """Tokens a second that one call alone would get; None while unknown."""
        return (self._loads[replica_id].speed or None) if replica_id in self._loads else None

    def _best(self, work: Work, team: _Team[R]) -> R:
        """The one with the highest score. In one piece, for it is done for every call."""
        tokens, hashes, mark = work.tokens, work.chain, work.mark
        first, last = (hashes[0], hashes[-1]) if hashes else (None, None)
        call_s = tokens * team.usual_pace
        soft_s = SOFT_CALLS * call_s
        busy_s = [(load.ahead + tokens) * pace for load, pace in zip(team.loads, team.paces, strict=True)]
        lightest = LIGHT_WEIGHT * (min(busy_s) + soft_s)
        most_s = MOST_OF_FAIR * sum(busy_s) / len(busy_s) + SPARE_CALLS * call_s
        best, best_score, best_turn = team.replicas[0], -1.0, 0
        for replica, load, room, busy in zip(team.replicas, team.loads, team.rooms, busy_s, strict=True):
            score = room + lightest / (busy + soft_s)
            if busy <= most_s:
                known = load.memory.known
                if last in known:
                    score += NEAR_WEIGHT * work.whole
                elif first in known:
                    score += NEAR_WEIGHT * share(load.memory.known_blocks(hashes), work.prompt_bytes)
                if mark in known:
                    score += SESSION_WEIGHT
            if score > best_score or (score == best_score and load.turn < best_turn):
                best, best_score, best_turn = replica, score, load.turn
        return best

    def _tick(self, now: float) -> None:
        """Speeds and room are looked at anew, and what was given before now counts a little less."""
        faded = exp((self._ticked_at - now) / _RECENT_S)
        for load in self._loads.values():
            load.recent *= faded
            load.ahead = load.tokens + load.recent
        self._ticked_at = now
        self._teams.clear()


def _paces(speeds: list[float]) -> list[float]:
    """Seconds a token. Unknown speeds are like the mean of the known; none is slower than the fastest by more than a bound."""
    known = [speed for speed in speeds if speed]
    if not known:
        return [1.0] * len(speeds)
    usual, least = sum(known) / len(known), max(known) / _MOST_SLOWER
    return [1.0 / max(speed or usual, least) for speed in speeds]
