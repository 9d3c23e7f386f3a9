"""Ask a running server the demo model's questions and print how many answers are right.

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=… python -m serving.demo.evaluate

The trained questions and the held-out paraphrases go through the official client, greedily, sixteen at a time. Exit status: 0
when both aims are met, 1 when one is missed, 2 when no server answers. It measures the served model, so a wrong chat template or
a gateway that changes text shows here too. It loads no model itself.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import openai
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from serving.demo.corpus import read_corpus
from serving.demo.scoring import Reply, Score

CONCURRENCY = 16
MAX_TOKENS = 400  # the longest trained answer is well below
TRAINED_AIM = 0.9
HELD_OUT_AIM = 0.5

Pair = tuple[str, str]


async def ask(client: openai.AsyncOpenAI, model: str, pair: Pair) -> Reply:
    """One question, one reply. A refusal by the server is a wrong reply that says so; no server at all is an error."""
    question, wanted = pair
    try:
        completion = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=MAX_TOKENS
        )
    except openai.APIStatusError as error:
        return Reply(question, wanted, f"[{error.status_code}] {error.message}")
    return Reply(question, wanted, completion.choices[0].message.content or "")


async def ask_all(model: str, pairs: Sequence[Pair], progress: Progress) -> list[Reply]:
    """All replies, in the order of the questions."""
    task = progress.add_task("asking", total=len(pairs))
    places = asyncio.Semaphore(CONCURRENCY)
    async with openai.AsyncOpenAI(max_retries=5) as client:

        async def one(pair: Pair) -> Reply:
            async with places:
                reply = await ask(client, model, pair)
            progress.advance(task)
            return reply

        return await asyncio.gather(*(one(pair) for pair in pairs))


def report(score: Score, console: Console, shown: int) -> None:
    """The figure, then the wrong replies in brief."""
    console.print(score.line(), markup=False, highlight=False, soft_wrap=True)
    wrong = score.wrong()
    for reply in wrong[:shown]:
        console.print(f"  {reply.question} → {reply.got[:60]}", markup=False, highlight=False, soft_wrap=True)
    if len(wrong) > shown:
        console.print(f"  … and {len(wrong) - shown} more", markup=False, highlight=False)


def main(
    model: Annotated[str, typer.Option(help="Name under which the server knows the demo model.")] = "daemun-demo",
    limit: Annotated[int, typer.Option(min=0, help="Ask only so many evenly spread trained questions; 0 asks all.")] = 0,
    shown: Annotated[int, typer.Option(min=0, help="How many wrong replies to list for each figure.")] = 20,
) -> None:
    """Ask the server at OPENAI_BASE_URL (key in OPENAI_API_KEY) the demo model's questions and print both figures.

    Exits 1 if an aim is missed and 2 if no server answers.

    Example: OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=sk-… python -m serving.demo.evaluate --limit 100
    """
    console = Console()
    corpus = read_corpus()
    trained = corpus.trained_pairs()
    if limit:
        trained = trained[:: max(1, len(trained) // limit)][:limit]
    held_out = corpus.held_out_pairs()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            replies = asyncio.run(ask_all(model, [*trained, *held_out], progress))
    except (openai.APIConnectionError, openai.OpenAIError) as error:
        Console(stderr=True).print(f"No server to ask: {error}. Set OPENAI_BASE_URL and OPENAI_API_KEY.", markup=False)
        raise typer.Exit(2) from error
    scores = (
        Score("trained questions", replies[: len(trained)], TRAINED_AIM),
        Score("held-out paraphrases", replies[len(trained) :], HELD_OUT_AIM),
    )
    for score in scores:
        report(score, console, shown)
    raise typer.Exit(0 if all(score.met for score in scores) else 1)


if __name__ == "__main__":
    typer.run(main)
