"""`python -m loadtests.calibrate`: fits an engine's figures to a real server's times, and says how far off they are.

Two measurements fit them: first tokens of lone calls by the length of their prompts, and steps in which so many equal calls
decode. A third one, which they have not seen, judges them: clients who ask for calls of random sizes, one after the other,
against the model with the same calls. Nothing else should be asking the server, or running on its machine.
"""

from __future__ import annotations

import asyncio
import platform
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Annotated

import aiohttp
import psutil
import typer
import yaml

from engines import figures as engine_figures
from engines.model import EngineFigures
from loadtests.engine_fit import Size, Timed, decode_times, predicted, prefill_times
from loadtests.engine_probe import Probe, ProbeFailed

PROMPTS = (32, 128, 256, 512, 1024, 1800)
PROMPT_ROUNDS = 7
# Not more prompt tokens at once than a server may be set to take: the demo model's, 32,768.
DECODES = ((1, 32), (4, 32), (16, 32), (32, 32), (48, 32), (64, 32), (16, 1000), (28, 1000))  # calls, prompt tokens
DECODE_TOKENS = 160
CLIENTS = (1, 8, 32, 96)
CALLS_PER_CLIENT = 4
_BLOCKS = re.compile(r'block_size="(\d+)".*kv_cache_size_tokens="(\d+)"')

Say = Callable[[str], None]


async def limits(url: str, key: str) -> tuple[EngineFigures, str]:
    """What the server says of itself, in figures whose times mean nothing yet, and its version."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        async with session.get(f"{url}/v1/models") as answer:
            longest = int((await answer.json())["data"][0]["max_model_len"])
        async with session.get(f"{url}/metrics") as answer:
            found = _BLOCKS.search(await answer.text())
        async with session.get(f"{url}/version") as answer:
            version = str((await answer.json())["version"])
    if found is None:
        raise ProbeFailed("its /metrics say nothing of its KV cache, as vLLM's do")
    block_tokens, kv_tokens = int(found[1]), int(found[2])
    shape = EngineFigures(1.0, 0.0, 0.0, max_model_len=longest, kv_blocks=kv_tokens // block_tokens, block_tokens=block_tokens)
    return shape, version


async def fitted(probe: Probe, shape: EngineFigures, say: Say) -> EngineFigures:
    for _ in range(3):  # the first calls of a server are slower
        await probe.decode_step(4, Size(PROMPTS[-1], 20))
    firsts = []
    for tokens in PROMPTS:
        firsts.append((tokens, median([await probe.first_s(tokens) for _ in range(PROMPT_ROUNDS)])))
        say(f"a prompt of {tokens} tokens: first token after {firsts[-1][1] * 1000:.1f} ms")
    steps = []
    for calls, tokens in DECODES:
        steps.append(await probe.decode_step(calls, Size(tokens, DECODE_TOKENS)))
        say(f"{calls} calls of {tokens} tokens decode: a step takes {steps[-1].seconds * 1000:.1f} ms")
    step_s, call_s, context_s = decode_times(steps)
    alone_s, prefill_s = prefill_times(firsts)
    return replace(
        shape,
        step_s=step_s,
        prefill_token_s=prefill_s,
        decode_call_s=call_s,
        context_token_s=context_s,
        front_s=max(0.0, alone_s - step_s),
    )


async def judged(probe: Probe, figures: EngineFigures, say: Say) -> dict[str, dict[str, list[float]]]:
    """By measure, the relative errors at each number of clients: median and p90 over calls, for throughput the one."""
    errors: dict[str, dict[str, list[float]]] = {"first_token": {}, "between_tokens": {}, "throughput": {}}
    chance = random.Random(11)  # noqa: S311 - a seed is wanted, not a secret
    for clients in CLIENTS:
        sizes = [Size(chance.randint(20, 400), chance.randint(20, 160)) for _ in range(CALLS_PER_CLIENT * max(clients, 4))]
        measured = await probe.closed_loop(sizes, clients)
        model = predicted(figures, sizes, clients)
        pairs = list(zip(model, measured, strict=True))
        errors["first_token"][str(clients)] = _spread([_off(ours.first_s, theirs.first_s) for ours, theirs in pairs])
        errors["between_tokens"][str(clients)] = _spread([_off(ours.between_s, theirs.between_s) for ours, theirs in pairs])
        errors["throughput"][str(clients)] = [round(_off(_per_s(sizes, model), _per_s(sizes, measured)), 3)]
        say(
            f"{clients} clients: {_per_s(sizes, measured):.0f} tokens/s (model {_per_s(sizes, model):.0f}), "
            f"first token p50 {_middle(measured, 'first_s'):.0f} ms (model {_middle(model, 'first_s'):.0f}), "
            f"between tokens {_middle(measured, 'between_s'):.1f} ms (model {_middle(model, 'between_s'):.1f}); "
            + "; ".join(f"{name} off by {by_clients[str(clients)]}" for name, by_clients in errors.items())
        )
    return errors


def _off(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / theirs


def _spread(errors: list[float]) -> list[float]:
    ordered = sorted(errors)
    return [round(median(ordered), 3), round(ordered[int(len(ordered) * 0.9)], 3)]


def _per_s(sizes: Sequence[Size], timed: Sequence[Timed]) -> float:
    return sum(size.output_tokens for size in sizes) / max(one.ended_at for one in timed)


def _middle(timed: Sequence[Timed], name: str) -> float:
    return float(median(getattr(one, name) for one in timed)) * 1000


def machine() -> str:
    """Cores, processor and memory in words."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    return f"{psutil.cpu_count()} cores ({model or platform.machine()}), {psutil.virtual_memory().total / 2**30:.0f} GiB"


def written(figures: EngineFigures, errors: dict[str, dict[str, list[float]]], version: str, model: str) -> str:
    """The file's text."""
    origin = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{machine()}, shared with the probe",
        "versions": f"vLLM {version}, Python {platform.python_version()}",
        "model": model,
        "command": "python -m loadtests.calibrate " + " ".join(sys.argv[1:]),
    }
    values = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in asdict(figures).items()}
    head = (
        f"# {model}, measured: written by loadtests.calibrate. `errors` are the model's, relative, at so many clients with\n"
        "# calls of random sizes that the figures were not fitted to: median and 90th percentile over calls; throughput has\n"
        "# only one.\n"
    )
    parts = ({"origin": origin}, {"figures": values})
    blocks = [yaml.safe_dump(part, sort_keys=False, width=200, allow_unicode=True) for part in parts]
    return head + blocks[0] + yaml.safe_dump({"errors": errors}, sort_keys=False, default_flow_style=None) + blocks[1]


def main(
    url: Annotated[str, typer.Option(help="The server, without /v1.")] = "http://127.0.0.1:8000",
    model: Annotated[str, typer.Option(help="Its model.")] = "daemun-demo",
    key: Annotated[str, typer.Option(help="Key, if it wants one.")] = "none",
    name: Annotated[str, typer.Option(help="Write engines/known/NAME.yaml; nothing if empty.")] = "",
    max_num_seqs: Annotated[int, typer.Option(min=1, help="As the server was started with.")] = 64,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="As the server was started with.")] = 2048,
    judge: Annotated[str, typer.Option(help="Judge the figures of this name instead of fitting some.")] = "",
) -> None:
    """Fits a step's times to a vLLM server that has nothing else to do, in some two minutes, and says how far off they are.

    With `daemun up` running in another terminal, its replica is the server:

    python -m loadtests.calibrate --url http://127.0.0.1:30000/daemun-demo --name demo-cpu
    """
    began = time.monotonic()

    def say(what: str) -> None:
        typer.echo(f"calibrate [{time.monotonic() - began:4.0f} s] {what}")

    async def course() -> str:
        shape, version = await limits(url, key)
        shape = replace(shape, max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens)
        async with Probe(url, model, key, seed=int(time.time())) as probe:
            figures = engine_figures.load(judge) if judge else await fitted(probe, shape, say)
            return written(figures, await judged(probe, figures, say), version, model)

    try:
        text = asyncio.run(course())
    except (ProbeFailed, aiohttp.ClientError, OSError) as problem:
        typer.echo(f"calibrate: {url}: {problem}", err=True)
        raise typer.Exit(2) from problem
    typer.echo(text)
    if name:
        (engine_figures.FOLDER / f"{name}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
