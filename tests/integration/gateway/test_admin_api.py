"""The admin API over its own socket, on a running gateway."""

from __future__ import annotations

import socket
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from gateway.adapters.admin_token import token_path
from gateway.policy.tenancy import LIMITS
from tests.integration.gateway.conftest import Running

NOTHING = dict.fromkeys(LIMITS)


@pytest.fixture
def admin_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def wanted(admin_port: int) -> dict[str, object]:
    return {"admin": {"port": admin_port}}


@pytest.fixture
def admin(running: Running, admin_port: int) -> Iterator[httpx.Client]:
    """With the token, from where an operator has it."""
    token = token_path(running.state_dir).read_text().strip()
    with httpx.Client(base_url=f"http://127.0.0.1:{admin_port}", headers={"authorization": f"Bearer {token}"}) as client:
        yield client


def error_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"].count("\n") == 0
    return answer.status_code, error["code"], error["param"]


def test_from_tenant_to_a_key_that_works_and_is_revoked(running: Running, admin: httpx.Client) -> None:
    made = admin.post("/admin/v1/tenants", json={"name": "학교", "tier": "free", "limits": {"concurrent": 3}})
    assert made.status_code == 201
    assert made.json()["limits"] == NOTHING | {"concurrent": 3}
    assert admin.post("/admin/v1/tenants/학교/projects", json={"name": "숙제 1", "models": ["daemun-demo"]}).status_code == 201
    created = admin.post("/admin/v1/keys", json={"tenant": "학교", "project": "숙제 1", "tier": "batch"}).json()
    key = {"authorization": f"Bearer {created['key']}"}
    assert httpx.get(f"{running.url}/v1/models", headers=key).status_code == 200
    revoked = admin.post(f"/admin/v1/keys/{created['id']}/revoke")
    assert revoked.json()["revoked_at"] == pytest.approx(time.time(), abs=60)
    until = time.monotonic() + 2
    while httpx.get(f"{running.url}/v1/models", headers=key).status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert error_of(admin.post(f"/admin/v1/keys/{created['id']}/revoke")) == (409, "already_revoked", None)


def test_what_is_made_can_be_listed_read_changed_and_deleted(admin: httpx.Client) -> None:
    tenant: dict[str, Any] = admin.post("/admin/v1/tenants", json={"name": "a", "models": ["m"]}).json()
    assert admin.get("/admin/v1/tenants/a").json() == tenant
    assert tenant in admin.get("/admin/v1/tenants").json()["data"]
    changed = admin.patch("/admin/v1/tenants/a", json={"weight": 2.5, "models": None}).json()
    assert changed == tenant | {"weight": 2.5, "models": None}
    project = admin.post("/admin/v1/tenants/a/projects", json={"name": "p"}).json()
    assert admin.get("/admin/v1/tenants/a/projects").json() == {"object": "list", "data": [project]}
    assert admin.patch("/admin/v1/tenants/a/projects/p", json={"disabled": True}).json() == project | {"disabled": True}
    key = admin.post("/admin/v1/keys", json={"tenant": "a", "project": "p"}).json()
    secret = key.pop("key")
    assert admin.get(f"/admin/v1/keys/{key['id']}").json() == key
    assert admin.get("/admin/v1/keys", params={"tenant": "a"}).json()["data"] == [key]
    assert secret not in admin.get("/admin/v1/keys").text
    assert admin.patch(f"/admin/v1/keys/{key['id']}", json={"models": ["m"]}).json() == key | {"models": ["m"]}
    assert error_of(admin.delete("/admin/v1/tenants/a")) == (409, "still_used", None)
    admin.post(f"/admin/v1/keys/{key['id']}/revoke")
    assert admin.delete("/admin/v1/tenants/a/projects/p").status_code == 204
    assert admin.delete("/admin/v1/tenants/a").status_code == 204
    assert error_of(admin.get("/admin/v1/tenants/a")) == (404, "not_found", None)


@pytest.mark.parametrize("level", ["/tenants/a", "/tenants/a/projects/p", "/keys/{key}"])
def test_limits_that_are_left_out_stay_and_null_removes(admin: httpx.Client, level: str) -> None:
    admin.post("/admin/v1/tenants", json={"name": "a"})
    admin.post("/admin/v1/tenants/a/projects", json={"name": "p"})
    key = admin.post("/admin/v1/keys", json={"tenant": "a", "project": "p"}).json()["id"]
    address = f"/admin/v1{level.format(key=key)}/limits"
    assert admin.get(address).json() == NOTHING
    admin.put(address, json={"requests_per_minute": 60, "krw_per_month": 0})
    assert admin.put(address, json={"requests_per_minute": None, "concurrent": 2}).json() == NOTHING | {
        "krw_per_month": 0,
        "concurrent": 2,
    }
    assert admin.get(address).json()["concurrent"] == 2


WRONG: list[tuple[dict[str, object], str]] = [
    ({"name": "a/b"}, "name"),
    ({"name": ""}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": "x" * 65}, "name"),
    ({"name": 5}, "name"),
    ({}, "name"),
    ({"name": "b", "tier": "gold"}, "tier"),
    ({"name": "b", "tier": None}, "tier"),
    ({"name": "b", "weight": 0}, "weight"),
    ({"name": "b", "models": "m"}, "models"),
    ({"name": "b", "limits": {"requests_per_minute": -1}}, "limits.requests_per_minute"),
    ({"name": "b", "limits": {"requests_per_minute": "60"}}, "limits.requests_per_minute"),
    ({"name": "b", "limits": {"requests_per_minute": True}}, "limits.requests_per_minute"),
    ({"name": "b", "limits": {"requests_per_hour": 1}}, "limits.requests_per_hour"),
    ({"name": "b", "color": "red"}, "color"),
]


def test_what_is_wrong_is_named(admin: httpx.Client) -> None:
    for body, param in WRONG:
        assert error_of(admin.post("/admin/v1/tenants", json=body)) == (400, "invalid_request", param)
    assert [tenant["name"] for tenant in admin.get("/admin/v1/tenants").json()["data"]] == ["anna"]


def test_other_errors_have_the_same_shape(admin: httpx.Client) -> None:
    assert error_of(admin.post("/admin/v1/tenants", content=b"{")) == (400, "invalid_request", None)
    assert error_of(admin.post("/admin/v1/tenants", json={"name": "anna"})) == (409, "already_exists", None)
    assert error_of(admin.get("/admin/v1/nothing")) == (404, "not_found", None)
    assert error_of(admin.put("/admin/v1/tenants")) == (405, "method_not_allowed", None)
    assert error_of(admin.post("/admin/v1/tenants", content=b"\xff")) == (400, "invalid_request", None)
    assert error_of(admin.post("/admin/v1/tenants", content=b" " * 300_000)) == (413, "request_too_large", None)
    assert error_of(admin.post("/admin/v1/keys", json={"tenant": "anna", "project": "chatbot", "tier": "reserved"})) == (
        400,
        "invalid_request",
        "tier",
    )
    korean = admin.get("/admin/v1/tenants/nobody", headers={"accept-language": "ko"})
    assert "없습니다" in korean.json()["error"]["message"]


def test_without_the_token_nothing_is_told(running: Running, admin: httpx.Client) -> None:
    token = admin.headers.pop("authorization").removeprefix("Bearer ")
    for wrong in (None, "", "Bearer", "Bearer dma-wrong", f"Bearer {running.key}", f"Basic {token}", f"Bearer {token}x"):
        headers = {} if wrong is None else {"authorization": wrong}
        for path in ("/admin/v1/tenants", "/admin/v1/nothing", "/", "//admin/v1/tenants"):
            assert error_of(admin.get(path, headers=headers)) == (401, "invalid_admin_token", None)
        assert error_of(admin.post("/admin/v1/tenants", content=b"{", headers=headers)) == (401, "invalid_admin_token", None)


def test_nothing_of_it_is_on_the_public_address(running: Running, admin: httpx.Client) -> None:
    for path in ("/admin/v1/tenants", "/admin/v1/keys", "/admin", "//admin/v1/tenants", "/v1/../admin/v1/tenants"):
        assert httpx.get(f"{running.url}{path}", headers=dict(admin.headers)).status_code == 404
    assert "admin" not in httpx.get(f"{running.url}/openapi.json").text
    inference = admin.post("/v1/chat/completions", json={})
    assert inference.status_code == 404, "nor the other way round"


def test_token_is_only_its_owners(running: Running) -> None:
    path = token_path(running.state_dir)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) >= 43, "256 bits"


def test_description_tells_all_there_is(admin: httpx.Client) -> None:
    del admin.headers["authorization"]
    document = admin.get("/openapi.json").json()
    operations = [f"{method} {path}" for path, item in document["paths"].items() for method in item]
    assert len(operations) == 21
    assert all(
        "422" not in one["responses"] and "401" in one["responses"]
        for item in document["paths"].values()
        for one in item.values()
    )
    for schema in ("LimitsWish", "LimitsCard"):
        assert tuple(document["components"]["schemas"][schema]["properties"]) == LIMITS
    assert admin.get("/docs").status_code == 200
