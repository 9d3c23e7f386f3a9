"""What every LedgerStore does: the ones over SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.adapters import sqlite
from gateway.adapters.postgres_ledger import PostgresLedger
from gateway.adapters.schema import StoreUnusable
from gateway.adapters.sqlite_ledger import SqliteLedger
from gateway.entry import NOBODY, SHADOW
from gateway.ledger_query import SEOUL, Group, LedgerQuery, LedgerStore, RowRefused
from tests.entries import entry, rows
from tests.postgres_server import PostgresServer

ALL = LedgerQuery()
COST = 123_456_789_012_345
Opening = Callable[[bool], LedgerStore]


@pytest.fixture(params=["sqlite", "postgres"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opening]:
    """Opens one and the same store, as often as asked, with an outbox or without."""
    opened: list[LedgerStore] = []
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.new_database()

    def open_one(with_events: bool) -> LedgerStore:
        if request.param == "sqlite":
            opened.append(SqliteLedger(tmp_path / "store.sqlite3", with_events=with_events))
        else:
            opened.append(PostgresLedger(url, with_events=with_events))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(opening: Opening) -> LedgerStore:
    return opening(False)


def test_entry_comes_back_as_it_was_written(store: LedgerStore) -> None:
    one = entry(7, queue_s=None, cost_ukrw=COST, continued=1, asked="exaone")
    other = entry(8, replica=None, queue_s=0.125, first_byte_s=None, error_code="갑자기", estimated=True, stream=False, model="")
    store.write(rows([one, other]))
    assert store.entries(ALL, 9) == [other, one]


def test_many_entries_are_all_there_and_the_newest_come_first(store: LedgerStore) -> None:
    store.write(rows(entry(number) for number in range(1234)))
    assert [found.id for found in store.entries(ALL, 3)] == ["req_1233", "req_1232", "req_1231"]
    assert len(store.entries(ALL, 9999)) == 1234
    (total,) = store.sums(ALL, ())
    assert total.calls == 1234


def test_entry_written_twice_is_there_once_as_it_was_first(store: LedgerStore) -> None:
    store.write(rows([entry(1), entry(2)]))
    store.write(rows([entry(2, outcome="aborted"), entry(3), entry(3)]))
    found = store.entries(ALL, 9)
    assert [one.id for one in found] == ["req_3", "req_2", "req_1"]
    assert {one.outcome for one in found} == {"completed"}


def test_entries_are_written_all_or_none_and_a_bad_one_is_told_from_a_bad_store(store: LedgerStore) -> None:
    bad = list(rows([entry(0)])[0])
    bad[1] = None
    with pytest.raises(RowRefused):
        store.write([*rows(entry(number) for number in range(1, 700)), tuple(bad)])
    assert store.entries(ALL, 9) == []
    store.write(rows([entry(1)]))
    assert len(store.entries(ALL, 9)) == 1


def test_text_of_any_kind_can_be_kept(store: LedgerStore) -> None:
    """A model's name is the client's to choose where there is no such model."""
    store.write(rows([entry(1, model="a\0b"), entry(2, model="'; DROP TABLE ledger; --"), entry(3, model="\U0001f600" * 300)]))
    assert len(store.entries(ALL, 9)) == 3


def test_sums_are_exact_by_every_group(store: LedgerStore) -> None:
    store.write(
        rows(
            [
                entry(1, cost_ukrw=COST),
                entry(2, outcome="aborted", model="exaone", key_id="key_2", tier="free", cost_ukrw=COST),
                entry(3, outcome="rejected", status=503, prompt_tokens=0, completion_tokens=0, cost_ukrw=0, energy_wh=0.0),
                entry(4, outcome="failed", tenant="shop", project="search", estimated=True, cost_ukrw=COST),
            ]
        )
    )
    (total,) = store.sums(ALL, ())
    assert (total.group, total.calls, total.estimated) == ((), 4, 1)
    assert (total.completed, total.aborted, total.rejected, total.failed) == (1, 1, 1, 1)
    assert (total.prompt_tokens, total.cached_tokens, total.completion_tokens, total.reasoning_tokens) == (3000, 1600, 600, 200)
    assert total.cost_ukrw == 3 * COST
    assert total.energy_wh == pytest.approx(0.75)
    assert [(one.group, one.calls) for one in store.sums(ALL, [Group.TENANT, Group.MODEL])] == [
        (("school", "exaone"), 1),
        (("school", "대문"), 2),
        (("shop", "대문"), 1),
    ]
    for group, kinds in {Group.KEY: 2, Group.TIER: 2, Group.OUTCOME: 4, Group.PROJECT: 2, Group.REPLICA: 1}.items():
        assert len(store.sums(ALL, [group])) == kinds


def test_sums_of_round_numbers_are_whole_too(store: LedgerStore) -> None:
    """PostgreSQL's decimals write them with an exponent."""
    store.write(
        rows(entry(number, prompt_tokens=100_000, completion_tokens=5_000_000, energy_wh=50_000.0) for number in range(2))
    )
    (total,) = store.sums(ALL, [])
    assert (total.prompt_tokens, total.completion_tokens, total.energy_wh) == (200_000, 10_000_000, 100_000.0)


def test_empty_ledger_sums_to_nothing(store: LedgerStore) -> None:
    (total,) = store.sums(ALL, ())
    assert (total.calls, total.cost_ukrw, total.energy_wh) == (0, 0, 0.0)
    assert store.sums(ALL, [Group.MODEL]) == []


def test_days_are_seouls(store: LedgerStore) -> None:
    before = datetime(2026, 11, 21, 23, 59, 59, 999_000, SEOUL).timestamp()
    midnight = datetime(2026, 11, 22, tzinfo=SEOUL).timestamp()
    store.write(rows([entry(1, started_at=before), entry(2, started_at=midnight), entry(3, started_at=midnight + 86_399.5)]))
    assert [(one.group, one.calls) for one in store.sums(ALL, [Group.DAY])] == [(("2026-11-21",), 1), (("2026-11-22",), 2)]


def test_queries_take_what_they_name(store: LedgerStore) -> None:
    store.write(rows([entry(1), entry(2, tenant="shop"), entry(3, key_id="key_2", tier="free", outcome="aborted", model="m")]))

    def found(**wanted: object) -> list[str]:
        return [one.id for one in store.entries(LedgerQuery(**wanted), 9)]  # type: ignore[arg-type]

    assert found(since=1002.0) == ["req_3", "req_2"], "the first moment is in"
    assert found(until=1002.0) == ["req_1"], "the last is not"
    assert found(tenant="shop") == ["req_2"]
    assert found(key_id="key_2", tier="free", outcome="aborted", model="m", project="homework") == ["req_3"]
    assert found(tenant="shop", tier="free") == []
    assert store.sums(LedgerQuery(tenant="shop"), ())[0].calls == 1


def test_store_says_which_entries_it_holds(store: LedgerStore) -> None:
    store.write(rows(entry(number) for number in range(600)))
    asked = [f"req_{number}" for number in range(590, 1200)]
    assert store.holds(asked) == set(asked[:10])
    assert store.holds([]) == set()


def test_calls_of_a_rollout_are_found_by_what_they_asked_for(store: LedgerStore) -> None:
    store.write(rows([entry(1), entry(2, asked="old"), entry(3, asked="old", model="new"), entry(4, asked="other")]))
    assert [one.id for one in store.entries(LedgerQuery(asked="old"), 9)] == ["req_3", "req_2"]
    assert [one.id for one in store.entries(LedgerQuery(asked="old", model="new", since=1002.0), 9)] == ["req_3"]


def test_what_is_no_clients_call_gets_into_the_ledger_and_not_into_the_outbox(opening: Opening) -> None:
    store = opening(True)
    store.write(rows([entry(1), entry(2, tenant=NOBODY, project=SHADOW)]))
    assert len(store.entries(ALL, 9)) == 2
    assert [event.id for event in store.take_events(9, 5000.0, 6000.0)] == ["req_1"]


def test_new_entries_alone_get_into_the_outbox(opening: Opening) -> None:
    opening(False).write(rows([entry(1)]))
    store = opening(True)
    store.write(rows([entry(1), entry(2)]))
    store.write(rows([entry(2), entry(3)]))
    assert store.count_events() == 2
    assert [event.id for event in store.take_events(9, 5000.0, 6000.0)] == ["req_2", "req_3"]


def test_event_is_taken_by_one_at_a_time_until_its_time_is_over(opening: Opening) -> None:
    one, other = opening(True), opening(True)
    one.write(rows([entry(1), entry(2), entry(3)]))
    assert [event.id for event in one.take_events(2, 5000.0, 5060.0)] == ["req_1", "req_2"]
    assert one.entries(ALL, 1) == [entry(3)]
    assert [event.id for event in other.take_events(2, 5001.0, 5061.0)] == ["req_3"]
    assert other.take_events(2, 5059.0, 5100.0) == []
    one.drop_events(["req_1"])
    assert [event.id for event in other.take_events(9, 5061.0, 5100.0)] == ["req_2", "req_3"], "whoever had them was killed"
    other.put_back_events(["req_2"], 5080.0)
    assert other.take_events(9, 5079.0, 5100.0) == []
    assert other.take_events(9, 5080.0, 5100.0) == [entry(2)]
    other.drop_events(["req_2", "req_3", "req_9"])
    assert other.count_events() == 0


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6))
def test_however_often_entries_come_each_counts_once(opening: Opening, batches: list[list[int]]) -> None:
    store = opening(True)
    first = {one.id for one in store.entries(ALL, 99)}
    for batch in batches:
        store.write(rows(entry(number) for number in batch))
    expected = first | {f"req_{number}" for batch in batches for number in batch}
    assert sorted(one.id for one in store.entries(ALL, 99)) == sorted(expected)
    assert store.count_events() == len(expected)
    store.close()


def test_locked_sqlite_file_is_written_to_later(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite3"
    with closing(SqliteLedger(database, wait_s=0.01)) as store, closing(sqlite.connect(database)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnusable, match="locked"):
            store.write(rows([entry(1)]))
        holder.execute("COMMIT")
        store.write(rows([entry(1)]))
        assert store.entries(ALL, 9) == [entry(1)]


def test_sqlite_file_that_another_has_replaced_is_opened_anew(tmp_path: Path) -> None:
    with closing(SqliteLedger(tmp_path / "store.sqlite3")) as store:
        store.write(rows([entry(1)]))
        for file in tmp_path.iterdir():
            file.unlink()
        store.write(rows([entry(2)]))
        assert store.entries(ALL, 9) == [entry(2)]


def test_postgres_that_goes_and_comes_back_is_connected_to_again(postgres: PostgresServer) -> None:
    with closing(PostgresLedger(postgres.new_database())) as store:
        store.write(rows([entry(1)]))
        postgres.stop()
        try:
            for _ in range(2):
                with pytest.raises(StoreUnusable, match="PostgreSQL database"):
                    store.write(rows([entry(2)]))
        finally:
            postgres.start()
        store.write(rows([entry(2)]))
        assert store.holds(["req_1", "req_2"]) == {"req_1", "req_2"}
