"""The admin API's token is made once, random, and its owner's alone."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.adapters.admin_token import admin_token, token_path
from gateway.adapters.schema import StoreUnusable


def test_token_is_made_once_and_kept(tmp_path: Path) -> None:
    token = admin_token(tmp_path / "state")
    assert len(token) >= 43, "256 bits"
    assert admin_token(tmp_path / "state") == token
    assert admin_token(tmp_path / "other") != token


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    admin_token(tmp_path)
    assert stat.S_IMODE(token_path(tmp_path).stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [token_path(tmp_path)]


def test_all_who_start_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(admin_token, [tmp_path] * 64))) == 1


def test_token_of_the_operators_own_is_used(tmp_path: Path) -> None:
    token_path(tmp_path).write_text("0123456789abcdef0123456789abcdef\n")
    assert admin_token(tmp_path) == "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("held", ["", "short", "비밀" * 20])
def test_token_that_can_be_guessed_or_not_be_sent_is_refused(tmp_path: Path, held: str) -> None:
    token_path(tmp_path).write_text(held)
    with pytest.raises(StoreUnusable, match="Delete it, and a new one is made") as refused:
        admin_token(tmp_path)
    assert not held or held not in str(refused.value)


def test_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="Set state_dir"):
        admin_token(tmp_path / "file")
