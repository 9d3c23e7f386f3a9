"""What vLLM has counted itself is what the ledger has, to the token; and `daemun usage verify` notices where it is not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import openai

from tests.e2e.stack import MODEL, Stack


def verify(daemun: Stack, *arguments: str) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("daemun")), "usage", "verify", *arguments]
    done = subprocess.run(command, env=daemun.environment, cwd=daemun.folder, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


def test_engine_and_ledger_count_the_same(daemun: Stack, client: openai.OpenAI) -> None:
    time.sleep(2)  # what other tests left running is over
    verify(daemun, "--snapshot")
    for number in range(6):
        with client.chat.completions.with_streaming_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"대문이 뭐예요? {number // 2}"}],
            max_tokens=20 + number,
            stream=number % 2 == 0,
        ) as answer:
            answer.read()
    time.sleep(2)  # the mover's
    code, said = verify(daemun)
    print(said)  # noqa: T201
    assert code == 0, said
    counted = [line.split() for line in said.splitlines() if "tokens, the ledger" in line]
    assert len(counted) == 2
    for words in counted:
        engine, ledger = words[words.index("tokens,") - 2], words[words.index("ledger") + 1]
        assert engine == ledger != "0"
    snapshot = daemun.state_dir / "usage-snapshot.json"
    changed = json.loads(snapshot.read_text())
    (replica,) = changed["replicas"].values()
    replica["generation_tokens"] -= 3  # as if somebody had asked the engine past daemun
    snapshot.write_text(json.dumps(changed))
    code, said = verify(daemun)
    assert code == 1
    assert "3 more, from calls past daemun" in said
