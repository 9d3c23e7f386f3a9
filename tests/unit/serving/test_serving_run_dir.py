"""Run directories: made for a process, removed when it is gone."""

import subprocess
import sys
from pathlib import Path

from serving import run_dir


def test_a_directory_of_a_living_process_stays(tmp_path: Path) -> None:
    own = run_dir.make(tmp_path)
    assert run_dir.remove_abandoned(tmp_path) == []
    assert own.is_dir()


def test_a_directory_of_a_dead_process_goes_with_its_content(tmp_path: Path) -> None:
    code = "import sys, pathlib; from serving import run_dir; print(run_dir.make(pathlib.Path(sys.argv[1])))"
    made = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    abandoned = Path(made.stdout.strip())
    (abandoned / "session").mkdir()
    assert run_dir.remove_abandoned(tmp_path) == [abandoned]
    assert not abandoned.exists()


def test_what_others_keep_there_stays(tmp_path: Path) -> None:
    for name in ("daemun", "daemun-notes", "daemun-notes-1", "ray"):
        (tmp_path / name).mkdir()
    assert run_dir.remove_abandoned(tmp_path) == []
