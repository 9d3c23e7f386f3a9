"""One connection to Redis, on which the two scripts of the limits run. Nothing on it is ever tried again by itself.

A connection belongs to one server and one life of it: its `run_id` is asked when it is opened, so that whoever speaks on it is
known to speak to that server. When anything goes wrong it is closed, and the next is a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib import resources

from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

Argument = str | int
Command = tuple[Argument, ...]
PROBLEMS = (RedisError, OSError, TimeoutError)


class Script:
    def __init__(self, name: str) -> None:
        self.text = resources.files("gateway.adapters").joinpath("lua", f"{name}.lua").read_text()
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], arguments: Sequence[Argument]) -> Command:
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)


class RedisLink:
    def __init__(self, url: str) -> None:
        self._pool = ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=None, client_name="daemun")
        self._connection: Connection | None = None
        self.run_id = ""

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    async def open(self, scripts: Sequence[Script]) -> None:
        """Raises one of PROBLEMS."""
        connection: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            self._connection = connection
            commands = [("INFO", "server"), *(("SCRIPT", "LOAD", script.text) for script in scripts)]
            info, *_ = await self.ask(commands)
            self.run_id = _run_id(info)
        except BaseException:
            self._connection = None
            await connection.disconnect(nowait=True)
            raise

    async def ask(self, commands: Sequence[Command]) -> list[list[int]]:
        """The answers to all of them, in their order. Raises one of PROBLEMS, and must be closed then."""
        connection = self._connection
        if connection is None:
            raise ConnectionError("the link is not open")
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        answers = []
        for _ in commands:
            answer = await connection.read_response()
            if isinstance(answer, RedisError):
                raise answer
            answers.append(answer)
        return answers

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def _run_id(info: object) -> str:
    text = info.decode() if isinstance(info, bytes) else str(info)
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("run_id:")), "")
