"""A replica's health from its probes, connections and calls."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.breaker import (
    FAILED_CALLS,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    SILENT_PROBES,
    WINDOW_S,
    Breaker,
    Health,
    Probe,
)

Event = Callable[[Breaker, float], Breaker]


def probed(probe: Probe) -> Event:
    return lambda breaker, now: breaker.probed(probe, now)


def succeeded(breaker: Breaker, now: float) -> Breaker:
    return breaker.call_succeeded()


ANSWERED, SILENT, REFUSED = map(probed, (Probe.ANSWERED, Probe.SILENT, Probe.REFUSED))
BROKE, FAILED, BEGAN = Breaker.connection_broke, Breaker.call_failed, Breaker.call_began
EVENTS: dict[str, Event] = {
    "answered": ANSWERED,
    "silent": SILENT,
    "refused": REFUSED,
    "broke": BROKE,
    "failed": FAILED,
    "began": BEGAN,
    "succeeded": succeeded,
}


def after(*events: Event, breaker: Breaker | None = None, now: float = 0.0) -> Breaker:
    breaker = breaker or Breaker()
    for event in events:
        breaker = event(breaker, now)
    return breaker


def opened() -> Breaker:
    return after(ANSWERED, *[FAILED] * FAILED_CALLS)


def on_trial() -> Breaker:
    return after(ANSWERED, breaker=opened(), now=FIRST_PAUSE_S)


def test_new_replica_is_starting_until_a_probe_is_answered() -> None:
    assert after().health is Health.STARTING
    assert after(REFUSED, SILENT, BROKE).health is Health.STARTING
    assert after(REFUSED, ANSWERED).health is Health.READY


def test_broken_connection_takes_it_out_at_once() -> None:
    assert after(ANSWERED, BROKE).health is Health.DOWN
    assert after(ANSWERED, REFUSED).health is Health.DOWN


def test_one_silent_probe_is_forgiven() -> None:
    silent = [SILENT] * (SILENT_PROBES - 1)
    assert after(ANSWERED, *silent).health is Health.READY
    assert after(ANSWERED, *silent, ANSWERED, *silent).health is Health.READY
    assert after(ANSWERED, *silent, SILENT).health is Health.DOWN


def test_answered_probe_brings_it_back() -> None:
    assert after(ANSWERED, BROKE, ANSWERED).health is Health.READY


def test_one_death_that_breaks_many_calls_is_no_series_of_failures() -> None:
    assert after(ANSWERED, *[BROKE] * 64, ANSWERED).health is Health.READY


def test_failed_calls_in_a_row_open_it_though_probes_are_answered() -> None:
    failed = [FAILED, ANSWERED] * (FAILED_CALLS - 1)
    assert after(ANSWERED, *failed).health is Health.READY
    assert after(ANSWERED, *failed, succeeded, *failed).health is Health.READY
    assert after(ANSWERED, *failed, FAILED).health is Health.OPEN


def test_failures_far_apart_do_not_open_it() -> None:
    breaker = after(ANSWERED)
    for number in range(3 * FAILED_CALLS):
        breaker = after(FAILED, breaker=breaker, now=number * WINDOW_S / (FAILED_CALLS - 1) * 1.01)
        assert breaker.takes_calls


def test_replica_that_breaks_every_call_is_paused_though_its_probes_are_answered() -> None:
    assert after(*[ANSWERED, BROKE] * FAILED_CALLS, ANSWERED).health is Health.OPEN


def test_after_the_pause_one_call_tries_it() -> None:
    assert after(ANSWERED, breaker=opened(), now=FIRST_PAUSE_S * 0.9).health is Health.OPEN
    assert on_trial().takes_calls
    trying = after(BEGAN, breaker=on_trial(), now=FIRST_PAUSE_S)
    assert not trying.takes_calls
    assert after(succeeded, breaker=trying) == Breaker(Health.READY)


def test_failed_trial_doubles_the_pause_up_to_a_bound() -> None:
    breaker, now, pauses = on_trial(), FIRST_PAUSE_S, list[float]()
    for _ in range(10):
        breaker = after(BEGAN, FAILED, ANSWERED, breaker=breaker, now=now)
        assert breaker.health is Health.OPEN
        pauses.append(breaker.pause_s)
        now += breaker.pause_s
        breaker = after(ANSWERED, breaker=breaker, now=now)
    assert pauses[:3] == [2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 8 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_trial_whose_client_left_is_followed_by_another() -> None:
    trying = after(BEGAN, breaker=on_trial(), now=FIRST_PAUSE_S)
    assert after(ANSWERED, breaker=trying, now=FIRST_PAUSE_S * 1.5).health is Health.TRYING
    assert after(ANSWERED, breaker=trying, now=FIRST_PAUSE_S * 2).health is Health.TRIAL


def test_calls_from_before_neither_open_it_further_nor_close_it() -> None:
    assert after(FAILED, succeeded, breaker=opened()) == opened()


def test_death_during_a_pause_does_not_end_the_pause() -> None:
    down = after(REFUSED, breaker=opened())
    assert after(ANSWERED, breaker=down, now=FIRST_PAUSE_S / 2).health is Health.OPEN
    assert after(ANSWERED, breaker=down, now=FIRST_PAUSE_S).health is Health.TRIAL


@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.floats(0, 30))))
def test_whatever_happened_a_good_replica_is_ready_again(events: list[tuple[str, float]]) -> None:
    """Once its probes are answered and its calls succeed, and within the longest pause."""
    breaker, now = Breaker(), 0.0
    for name, passed_s in events:
        now += passed_s
        breaker = EVENTS[name](breaker, now)
        assert after(BROKE, breaker=breaker, now=now).health in (Health.DOWN, Health.STARTING)
        assert breaker.takes_calls <= breaker.is_alive
        assert breaker.pause_s <= LONGEST_PAUSE_S
    back = after(ANSWERED, breaker=breaker, now=now + LONGEST_PAUSE_S)
    assert back.takes_calls
    assert after(BEGAN, succeeded, breaker=back, now=now) == Breaker(Health.READY)
