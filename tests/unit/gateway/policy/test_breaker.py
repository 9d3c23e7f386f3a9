"""A replica's health from its probes and connections."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.breaker import SILENT_PROBES, Breaker, Health, Probe


def after(*events: Probe | None) -> Breaker:
    """None stands for a broken connection."""
    breaker = Breaker()
    for event in events:
        breaker = breaker.connection_broke() if event is None else breaker.probed(event)
    return breaker


def test_new_replica_is_starting_until_a_probe_is_answered() -> None:
    assert after().health is Health.STARTING
    assert after(Probe.REFUSED, Probe.SILENT, None).health is Health.STARTING
    assert after(Probe.REFUSED, Probe.ANSWERED).health is Health.READY


def test_broken_connection_takes_it_out_at_once() -> None:
    assert after(Probe.ANSWERED, None).health is Health.DOWN
    assert after(Probe.ANSWERED, Probe.REFUSED).health is Health.DOWN


def test_one_silent_probe_is_forgiven() -> None:
    silent = [Probe.SILENT] * (SILENT_PROBES - 1)
    assert after(Probe.ANSWERED, *silent).health is Health.READY
    assert after(Probe.ANSWERED, *silent, Probe.ANSWERED, *silent).health is Health.READY
    assert after(Probe.ANSWERED, *silent, Probe.SILENT).health is Health.DOWN


def test_answered_probe_brings_it_back() -> None:
    assert after(Probe.ANSWERED, None, Probe.ANSWERED) == Breaker(Health.READY)


@given(st.lists(st.sampled_from([None, *Probe])))
def test_last_answer_or_break_decides(events: list[Probe | None]) -> None:
    assert after(*events, Probe.ANSWERED).health is Health.READY
    assert after(*events, None).health is not Health.READY
