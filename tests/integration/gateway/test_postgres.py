"""A PostgreSQL store gets its schema, and says in one sentence why it cannot be used, without its password."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.adapters import postgres as store
from gateway.adapters.schema import StoreUnusable
from tests.postgres_server import PASSWORD, PostgresServer

ROOT = Path(__file__).parents[3]
_TABLES = "SELECT string_agg(table_name, ' ' ORDER BY table_name) FROM information_schema.tables WHERE table_schema = 'public'"


async def test_new_store_has_the_tables_and_keeps_them(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    await store.migrate(url)
    database = url.rpartition("/")[2]
    assert {"tenants", "keys", "ledger"} <= set(postgres.sql(_TABLES, database).split())
    postgres.sql("INSERT INTO tenants (name, created_at) VALUES ('anna', 1.0)", database)
    await store.migrate(url)
    assert postgres.sql("SELECT name, tier FROM tenants", database) == "anna|paid"


def test_processes_that_start_at_once_make_one_store(postgres: PostgresServer) -> None:
    code = "import asyncio, sys; from gateway.adapters import postgres; sys.stdin.read()"
    code += "; asyncio.run(postgres.migrate(sys.argv[1]))"
    command = [sys.executable, "-c", code, postgres.new_database()]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None  # or `communicate` would look at it
    assert [process.communicate(timeout=60)[1] for process in started] == [""] * 4


async def test_store_of_a_newer_version_is_refused(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    await store.migrate(url)
    postgres.sql("UPDATE alembic_version SET version_num = '9999_future'", url.rpartition("/")[2])
    with pytest.raises(StoreUnusable, match="made by a newer daemun"):
        await store.migrate(url)


async def test_failed_migration_leaves_nothing_behind(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    database = url.rpartition("/")[2]
    postgres.sql("CREATE VIEW ledger AS SELECT 1 AS id", database)
    with pytest.raises(StoreUnusable) as refused:
        await store.migrate(url)
    assert "\n" not in str(refused.value)
    assert postgres.sql(_TABLES, database) == "ledger"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace(PASSWORD, "wr0ng-" + PASSWORD), "password authentication failed"),
        (lambda url: url.replace("/store_", "/nowhere_"), "does not exist"),
        (lambda url: url.replace("127.0.0.1:", "127.0.0.1:1"), "that is no address"),
        (lambda url: "postgresql://daemun:" + PASSWORD + "@127.0.0.1:9/x", "Connect call failed"),
        (lambda url: url.replace(PASSWORD, PASSWORD + "#/"), "cannot be used"),
    ],
)
def test_store_that_cannot_be_used_is_one_sentence_without_secrets(postgres: PostgresServer, change: object, said: str) -> None:
    assert callable(change)
    with pytest.raises(StoreUnusable, match=said) as refused:
        asyncio.run(store.migrate(change(postgres.new_database())))
    assert "gateway.store.url" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_command_line_works_on_it_and_leaves_no_file(postgres: PostgresServer, tmp_path: Path) -> None:
    environment = os.environ | {
        "DAEMUN_GATEWAY__STORE__URL": postgres.new_database(),
        "DAEMUN_STATE_DIR": str(tmp_path / "state"),
    }
    environment |= {"PYTHONPATH": str(ROOT)}

    def daemun(*arguments: str) -> str:
        command = [sys.executable, "-m", "daemun", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    key_id = daemun("keys", "create", "--tenant", "school", "--project", "quiz").split()[1]
    assert daemun("limits", "set", "--key", key_id, "--concurrent", "2") == f"key {key_id}: concurrent 2\n"
    assert key_id in daemun("keys", "list")
    assert not (tmp_path / "state").exists()
