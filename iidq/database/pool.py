"""A pool of connections that never fails the start.

While Postgres is away, callers get :class:`DatabaseUnavailable` within ``WAIT_SECONDS``, and the next call tries again.
Where ``web/availability.py`` watches Postgres, callers get the error at once.
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
# How long a caller waits for a connection before it is told that there is none.
WAIT_SECONDS = 2.0
# How long a connection may be in use: beyond all statement timeouts. Past it the server counts as lost.
ANSWER_SECONDS = 20.0
# How long a write may take in all before its caller is answered, and how long before commits are doubted.
WRITE_SECONDS = 5.0
DOUBT_SECONDS = 2.0
# A caller whose connection broke under it (a restart, a failover) is served once more on a new one.
_TRIES = 2
# Its callers are told of every failure; the pool's own lines beside that would name hosts, once per attempt.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


class Database:
    """A bounded pool of autocommitting connections.

    ``suspected`` is set by callers that met a broken connection, for whoever watches Postgres to look at once.
    """

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
        self.refusal: IidqError | None = None
        """Why Postgres refused the last connection; None where it did not, or was not there."""
        self.faults = faults or Faults()
        """What the parts of this process that use this database cannot do."""

    @property
    def away(self) -> bool:
        """Whether callers are refused without asking Postgres: the circuit is open."""
        return self._away

    @property
    def stalled(self) -> bool:
        """Whether writes alone are refused without asking Postgres: it answers, and confirms no commit."""
        return self._stalled

    @property
    def refuses_writes(self) -> bool:
        """Whether writes are refused without asking Postgres: the circuit is open, at least for them."""
        return self._away or self._stalled

    @property
    def commits_doubted(self) -> bool:
        """Whether a write has been under way for longer than ``DOUBT_SECONDS``."""
        now = asyncio.get_running_loop().time()
        return any(now - began > DOUBT_SECONDS for began in self._writing.values())

    async def lose(self) -> None:
        """Open the circuit: callers to come, waiting for a connection or in the middle of a statement are refused."""
        self._away, self._stalled = True, False
        waits, self._waits = self._waits, set()
        for wait in waits:
            wait.reschedule(asyncio.get_running_loop().time())
        await self.reconnect()

    def stall(self) -> None:
        """Refuse writes, also those under way, until :meth:`regain`: their commits are not confirmed. Reads go on."""
        self._away, self._stalled = False, True
        for connection in self._writing:
            hang_up(connection)

    def regain(self) -> None:
        """Close the circuit."""
        self._away = self._stalled = False

    def note_dial(self, error: psycopg.Error | None) -> None:
        """Remember whether Postgres refused the last connection for good; None: it did not."""
        ours = None if error is None else translate(error)
        self.refusal = ours if isinstance(ours, DatabaseRefusal) else None

    async def reconnect(self) -> None:
        """Give up all connections that stand; the statements on them fail as on any lost connection."""
        for connection in self._in_use:
            hang_up(connection)
        await self._pool.drain()

    @asynccontextmanager
    async def connection(self, by: float | None = None) -> AsyncIterator[Connection]:
        """A connection for a moment; errors come out translated. For ``by``, see :meth:`run`."""
        try:
            async with self._lent(by) as connection:
                yield connection
        except psycopg.Error as error:
            raise await self._named(error) from error

    async def write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """As :meth:`run`, for what a caller is answered for: within ``WRITE_SECONDS``, whatever happens."""
        return await self.run(work, by=asyncio.get_running_loop().time() + WRITE_SECONDS)

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, by: float | None = None) -> T:
        """Do ``work``, once more if its connection broke or a deadlock chose it as victim.

        ``work`` must bear repetition: a read, or a write guarded by an id of its own. ``by`` makes it a write that is
        over at this time of the event loop, and that is refused while commits stall.

        Raises DatabaseUnavailable also where the work is done but a commit of it was not confirmed.
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
        """After an error on a connection (None: there was none): return once another try may succeed, else raise."""
        if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure):
            # Whoever won must get through first: at once, the two can lock each other out again.
            await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311
        elif lent is None or not lent.closed:
            raise await self._named(error) from error
        else:
            self.suspected.set()
            # The others in the pool broke with it; asking each of them could take for ever.
            await self._pool.drain()

    async def _named(self, error: psycopg.Error) -> Exception:
        """Our error for one of Postgres', or ``error`` itself; its notes name the objects and rights that we lack."""
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
            # This server is no primary any more; only a new connection finds the one that is.
            await connection.close()
            raise
        finally:
            await self.give_back(connection)

    async def borrow(self, by: float | None = None) -> Connection:
        """A connection until :meth:`give_back`, for ``held_connection.py``; errors are not translated."""
        connection = await self._take(by)
        self._in_use.add(connection)
        return connection

    def answered(self, connection: Connection, by: float | None) -> contextlib.AbstractContextManager[None]:
        """As :func:`answered_within`, for one use of a borrowed connection. For ``by``, see :meth:`run`."""
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
        """The pool throws out what is closed or in the middle of something."""
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
    """A :class:`Database` of at most ``pool_size`` connections, whether Postgres is there yet or not.

    Its statements find rows by an index also where a scan of the table would be cheaper at the moment: a plan is kept,
    and one that was made while the table was all but empty made each claim of the first burst 28 times as slow.
    Without ``sorts`` they walk an index in order even where the planner thinks that there is little to sort. ``faults``
    are those of the process, where it has several pools.
    """

    async def configure(connection: Connection) -> None:
        wanted = {"enable_seqscan": "off"} | _timeout_setting(statement_timeout_seconds)
        if not sorts:
            wanted["enable_sort"] = "off"
        await settle(connection, settings.database_schema, wanted)
        if is_shared(connection):
            # Notifications of other clients arrive, and nothing here takes them off the backlog.
            connection.add_notify_handler(lambda _: None)

    class Dialled(Connection):
        """The pool tells nobody why it cannot connect."""

        @classmethod
        async def connect(cls, *arguments: Any, **keywords: Any) -> "Dialled":
            try:
                connection = await super().connect(*arguments, **keywords)
            except psycopg.Error as error:
                database.note_dial(error)
                raise
            database.note_dial(None)
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
