"""The replicas of a Ray Serve cluster with direct ingress, from Serve's REST API.

`GET /api/serve/applications/` lists, for every application, the addresses that take its traffic. daemun names each application
after its one model (`serving.app`). At zero replicas the list shows Serve's own proxy instead of nothing, so only targets
named `SERVE_REPLICA::…` count.
"""

from __future__ import annotations

from pathlib import Path

import aiohttp
import msgspec

from gateway.adapters.probed_fleet import Listing, ListUnreadable, Target

_REPLICA = "SERVE_REPLICA::"


class _RayTarget(msgspec.Struct, frozen=True):
    ip: str
    port: int
    name: str = ""


class _TargetGroup(msgspec.Struct, frozen=True):
    targets: tuple[_RayTarget, ...] = ()
    route_prefix: str = "/"
    protocol: str = "HTTP"
    app_name: str = ""


class _Application(msgspec.Struct, frozen=True):
    status: str = "unknown"
    message: str = ""


class _Instance(msgspec.Struct, frozen=True):
    applications: dict[str, _Application] = {}
    target_groups: tuple[_TargetGroup, ...] = ()


class RayDiscovery:
    """`token_file` holds the cluster's token (RAY_AUTH_MODE=token). `own_token_file` is where a cluster of daemun's leaves one;
    it counts where no other is given. Both are read anew each time: a cluster may start later than the gateway, or anew.
    """

    def __init__(self, url: str, token_file: Path | None, own_token_file: Path | None = None) -> None:
        self._url = url.rstrip("/") + "/api/serve/applications/"
        self._token_file = token_file
        self._own_token_file = own_token_file

    async def listing(self, session: aiohttp.ClientSession) -> Listing:
        try:
            async with session.get(self._url, headers=self._headers()) as response:
                if response.status != 200:
                    raise ListUnreadable(f"Ray Serve at {self._url} answered {response.status}: {self._advice(response.status)}")
                return parse(await response.read())
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise ListUnreadable(f"Ray Serve at {self._url} (not reachable)") from problem
        except msgspec.DecodeError as problem:
            raise ListUnreadable(f"Ray Serve at {self._url} answered something else than its list of applications") from problem

    def _headers(self) -> dict[str, str]:
        file = self._token_file or self._own_token_file
        if file is None or (file is self._own_token_file and not file.exists()):
            return {}
        try:
            token = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise ListUnreadable(f"Ray's token file {file} cannot be read") from problem
        if not token.isprintable():
            raise ListUnreadable(f"Ray's token file {file} holds something else than one token")
        return {"Authorization": f"Bearer {token}"}

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            return "set token_file of this fleet to a file with the cluster's token"
        return "is this Ray's dashboard address?"


def parse(body: bytes) -> Listing:
    """One answer of Serve's REST API. Raises msgspec.DecodeError."""
    instance = msgspec.json.decode(body, type=_Instance)
    return Listing(
        targets=[
            Target(id=target.name, base_url=f"http://{target.ip}:{target.port}{group.route_prefix.rstrip('/')}")
            for group in instance.target_groups
            if group.protocol == "HTTP"
            for target in group.targets
            if target.name.startswith(_REPLICA)
        ],
        expected={name: application.status.lower() for name, application in instance.applications.items()},
    )
