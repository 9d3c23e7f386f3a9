"""The ledger as the commands use it: its store, moments and money as people write them, and the catalogue's energy figures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from daemun.problem import Problem
from daemun.settings import Settings
from gateway.adapters import ledger_mover
from gateway.adapters.ledger_mover import Orders
from gateway.ledger_query import SEOUL, LedgerStore
from gateway.settings import EnergySettings, GatewaySettings
from serving.spec import folders, read_all

log = logging.getLogger(__name__)


@contextmanager
def open_ledger(settings: Settings) -> Iterator[LedgerStore]:
    orders = Orders(str(settings.state_dir), "", settings.gateway.store.address)
    with closing(ledger_mover.open_ledger(orders)) as store:
        yield store


def moment(given: str) -> float:
    """Seconds since the epoch, of 2026-11-22 or 2026-11-22T09:00, in Asia/Seoul where no zone is given. Raises Problem."""
    try:
        read = datetime.fromisoformat(given)
    except ValueError as problem:
        raise Problem(f"{given} is no time. Write it as 2026-11-22 or 2026-11-22T09:00.") from problem
    return (read if read.tzinfo else read.replace(tzinfo=SEOUL)).timestamp()


def in_seoul(at: float) -> datetime:
    return datetime.fromtimestamp(at, SEOUL)


def krw(cost_ukrw: int) -> Decimal:
    """Of millionths of a KRW, exactly."""
    return Decimal(cost_ukrw).scaleb(-6)


def with_catalogue_energy(settings: GatewaySettings, own: Path | None = None) -> GatewaySettings:
    """With the energy figures of the catalogue's models, where the settings give none. `own` is the operator's own catalogue.

    An entry that is wrong is said and left out: it concerns one model, and the gateway serves the others.
    """
    table = settings.energy
    specs, wrong = read_all(*folders(own))
    for error in wrong:
        log.warning("%s. It is left out; its model's calls have no energy figure.", error)
    known = {
        spec.id: EnergySettings(prompt=spec.energy.prompt_wh, completion=spec.energy.completion_wh)
        for spec in specs
        if spec.energy is not None and spec.id not in table.models
    }
    return settings.model_copy(update={"energy": table.model_copy(update={"models": known | table.models})})
