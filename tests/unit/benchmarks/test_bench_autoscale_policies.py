"""The policies that daemun's is compared with do what their documents say, Ray's default what Ray's own wrapper does."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.autoscale.policies import Keda, KedaRules, Oracle
from serving.autoscaling.demand import Demand
from serving.simulator.autoscaler import Signal, Subject

SUBJECT = Subject("m", least=1, most=20, start=1, places=64, tokens_per_s=1000.0, cold_start_s=60.0, target_first_token_s=2.0)


def signal(now: float, waiting: int, running: int = 0, ready: int = 1, starting: int = 0) -> Signal:
    return Signal(
        demand=Demand(at=now, running=running, ready=ready, starting=starting),
        waiting=waiting,
        running=running,
        ready=ready,
        starting=starting,
        places=64 * ready,
        arrivals_per_s=0.0,
        rejections_per_s=0.0,
        expected_wait_s=0.0,
    )


def keda(target: float = 5.0, *, with_running: bool = False, subject: Subject = SUBJECT) -> Keda:
    return Keda(subject, KedaRules(target, with_running))


def test_kubernetes_asks_for_what_waits_over_the_target() -> None:
    assert keda().decide(signal(0.0, waiting=12), 1, 0.0) == 3
    assert keda(with_running=True).decide(signal(0.0, waiting=12, running=8), 1, 0.0) == 4


def test_kubernetes_leaves_a_tenth_alone() -> None:
    assert keda().decide(signal(0.0, waiting=21), 4, 0.0) == 4
    assert keda().decide(signal(0.0, waiting=23), 4, 0.0) == 5


def test_kubernetes_adds_four_or_doubles_within_15_seconds() -> None:
    policy = keda()
    assert policy.decide(signal(0.0, waiting=500), 1, 0.0) == 5
    assert policy.decide(signal(5.0, waiting=500), 5, 5.0) == 5  # between two syncs
    assert policy.decide(signal(15.0, waiting=500), 5, 15.0) == 10
    assert policy.decide(signal(30.0, waiting=500), 10, 30.0) == 20


def test_kubernetes_goes_down_to_the_most_advised_within_five_minutes() -> None:
    policy = keda()
    assert policy.decide(signal(0.0, waiting=50), 10, 0.0) == 10
    assert policy.decide(signal(150.0, waiting=30), 10, 150.0) == 10
    assert policy.decide(signal(299.0, waiting=0), 10, 299.0) == 10
    assert policy.decide(signal(315.0, waiting=0), 10, 315.0) == 6
    assert policy.decide(signal(451.0, waiting=0), 6, 451.0) == 1


def test_keda_goes_to_zero_after_its_cooldown_and_back_at_once() -> None:
    policy = keda(subject=replace(SUBJECT, least=0))
    assert policy.decide(signal(0.0, waiting=1), 1, 0.0) == 1
    assert policy.decide(signal(290.0, waiting=0), 1, 290.0) == 1
    assert policy.decide(signal(300.0, waiting=0), 1, 300.0) == 0
    assert policy.decide(signal(301.0, waiting=1), 0, 301.0) == 1


def test_the_oracle_has_replicas_ready_when_the_calls_come_and_not_much_earlier() -> None:
    arrivals = [(600.0 + second / 10, 100.0) for second in range(600)]  # 1000 tokens a second for a minute
    oracle = Oracle(SUBJECT, arrivals, use=0.5, window_s=20.0)
    wanted = {now: oracle.decide(signal(now, 0), 1, now) for now in (500.0, 539.0, 541.0, 600.0, 659.0, 681.0)}
    assert wanted == {500.0: 1, 539.0: 1, 541.0: 2, 600.0: 2, 659.0: 2, 681.0: 1}


@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0.5, 60)), max_size=60), st.booleans(), st.integers(0, 1))
def test_kubernetes_stays_within_its_bounds_and_limits(seen: list[tuple[int, float]], with_running: bool, least: int) -> None:
    policy = keda(with_running=with_running, subject=replace(SUBJECT, least=least))
    current, now = 1, 0.0
    counts = [current]
    for waiting, passed in seen:
        now += passed
        current = policy.decide(signal(now, waiting, running=waiting), current, now)
        counts.append(current)
    assert all(least <= count <= SUBJECT.most for count in counts)
    assert all(after <= max(before + 4, 2 * before) for before, after in pairwise(counts))


class TestRay:
    """Needs Ray, which the serving extras bring."""

    ray = pytest.importorskip("ray.serve.autoscaling_policy")

    @pytest.mark.parametrize("seed", range(5))
    def test_default_does_what_rays_own_wrapper_does(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        from benchmarks.autoscale.ray_default import RayDefault

        clock = [0.0]
        monkeypatch.setattr(self.ray.time, "time", lambda: clock[0])
        wrapped = self.ray._apply_autoscaling_config(self.ray.replica_queue_length_autoscaling_policy)
        ours, random = RayDefault(SUBJECT, 2.0), Random(seed)  # noqa: S311
        memory: dict[str, object] = {}
        recent: list[int] = []
        target = ready = 1
        for _ in range(2000):
            clock[0] += 1.0
            calls = random.choice((0, 3, 9, 40)) if random.random() < 0.02 or not recent else recent[-1]
            recent.append(calls)
            own = ours.decide(signal(clock[0], calls, ready=ready), target, clock[0])
            # Whole seconds: the mean of the last 30 of them, of which the newest has not lasted yet.
            mean = sum(recent[-31:-1]) / len(recent[-31:-1]) if len(recent) > 1 else calls
            context = ours._context(mean, ready, target)
            context.policy_state = memory
            his, memory = wrapped(context)
            assert own == min(max(his, 1), SUBJECT.most)
            target = own
            ready = min(ready + (random.random() < 0.1), target)
        assert target >= 1

    def test_default_waits_30_seconds_up_and_600_down(self) -> None:
        from benchmarks.autoscale.ray_default import RayDefault

        policy, target, counts = RayDefault(SUBJECT, 2.0), 1, {}
        for now in range(1000):
            calls = 8 if now < 200 else 0
            target = policy.decide(signal(float(now), calls, ready=target), target, float(now))
            counts[now] = target
        assert counts[29] == 1
        assert counts[30] == counts[799] == 4
        assert counts[829] == 1
