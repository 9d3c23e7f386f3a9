"""What only a real connection shows: what goes over the wire, what is kept, and what an engine sees when we leave."""

from __future__ import annotations

import asyncio
import os
import resource

import pytest

from gateway.adapters.http_upstream import HttpUpstream, Timeouts
from gateway.errors import TooManyConnections, UpstreamUnreachable
from gateway.ports import Replica
from gateway.protocol.plain import Engine
from tests.fakes import Script
from tests.loopback import LoopbackServer, loopback, says

TIMEOUTS = Timeouts(connect_s=1.0, first_byte_s=2.0, between_chunks_s=2.0)
PATH = "/v1/completions"


async def call(upstream: HttpUpstream, server: LoopbackServer) -> bytes:
    async with await upstream.open(Replica("r", "m", server.url), PATH, b'{"a":1}', "req_7") as answer:
        body = b""
        while piece := await answer.piece():
            body += piece
        return body


async def test_request_goes_over_the_wire_as_it_is() -> None:
    async with loopback(lambda _: says(b"{}")) as server, HttpUpstream(TIMEOUTS) as upstream:
        await call(upstream, server)
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", PATH, b'{"a":1}')
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-request-id"] == "req_7"
    assert request.headers["accept-encoding"] == "identity"
    assert "authorization" not in request.headers


async def test_servers_that_are_not_vllm_get_no_name_of_the_call() -> None:
    async with loopback(lambda _: says(b"{}")) as server, HttpUpstream(TIMEOUTS) as upstream:
        answer = await upstream.open(Replica("r", "m", server.url, Engine.OTHER), PATH, b"{}", "req_7")
        answer.close()
    assert "x-request-id" not in server.requests[0].headers


async def test_connections_are_kept() -> None:
    async with loopback(lambda _: says(b"{}")) as server, HttpUpstream(TIMEOUTS) as upstream:
        for _ in range(3):
            await call(upstream, server)
        assert server.connections == 1


async def test_connections_that_stay_idle_are_closed() -> None:
    async with loopback(lambda _: says(b"{}")) as server, HttpUpstream(TIMEOUTS, kept_s=0.05) as upstream:
        await call(upstream, server)
        await asyncio.wait_for(server.left.wait(), 2)
        assert await call(upstream, server) == b"{}"
        assert server.connections == 2


async def test_stale_kept_connection_is_tried_again_and_the_replica_lives() -> None:
    async with loopback(lambda _: says(b"{}"), keeps=1) as server, HttpUpstream(TIMEOUTS) as upstream:
        for _ in range(3):
            assert await call(upstream, server) == b"{}"
        assert len(server.requests) == 3


async def test_many_stale_connections_are_not_taken_for_a_dead_replica() -> None:
    """All that were kept may be stale at once; the second try takes a new one."""
    slow = Script(pieces=(b"{}",), every_s=0.05)
    async with loopback(lambda _: slow, keeps=1) as server, HttpUpstream(TIMEOUTS) as upstream:
        assert await asyncio.gather(*(call(upstream, server) for _ in range(4))) == [b"{}"] * 4
        assert await call(upstream, server) == b"{}"


async def test_server_that_hangs_up_on_a_new_connection_is_unreachable_at_once() -> None:
    async with loopback(lambda _: Script(head="reset")) as server, HttpUpstream(TIMEOUTS) as upstream:
        with pytest.raises(UpstreamUnreachable):
            await call(upstream, server)
        assert len(server.requests) == 1


async def test_server_that_hangs_up_on_a_kept_connection_is_unreachable_after_a_new_one() -> None:
    scripts = [says(b"{}"), Script(head="reset"), Script(head="reset")]
    async with loopback(lambda _: scripts.pop(0)) as server, HttpUpstream(TIMEOUTS) as upstream:
        await call(upstream, server)
        with pytest.raises(UpstreamUnreachable):
            await call(upstream, server)
        assert scripts == []


async def test_leaving_early_closes_the_connection_to_the_engine() -> None:
    script = Script(pieces=(b"data: 1\n\n",), end="hangs")
    async with loopback(lambda _: script) as server, HttpUpstream(TIMEOUTS) as upstream:
        async with await upstream.open(Replica("r", "m", server.url), PATH, b"{}", "req_7") as answer:
            assert await answer.piece() == b"data: 1\n\n"
        await asyncio.wait_for(server.left.wait(), 2)


async def test_cancelled_wait_for_the_head_closes_the_connection_to_the_engine() -> None:
    async with loopback(lambda _: Script(head="hangs")) as server, HttpUpstream(TIMEOUTS) as upstream:
        waiting = asyncio.create_task(call(upstream, server))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.wait_for(server.left.wait(), 2)


async def test_answers_that_are_no_http_are_unreachable() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpUpstream(TIMEOUTS) as upstream:
        with pytest.raises(UpstreamUnreachable):
            await upstream.open(Replica("r", "m", f"http://127.0.0.1:{port}"), PATH, b"", "req_7")


async def test_sockets_that_we_lack_are_not_the_replicas_fault() -> None:
    async with loopback(lambda _: says(b"{}")) as server, HttpUpstream(TIMEOUTS) as upstream:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.open(os.devnull, os.O_RDONLY)
        os.close(spare)  # the lowest number that is free
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            with pytest.raises(TooManyConnections):
                await upstream.open(Replica("r", "m", server.url), PATH, b"{}", "req_7")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
