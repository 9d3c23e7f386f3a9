"""Why an application of Serve's could not be started: the one sentence in its messages and in the engines' logs."""

import os
import re
from pathlib import Path

from ray.serve.schema import ApplicationStatusOverview


def cause(app: ApplicationStatusOverview) -> str:
    """The sentence inside Serve's message, without the traceback around it; if it only points at the engine's log, that log's."""
    text = "\n".join([app.message, *(deployment.message for deployment in app.deployments.values())])
    sentence = _last_error(text) or text
    if "See root cause above" in sentence:
        logs = Path(os.environ["TMPDIR"]).glob("session_2*/logs/worker-*.err")
        engine = "\n".join(line for log in logs for line in log.read_text(errors="replace").splitlines() if "EngineCore" in line)
        sentence = _last_error(engine) or sentence
    return one_line(sentence)


def _last_error(text: str) -> str | None:
    """What follows the last `SomeError: ` in a log or traceback."""
    found = re.findall(r"\w+(?:Error|Exception|Failed): (.+)", text)
    return found[-1] if found else None


def one_line(what: object) -> str:
    return " ".join(str(what).split())[:500]
