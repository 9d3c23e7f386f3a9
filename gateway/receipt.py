"""A call's ledger entry while the call lives: every stage notes what it learns, and the end, whatever it is, records it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.call_error import CallError
from gateway.entry import Entry
from gateway.errors import HANDED_BACK, Busy, ServerStopping, UpstreamFailed
from gateway.policy.cost import NO_RATES, Rates
from gateway.policy.limits import Tier
from gateway.ports import Clock, Ledger, Principal
from gateway.protocol.usage import NO_USAGE, Usage

Outcome = tuple[str, str | None]  # and the error's code
CLIENT_GONE = 499  # no such status goes over the wire; ledgers use it for a client that left before an answer began


class Receipt:
    """Made when a call begins, closed when it is over.

    Outcomes: `completed`; `aborted` by the client; `rejected` before any engine worked; `failed`.
    """

    def __init__(
        self,
        call_id: str,
        endpoint: str,
        principal: Principal,
        clock: Clock,
        ledger: Ledger,
        *,
        model: str = "",
        stream: bool = False,
        rates: Rates = NO_RATES,
    ) -> None:
        self._call_id = call_id
        self._endpoint = endpoint
        self._principal = principal
        self._model = model
        self._stream = stream
        self._rates = rates
        self._clock = clock
        self._ledger = ledger
        self._tier = principal.tier
        self._asked = ""
        self._started_at = clock.time()
        self._came = clock.monotonic()
        self._queue_s: float | None = None
        self._first_byte_s: float | None = None
        self._replica: str | None = None
        self._continued = 0
        self._used: Callable[[], Usage] | None = None
        self._decided: Outcome | None = None

    def taken_as(self, model: str, tier: Tier, asked: str = "") -> None:
        """The model that it goes to, which may be a fall-back, and the tier that it is served in. `asked` is the model in whose
        name it answers, where that has a rollout: its price is the call's, whichever version works.
        """
        self._model = model
        self._tier = tier
        self._asked = asked

    def started(self) -> None:
        """It has a place."""
        self._queue_s = self._clock.monotonic() - self._came

    def answered_by(self, replica_id: str) -> None:
        if self._replica is not None:
            self._continued += 1
        self._replica = replica_id

    def first_byte(self, used: Callable[[], Usage]) -> None:
        """The first byte went to the client; `used` tells the counts from then on."""
        self._first_byte_s = self._clock.monotonic() - self._came
        self._used = used

    def whole(self) -> None:
        """The client has all of the answer: that it leaves from here on is no abort."""
        self._decided = self._decided or ("completed", None)

    def engine_failed(self) -> None:
        """The engine said itself, in the stream, that it cannot go on; the stream then ends as if all were well."""
        self._decided = ("failed", UpstreamFailed.code)

    def used(self) -> Usage:
        return NO_USAGE if self._used is None else self._used()

    def worked(self, error: BaseException | None) -> Usage | None:
        """What replicas have counted for the call, which may be nothing yet; None where none has begun with it.

        A replica that refuses or fails before it answers has not; one whose client leaves while it reads the prompt has.
        """
        if self._replica is not None or (self._queue_s is not None and _outcome(error)[0] == "aborted"):
            return self.used()
        return None

    def close(self, error: BaseException | None = None) -> None:
        """The call is over, ended by `error` or well."""
        principal, used = self._principal, self.used()
        prompt, cached, completion, reasoning = _counts(used)
        outcome, error_code = self._decided or _outcome(error)
        self._ledger.record(
            Entry(
                id=self._call_id,
                started_at=self._started_at,
                endpoint=self._endpoint,
                model=self._model,
                stream=self._stream,
                tenant=principal.tenant,
                project=principal.project,
                key_id=principal.key_id,
                replica=self._replica,
                status=_status(error) if self._replica is None else 200,
                outcome=outcome,
                error_code=error_code,
                prompt_tokens=prompt,
                completion_tokens=completion,
                cached_tokens=cached,
                queue_s=self._queue_s,
                first_byte_s=self._first_byte_s,
                duration_s=self._clock.monotonic() - self._came,
                tier=self._tier.value,
                reasoning_tokens=reasoning,
                cost_ukrw=self._rates.price(self._asked or self._model).cost_ukrw(prompt, cached, completion, reasoning),
                energy_wh=self._rates.energy(self._model).estimate_wh(prompt, cached, completion),
                estimated=used.estimated,
                continued=self._continued,
                asked=self._asked,
            )
        )


def _counts(used: Usage) -> tuple[int, int, int, int]:
    """Of the prompt, cached of them, of the completion, reasoning of them."""
    return used.prompt_tokens, used.cached_tokens, used.completion_tokens or 0, used.reasoning_tokens


def _outcome(error: BaseException | None) -> Outcome:
    match error:
        case None:
            return "completed", None
        case asyncio.CancelledError():
            return ("failed", ServerStopping.code) if HANDED_BACK in error.args else ("aborted", None)
        case Busy():
            return "rejected", error.code
        case CallError():
            return "rejected" if error.status < 500 else "failed", error.code
        case _:
            return "failed", "internal_error"


def _status(error: BaseException | None) -> int:
    match error:
        case None:
            return 200
        case CallError():
            return error.status
        case asyncio.CancelledError():
            return ServerStopping.status if HANDED_BACK in error.args else CLIENT_GONE
        case _:
            return 500
