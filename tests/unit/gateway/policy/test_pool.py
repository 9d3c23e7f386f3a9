"""No interleaving of workers, deaths, lost answers and lost data lets more through a limit than it is."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.policy.meter import Kind, Meter
from gateway.policy.pool import Ask, Given, Pool
from gateway.policy.window import window_at

LIMIT = 6
SCOPE = "tenant:가게"
START_MS = 1_750_000_000_000


@dataclass
class Worker:
    name: str
    meter: Meter
    kept: memoryview
    must_tell: bool = False  # a time of grace runs, and it has not told yet
    adopted: set[str] = field(default_factory=set)
    sent: list[tuple[Ask, float]] = field(default_factory=list)  # on their way to the pool, on several connections
    heard: tuple[Ask, float, Given] | None = None  # and back
    running: list[int] = field(default_factory=list)  # the windows of its calls
    settled: tuple[int, int] = (0, 0)  # window and figure, as of when it first told in this epoch


class World(RuleBasedStateMachine):
    """Workers of one limit, their figures kept in memory that outlives them, the pool that they take from, and the ledger."""

    @initialize(kind=st.sampled_from([Kind.REQUESTS_PER_MINUTE, Kind.REQUESTS_PER_DAY]))
    def begin(self, kind: Kind) -> None:
        self.kind = kind
        self.now_ms = START_MS
        self.pool = Pool()
        self.snapshot = [Pool()]
        self.ledger: dict[int, int] = defaultdict(int)
        self.epoch = 0
        self.known: tuple[int, int] | None = (0, 0)  # of a window, as read in this epoch
        self.numbers, self.names = count(1), count(1)
        self.workers: list[Worker] = []
        self.gone: list[Worker] = []
        self.admitted: dict[int, int] = defaultdict(int)
        for _ in range(3):
            self.worker_starts()

    @property
    def now(self) -> float:
        return self.now_ms / 1000

    def window(self) -> int:
        return window_at(self.workers[0].meter.period, self.now_ms, self.workers[0].meter.calendar)[0]

    @precondition(lambda self: len(self.workers) < 4)
    @rule()
    def worker_starts(self) -> None:
        kept = memoryview(bytearray(24)).cast("q")
        self.workers.append(Worker(f"w{next(self.names)}", Meter(SCOPE, self.kind, LIMIT, 0, kept), kept))

    @rule(which=st.integers(0, 3), calls=st.integers(1, 9))
    def calls_come(self, which: int, calls: int) -> None:
        worker = self.workers[which % len(self.workers)]
        for _ in range(calls):
            if not worker.meter.lacks(1, self.now):
                worker.meter.take(1)
                worker.running.append(worker.meter.window)
                self.admitted[worker.meter.window] += 1

    @rule(which=st.integers(0, 3))
    def a_call_gives_its_request_back(self, which: int) -> None:
        worker = self.workers[which % len(self.workers)]
        if worker.meter.window in worker.running and self.now < worker.meter.ends:
            worker.running.remove(worker.meter.window)
            worker.meter.settle(worker.meter.window, 1, 0)
            self.admitted[worker.meter.window] -= 1

    @rule(which=st.integers(0, 3), calls=st.integers(1, 9))
    def calls_end(self, which: int, calls: int) -> None:
        worker = self.workers[which % len(self.workers)]
        for window in worker.running[:calls]:
            worker.meter.settle(window, 1, 1)
            self.ledger[window] += 1
        del worker.running[:calls]

    @rule(which=st.integers(0, 3), need=st.integers(0, 4), keep=st.none() | st.integers(0, 3))
    def asks(self, which: int, need: int, keep: int | None) -> None:
        """What was on its way before is lost for the worker, but may still reach the pool: before this, after it, or never."""
        worker = self.workers[which % len(self.workers)]
        meter = worker.meter
        if keep is not None:
            meter.give_up(keep)
        if worker.must_tell and worker.settled[0] < 0:
            worker.settled = meter.window, meter.settled
        grace = any(other.must_tell for other in self.workers)
        known_window, known = self.known or (0, -1)
        dead = tuple(worker.adopted)
        ask = Ask(
            worker.name,
            next(self.numbers),
            LIMIT,
            meter.period,
            meter.calendar,
            meter.window,
            meter.told(),
            0 if grace else need,
            workers=len(self.workers),
            dead=dead,
            settled=worker.settled[1] if worker.settled[0] == meter.window else 0,
            known=known,
            known_window=known_window,
            epoch=self.epoch,
        )
        worker.heard = None
        worker.sent.append((ask, self.now))

    @rule(which=st.integers(0, 3), calls=st.integers(1, 9))
    def calls_that_need_more_come(self, which: int, calls: int) -> None:
        """The usual course: what is there is spent, more is asked for and comes, and that is spent."""
        self.calls_come(which, calls)
        self.asks(which, 1, None)
        self.reaches_the_pool(which, False)
        self.comes_back(which, False)
        self.calls_come(which, calls)

    @rule(which=st.integers(0, 3), late=st.booleans())
    def reaches_the_pool(self, which: int, late: bool) -> None:
        worker = self.workers[which % len(self.workers)]
        if not worker.sent:
            return
        is_last = not late or len(worker.sent) == 1
        ask, at = worker.sent.pop(-1 if is_last else 0)
        given = self.pool.exchange(ask, self.now_ms)
        if is_last:
            worker.heard = (ask, at, given)
            worker.must_tell = False

    @rule(which=st.integers(0, 3), is_lost=st.booleans())
    def comes_back(self, which: int, is_lost: bool) -> None:
        worker = self.workers[which % len(self.workers)]
        if worker.heard is not None:
            ask, at, given = worker.heard
            worker.heard = None
            if not is_lost:
                worker.adopted -= set(ask.dead)
                worker.meter.hear(ask.window, ask.told, given, at + given.left_ms / 1000)

    @precondition(lambda self: len(self.workers) > 1)
    @rule(which=st.integers(0, 3))
    def worker_is_killed(self, which: int) -> None:
        self.gone.append(self.workers.pop(which % len(self.workers)))
        self._is_over_for(self.gone[-1])

    @precondition(lambda self: len(self.workers) > 1 and self.kind is Kind.REQUESTS_PER_DAY and not self.gone)
    @rule(which=st.integers(0, 3))
    def machine_is_gone(self, which: int) -> None:
        """And its worker's file with it: only the ledger has the calls, those that were over."""
        self._is_over_for(self.workers.pop(which % len(self.workers)))

    def _is_over_for(self, worker: Worker) -> None:
        """Its calls end with it. That the ledger has them is not promised: those under way at a death may be let through anew."""
        for window in worker.running:
            self.ledger[window] += 1
        worker.running.clear()

    @precondition(lambda self: self.gone)
    @rule(which=st.integers(0, 3))
    def somebody_goes_on_from_its_file(self, which: int) -> None:
        dead, worker = self.gone.pop(), self.workers[which % len(self.workers)]
        if dead.kept[0]:
            worker.meter.adopt(dead.kept[0], dead.kept[2])
        worker.adopted |= {dead.name, *dead.adopted}
        if dead.must_tell:
            worker.must_tell = True

    @rule()
    def pool_is_saved(self) -> None:
        self.snapshot.append(deepcopy(self.pool))

    @precondition(lambda self: not self.gone)  # figures that nobody has cannot be told again
    @rule(old=st.integers(0, 20))
    def pool_begins_anew_with_old_data_or_none(self, old: int) -> None:
        self.pool = deepcopy(self.snapshot[old % len(self.snapshot)])
        self.epoch, self.known = self.epoch + 1, None
        for worker in self.workers:
            worker.must_tell, worker.heard, worker.settled = True, None, (-1, 0)
            worker.sent.clear()

    @precondition(lambda self: self.known is None and not self.gone)
    @rule()
    def ledger_is_read(self) -> None:
        """When all have told again."""
        if not any(worker.must_tell for worker in self.workers):
            self.known = self.window(), self.ledger[self.window()]

    @precondition(lambda self: self.known is None and not self.gone)
    @rule()
    def time_of_grace_passes_as_it_should(self) -> None:
        for number in range(len(self.workers)):
            self.asks(number, 0, None)
            self.reaches_the_pool(number, False)
            self.comes_back(number, False)
        self.ledger_is_read()

    @precondition(lambda self: len(self.workers) > 1 and self.kind is Kind.REQUESTS_PER_DAY and not self.gone)
    @rule(which=st.integers(0, 3), old=st.integers(0, 20), calls=st.integers(1, 9))
    def machine_and_the_pools_data_are_gone(self, which: int, old: int, calls: int) -> None:
        self.calls_that_need_more_come(which, calls)
        self.machine_is_gone(which)
        self.pool_begins_anew_with_old_data_or_none(old)
        self.time_of_grace_passes_as_it_should()
        self.calls_that_need_more_come(which, calls)

    @rule(later_ms=st.sampled_from([1, 1000, 20_000, 61_000, 86_400_000]))
    def time_passes(self, later_ms: int) -> None:
        self.now_ms += later_ms

    @invariant()
    def no_window_lets_more_through_than_its_limit(self) -> None:
        assert all(admitted <= LIMIT for admitted in self.admitted.values()), dict(self.admitted)


World.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestPool = World.TestCase


def test_ask_that_was_overtaken_says_nothing_any_more() -> None:
    """As when a paused server goes on: what was sent on a connection that is closed since comes after what was sent later."""
    meter, pool = Meter(SCOPE, Kind.REQUESTS_PER_MINUTE, LIMIT, 0), Pool()

    def ask(worker: str, number: int, told: int, need: int) -> Ask:
        return Ask(worker, number, LIMIT, meter.period, meter.calendar, pool.window, told, need)

    pool.exchange(ask("a", 1, 0, 0), START_MS)
    assert pool.exchange(ask("a", 3, 0, LIMIT), START_MS).slice == LIMIT
    pool.exchange(ask("a", 2, 0, 0), START_MS)
    assert pool.exchange(ask("b", 1, 0, 1), START_MS).slice == 0


def spent_by(worker: str, number: int, told: int, *, epoch: int, settled: int = 0, known: int = -1, need: int = 0) -> Ask:
    meter = Meter(SCOPE, Kind.REQUESTS_PER_DAY, LIMIT, 0)
    window, _ = window_at(meter.period, START_MS, meter.calendar)
    ask = Ask(worker, number, LIMIT, meter.period, meter.calendar, window, told, need)
    return replace(ask, settled=settled, known=known, known_window=window, epoch=epoch)


def test_store_that_lost_nothing_counts_nothing_twice() -> None:
    """One worker is gone with three calls, two of them in the ledger; another has two, one of them in the ledger."""
    pool = Pool()
    pool.exchange(spent_by("gone", 1, 0, epoch=1, known=0), START_MS)
    pool.exchange(spent_by("gone", 2, 3, epoch=1, known=0), START_MS)
    pool.exchange(spent_by("lives", 1, 0, epoch=1, known=0), START_MS)
    pool.exchange(spent_by("lives", 2, 2, epoch=2, settled=1), START_MS)
    given = pool.exchange(spent_by("lives", 3, 2, epoch=2, settled=1, known=3), START_MS)
    assert (pool.lost, given.left) == (0, LIMIT - 3 - 2)


def test_store_that_lost_all_counts_what_the_ledger_knows_of_those_that_are_gone() -> None:
    """Three calls of theirs are in the ledger, and one of two of a worker that lives."""
    pool = Pool()
    pool.exchange(spent_by("lives", 1, 2, epoch=2, settled=1), START_MS)
    assert pool.exchange(spent_by("lives", 2, 2, epoch=2, settled=1, need=1), START_MS).slice == 0, "the ledger was not asked yet"
    given = pool.exchange(spent_by("new", 1, 0, epoch=2, known=4, need=1), START_MS)
    assert (pool.lost, given.slice, given.left) == (3, 1, 0)
    assert pool.exchange(spent_by("lives", 3, 2, epoch=2, settled=1, known=4), START_MS).left == 0, "and it is asked once"


def test_next_window_begins_without_what_was_lost_in_the_one_before() -> None:
    pool = Pool()
    pool.exchange(spent_by("new", 1, 0, epoch=1, known=4), START_MS)
    assert pool.lost == 4
    given = pool.exchange(spent_by("new", 2, 0, epoch=1, known=4, need=1), START_MS + 86_400_000)
    assert (pool.lost, given.slice + given.left) == (0, LIMIT)
