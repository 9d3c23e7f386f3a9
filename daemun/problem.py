"""What stops a command: one sentence with the remedy, and an exit code that is not 0. Never a traceback."""

from __future__ import annotations


class Problem(Exception):
    """The command cannot be carried out; the message is for the person at the terminal."""

    exit_code = 1
