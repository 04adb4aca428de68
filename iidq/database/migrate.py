"""Apply ``migrations/`` with yoyo; safe on several hosts at once and while the service runs.

A migration with ``-- transactional: false`` (CREATE INDEX CONCURRENTLY) may end in the middle. Its first statement
removes the remains of an earlier try, such as DROP INDEX IF EXISTS.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from iidq.database.connections import connect_arguments, server_fault, session_statement
from iidq.database.obstacles import Site, first_run_fault
from iidq.database.queries import DEFAULT_SCHEMA, in_schema, load_queries, migrations_folder, shipped_migrations
from iidq.database.sqlstates import translate
from iidq.errors import DatabaseRefusal, DatabaseUnavailable, IidqError, SettingsFault
from iidq.observability import logs

QUERIES = load_queries("iidq.database")

if TYPE_CHECKING:
    from yoyo.migrations import Migration

    from iidq.database.yoyo_backend import Backend

# The longest wait for locks in all: of another host that migrates, and of tables.
_LOCK_TIMEOUT_SECONDS = 300
_LOCK_POLL_SECONDS = 0.1
_TRIES = 10
# While a migration waits for a table, later statements wait behind it. Above deadlock_timeout (1 s), after which
# Postgres ends an autovacuum in the way; below the service's DOUBT_SECONDS.
_LOCK_WAIT_SECONDS = 1.5
_PAUSE_SECONDS = 2.0


def migrate(database_url: str, schema: str = DEFAULT_SCHEMA) -> list[str]:
    """Apply the missing migrations, count imported jobs, and return the names.

    Raise DatabaseUnavailable, SettingsFault for an unusable server or encoding, and DatabaseRefusal for anything else
    that an operator has to solve first.
    """
    from yoyo import read_migrations

    from iidq.database.yoyo_backend import Backend

    own_limit = {"lock_timeout": str(_LOCK_TIMEOUT_SECONDS * 1000)}
    with (
        migrations_folder(schema) as folder,
        _one_at_a_time(database_url, schema) as watch,
        _connect_patiently(database_url, own_limit) as connection,
    ):
        with _explained("the database was not migrated"):
            site, applied = _look(watch, schema)
            if fault := first_run_fault(site, schema, shipped_migrations(), applied):
                raise DatabaseRefusal(fault)
            backend = Backend(connection, schema, has_schema=site.has_schema, has_history=site.has_history)
            pending = list(backend.to_apply(read_migrations(str(folder))))
        for together in _transactions(pending, is_new=not applied):
            _apply_patiently(backend, together, lambda: _lock_holders(watch, schema))
        with _explained("the jobs were not counted"), contextlib.suppress(errors.LockNotAvailable):
            # While the jobs are locked, a worker's upkeep counts them later.
            watch.execute(in_schema(QUERIES["recount_if_due"], schema))
    names = [migration.id for migration in pending]
    if names:
        logs.migrated(names)
    return names


def _look(watch: psycopg.Connection[Any], schema: str) -> tuple[Site, list[str]]:
    """Return the present schema and rights, and the names of the applied migrations."""
    [row] = watch.execute(in_schema(QUERIES["migration_site"], schema)).fetchall()
    site = Site(*row)
    if not site.shows_history:
        return site, []
    return site, [name for (name,) in watch.execute(in_schema(QUERIES["applied_migrations"], schema)).fetchall()]


def _transactions(pending: Sequence["Migration"], *, is_new: bool) -> list[Sequence["Migration"]]:
    """Return the migrations per transaction: all in one for a new database, so that a fault leaves nothing."""
    from iidq.database.yoyo_backend import is_transactional

    if is_new and pending and all(map(is_transactional, pending)):
        return [pending]
    return [[migration] for migration in pending]


def _apply_patiently(backend: "Backend", together: Sequence["Migration"], find_holders: Any) -> None:
    """Apply the migrations. While a table is locked, let waiting statements go first and try again."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
    while True:
        try:
            backend.apply(together, lock_wait_seconds=_LOCK_WAIT_SECONDS)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            holders = find_holders()
            left = deadline - time.monotonic()
            if left < 0:
                shown = f" ({'; '.join(holders)})" if holders else ""
                raise DatabaseUnavailable(
                    f"migration {backend.current} was not applied: others have kept a table locked for too "
                    f"long{shown}. End their transactions and run `iidq migrate` again",
                    code="database.locked",
                ) from error
            logs.migration_waits(backend.current, holders, seconds_left=left)
            time.sleep(_PAUSE_SECONDS)
        except psycopg.Error as error:
            raise _fault(error, f"migration {backend.current} was not applied") from error
        else:
            return


def _lock_holders(watch: psycopg.Connection[Any], schema: str) -> list[str]:
    """Return the transactions that have kept iidq's tables locked since before the wait began."""
    query = in_schema(QUERIES["lock_holders"], schema)
    return [
        (f"prepared transaction {gid}" if pid is None else f"process {pid}")
        + (f" of {application}" if application else "")
        + (f", since {since}" if since else "")
        for pid, gid, application, since in watch.execute(query, {"seconds": _LOCK_WAIT_SECONDS}).fetchall()
    ]


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _fault(error, what) from error


def _fault(error: psycopg.Error, what: str) -> IidqError:
    """Return iidq's error with Postgres' message, which is for the operator and quotes no secret."""
    if error.diag.message_primary is None:
        return translate(error) or DatabaseUnavailable(what)
    match error:
        case errors.DuplicateTable() | errors.DuplicateFunction() | errors.DuplicateObject():
            remedy = "; rename what is in the way, or set DATABASE_SCHEMA to a schema of iidq's own"
        case errors.InsufficientPrivilege():
            remedy = "; run `iidq migrate` as the role that owns iidq's tables"
        case _:
            remedy = ""
    return DatabaseRefusal(f"{what}: {error.diag.message_primary}{remedy}")


@contextlib.contextmanager
def _one_at_a_time(database_url: str, schema: str) -> Iterator[psycopg.Connection[Any]]:
    limit = {"lock_timeout": str(int(_LOCK_WAIT_SECONDS * 1000))}
    with _connect_patiently(database_url, limit) as connection:
        if fault := server_fault(connection.info):
            raise SettingsFault(fault)
        deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
        try:
            while connection.execute(in_schema(QUERIES["lock_migrations"], schema)).fetchone() != (True,):
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable("another host has been migrating the database for too long")
                time.sleep(_LOCK_POLL_SECONDS)
        except psycopg.Error as error:
            raise translate(error) or error from error
        yield connection


def _connect_patiently(
    database_url: str, settings: Mapping[str, str] | None = None
) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect, with retries: in a fresh deployment the database may still be starting."""
    for attempt in range(_TRIES):
        try:
            connection = psycopg.connect(database_url, **connect_arguments())
            connection.execute(session_statement(connection.info, settings))
            return connection
        except psycopg.OperationalError as error:
            if attempt == _TRIES - 1:
                raise translate(error) or error from error
            time.sleep(1.0)
    raise DatabaseUnavailable("the database cannot be reached")
