"""The stores' schema as a history of revisions, run by Alembic: what `gateway.adapters.schema` brings a store up to date with.

A revision is a file in `versions`, numbered so that the newest is the last by name. The same files are for SQLite and PostgreSQL.
"""
