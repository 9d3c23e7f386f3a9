"""What a start's parts took, from what its processes wrote."""

from pathlib import Path

import pytest

from serving import start_log
from serving.start_log import Part, Start, Starts


def test_a_start_is_told_once_and_only_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("SERVING_START_LOG", "")  # so that it is put back afterwards
    starts = Starts(tmp_path)
    assert list(starts.over()) == []
    start_log.begin("demo")
    with start_log.part("imports"):
        pass
    assert list(starts.over()) == []
    with start_log.part("server"):
        pass
    (start,) = starts.over()
    assert (start.model, [part.name for part in start.parts]) == ("demo", ["imports", "server"])
    assert list(starts.over()) == []


def test_a_part_that_fails_is_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_START_LOG", str(tmp_path / "demo@1.jsonl"))
    with pytest.raises(OSError, match="no"), start_log.part("engine"):
        raise OSError("no")
    assert not (tmp_path / "demo@1.jsonl").exists()


def test_without_a_runs_directory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.delenv("SERVING_START_LOG", raising=False)
    start_log.begin("demo")
    with start_log.part("server"):
        pass


def test_the_sentence_has_the_parts_in_their_order_and_the_whole() -> None:
    parts = (Part("model", 12.0, 13.0), Part("imports", 2.0, 10.0), Part("engine", 10.0, 14.5))
    assert Start("demo", parts).sentence() == "demo: a replica started in 12.5 s (imports 8.0, engine 4.5, model 1.0)"
