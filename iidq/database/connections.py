"""Connections to Postgres: how each is made, set up, bounded in time and closed."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, AsyncCursor, ConnectionInfo, IsolationLevel
from psycopg.errors import Diagnostic
from psycopg.types.json import set_json_loads

from iidq.database.queries import DEFAULT_SCHEMA, in_schema, load_queries
from iidq.database.sqlstates import translate
from iidq.errors import DatabaseUnavailable
from iidq.settings import Settings
from iidq.strict_json import read_stored_json

QUERIES = load_queries("iidq.database")

CONNECT_TIMEOUT_SECONDS = 5
# The first with date_bin, string_to_table and column compression.
OLDEST_POSTGRES = 14
# Results and limits depend on these; a role or database may have set others. Settings that an operator may choose
# (synchronous_commit, default_transaction_read_only, row_security, role) are left alone.
_SESSION = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "plan_cache_mode": "auto",
    # Before Postgres 18, an unavoidable scan with enable_seqscan=off has a cost that triggers compilation: 220 ms.
    "jit": "off",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "client_min_messages": "notice",
}
_SINCE_POSTGRES_17 = {"transaction_timeout": "0"}
# The server's function that waits for a synchronous standby. Its warning has no SQLSTATE, only a localised text.
_WAIT_FOR_STANDBY = "SyncRepWaitForLSN"
set_json_loads(read_stored_json)


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection that keeps the server's warnings of commits without a synchronous standby.

    A time-out or ``pg_cancel_backend`` ends the wait for the standby; the server then reports success.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.unconfirmed: list[Diagnostic] = []
        self.schema = DEFAULT_SCHEMA
        self.add_notice_handler(partial(_note_unconfirmed, self.unconfirmed))


class _SchemaCursor(AsyncCursor[Any]):
    """A cursor that rewrites statements for another schema than the default one."""

    async def execute(self, query: Any, *arguments: Any, **options: Any) -> Self:
        """Execute the statement in the connection's schema."""
        connection: Any = self.connection
        text = in_schema(query, connection.schema) if isinstance(query, bytes) else query
        return await super().execute(text, *arguments, **options)


def _note_unconfirmed(unconfirmed: list[Diagnostic], notice: Diagnostic) -> None:
    if notice.source_function == _WAIT_FOR_STANDBY:
        unconfirmed.append(notice)


def not_confirmed() -> DatabaseUnavailable:
    """Return the error of a commit that no synchronous standby has confirmed."""
    return DatabaseUnavailable("no standby of the database confirmed the change in time", code="database.not_confirmed")


async def connect(settings: Settings) -> Connection:
    """Open a connection outside the pool; raise :class:`DatabaseUnavailable`.

    Through a pooler, wrap statements in :func:`our_settings`.
    """
    try:
        connection = await Connection.connect(settings.database_url or "", **connect_arguments())
        try:
            await settle(connection, settings.database_schema)
        except BaseException:
            await connection.close()
            raise
    except psycopg.Error as error:
        raise translate(error) or error from error
    return connection


def connect_arguments() -> dict[str, Any]:
    """Return libpq's arguments: bounded waits, dead peers noticed, and only a writable server."""
    return {
        "autocommit": True,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "target_session_attrs": "read-write",
        "application_name": "iidq",
        "client_encoding": "utf8",
    }


async def settle(connection: Connection, schema: str, settings: Mapping[str, str] | None = None) -> None:
    """Set up a new connection for ``schema``, or mark the connection as shared behind a pooler."""
    if schema != DEFAULT_SCHEMA:
        connection.schema = schema
        connection.cursor_factory = _SchemaCursor
    with answered_within(connection, CONNECT_TIMEOUT_SECONDS):
        cursor = await connection.execute(session_statement(connection.info, settings), prepare=False)
        row = await cursor.fetchone()
        if row is not None and row[0] == connection.info.backend_pid:
            await connection.execute(QUERIES["prefer_lz4"], prepare=False)
            return
    # Prepared statements of other clients may have the same names.
    connection.prepare_threshold = None
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)


def session_statement(info: ConnectionInfo, settings: Mapping[str, str] | None = None, *, local: bool = False) -> bytes:
    """Return the statement that sets the session's parameters and ``settings``; column 1 is the server's process.

    The values last for the session. With ``local``, and behind a pooler (another process than at the connection's
    start), they last for the transaction. The search path stays as the triggers of operators need it, with pg_catalog
    first: no object of another schema is taken for a built-in one.
    """
    wanted = {**_SESSION, **(_SINCE_POSTGRES_17 if info.server_version >= 170_000 else {}), **(settings or {})}
    lasts = "true" if local else f"pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) {info.backend_pid}"
    path = (
        "CASE WHEN 'pg_catalog' OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false))"
        " THEN pg_catalog.concat('pg_catalog, ', pg_catalog.current_setting('search_path'))"
        " ELSE pg_catalog.current_setting('search_path') END"
    )
    values = {name: f"'{value}'" for name, value in wanted.items()} | {"search_path": path}
    calls = (f"pg_catalog.set_config('{name}', {value}, {lasts})" for name, value in values.items())
    return f"VALUES (pg_catalog.pg_backend_pid(), {', '.join(calls)})".encode()


@asynccontextmanager
async def our_settings(connection: Connection, settings: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """Run the block with the session's settings: on a shared connection in a transaction that sets them."""
    if not is_shared(connection):
        yield
        return
    # A plain SET would remain for other clients of the pooler.
    async with connection.transaction():
        await connection.execute(session_statement(connection.info, settings, local=True))
        yield


def is_shared(connection: Connection) -> bool:
    """Return whether the connection leads through a pooler."""
    return connection.prepare_threshold is None


def server_fault(info: ConnectionInfo) -> str | None:
    """Return the fault of the server's version or the database's encoding, or None."""
    if info.server_version // 10000 < OLDEST_POSTGRES:
        return f"the server is PostgreSQL {info.server_version // 10000}; expected {OLDEST_POSTGRES} or later"
    encoding = info.parameter_status("server_encoding")
    if encoding == "UTF8":
        return None
    return f"the database's encoding is {encoding}; expected UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"


@contextlib.contextmanager
def answered_within(connection: Connection, seconds: float) -> Iterator[None]:
    """Shut the connection's socket after ``seconds``; statements then fail as on any lost connection.

    A time-out of asyncio is not enough: psycopg waits for the server's answer also when cancelled.

    Raise DatabaseUnavailable where the server answered without confirmation of a standby.
    """
    connection.unconfirmed.clear()
    timer = asyncio.get_running_loop().call_later(seconds, hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()
    if connection.unconfirmed:
        raise not_confirmed()


def hang_up(connection: Connection) -> None:
    # The connection may be closed already.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
