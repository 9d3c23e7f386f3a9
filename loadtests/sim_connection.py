"""HTTP for the simulated engine: OpenAI's routes and vLLM's own on a raw protocol, since it shares its core with the load."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import count
from typing import Any

import httptools

from engines.model import EngineFigures
from loadtests import sim_answer, sim_request
from loadtests.sim_engine import SimulatedEngine
from loadtests.sim_request import Asked

VERSION = "0.29.0+simulated"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_numbers = count(1)


class Connection(asyncio.Protocol):
    """One client connection, kept alive; one request at a time, whose body may come in pieces."""

    def __init__(self, engine: SimulatedEngine, model: str) -> None:
        self._engine = engine
        self._model = model
        self._parser = httptools.HttpRequestParser(self)
        self._call_id = ""
        self._writer: sim_answer.StreamWriter | None = None
        self.asked: Asked

    # What the engine tells

    def tokens(self, count: int) -> None:
        writer = self._writer
        if writer is not None and count > writer.sent:
            begin = writer.begin() if writer.sent == 0 else b""
            self._transport.write(begin + writer.more(count))

    def finished(self) -> None:
        call_id, self._call_id = self._call_id, ""
        writer, self._writer = self._writer, None
        if writer is None:
            self._transport.write(sim_answer.whole(self.asked, call_id, self._model))
            return
        begin = writer.begin() if writer.sent == 0 else b""
        self._transport.write(begin + writer.more(self.asked.output_tokens, last=True))

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._call_id:
            self._engine.abort(self._call_id)

    # httptools' side

    def on_message_begin(self) -> None:
        self._target = b""
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path = self._target.decode("latin-1").partition("?")[0]
        body = b"".join(self._body)
        try:
            if path in (CHAT, COMPLETIONS):
                self._ask(body, chat=path == CHAT)
            else:
                self._transport.write(self._other(path, body))
        except sim_request.BadRequest as problem:
            self._transport.write(sim_answer.error(str(problem), 400, problem.param))
        except sim_request.UnknownModel as problem:
            self._transport.write(sim_answer.error(str(problem), 404, "model"))

    def _ask(self, body: bytes, *, chat: bool) -> None:
        if self._parser.get_method() != b"POST":
            self._transport.write(sim_answer.json_response({"detail": "Method Not Allowed"}, 405))
            return
        longest = self._engine.model.figures.max_model_len
        self.asked = sim_request.read(body, chat=chat, model=self._model, longest=longest)
        self._call_id = f"{'chatcmpl' if chat else 'cmpl'}-{next(_numbers):016x}"
        if self.asked.stream:
            self._writer = sim_answer.StreamWriter(self.asked, self._call_id, self._model)
        self._engine.add(self._call_id, self)

    def _other(self, path: str, body: bytes) -> bytes:
        match path:
            case "/health" | "/ping":
                return sim_answer.response(b"")
            case "/version":
                return sim_answer.json_response({"version": VERSION})
            case "/v1/models":
                return sim_answer.json_response(models(self._model, self._engine.model.figures))
            case "/metrics":
                return sim_answer.response(metrics(self._engine, self._model), content_type="text/plain; version=0.0.4")
            case "/tokenize":
                tokens = sim_request.count(body)
                longest = self._engine.model.figures.max_model_len
                ids = list(range(tokens))
                return sim_answer.json_response({"count": tokens, "max_model_len": longest, "tokens": ids, "token_strs": None})
            case "/simulation":
                return sim_answer.json_response(state(self._engine))
        return sim_answer.json_response({"detail": "Not Found"}, 404)


def models(model: str, figures: EngineFigures) -> dict[str, Any]:
    """As vLLM lists its one model."""
    card = {"id": model, "object": "model", "created": 1750000000, "owned_by": "vllm", "root": model, "parent": None}
    return {"object": "list", "data": [{**card, "max_model_len": figures.max_model_len}]}


def state(engine: SimulatedEngine) -> Mapping[str, float]:
    """For those who measure: what has become of the calls, and how late this process has noticed a step's end."""
    model = engine.model
    return {
        "running": model.running,
        "waiting": model.waiting,
        "finished": engine.finished,
        "aborted": engine.aborted,
        "preemptions": model.preemptions,
        "late_ms": round(engine.take_lateness() * 1000, 3),
    }


def metrics(engine: SimulatedEngine, model: str) -> bytes:
    """Those of vLLM's series that say how full an engine is and what it has done."""
    running, figures = engine.model, engine.model.figures
    label = f'engine="0",model_name="{model}"'
    values: dict[str, tuple[str, float]] = {
        "num_requests_running": ("gauge", running.running),
        "num_requests_waiting": ("gauge", running.waiting),
        "kv_cache_usage_perc": ("gauge", running.kv_usage),
        "prompt_tokens_total": ("counter", running.prompt_tokens),
        "generation_tokens_total": ("counter", running.generation_tokens),
        "num_preemptions_total": ("counter", running.preemptions),
        "request_success_total": ("counter", engine.finished),
    }
    lines = []
    for name, (kind, value) in values.items():
        lines.append(f"# TYPE vllm:{name.removesuffix('_total')} {kind}")
        lines.append(f"vllm:{name}{{{label}}} {float(value)}")
    config = f'block_size="{figures.block_tokens}",engine="0",kv_cache_size_tokens="{figures.kv_tokens}"'
    lines.append("# TYPE vllm:cache_config_info gauge")
    lines.append(f'vllm:cache_config_info{{{config},num_gpu_blocks="{figures.kv_blocks}"}} 1.0')
    return ("\n".join(lines) + "\n").encode()
