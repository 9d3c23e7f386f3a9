"""Token counts are the engine's own, for whole, aborted and many-choice streams; and a client sees nothing of the counting."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.stack import MODEL, Stack

TRIES = 40
LONG = {"ignore_eos": True, "max_tokens": 1500, "temperature": 0}
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "대문이 뭐예요?"}], "stream": True}


def events(data: bytes) -> Iterator[dict[str, Any]]:
    for event in data.split(b"\n\n"):
        text = event.strip().removeprefix(b"data: ")
        if text.startswith(b"{"):
            yield json.loads(text)


def abort_after(daemun: Stack, body: dict[str, Any], chunks: int) -> tuple[str, bytes]:
    """Read some chunks, say that no more will be sent, and read to the end what was under way. Returns request id and bytes."""
    payload = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: daemun\r\nAuthorization: Bearer {daemun.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", daemun.ports[0])) as connection:
        connection.sendall(head.encode() + payload)
        data = b""
        while data.count(b"data: {") < chunks:
            data += connection.recv(65536)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            data += piece
    request_id = next(line for line in data.split(b"\r\n") if line.startswith(b"x-request-id")).split(b": ")[1].decode()
    # What the chunked coding put between the pieces has no `data: `, and its lines end in \r\n.
    return request_id, b"".join(line for line in data.split(b"\r\n") if b"data: " in line)


@pytest.mark.parametrize("chunks", [2, 9, 40, 111])
def test_an_aborted_stream_is_counted_to_the_token(daemun: Stack, chunks: int) -> None:
    """The client asks for counts on every chunk here, so that it knows what it received."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    request_id, data = abort_after(daemun, BODY | LONG | {"stream_options": options}, chunks)
    received = [event["usage"]["completion_tokens"] for event in events(data)][-1]
    entry = daemun.entry(request_id)
    assert entry["outcome"] == "aborted"
    assert 0 < received < LONG["max_tokens"]
    assert entry["completion_tokens"] == received


def test_an_aborted_stream_is_aborted_in_the_engine_too(daemun: Stack) -> None:
    request_id, _ = abort_after(daemun, BODY | LONG, 5)
    daemun.entry(request_id)
    for _ in range(50):
        text = httpx.get(f"{daemun.replicas()[0]}/metrics").text
        running = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
        if [line.split()[-1] for line in running] == ["0.0"]:
            return
    raise AssertionError(running)


def test_every_choice_is_counted(daemun: Stack) -> None:
    body = BODY | {
        "n": 3,
        "temperature": 1.0,
        "seed": 1,
        "max_tokens": 20,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }
    answer = httpx.post(f"{daemun.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {daemun.key}"})
    (totals,) = [event["usage"] for event in events(answer.content) if event.get("usage")]
    entry = daemun.entry(answer.headers["x-request-id"])
    assert entry["completion_tokens"] == totals["completion_tokens"] == 60
    assert entry["prompt_tokens"] == totals["prompt_tokens"]


@pytest.mark.parametrize(
    "options",
    [None, {}, {"include_usage": True}, {"include_usage": False}, {"include_usage": True, "continuous_usage_stats": True}],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_client_receives_exactly_what_the_engine_sends_without_us(daemun: Stack, path: str, options: Any) -> None:
    body = {"model": MODEL, "temperature": 0, "max_tokens": 30, "stream": True, "logprobs": True if "chat" in path else 2}
    body |= {"messages": BODY["messages"]} if "chat" in path else {"prompt": "대문은"}
    body |= {} if options is None else {"stream_options": options}
    # On a busy machine vLLM now and then puts two tokens into one chunk, with or without us: such a stream finds its like later.
    without_us: set[bytes] = set()
    with_us: set[bytes] = set()
    for _ in range(TRIES):
        direct = httpx.post(daemun.replicas()[0] + path, json=body)
        through = httpx.post(daemun.url + path, json=body, headers={"Authorization": f"Bearer {daemun.key}"})
        assert through.status_code == direct.status_code == 200
        without_us.add(comparable(direct.content))
        with_us.add(comparable(through.content))
        if with_us & without_us:
            return
    assert comparable(through.content) == comparable(direct.content)


def comparable(stream: bytes) -> bytes:
    """Two calls differ in their ids, the second they were made in, and the last digits of their logprobs."""
    first = next(events(stream))
    stream = stream.replace(first["id"].encode(), b"ID").replace(f'"created":{first["created"]}'.encode(), b'"created":0')
    return re.sub(rb"-?\d+\.\d+(e-\d+)?", b"0.0", stream)
