"""yoyo on a given connection, with its tables in iidq's schema.

Apart from ``migrate.py``, because yoyo takes 0.1 s to import.
"""

import contextlib
import getpass
import os
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
from yoyo import internalmigrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri
from yoyo.migrations import Migration

from iidq.database.queries import in_schema, load_queries

QUERIES = load_queries("iidq.database")


class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo with other ways to connect, to lock, to find its tables and to apply a migration.

    yoyo's URL parser supports neither several hosts nor sockets. Its lock is a row, which a killed process leaves
    behind; callers hold an advisory lock instead. yoyo's tables follow the search path, and a migration is recorded in
    a second transaction.
    """

    current = ""
    """Name of the migration tried last."""

    def __init__(
        self, connection: psycopg.Connection[Any], schema: str, *, has_schema: bool, has_history: bool
    ) -> None:
        self._given = connection
        self._create_schema = None if has_schema else in_schema(QUERIES["create_schema"], schema)
        self._schema_prefix = self.quote_identifier(schema)
        self._has_history = has_history
        self._internal_schema_updated = True
        super().__init__(parse_uri("postgresql+psycopg://"), "_yoyo_migration")

    def apply(self, migrations: Sequence[Migration], *, lock_wait_seconds: float) -> None:
        """Apply the migrations in one transaction, with the schema and yoyo's tables where missing.

        Wait at most ``lock_wait_seconds`` for a lock. A migration without transaction comes alone. Raise psycopg's
        errors.
        """
        self.current = migrations[0].id
        with contextlib.ExitStack() as together:
            if is_transactional(migrations[0]):
                together.enter_context(self.transaction())
                limit = {"milliseconds": str(int(lock_wait_seconds * 1000))}
                self.connection.execute(QUERIES["limit_lock_waits"], limit)
            if not self._has_history:
                if self._create_schema is not None:
                    self.connection.execute(self._create_schema)
                internalmigrations.upgrade(self)
            for migration in migrations:
                self.current = migration.id
                migration.process_steps(self, "apply")
                with self.transaction():
                    self.log_migration(migration, "apply")
                    self.mark_one(migration, log=False)
        self._has_history = True

    def get_applied_migration_hashes(self) -> list[str]:
        """Return the hashes; yoyo's own method would create its tables first."""
        return list(super().get_applied_migration_hashes()) if self._has_history else []

    def connect(self, _dburi: object) -> psycopg.Connection[Any]:
        """Return the given connection."""
        return self._given

    @contextlib.contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """Lock nothing."""
        yield

    def list_tables(self, **_keywords: object) -> list[str]:
        """Return none: yoyo calls this only before it creates tables."""
        return []

    def get_log_data(self, migration: Migration | None = None, operation: str = "apply") -> dict[str, Any]:
        """Return yoyo's log entry for users without a name, as in containers, and without a DNS query."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
        return {
            "id": str(uuid4()),
            "migration_id": migration and migration.id,
            "migration_hash": migration and migration.hash,
            "username": user,
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return f"{self._schema_prefix}.{found}" if name.endswith("_quoted") else found


def is_transactional(migration: Migration) -> bool:
    """Return whether the migration runs in a transaction: all without ``-- transactional: false``."""
    migration.load()
    return bool(migration.use_transactions)
