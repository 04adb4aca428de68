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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from iidq.errors import DatabaseBusy, DatabaseUnavailable, FieldFault, IidqError, InvalidInput
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
        self._set_timeout = _set_timeout("SET LOCAL", statement_timeout_seconds)
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
                if self._set_timeout and is_shared(connection):
                    # A plain SET would stay behind for other clients of the pooler.
                    async with connection.transaction():
                        await connection.execute(self._set_timeout)
                        yield connection
                else:
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
            if len(self._in_use) >= self._pool.max_size:
                raise DatabaseBusy("all connections to the database are in use; try again") from None
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
        if await _is_pooled(connection):
            # Its server connections are everybody's: another client's prepared statement may bear the name of ours,
            # and notifications arrive that nobody here takes off the backlog.
            connection.prepare_threshold = None
            connection.add_notify_handler(lambda _: None)
            return
        # Until Postgres 18 a scan that is off and done all the same (of queue_control, which has one row) is priced so
        # high that every claim would be compiled: 220 ms instead of 1 ms, where the server has LLVM, as Debian's has.
        wanted = [b"SET enable_seqscan = off", b"SET jit = off"]
        if set_timeout := _set_timeout("SET", statement_timeout_seconds):
            wanted.append(set_timeout)
        if not sorts:
            wanted.append(b"SET enable_sort = off")
        await connection.execute(b";".join(wanted))

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


def _set_timeout(command: str, seconds: float | None) -> bytes | None:
    return None if seconds is None else f"{command} statement_timeout = {int(seconds * 1000)}".encode()


def is_shared(connection: Connection) -> bool:
    """Whether it leads through a pooler, as it was configured then."""
    return connection.prepare_threshold is None


async def _is_pooled(connection: Connection) -> bool:
    """Whether a pooler stands between: it answers for a process that is not the server's."""
    cursor = await connection.execute(b"VALUES (pg_backend_pid())")
    return await cursor.fetchone() != (connection.info.backend_pid,)


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
    }


async def connect(settings: Settings) -> Connection:
    """One connection of one's own, outside the pool; raises :class:`DatabaseUnavailable`."""
    try:
        return await AsyncConnection.connect(settings.database_url or "", **connect_arguments())
    except psycopg.Error as error:
        raise translate(error) or error from error
