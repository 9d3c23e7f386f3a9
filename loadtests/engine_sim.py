"""`python -m loadtests.engine_sim`: an OpenAI server in front of a simulated vLLM engine, for loads beyond any engine here.

Its answers are filler in vLLM's own shape; their times are those of `engines.model` with the figures of a named engine,
in real time or so many times faster. Several `--port`s are as many replicas, each an engine of its own, in one process.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Annotated

import typer
import uvloop

from engines import figures as engine_figures
from engines.model import EngineFigures
from loadtests.sim_connection import Connection
from loadtests.sim_engine import SimulatedEngine

_BACKLOG = 4096


async def serve(figures: EngineFigures, model: str, host: str, ports: list[int]) -> None:
    """Until it is cancelled; each port is an engine of its own."""
    loop = asyncio.get_running_loop()
    servers = []
    for port in ports:
        engine = SimulatedEngine(figures, loop, time.monotonic)

        def connection(engine: SimulatedEngine = engine) -> Connection:
            return Connection(engine, model)

        servers.append(await loop.create_server(connection, host, port, backlog=_BACKLOG))
    try:
        await asyncio.Event().wait()
    finally:
        for server in servers:
            server.close()


def main(
    port: Annotated[list[int], typer.Option(help="Where to listen; repeat for more replicas.")],
    figures: Annotated[str, typer.Option(help=f"The engine: {', '.join(engine_figures.names())}.")] = "demo-cpu",
    scale: Annotated[float, typer.Option(min=0.001, help="How many times as fast as the real one.")] = 1.0,
    model: Annotated[str, typer.Option(help="The model's name.")] = "simulated",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    max_num_seqs: Annotated[int, typer.Option(min=0, help="Calls that decode at once; 0: the engine's own figure.")] = 0,
) -> None:
    """An OpenAI server with the speed of a named engine. Ctrl-C ends it.

    python -m loadtests.engine_sim --port 9001 --port 9002 --figures h100-8b --model my-model
    """
    try:
        engine = engine_figures.load(figures).scaled(scale)
        if max_num_seqs:
            engine = replace(engine, max_num_seqs=max_num_seqs)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--figures") from problem
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve(engine, model, host, port))
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    typer.run(main)
