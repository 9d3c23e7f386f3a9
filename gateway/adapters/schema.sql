-- Version 1. Times are seconds since the epoch.
CREATE TABLE IF NOT EXISTS tenants (
    name       TEXT PRIMARY KEY,
    tier       TEXT NOT NULL DEFAULT 'paid',
    created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS keys (
    id         TEXT PRIMARY KEY,                       -- shown in lists and in the ledger; no secret
    hash       BLOB NOT NULL UNIQUE,                   -- SHA-256 of the key
    tenant     TEXT NOT NULL REFERENCES tenants (name),
    project    TEXT NOT NULL,
    models     TEXT,                                   -- JSON list of allowed models; NULL: all
    created_at REAL NOT NULL,
    revoked_at REAL
);
CREATE TABLE IF NOT EXISTS ledger (
    id                TEXT PRIMARY KEY,                -- the call's request id: writing an entry twice changes nothing
    started_at        REAL NOT NULL,
    endpoint          TEXT NOT NULL,
    model             TEXT NOT NULL,
    stream            INTEGER NOT NULL,
    tenant            TEXT NOT NULL,
    project           TEXT NOT NULL,
    key_id            TEXT NOT NULL,
    replica           TEXT,
    status            INTEGER NOT NULL,
    outcome           TEXT NOT NULL,
    error_code        TEXT,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    queue_s           REAL,
    first_byte_s      REAL,
    duration_s        REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS ledger_started_at ON ledger (started_at);
DROP INDEX IF EXISTS ledger_key;                      -- of earlier stores; nothing asks by it
