"""The journal, the database and the engines are compared, and what differs is said, and only that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemun.verify import Snapshot, Used, compare_engines, compare_journal, entries_in, missing_from, used_since
from gateway.adapters.journal import Journal, journal_folder
from gateway.adapters.journal_reader import Damage, Harm, quarantine
from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.protocol.vllm_metrics import Counted, counted
from tests.entries import entry, rows

PAGE = b"""
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 120.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 3.0
vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 77.0
vllm:generation_tokens_total{engine="0",model_name="m"} 4.5e+01
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
process_start_time_seconds 1.7638e+09
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteLedger]:
    with closing(SqliteLedger(tmp_path / "store.sqlite3")) as opened:
        yield opened


def differing(tmp_path: Path, store: SqliteLedger, now: float) -> list[str]:
    return [finding.said for finding in compare_journal(tmp_path, store, now) if finding.differs]


def test_entries_that_wait_are_found_also_in_a_file_that_is_written_to(tmp_path: Path, store: SqliteLedger) -> None:
    with Journal(journal_folder(tmp_path)) as journal:
        journal.record(entry(1))
        journal.rotate()
        journal.record(entry(2))
        journal.record(entry(3))
        store.write(rows([entry(2)]))
        found = entries_in(journal_folder(tmp_path))
        assert [one.id for one in found] == ["req_1", "req_2", "req_3"]
        assert [one.id for one in missing_from(store, found)] == ["req_1", "req_3"]
        assert differing(tmp_path, store, now=1052.0) == []
        (said,) = differing(tmp_path, store, now=1063.5)
        assert said.startswith("2 entries are not in the database yet, the oldest since 1970-01-01 09:16:42")


def test_damaged_lines_differ_if_something_of_them_is_lost(tmp_path: Path, store: SqliteLedger) -> None:
    folder = journal_folder(tmp_path) / "damaged"
    quarantine(folder, "1", [Damage(Harm.TORN, b"x"), Damage(Harm.MENDED, b"y")])
    assert differing(tmp_path, store, now=0.0) == []
    quarantine(folder, "2", [Damage(Harm.UNREADABLE, b"z")])
    (said,) = differing(tmp_path, store, now=0.0)
    assert said.endswith("1 torn, 1 mended, 1 unreadable")


def test_counters_are_read_from_the_engines_page() -> None:
    assert counted(PAGE) == Counted(since=1.7638e9, prompt_tokens=123, generation_tokens=45, running=2)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>",
        PAGE.replace(b"120.0", b"NaN"),
        PAGE.replace(b"120.0", b"many"),
        PAGE.replace(b"generation", b"other"),
    ],
)
def test_page_of_something_else_says_nothing(page: bytes) -> None:
    assert counted(page) is None


BEFORE = Counted(1.0, 1000, 500, 0)


def found(after: Counted | None, used: Used, before: Counted = BEFORE) -> list[tuple[bool, str]]:
    now = {} if after is None else {"r": after}
    return [(one.differs, one.said) for one in compare_engines(Snapshot(5.0, {"r": before}), now, {"r": used})]


def test_same_counts_are_fine() -> None:
    assert [differs for differs, _ in found(Counted(1.0, 1100, 520, 0), Used(3, 0, 100, 20))] == [False, False]


def test_engine_that_counted_more_differs_unless_a_call_may_be_why() -> None:
    after = Counted(1.0, 1100, 525, 0)
    prompt, completion = found(after, Used(3, 0, 100, 20))
    assert (prompt[0], completion[0]) == (False, True)
    assert "5 more" in completion[1]
    assert [differs for differs, _ in found(after, Used(3, 1, 100, 20))] == [False, False]
    running = Counted(1.0, 1100, 525, 1)
    assert [differs for differs, _ in found(running, Used(3, 0, 100, 20))] == [False, False]
    assert [differs for differs, _ in found(after, Used(3, 0, 100, 20), Counted(1.0, 1000, 500, 1))] == [False, False]


def test_ledger_that_counted_more_differs_whatever_the_calls_were() -> None:
    _, (differs, said) = found(Counted(1.0, 1100, 519, 1), Used(3, 2, 100, 20))
    assert differs
    assert "1 fewer than the ledger" in said


def test_what_cannot_be_compared_is_said() -> None:
    for after in (None, Counted(2.0, 5, 5, 0)):
        ((differs, said),) = found(after, Used(3, 0, 100, 20))
        assert not differs
        assert ("not there" if after is None else "started anew") in said
    (new,) = compare_engines(Snapshot(5.0, {}), {"r": BEFORE}, {})
    assert not new.differs


def test_ledger_counts_by_replica_what_came_since_then_the_journal_included(store: SqliteLedger) -> None:
    written = [
        entry(1),
        entry(2, started_at=999.0),
        entry(3, outcome="aborted", completion_tokens=7),
        entry(4, continued=1),
        entry(5, replica=None, outcome="rejected", prompt_tokens=0),
    ]
    store.write(rows(written))
    used = used_since(store, [entry(6, completion_tokens=5), entry(7, started_at=1.0)], 1000.0)
    assert used["r1"] == Used(calls=4, inexact=2, prompt_tokens=4000, completion_tokens=412)
    assert used[""].calls == 1
