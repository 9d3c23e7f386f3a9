"""Figures are read off a server: here the simulated one, whose own are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from engines import figures as engine_figures
from loadtests import calibrate
from loadtests.engine_fit import Size
from loadtests.engine_probe import Probe, ProbeFailed
from tests.e2e.stack import free_ports
from tests.engine_process import MODEL, EngineProcess, engine_process


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with engine_process(free_ports(1)[0], "--figures", "demo-cpu") as made:
        yield made


async def test_server_says_what_it_holds(engine: EngineProcess) -> None:
    shape, version = await calibrate.limits(engine.url, "none")
    known = engine_figures.load("demo-cpu")
    assert (shape.max_model_len, shape.kv_tokens) == (known.max_model_len, known.kv_tokens)
    assert version.startswith("0.29")


async def test_streams_are_as_long_as_asked_and_their_times_in_order(engine: EngineProcess) -> None:
    async with Probe(engine.url, MODEL, "none", seed=1) as probe:
        arrivals = await probe.ask(Size(100, 40))
        assert arrivals.tokens == 40
        assert [at for at, _ in arrivals.pieces] == sorted(at for at, _ in arrivals.pieces)
        step = await probe.decode_step(3, Size(50, 20))
        assert (step.calls, step.context_tokens) == (3, 180.0)
        timed = await probe.closed_loop([Size(20, 1), Size(30, 5), Size(40, 9)], clients=2)
        assert [one.between_s > 0 for one in timed] == [False, True, True]


async def test_server_that_refuses_is_said(engine: EngineProcess) -> None:
    async with Probe(engine.url, "other", "none", seed=1) as probe:
        with pytest.raises(ProbeFailed, match="the server answers 404"):
            await probe.ask(Size(10, 10))


async def test_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(aiohttp.ClientError):
        await calibrate.limits(f"http://127.0.0.1:{free_ports(1)[0]}", "none")


def test_what_is_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = engine_figures.load("demo-cpu")
    text = calibrate.written(known, {"throughput": {"1": [0.1]}}, "0.29.0", "daemun-demo")
    monkeypatch.setattr(engine_figures, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert engine_figures.load("mine") == known
