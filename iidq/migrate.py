"""Applies ``migrations/`` with yoyo; safe to start on several hosts at once."""

import contextlib
import time
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import psycopg

from iidq import logs
from iidq.database import connect_arguments, encoding_fault, session_statement, translate
from iidq.errors import DatabaseUnavailable, SettingsFault
from iidq.queue.queries import QUERIES

_LOCK_TIMEOUT_SECONDS = 300
_LOCK_POLL_SECONDS = 0.1
_TRIES = 10


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """``migrations/`` inside the installed wheel, or beside the package in a checkout."""
    with as_file(files("iidq")) as package:
        inside = package / "migrations"
        yield inside if inside.is_dir() else package.parent / "migrations"


def shipped_migrations() -> list[str]:
    """Names of the migrations that belong to this version, in their order."""
    with _folder() as folder:
        return sorted(path.stem for path in folder.glob("*.sql") if not path.stem.endswith(".rollback"))


def migrate(database_url: str) -> list[str]:
    """Apply what is missing and return the names; raises DatabaseUnavailable, SettingsFault where not in UTF8.

    Jobs that came from another database, without or beside its counts, are counted.
    """
    # yoyo costs 0.1 s to import; only this command needs it.
    from yoyo import read_migrations
    from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
    from yoyo.connections import parse_uri

    class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
        """yoyo's own parser knows neither several hosts nor sockets; libpq's does."""

        def connect(self, _dburi: object) -> psycopg.Connection[tuple[object, ...]]:
            return _connect_patiently(database_url)

    with _folder() as folder, _one_at_a_time(database_url) as locking:
        backend = Backend(parse_uri("postgresql+psycopg://"), "_yoyo_migration")
        backend.init_database()
        try:
            pending = backend.to_apply(read_migrations(str(folder)))
            names = [migration.id for migration in pending]
            backend.apply_migrations(pending)
            locking.execute(QUERIES["recount_if_due"])
        finally:
            backend.connection.close()
    if names:
        logs.migrated(names)
    return names


@contextlib.contextmanager
def _one_at_a_time(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with _connect_patiently(database_url) as connection:
        if fault := encoding_fault(connection.info):
            raise SettingsFault(fault)
        deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
        try:
            while connection.execute(QUERIES["lock_migrations"]).fetchone() != (True,):
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable("another host has been migrating the database for too long")
                time.sleep(_LOCK_POLL_SECONDS)
        except psycopg.Error as error:
            raise translate(error) or error from error
        yield connection


def _connect_patiently(database_url: str) -> psycopg.Connection[tuple[object, ...]]:
    """In a fresh deployment the database may still be starting."""
    for attempt in range(_TRIES):
        try:
            connection = psycopg.connect(database_url, **connect_arguments())
            connection.execute(session_statement(connection.info))
            return connection
        except psycopg.OperationalError as error:
            if attempt == _TRIES - 1:
                raise translate(error) or error from error
            time.sleep(1.0)
    raise DatabaseUnavailable("the database cannot be reached")
