"""Two gateway processes over one store: what is changed holds on both within 2 s, and what happens while the store is gone."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from gateway.adapters.admin_token import token_path
from gateway.adapters.schema import StoreUnusable
from gateway.adapters.system_clock import SystemClock
from gateway.adapters.tenancy import open_tenancy
from gateway.tenant_admin import TenantAdmin
from tests.gateway_process import GatewayProcess, gateway_process
from tests.loopback import LoopbackServer
from tests.postgres_server import PostgresServer, postgres_server

Result = TypeVar("Result")


def administer(url: str | None, state_dir: Path, work: Callable[[TenantAdmin], Awaitable[Result]]) -> Result:
    """As the command line does."""
    tenancy = open_tenancy(url, state_dir, SystemClock())

    async def run() -> Result:
        async with tenancy.running:
            return await work(tenancy.admin)

    return asyncio.run(run())


async def new_key(admin: TenantAdmin) -> tuple[str, str]:
    await admin.create_tenant("school", {})
    await admin.create_project("school", "homework", {})
    secret, key = await admin.create_key("school", "homework", {})
    return secret, key.id


def asks(gateway: GatewayProcess, secret: str) -> httpx.Response:
    return httpx.get(f"{gateway.url}/v1/models", headers={"authorization": f"Bearer {secret}"}, timeout=10)


@contextmanager
def gateways(engine_url: str, state_dir: Path, count: int, **settings: str) -> Iterator[list[GatewayProcess]]:
    with ExitStack() as running:
        yield [running.enter_context(gateway_process(engine_url, state_dir, **settings)) for _ in range(count)]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_revoked_key_is_refused_by_every_process_within_two_seconds(
    kind: str, request: pytest.FixtureRequest, engine_server: LoopbackServer, tmp_path: Path
) -> None:
    server: PostgresServer | None = request.getfixturevalue("postgres") if kind == "postgres" else None
    url = None if server is None else server.new_database()
    settings = {} if url is None else {"STORE__URL": url}
    with gateways(engine_server.url, tmp_path, 2, **settings) as processes:
        secret, key_id = administer(url, tmp_path, new_key)
        until = time.monotonic() + 3
        while time.monotonic() < until:  # so that both have it at hand
            assert [asks(gateway, secret).status_code for gateway in processes] == [200, 200]
        administer(url, tmp_path, lambda admin: admin.revoke_key(key_id))
        revoked_at, still = time.monotonic(), {gateway.port: 0.0 for gateway in processes}
        while time.monotonic() < revoked_at + 4:
            for gateway in processes:
                asked_at = time.monotonic()
                if asks(gateway, secret).status_code != 401:
                    still[gateway.port] = asked_at - revoked_at
        assert max(still.values()) < 2.0, still
        print(f"{kind}: last accepted {', '.join(f'{s:.2f} s' for s in still.values())} behind the revocation")  # noqa: T201


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One that may be stopped."""
    with postgres_server() as server:
        yield server


def test_without_the_store_known_keys_work_for_a_while_and_it_is_said_when_they_do_not(
    own_server: PostgresServer, engine_server: LoopbackServer, tmp_path: Path
) -> None:
    url = own_server.new_database()
    with gateways(engine_server.url, tmp_path, 1, STORE__URL=url, STORE__BELIEVE_S="4") as (gateway,):
        secret, key_id = administer(url, tmp_path, new_key)
        assert asks(gateway, secret).status_code == 200
        own_server.stop()
        gone_at = time.monotonic()
        while time.monotonic() < gone_at + 2.5:
            assert asks(gateway, secret).status_code == 200
        stranger = asks(gateway, "dm-stranger")
        assert (stranger.status_code, stranger.json()["error"]["code"]) == (503, "store_unavailable")
        assert stranger.headers["retry-after"] == "1"
        while asks(gateway, secret).status_code == 200:
            assert time.monotonic() < gone_at + 5.5
            time.sleep(0.05)
        assert asks(gateway, secret).json()["error"]["code"] == "store_unavailable"
        own_server.start()
        back_at = time.monotonic()
        while asks(gateway, secret).status_code != 200:
            assert time.monotonic() < back_at + 2
            time.sleep(0.05)
        assert asks(gateway, "dm-stranger").status_code == 401
        administer(url, tmp_path, lambda admin: admin.revoke_key(key_id))
        time.sleep(2)
        assert asks(gateway, secret).status_code == 401


def test_store_that_hangs_holds_up_no_known_key_and_recovers(
    own_server: PostgresServer, engine_server: LoopbackServer, tmp_path: Path
) -> None:
    url = own_server.new_database()
    with gateways(engine_server.url, tmp_path, 1, STORE__URL=url) as (gateway,):
        secret, _ = administer(url, tmp_path, new_key)
        assert asks(gateway, secret).status_code == 200
        took = []
        with own_server.hanging():
            until = time.monotonic() + 8
            while time.monotonic() < until:
                begun = time.monotonic()
                assert asks(gateway, secret).status_code == 200
                took.append(time.monotonic() - begun)
            assert asks(gateway, "dm-stranger").status_code == 503
            with pytest.raises(StoreUnusable, match=r"gateway\.store\.url"):
                administer(url, tmp_path, lambda admin: admin.tenants())
        assert sum(seconds > 0.5 for seconds in took) <= 2, "only whoever finds it out waits"
        assert len(took) > 20
        back_at = time.monotonic()
        while asks(gateway, "dm-stranger").status_code != 401:
            assert time.monotonic() < back_at + 5
            time.sleep(0.05)


def test_one_of_several_processes_has_the_admin_api_and_another_takes_it_over(
    engine_server: LoopbackServer, tmp_path: Path
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = int(taken.getsockname()[1])
    with gateways(engine_server.url, tmp_path, 2, ADMIN=json.dumps({"port": port})) as (first, second):
        headers = {"authorization": f"Bearer {token_path(tmp_path).read_text().strip()}"}
        address = f"http://127.0.0.1:{port}/admin/v1/tenants"
        assert httpx.get(address, headers=headers).status_code == 200
        first.process.kill()
        until = time.monotonic() + 6
        while True:
            try:
                assert httpx.get(address, headers=headers).status_code == 200
                break
            except httpx.TransportError:
                assert time.monotonic() < until
                time.sleep(0.1)
        second.stop()
        second.ends(within_s=10)
