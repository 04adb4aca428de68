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

from iidq.database.queries import DEFAULT_SCHEMA, QUERIES, in_schema
from iidq.database.sqlstates import translate
from iidq.errors import DatabaseUnavailable
from iidq.settings import Settings
from iidq.strict_json import read_stored_json

CONNECT_TIMEOUT_SECONDS = 5
# The first with date_bin, string_to_table and column compression.
OLDEST_POSTGRES = 14
# Results and limits depend on these; a role or database may have set others. What an operator may want otherwise
# (synchronous_commit, default_transaction_read_only, row_security, role) is left alone.
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
    # Until Postgres 18 a plan that has to use what is off is priced so high that it is compiled: 220 ms per claim where
    # the server has LLVM, as Debian's has. With enable_seqscan off that would be every scan of a table of one row.
    "jit": "off",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "client_min_messages": "notice",
}
_SINCE_POSTGRES_17 = {"transaction_timeout": "0"}
# The server's function that waits for a synchronous standby. Its warning has no SQLSTATE, and its text is translated.
_WAIT_FOR_STANDBY = "SyncRepWaitForLSN"
set_json_loads(read_stored_json)


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection that remembers the server's warning that it gave up its wait for a synchronous standby.

    A time-out or ``pg_cancel_backend`` ends that wait; the server then reports the commit as a success.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.unconfirmed: list[Diagnostic] = []
        self.schema = DEFAULT_SCHEMA
        self.add_notice_handler(partial(_note_unconfirmed, self.unconfirmed))


class _SchemaCursor(AsyncCursor[Any]):
    """A cursor whose statements mean the connection's schema. Connections to the default one have plain cursors."""

    async def execute(self, query: Any, *arguments: Any, **options: Any) -> Self:
        """As psycopg's."""
        connection: Any = self.connection
        text = in_schema(query, connection.schema) if isinstance(query, bytes) else query
        return await super().execute(text, *arguments, **options)


def _note_unconfirmed(unconfirmed: list[Diagnostic], notice: Diagnostic) -> None:
    if notice.source_function == _WAIT_FOR_STANDBY:
        unconfirmed.append(notice)


def not_confirmed() -> DatabaseUnavailable:
    """For a commit that no synchronous standby is known to have."""
    return DatabaseUnavailable("no standby of the database confirmed the change in time", code="database.not_confirmed")


async def connect(settings: Settings) -> Connection:
    """One connection of one's own, outside the pool; raises :class:`DatabaseUnavailable`.

    Through a pooler its statements want :func:`our_settings` around them.
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
    """How every connection of ours is made: bounded waits, dead peers noticed, and only a writable server."""
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
    """Set up a new connection for the objects of ``schema``, or mark it as shared where it leads through a pooler."""
    if schema != DEFAULT_SCHEMA:
        connection.schema = schema
        connection.cursor_factory = _SchemaCursor
    with answered_within(connection, CONNECT_TIMEOUT_SECONDS):
        cursor = await connection.execute(session_statement(connection.info, settings), prepare=False)
        row = await cursor.fetchone()
        if row is not None and row[0] == connection.info.backend_pid:
            await connection.execute(QUERIES["prefer_lz4"], prepare=False)
            return
    # Another client's prepared statement may bear the name of ours.
    connection.prepare_threshold = None
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)


def session_statement(info: ConnectionInfo, settings: Mapping[str, str] | None = None, *, local: bool = False) -> bytes:
    """Return the statement that sets what we rely on, and ``settings``; its first column is the server's process.

    It lasts for the session. Where the server's process is another than the one that greeted us, a pooler is between,
    and a session is everybody's: then, as with ``local``, it lasts for the transaction. Our statements name their
    schema, so the path is left to the operator's triggers. Only pg_catalog comes first, also where the path names it
    later: no function or operator of another schema is taken for a built-in one, in this statement neither.
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
    """On a shared connection a transaction with our settings; one's own has had them since it was set up."""
    if not is_shared(connection):
        yield
        return
    # A plain SET would stay behind for other clients of the pooler.
    async with connection.transaction():
        await connection.execute(session_statement(connection.info, settings, local=True))
        yield


def is_shared(connection: Connection) -> bool:
    """Whether it leads through a pooler, as it was set up then."""
    return connection.prepare_threshold is None


def server_fault(info: ConnectionInfo) -> str | None:
    """Return why the server or the database's encoding cannot be used, None where they can."""
    if info.server_version // 10000 < OLDEST_POSTGRES:
        return f"the server is PostgreSQL {info.server_version // 10000}; expected {OLDEST_POSTGRES} or later"
    encoding = info.parameter_status("server_encoding")
    if encoding == "UTF8":
        return None
    return f"the database's encoding is {encoding}; expected UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"


@contextlib.contextmanager
def answered_within(connection: Connection, seconds: float) -> Iterator[None]:
    """Hang up on a server that leaves us waiting for so long; the statement then fails as on any lost connection.

    A dead peer behind a proxy sends nothing and closes nothing. A mere time-out would not do: psycopg waits for the
    server's answer also when it is cancelled.

    Raises DatabaseUnavailable where the server answered, but gave up its wait for a standby.
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
    # Gone already: all the better.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
