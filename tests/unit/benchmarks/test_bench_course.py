"""Which gateways are meant, and when a run may be written down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.gateway.course import Part, Plan, named_peers
from benchmarks.gateway.peers import INSTALLED, LITELLM, SMG
from benchmarks.gateway.processes import BenchmarkError

COMPLETE = Plan(tuple(Part), INSTALLED, rounds=3, quick=False)


def test_peers_are_named_in_any_order() -> None:
    assert named_peers("litellm, smg") == (SMG, LITELLM)
    assert named_peers("none") == ()


def test_unknown_peer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BenchmarkError, match="no gateway is called nginx; there are vllm-router, smg, litellm"):
        named_peers("smg,nginx")


def test_only_a_complete_run_is_written_down() -> None:
    assert COMPLETE.complete
    assert not replace(COMPLETE, parts=(Part.CALLS,)).complete
    assert not replace(COMPLETE, peers=(SMG,)).complete
    assert not replace(COMPLETE, rounds=2).complete
    assert not replace(COMPLETE, quick=True).complete
