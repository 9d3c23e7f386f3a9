"""The stores' schema: which revision a store has, and bringing it to the newest. The revisions are in `migrations/versions`.

Alembic, and SQLAlchemy below it, take half a second to import and are needed for nothing else. So a store is asked for its
revision first, and they are imported where that is not the newest.
"""

from __future__ import annotations

import logging
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

TABLE = "alembic_version"
REVISION = f"SELECT version_num FROM {TABLE}"  # noqa: S608 (a name of our own)
_MIGRATIONS = Path(__file__).parent / "migrations"
_one_at_a_time = threading.Lock()  # Alembic hands its context to the revisions in a global


class StoreUnusable(Exception):
    """The store cannot be used; the message says why and what to do."""


def is_newest(revision: str | None, store: str) -> bool:
    """Whether a store with this revision, None for one without any, is up to date. Raises StoreUnusable for one of the future."""
    if revision is not None and revision not in _revisions():
        raise StoreUnusable(
            f"{store} was made by a newer daemun (its schema is {revision}, this version knows up to {_revisions()[-1]})."
            " Install that version, or use another store."
        )
    return revision == _revisions()[-1]


def upgrade(connection: Connection) -> None:
    """Bring a store to the newest revision, in the transaction that is open. Whoever calls sees to it that nobody else does."""
    from alembic import command
    from alembic.config import Config

    log.info("A store's schema is brought up to %s.", _revisions()[-1])
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with _one_at_a_time:
        command.upgrade(config, "head")


def failures() -> tuple[type[Exception], ...]:
    """What SQLAlchemy and Alembic raise. To be called first: Alembic tells every step at the level of what we have to tell."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError, CommandError


def reason(problem: Exception) -> object:
    """The database's own words, without SQLAlchemy's around them."""
    return getattr(problem, "orig", None) or problem


@cache
def _revisions() -> tuple[str, ...]:
    """All of them, the newest last."""
    return tuple(sorted(file.stem for file in (_MIGRATIONS / "versions").glob("[0-9]*.py")))
