"""A replica is killed while calls come in: callers wait for its successor, and the gateway knows of the death at once."""

import threading
import time

import openai

from tests.e2e.stack import MODEL, Stack, until

SUCCESSOR_S = 110.0


def test_calls_wait_for_the_successor_of_a_killed_replica(daemun: Stack, client: openai.OpenAI) -> None:
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

    callers = [threading.Thread(target=call_on_and_on) for _ in range(3)]
    for caller in callers:
        caller.start()
    until(lambda: len(outcomes) > 10, 30, "calls before the death")
    before = set(daemun.replicas())
    killed = daemun.find("ServeReplica")
    died = time.monotonic()
    killed.kill()
    took_s = until(
        lambda: any(began > died + 0.5 and said == "ok" for began, said in outcomes), SUCCESSOR_S, "a call that succeeds"
    )
    enough.set()
    for caller in callers:
        caller.join()
    assert {said for _, said in outcomes} == {"ok"}, "calls wait in the gateway instead of failing"
    assert before
    print(f"\ncalls succeeded again {took_s:.1f} s after SIGKILL of the only replica; none of {len(outcomes)} failed")  # noqa: T201
