"""What Serve's REST API says, read as targets and expectations."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.adapters.probed_fleet import Target
from gateway.adapters.ray_discovery import parse

REPLICA = "SERVE_REPLICA::daemun-demo#engine#x1y2z3"


def group(*targets: dict[str, Any], protocol: str = "HTTP", prefix: str = "/daemun-demo") -> dict[str, Any]:
    return {"targets": list(targets), "route_prefix": prefix, "protocol": protocol, "app_name": "daemun-demo"}


def target(name: str = REPLICA, port: int = 30001) -> dict[str, Any]:
    return {"ip": "10.0.0.7", "port": port, "instance_id": "", "name": name}


def document(*groups: dict[str, Any], status: str = "RUNNING") -> bytes:
    applications = {"daemun-demo": {"status": status, "message": "", "deployments": {}, "route_prefix": "/daemun-demo"}}
    return json.dumps({"controller_info": {}, "applications": applications, "target_groups": list(groups)}).encode()


def test_replica_is_a_target_under_its_route_prefix() -> None:
    listing = parse(document(group(target())))
    assert listing.targets == [Target(REPLICA, "http://10.0.0.7:30001/daemun-demo")]
    assert listing.expected == {"daemun-demo": "running"}


def test_root_prefix_adds_nothing() -> None:
    assert parse(document(group(target(), prefix="/"))).targets == [Target(REPLICA, "http://10.0.0.7:30001")]


@pytest.mark.parametrize("name", ["", "SERVE_PROXY_ACTOR-0a1b", "proxy", "x::SERVE_REPLICA::"])
def test_proxy_that_stands_in_at_zero_replicas_is_no_target(name: str) -> None:
    listing = parse(document(group(target(name, 8000)), status="DEPLOYING"))
    assert listing.targets == []
    assert listing.expected == {"daemun-demo": "deploying"}


def test_only_http_counts() -> None:
    assert parse(document(group(target(), protocol="gRPC"), group(target(port=30002)))).targets == [
        Target(REPLICA, "http://10.0.0.7:30002/daemun-demo")
    ]


def test_cluster_without_applications_expects_nothing() -> None:
    assert parse(b'{"applications":{}}').expected == parse(b"{}").expected == {}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"applications":[]}', b'{"target_groups":[{"targets":[{"ip":1}]}]}'])
def test_anything_else_is_no_listing(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse(body)
