"""A pool of connections that never fails the start.

While Postgres is away, callers get :class:`DatabaseUnavailable` within ``WAIT_SECONDS``, and the next call tries again.
Where ``web/availability.py`` probes Postgres, callers get the error at once.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from iidq.database.connections import (
    Connection,
    answered_within,
    connect_arguments,
    hang_up,
    is_shared,
    not_confirmed,
    our_settings,
    settle,
)
from iidq.database.faults import Faults
from iidq.database.obstacles import name_refusal, problems_to_look_for
from iidq.database.sqlstates import translate, unreachable
from iidq.errors import DatabaseBusy, DatabaseRefusal, DatabaseUnavailable, IidqError
from iidq.settings import Settings

T = TypeVar("T")
# The longest wait for a connection of the pool.
WAIT_SECONDS = 2.0
# The longest use of a connection, beyond all statement timeouts. Then the server counts as lost.
ANSWER_SECONDS = 20.0
# The longest duration of a write, and the duration after which commits are doubted.
WRITE_SECONDS = 5.0
DOUBT_SECONDS = 2.0
# After a broken connection (a restart, a failover) work is done once more on a new one.
_TRIES = 2
# Callers get every failure as an error. The pool's own log lines would name hosts at each attempt.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


class Database:
    """A bounded pool of autocommitting connections, with a circuit that an availability probe opens and closes."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Connection],
        statement_timeout_seconds: float | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._pool = pool
        self._own_settings = _timeout_setting(statement_timeout_seconds)
        self._away = False
        self._stalled = False
        self._in_use: set[Connection] = set()
        self._writing: dict[Connection, float] = {}
        self._waits: set[asyncio.Timeout] = set()
        self.suspected = asyncio.Event()
        """Set when a connection broke, so that the availability probe looks at once."""
        self.refusal: IidqError | None = None
        """The error with which Postgres refused the last connection, None without a refusal."""
        self.faults = faults or Faults()
        """Present faults of the process, for logs and operators."""

    @property
    def away(self) -> bool:
        """Whether the circuit is open: callers are refused at once."""
        return self._away

    @property
    def stalled(self) -> bool:
        """Whether writes alone are refused at once, because commits are not confirmed."""
        return self._stalled

    @property
    def refuses_writes(self) -> bool:
        """Whether writes are refused at once, alone or with reads."""
        return self._away or self._stalled

    @property
    def commits_doubted(self) -> bool:
        """Whether a write has lasted longer than ``DOUBT_SECONDS``."""
        now = asyncio.get_running_loop().time()
        return any(now - began > DOUBT_SECONDS for began in self._writing.values())

    async def open_circuit(self) -> None:
        """Open the circuit: refuse new callers, callers in wait for a connection, and running statements."""
        self._away, self._stalled = True, False
        waits, self._waits = self._waits, set()
        for wait in waits:
            wait.reschedule(asyncio.get_running_loop().time())
        await self.reconnect()

    def refuse_writes(self) -> None:
        """Refuse writes until :meth:`close_circuit`, including running ones. Reads go on."""
        self._away, self._stalled = False, True
        for connection in self._writing:
            hang_up(connection)

    def close_circuit(self) -> None:
        """Close the circuit."""
        self._away = self._stalled = False

    def note_connect(self, error: psycopg.Error | None) -> None:
        """Store the outcome of the last attempt to connect in ``refusal``; None: no error."""
        ours = None if error is None else translate(error)
        self.refusal = ours if isinstance(ours, DatabaseRefusal) else None

    async def reconnect(self) -> None:
        """Close all connections; running statements fail as on any lost connection."""
        for connection in self._in_use:
            hang_up(connection)
        await self._pool.drain()

    @asynccontextmanager
    async def connection(self, by: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection for the block; errors are translated. For ``by``, see :meth:`run`."""
        try:
            async with self._lent(by) as connection:
                yield connection
        except psycopg.Error as error:
            raise await self._named(error) from error

    async def write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do a write with a waiting caller: as :meth:`run`, within ``WRITE_SECONDS``."""
        return await self.run(work, by=asyncio.get_running_loop().time() + WRITE_SECONDS)

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, by: float | None = None) -> T:
        """Do ``work``, and once more after a broken connection or a deadlock.

        ``work`` must be repeatable: a read, or a write guarded by an id. ``by``, a time of the event loop, is the
        deadline of a write; writes are refused while commits stall.

        Raise DatabaseUnavailable also where the work is done but its commit was not confirmed.
        """
        for _ in range(_TRIES - 1):
            lent: Connection | None = None
            try:
                async with self._lent(by) as lent:
                    return await work(lent)
            except psycopg.Error as error:
                await self.recover(error, lent)
        async with self.connection(by) as connection:
            return await work(connection)

    async def recover(self, error: psycopg.Error, lent: Connection | None) -> None:
        """Return when another try may succeed after ``error`` on the connection ``lent``; else raise."""
        if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure):
            # Let the winner of the deadlock commit first.
            await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311
        elif lent is None or not lent.closed:
            raise await self._named(error) from error
        else:
            self.suspected.set()
            # The other connections of the pool are broken, too.
            await self._pool.drain()

    async def _named(self, error: psycopg.Error) -> Exception:
        """Return the translated error, or ``error``; notes name missing objects and rights."""
        ours = translate(error)
        if problems_to_look_for(error, ours) is not None:
            with contextlib.suppress(IidqError, psycopg.Error):
                async with self._lent(None) as connection:
                    return await name_refusal(error, connection)
        return ours or error

    @asynccontextmanager
    async def _lent(self, by: float | None) -> AsyncIterator[Connection]:
        connection = await self.borrow(by)
        try:
            with self.answered(connection, by):
                async with our_settings(connection, self._own_settings):
                    yield connection
        except errors.ReadOnlySqlTransaction:
            # The server became a standby; only a new connection finds the primary.
            await connection.close()
            raise
        finally:
            await self.give_back(connection)

    async def borrow(self, by: float | None = None) -> Connection:
        """Lend a connection until :meth:`give_back`, for ``hot_statement.py``; errors are not translated."""
        connection = await self._take(by)
        self._in_use.add(connection)
        return connection

    def answered(self, connection: Connection, by: float | None) -> contextlib.AbstractContextManager[None]:
        """Bound one use of a borrowed connection, as :func:`answered_within`. For ``by``, see :meth:`run`."""
        return answered_within(connection, ANSWER_SECONDS) if by is None else self._writing_until(by, connection)

    @contextlib.contextmanager
    def _writing_until(self, by: float, connection: Connection) -> Iterator[None]:
        if self._stalled:
            raise not_confirmed()
        self._writing[connection] = now = asyncio.get_running_loop().time()
        try:
            with answered_within(connection, by - now):
                yield
        finally:
            del self._writing[connection]

    async def give_back(self, connection: Connection) -> None:
        """Return the connection; the pool drops a closed or unfinished one."""
        self._in_use.discard(connection)
        await self._pool.putconn(connection)

    async def _take(self, by: float | None) -> Connection:
        if self._away:
            raise self._absent()
        if by is not None and asyncio.get_running_loop().time() >= by:
            raise DatabaseUnavailable("the database took too long", code="database.timeout")
        try:
            async with asyncio.timeout_at(by) as wait:
                self._waits.add(wait)
                try:
                    return await self._pool.getconn()
                finally:
                    self._waits.discard(wait)
        except (TimeoutError, PoolTimeout) as error:
            if self._away or self.refusal is not None:
                raise self._absent() from None
            self.suspected.set()
            if len(self._in_use) >= self._pool.max_size:
                raise DatabaseBusy("all connections to the database are in use; try again") from None
            if isinstance(error, PoolTimeout):
                raise
            raise unreachable() from None

    def _absent(self) -> IidqError:
        return unreachable() if self.refusal is None else DatabaseRefusal(self.refusal.message)


@asynccontextmanager
async def open_database(
    settings: Settings,
    *,
    pool_size: int,
    statement_timeout_seconds: float | None = None,
    sorts: bool = True,
    faults: Faults | None = None,
) -> AsyncIterator[Database]:
    """Open a :class:`Database` of at most ``pool_size`` connections; Postgres may be away.

    Sequential scans are off: a kept plan from an empty table would make later claims many times slower. Without
    ``sorts``, plans walk an index in order instead of sorting. ``faults`` are shared by the pools of a process.
    """

    async def configure(connection: Connection) -> None:
        wanted = {"enable_seqscan": "off"} | _timeout_setting(statement_timeout_seconds)
        if not sorts:
            wanted["enable_sort"] = "off"
        await settle(connection, settings.database_schema, wanted)
        if is_shared(connection):
            # Drop notifications of other clients, which would pile up.
            connection.add_notify_handler(lambda _: None)

    class Dialled(Connection):
        """A connection that notes why the pool cannot connect."""

        @classmethod
        async def connect(cls, *arguments: Any, **keywords: Any) -> "Dialled":
            try:
                connection = await super().connect(*arguments, **keywords)
            except psycopg.Error as error:
                database.note_connect(error)
                raise
            database.note_connect(None)
            return connection

    pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
        settings.database_url or "",
        connection_class=Dialled,
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
    database = Database(pool, statement_timeout_seconds, faults)
    async with pool:
        yield database


def _timeout_setting(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"statement_timeout": str(int(seconds * 1000))}
