"""The file by which a running `daemun serve` is found."""

import os
from pathlib import Path

from serving.serve_process import announced, find


def test_found_while_it_runs_and_not_after(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    with announced(tmp_path):
        found = find(tmp_path)
        assert found is not None
        assert found.pid == os.getpid()
    assert find(tmp_path) is None


def test_another_process_with_the_same_id_is_not_it(tmp_path: Path) -> None:
    (tmp_path / "serve.pid").write_text(f"{os.getpid()} 12.5\n")
    assert find(tmp_path) is None


def test_a_broken_file_is_no_process(tmp_path: Path) -> None:
    for text in ("", "x y\n", "99999999 1.0\n", "1\n"):
        (tmp_path / "serve.pid").write_text(text)
        assert find(tmp_path) is None
