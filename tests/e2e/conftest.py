"""One stack for all end-to-end tests that only talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.stack import Stack, stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def daemun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("daemun")) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture
def client(daemun: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemun.url}/v1", api_key=daemun.key, max_retries=0) as made:
        yield made
