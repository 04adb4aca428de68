"""Connections to Postgres, and the one place where its error codes become ours.

A pool that never fails the start: while Postgres is away, callers get :class:`DatabaseUnavailable` within
``WAIT_SECONDS``, and the next call tries again; where somebody watches Postgres (``web/availability.py``), they get it
at once. Nothing of Postgres' own wording reaches a caller.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, ConnectionInfo, IsolationLevel, errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from iidq.errors import DatabaseUnavailable, FieldFault, IidqError, InvalidInput
from iidq.settings import Settings

T = TypeVar("T")
Connection = AsyncConnection[tuple[Any, ...]]

# How long a caller waits for a connection before it is told that there is none.
WAIT_SECONDS = 2.0
CONNECT_TIMEOUT_SECONDS = 5
# How long a connection may be in use: beyond all statement timeouts. Past it the server counts as lost.
ANSWER_SECONDS = 20.0
# A caller whose connection broke under it (a restart, a failover) is served once more on a new one.
_TRIES = 2

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

# Constraint → the field a caller would know, and what was expected of it.
_CONSTRAINT_FIELDS = {
    "VerificationJob_type_known": ("type", "expected verify or proof"),
    "VerificationJob_contentHash_form": ("contentHash", "expected 0x and 64 lower-case hex digits"),
    "VerificationJob_address_form": ("registryAddress", "expected 0x and 40 hex digits"),
    "VerificationJob_chainId_range": ("chainId", "expected a positive number"),
}

_CONNECTION_LOST = (psycopg.OperationalError, psycopg.InterfaceError)
# The first two characters of SQLSTATE (PostgreSQL manual, appendix A).
_INSUFFICIENT_RESOURCES = "53"
_PROGRAM_LIMIT_EXCEEDED = "54"


def translate(error: psycopg.Error) -> IidqError | None:
    """Our error for one of Postgres', or None where it can only be a bug of ours."""
    if isinstance(error, PoolTimeout | TooManyRequests):
        return DatabaseUnavailable("no connection to the database in time")
    if isinstance(error, errors.UndefinedTable | errors.UndefinedColumn | errors.UndefinedFunction):
        return DatabaseUnavailable(
            "the database has not been migrated: run `iidq migrate`", code="database.not_migrated"
        )
    if isinstance(error, errors.QueryCanceled):
        return DatabaseUnavailable("the database took too long", code="database.timeout")
    if isinstance(error, errors.LockNotAvailable):
        return DatabaseUnavailable("another transaction keeps the row locked", code="database.locked")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return DatabaseUnavailable("the database is read-only for now", code="database.read_only")
    if _sqlstate_class(error) == _INSUFFICIENT_RESOURCES:
        return DatabaseUnavailable("the database is out of disk, memory or connections", code="database.exhausted")
    if isinstance(error, errors.CheckViolation) and error.diag.constraint_name in _CONSTRAINT_FIELDS:
        return InvalidInput([FieldFault(*_CONSTRAINT_FIELDS[error.diag.constraint_name])])
    # psycopg counts "nested too deeply" among the operational errors, but no repetition mends it.
    if isinstance(error, _CONNECTION_LOST) and _sqlstate_class(error) != _PROGRAM_LIMIT_EXCEEDED:
        return _unreachable()
    return None


def is_passing(error: BaseException) -> bool:
    """Whether the same statement may succeed in a moment: connection lost, deadlock, shutdown, disk full."""
    if isinstance(error, DatabaseUnavailable):
        return True
    return isinstance(error, _CONNECTION_LOST) and _sqlstate_class(error) != _PROGRAM_LIMIT_EXCEEDED


def _sqlstate_class(error: psycopg.Error) -> str:
    # psycopg has a class for each code, but none of them is a base of the others of its group.
    return (error.sqlstate or "")[:2]


class Database:
    """A bounded pool of autocommitting connections.

    ``suspected`` is set by callers that met a broken connection, for whoever watches Postgres to look at once.
    """

    def __init__(self, pool: AsyncConnectionPool[Connection], statement_timeout_seconds: float | None = None) -> None:
        self._pool = pool
        self._own_settings = _timeout_setting(statement_timeout_seconds)
        self._away = False
        self._in_use: set[Connection] = set()
        self._waits: set[asyncio.Timeout] = set()
        self.suspected = asyncio.Event()

    @property
    def away(self) -> bool:
        """Whether callers are refused without asking Postgres: the circuit is open."""
        return self._away

    async def lose(self) -> None:
        """Open the circuit: callers to come, waiting for a connection or in the middle of a statement are refused."""
        self._away = True
        waits, self._waits = self._waits, set()
        for wait in waits:
            wait.reschedule(asyncio.get_running_loop().time())
        await self.reconnect()

    def regain(self) -> None:
        """Close the circuit."""
        self._away = False

    async def reconnect(self) -> None:
        """Give up all connections that stand; the statements on them fail as on any lost connection."""
        for connection in self._in_use:
            _hang_up(connection)
        await self._pool.drain()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for a moment; errors come out translated."""
        try:
            async with self._lent() as connection:
                yield connection
        except psycopg.Error as error:
            raise translate(error) or error from error

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do ``work``, once more if its connection broke or a deadlock chose it as victim.

        ``work`` must bear repetition: a read, or a write guarded by an id of its own.
        """
        for _ in range(_TRIES - 1):
            lent: Connection | None = None
            try:
                async with self._lent() as lent:
                    return await work(lent)
            except psycopg.Error as error:
                await self.recover(error, lent)
        async with self.connection() as connection:
            return await work(connection)

    async def recover(self, error: psycopg.Error, lent: Connection | None) -> None:
        """After an error on a connection (None: there was none): return once another try may succeed, else raise."""
        if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure):
            # Whoever won must get through first: at once, the two can lock each other out again.
            await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311
        elif lent is None or not lent.closed:
            raise translate(error) or error from error
        else:
            self.suspected.set()
            # The others in the pool broke with it; asking each of them could take for ever.
            await self._pool.drain()

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        connection = await self.borrow()
        try:
            with answered_within(connection, ANSWER_SECONDS):
                async with our_settings(connection, self._own_settings):
                    yield connection
        except errors.ReadOnlySqlTransaction:
            # This server is no primary any more; only a new connection finds the one that is.
            await connection.close()
            raise
        finally:
            await self.give_back(connection)

    async def borrow(self) -> Connection:
        """A connection until :meth:`give_back`, for ``held_connection.py``; errors are not translated."""
        connection = await self._take()
        self._in_use.add(connection)
        return connection

    async def give_back(self, connection: Connection) -> None:
        """The pool throws out what is closed or in the middle of something."""
        self._in_use.discard(connection)
        await self._pool.putconn(connection)

    async def _take(self) -> Connection:
        if self._away:
            raise _unreachable()
        try:
            async with asyncio.timeout(None) as wait:
                self._waits.add(wait)
                try:
                    return await self._pool.getconn()
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            raise _unreachable() from None
        except PoolTimeout:
            self.suspected.set()
            raise


def _unreachable() -> DatabaseUnavailable:
    return DatabaseUnavailable("the database cannot be reached")


@contextlib.contextmanager
def answered_within(connection: Connection, seconds: float) -> Iterator[None]:
    """Hang up on a server that leaves us waiting for so long; the statement then fails as on any lost connection.

    A dead peer behind a proxy sends nothing and closes nothing. A mere time-out would not do: psycopg waits for the
    server's answer also when it is cancelled.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: Connection) -> None:
    # Gone already: all the better.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


# Its callers are told of every failure; the pool's own lines beside that would name hosts, once per attempt.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


@asynccontextmanager
async def open_database(
    settings: Settings, *, pool_size: int, statement_timeout_seconds: float | None = None, sorts: bool = True
) -> AsyncIterator[Database]:
    """A :class:`Database` of at most ``pool_size`` connections, whether Postgres is there yet or not.

    Its statements find rows by an index also where a scan of the table would be cheaper at the moment: a plan is kept,
    and one that was made while the table was all but empty made each claim of the first burst 28 times as slow.
    Without ``sorts`` they walk an index in order even where the planner thinks that there is little to sort.
    """

    async def configure(connection: Connection) -> None:
        wanted = {"enable_seqscan": "off"} | _timeout_setting(statement_timeout_seconds)
        if not sorts:
            wanted["enable_sort"] = "off"
        await settle(connection, wanted)
        if is_shared(connection):
            # Notifications of other clients arrive, and nothing here takes them off the backlog.
            connection.add_notify_handler(lambda _: None)

    pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
        settings.database_url or "",
        kwargs=connect_arguments(),
        min_size=0,
        max_size=pool_size,
        open=False,
        configure=configure,
        timeout=WAIT_SECONDS,
        # Give up soon and let the next caller try: a longer backoff would outlast the outage.
        reconnect_timeout=1.0,
        max_idle=300,
        max_lifetime=3600,
        name="iidq",
    )
    async with pool:
        yield Database(pool, statement_timeout_seconds)


def _timeout_setting(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"statement_timeout": str(int(seconds * 1000))}


def session_statement(info: ConnectionInfo, settings: Mapping[str, str] | None = None, *, local: bool = False) -> bytes:
    """Return the statement that sets what we rely on, and ``settings``; its first column is the server's process.

    It lasts for the session. Where the server's process is another than the one that greeted us, a pooler is between,
    and a session is everybody's: then, as with ``local``, it lasts for the transaction. The schema public is found
    whatever the path.
    """
    wanted = {**_SESSION, **(_SINCE_POSTGRES_17 if info.server_version >= 170_000 else {}), **(settings or {})}
    lasts = "true" if local else f"pg_backend_pid() <> {info.backend_pid}"
    path = "concat_ws(', ', nullif(current_setting('search_path'), ''), 'public')"
    values = {name: f"'{value}'" for name, value in wanted.items()} | {"search_path": path}
    calls = (f"set_config('{name}', {value}, {lasts})" for name, value in values.items())
    return f"VALUES (pg_backend_pid(), {', '.join(calls)})".encode()


async def settle(connection: Connection, settings: Mapping[str, str] | None = None) -> None:
    """Set up a new connection, or mark it as shared where it leads through a pooler."""
    with answered_within(connection, CONNECT_TIMEOUT_SECONDS):
        cursor = await connection.execute(session_statement(connection.info, settings), prepare=False)
        row = await cursor.fetchone()
    if row is None or row[0] != connection.info.backend_pid:
        # Another client's prepared statement may bear the name of ours.
        connection.prepare_threshold = None
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)


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


def encoding_fault(info: ConnectionInfo) -> str | None:
    """Return why the database's encoding cannot be used, None where it is UTF8."""
    encoding = info.parameter_status("server_encoding")
    if encoding == "UTF8":
        return None
    return f"the database's encoding is {encoding}; expected UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"


def is_shared(connection: Connection) -> bool:
    """Whether it leads through a pooler, as it was set up then."""
    return connection.prepare_threshold is None


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


async def connect(settings: Settings) -> Connection:
    """One connection of one's own, outside the pool; raises :class:`DatabaseUnavailable`.

    Through a pooler its statements want :func:`our_settings` around them.
    """
    try:
        connection: Connection = await AsyncConnection.connect(settings.database_url or "", **connect_arguments())
        try:
            await settle(connection)
        except BaseException:
            await connection.close()
            raise
    except psycopg.Error as error:
        raise translate(error) or error from error
    return connection
