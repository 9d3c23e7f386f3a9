"""A request as it came in, and whose it is: what the pipeline is given."""

from __future__ import annotations

from gateway.ports import Principal, Tell
from gateway.protocol.openai import Request
from gateway.terms import Header


class Call:
    """One request as it came in, and whose it is.

    `patience_s` is its own longest wait, `tell` for who wants to hear where it stands. Every stage may add to `headers`: they are
    in the head of the answer, whatever answer it becomes.
    """

    __slots__ = ("headers", "id", "patience_s", "principal", "request", "tell")

    def __init__(
        self,
        id: str,
        principal: Principal,
        request: Request,
        *,
        headers: list[Header],
        patience_s: float | None = None,
        tell: Tell | None = None,
    ) -> None:
        self.id = id
        self.principal = principal
        self.request = request
        self.headers = headers
        self.patience_s = patience_s
        self.tell = tell
