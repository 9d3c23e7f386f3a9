"""Keys and tenants in the SQLite store.

Keys are 256 random bits, so their SHA-256 can be kept and looked up without salt or stretching; the key itself is shown once,
at creation, and is nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gateway.policy.limits import Tier
from gateway.ports import Clock, Principal

KEY_PREFIX = "dm-"
_TIERS = {tier.value: tier for tier in Tier}


class UnknownKey(Exception):
    """There is no such key, or it is revoked already."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as lists show it: everything but the secret."""

    id: str
    tenant: str
    project: str
    models: tuple[str, ...] | None
    created_at: float
    revoked_at: float | None


def hash_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


class SqliteTenants:
    """Keys by their hash."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def principal(self, secret: str) -> Principal | None:
        digest = hash_of(secret)
        row = self._connection.execute(
            "SELECT keys.hash, keys.id, keys.tenant, keys.project, tenants.tier, keys.models FROM keys"
            " JOIN tenants ON tenants.name = keys.tenant WHERE keys.hash = ? AND keys.revoked_at IS NULL",
            (digest,),
        ).fetchone()
        if row is None or not hmac.compare_digest(row[0], digest):
            return None
        models = None if row[5] is None else frozenset(msgspec.json.decode(row[5], type=list[str]))
        return Principal(key_id=row[1], tenant=row[2], project=row[3], tier=_TIERS.get(row[4], Tier.PAID), models=models)


def create_key(
    connection: sqlite3.Connection, clock: Clock, *, tenant: str, project: str, models: Sequence[str] | None = None
) -> tuple[str, KeyInfo]:
    """Make a key, and its tenant if that is new. Returns the secret, which cannot be had again, and the key's listing."""
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    info = KeyInfo(
        id="key_" + secrets.token_hex(6),
        tenant=tenant,
        project=project,
        models=None if models is None else tuple(models),
        created_at=clock.time(),
        revoked_at=None,
    )
    with connection:  # commits, or rolls back if anything fails
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR IGNORE INTO tenants (name, created_at) VALUES (?, ?)", (tenant, info.created_at))
        connection.execute(
            "INSERT INTO keys (id, hash, tenant, project, models, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (
                info.id,
                hash_of(secret),
                tenant,
                project,
                None if models is None else msgspec.json.encode(list(models)).decode(),
                info.created_at,
            ),
        )
    return secret, info


def list_keys(connection: sqlite3.Connection) -> list[KeyInfo]:
    rows = connection.execute("SELECT id, tenant, project, models, created_at, revoked_at FROM keys ORDER BY created_at, id")
    return [
        KeyInfo(row[0], row[1], row[2], None if row[3] is None else tuple(msgspec.json.decode(row[3])), row[4], row[5])
        for row in rows
    ]


def revoke_key(connection: sqlite3.Connection, clock: Clock, key_id: str) -> None:
    """Raises UnknownKey."""
    changed = connection.execute(
        "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (clock.time(), key_id)
    ).rowcount
    if not changed:
        raise UnknownKey(f"There is no key {key_id} that could be revoked. 'daemun keys list' shows all of them.")
