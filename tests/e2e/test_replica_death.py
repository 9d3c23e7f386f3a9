"""A replica is killed while calls come in: the gateway knows at once, and callers wait for its successor."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import openai

from tests.e2e.stack import MODEL, Stack, until

SUCCESSOR_S = 110.0
NOTICED_S = 2.0


@contextmanager
def calling(client: openai.OpenAI, callers: int) -> Iterator[list[tuple[float, str]]]:
    """Calls on and on from several threads; yields what became of each: when it began, and "ok" or the error's code."""
    outcomes: list[tuple[float, str]] = []
    enough = threading.Event()

    def call_on_and_on() -> None:
        while not enough.is_set():
            began = time.monotonic()
            try:
                client.completions.create(model=MODEL, prompt="안녕", max_tokens=3, timeout=SUCCESSOR_S)
                outcomes.append((began, "ok"))
            except openai.APIError as problem:
                outcomes.append((began, str(getattr(problem, "code", problem))))

    threads = [threading.Thread(target=call_on_and_on) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def is_ready(daemun: Stack) -> bool:
    return httpx.get(f"{daemun.url}/health/ready").status_code == 200


def test_calls_wait_for_the_successor_of_a_killed_replica(daemun: Stack, client: openai.OpenAI) -> None:
    with calling(client, 3) as outcomes:
        until(lambda: len(outcomes) > 10, 30, "calls before the death")
        daemun.find("ServeReplica").kill()
        died = time.monotonic()
        noticed_s = until(lambda: not is_ready(daemun), NOTICED_S, "the gateway notices")
        back_s = until(
            lambda: any(began > died + 0.5 and said == "ok" for began, said in outcomes), SUCCESSOR_S, "a call succeeds"
        )
    assert {said for _, said in outcomes} == {"ok"}, "calls wait in the gateway instead of failing"
    print(  # noqa: T201
        f"\nSIGKILL of the only replica: not ready after {noticed_s:.1f} s, calls begun since then succeed after {back_s:.1f} s;"
        f" none of {len(outcomes)} calls failed"
    )
