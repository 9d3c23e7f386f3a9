"""The gateway's side of the ledger's mover: lets go of the journal's files for it, keeps its process running, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import time

import msgspec

from gateway.adapters.journal import Journal
from gateway.adapters.ledger_mover import Orders

log = logging.getLogger(__name__)

# What a loss of power may take. Each time costs a file and a sync, in a thread: 5 a second are a thousandth of a core, and a disk
# that is slower than that delays only the next time.
_ROTATE_S = 0.2
_LOOK_S = 0.5
_PAUSE_S = 0.5, 30.0  # before a mover that has ended is started again: at first, and when it keeps ending
_LONG_S = 60.0  # one that ran for so long has not kept ending
_END_S = 10.0  # beyond the time that SQLite waits for a lock


class MoverProcess:
    """Use as `async with`, around the journal's own block: what the journal lets go of at its end is moved at the end of this."""

    def __init__(self, journal: Journal, orders: Orders) -> None:
        self._journal = journal
        self._orders = msgspec.json.encode(orders) + b"\n"
        self._command = [sys.executable, "-P", "-m", "gateway.adapters.ledger_mover"]
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> MoverProcess:
        self._tasks = [asyncio.create_task(self._rotate_forever()), asyncio.create_task(self._keep_running())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            process = self._running()
        except OSError as problem:
            log.warning("The ledger's mover cannot be started (%s); entries stay in the journal until the next start.", problem)
            return
        await asyncio.to_thread(_end, process)

    async def _rotate_forever(self) -> None:
        trouble = ""
        while True:
            await asyncio.sleep(_ROTATE_S)
            self._journal.retry()
            try:
                written = self._journal.swap()
                if written is not None:
                    await asyncio.shield(asyncio.to_thread(written.settle))
                trouble = ""
            except OSError as problem:
                if trouble != str(problem):
                    trouble = str(problem)
                    log.warning("The ledger's journal cannot be synced or cannot get a new file (%s).", problem)

    async def _keep_running(self) -> None:
        pause_s, longest_s = _PAUSE_S
        while True:
            began = time.monotonic()
            try:
                end = f"exit code {await _exit_code(self._running())}"
            except OSError as problem:
                end = str(problem)
            if time.monotonic() - began > _LONG_S:
                pause_s, _ = _PAUSE_S
            log.warning("The ledger's mover has ended (%s) and is started again; the journal keeps entries until then.", end)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    def _running(self) -> subprocess.Popen[bytes]:
        """The mover's process; a new one if there is none. Raises OSError."""
        if self._process is None or self._process.poll() is not None:
            # In a session of its own, since what is typed in a terminal is meant for the gateway alone.
            self._process = process = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # it has ended by then, which is noticed
                    process.stdin.write(self._orders)
                    process.stdin.flush()
        return self._process


async def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Once it has ended. Looks every so often; a thread that waits would have to be waited for at the end."""
    while True:
        code = process.poll()
        if code is not None:
            process.communicate()  # closes our end of its pipe
            return code
        await asyncio.sleep(_LOOK_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it move what is left, and end."""
    try:
        process.communicate(timeout=_END_S)  # closes the pipe whose end it waits for
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        log.warning("The ledger's mover took more than %.0f s; entries stay in the journal until the next start.", _END_S)
