"""The admin API's token: a file in state_dir that only its owner may read, made on first use."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from gateway.adapters.schema import StoreUnusable

PREFIX = "dma-"
_SHORTEST = 22  # characters: 128 bits, in whatever alphabet an operator's own token is


def token_path(state_dir: Path) -> Path:
    return state_dir / "admin-token"


def admin_token(state_dir: Path) -> str:
    """Raises StoreUnusable."""
    path = token_path(state_dir)
    try:
        with suppress(FileExistsError):
            _make(path)
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise StoreUnusable(
            f"The admin token {path} cannot be used ({problem}). Set state_dir to a folder of your own."
        ) from problem
    if len(token) < _SHORTEST or not token.isascii():
        raise StoreUnusable(f"{path} holds no token of at least {_SHORTEST} characters. Delete it, and a new one is made.")
    return token


def _make(path: Path) -> None:
    """Whole or not at all, also where several gateways start at once. Raises FileExistsError."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(PREFIX + secrets.token_urlsafe(32) + "\n")
        os.link(draft, path)
    finally:
        draft.unlink()
