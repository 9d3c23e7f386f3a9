"""`transformers serve`, as a process: a real server with the OpenAI API that is not vLLM, and the demo model in it.

usage: python -m tests.integration.transformers_server MODEL PORT

It loads the model as `AutoModelForCausalLM` does by itself; transformers' own way for servers needs `accelerate`, which nothing
else here does. Everything that goes over the wire is theirs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

MODEL = "daemun/demo"
_REVISION = "0" * 40


def cache_with_demo_model(folder: Path, model: Path) -> Path:
    """A Hugging Face cache that holds the demo model; the server lists and loads what is in there."""
    repository = folder / f"models--{MODEL.replace('/', '--')}"
    for name in ("blobs", "refs", "snapshots"):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text(_REVISION, encoding="ascii")
    (repository / "snapshots" / _REVISION).symlink_to(model)
    return folder


def main(model: str, port: str) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.cli.serve import Serve
    from transformers.cli.serving.model_manager import ModelManager

    def load(_: ModelManager, model_and_revision: str, **__: Any) -> Any:
        return AutoModelForCausalLM.from_pretrained(model_and_revision.partition("@")[0])

    ModelManager._load_model = load
    Serve(force_model=model, host="127.0.0.1", port=int(port), device="cpu")


if __name__ == "__main__":
    main(*sys.argv[1:])
