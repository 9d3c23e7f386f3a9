"""Reading Serve's list over HTTP: tokens, refusals, silence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.adapters.probed_fleet import Listing, ListUnreadable
from gateway.adapters.ray_discovery import RayDiscovery
from tests.fakes import Script
from tests.loopback import loopback, says


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as opened:
        yield opened


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "ray-token"
    path.write_text("s3cret\n")
    return path


def put(path: Path, content: bytes | None) -> None:
    path.unlink() if content is None else path.write_bytes(content)


async def test_list_is_read_with_the_token_of_the_moment(session: aiohttp.ClientSession, token_file: Path) -> None:
    async with loopback(lambda _: says(b'{"applications":{"m":{"status":"RUNNING"}}}')) as server:
        discovery = RayDiscovery(server.url + "/", token_file)
        assert await discovery.listing(session) == Listing([], {"m": "running"})
        put(token_file, b"newer")
        await discovery.listing(session)
        await RayDiscovery(server.url, None).listing(session)
    assert [request.path for request in server.requests] == ["/api/serve/applications/"] * 3
    assert [request.headers.get("authorization") for request in server.requests] == ["Bearer s3cret", "Bearer newer", None]


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (says(b"", 401), "answered 401: set token_file"),
        (says(b"", 403), "answered 403: set token_file"),
        (says(b"", 404), "answered 404: is this Ray's dashboard address"),
        (says(b"<html>"), "something else than its list"),
        (Script(head="reset"), "not reachable"),
        (Script(head="hangs"), "not reachable"),
    ],
)
async def test_unreadable_list_says_why(session: aiohttp.ClientSession, script: Script, sentence: str) -> None:
    async with loopback(lambda _: script) as server:
        with pytest.raises(ListUnreadable, match=sentence) as caught:
            await RayDiscovery(server.url, None).listing(session)
        assert server.url in str(caught.value)


@pytest.mark.parametrize("content", [None, b"two\nlines", "열쇠".encode(), b"\xff"])
async def test_unusable_token_file_is_named_and_its_content_is_not(
    session: aiohttp.ClientSession, token_file: Path, content: bytes | None
) -> None:
    put(token_file, content)
    with pytest.raises(ListUnreadable, match=r"token file .*ray-token") as caught:
        await RayDiscovery("http://127.0.0.1:9", token_file).listing(session)
    assert "two" not in str(caught.value)
