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
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, ConnectionInfo, IsolationLevel, errors
from psycopg.errors import Diagnostic
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from iidq.database.faults import Faults
from iidq.database.obstacles import find_obstacles, is_migrated
from iidq.database.queries import DEFAULT_SCHEMA, in_schema, load_queries
from iidq.errors import (
    NOT_MIGRATED,
    DatabaseBusy,
    DatabaseRefusal,
    DatabaseUnavailable,
    IidqError,
    InvalidInput,
    ObjectMissing,
    RowRefused,
    TriggerFault,
)
from iidq.settings import Settings
from iidq.stored_json import read_stored_json

QUERIES = load_queries("iidq.database")

T = TypeVar("T")

# How long a caller waits for a connection before it is told that there is none.
WAIT_SECONDS = 2.0
CONNECT_TIMEOUT_SECONDS = 5
# How long a connection may be in use: beyond all statement timeouts. Past it the server counts as lost.
ANSWER_SECONDS = 20.0
# How long a write may take in all before its caller is answered, and how long before commits are doubted.
WRITE_SECONDS = 5.0
DOUBT_SECONDS = 2.0
# The first with date_bin, string_to_table and column compression.
OLDEST_POSTGRES = 14
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

_CONNECTION_LOST = (psycopg.OperationalError, psycopg.InterfaceError)
# Classes that tell of the server, the role, the schema or the statement. Any other may come from one row: its values,
# its constraints, or a trigger of the operator's that raises.
_CONCERN_ALL_ROWS = frozenset(
    ["08", "0A", "25", "26", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "XX"],
)
# Those of them that pass by themselves, also where a trigger meets them.
_PASSING = ("40", "53", "57014", "55P03", "25006")
_NOT_MIGRATED = (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction)
# SQLSTATE, or its first two characters (PostgreSQL manual, appendix A). The connection: lost, or ended by the server.
_LOST = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
_EXHAUSTED = "53"
_CONFLICT = "40"
# What an operator has to look at; the catalogs name the object and the right (obstacles.py).
_REFUSALS = {
    "0A": "Postgres does not support the statement",
    "28": "Postgres refuses the login of DATABASE_URL",
    "3D": "there is no such database as DATABASE_URL names",
    "3F": "there is no such schema",
    "42501": "the role of DATABASE_URL lacks a right",
    "55": "an object of the database is not in a state for this statement",
    "57P04": "the database was dropped",
    "58": "the server's machine reports an error",
    "XX": "Postgres reports damaged data or a fault of its own",
}
# libpq keeps no SQLSTATE of a connection that was refused. A server with other lc_messages is taken for an outage.
_REFUSED_LOGINS = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no such user": "28000",
    "no pg_hba.conf entry": "28000",
    "pg_hba.conf rejects connection": "28000",
    "is not permitted to log in": "28000",
    "session is read-only": "25006",
    "permission denied for database": "42501",
    "no such database": "3D000",
    "is not currently accepting connections": "55000",
    'role "': "28000",
    'database "': "3D000",
}

# Postgres' own wording of these names objects and no values of a row.
_NAMES_OBJECTS = ("0A", "3F", "42", "55")
_QUOTES_CODE = "42601"
_WORDING_CHARACTERS = 200
# Rows that go against another row: unique, exclusion, foreign key, ON DELETE RESTRICT.
_ROW_CONFLICTS = ("23505", "23P01", "23503", "23001")
# One frame of an error's context, in any language: PL/pgSQL gives its functions parentheses, others quotes.
_QUOTES = '"«»„“”「」'
_FUNCTION = re.compile(
    rf"^(?:[^\n({_QUOTES}]*PL/[^\n({_QUOTES}]*?([a-z_][\w.$]*)\(|"
    rf"[^\n({_QUOTES}]+[{_QUOTES}][ ]?([a-z_][\w$]*)[ ]?[{_QUOTES}][^\n{_QUOTES}]*$)",
    re.MULTILINE | re.ASCII | re.IGNORECASE,
)
_OURS = re.compile(r"(.*[.])?(iidq_\w+|cancel_job|retry_job|pause_queue|resume_queue)")
# The server's function that checks a new row against policies: its error has the SQLSTATE of a lacking right.
_CHECKS_POLICIES = "ExecWithCheckOptions"
# What iidq_enqueue raises for rows that a trigger kept out of the table without a word.
_DROPPED = "27000"
# A row that lacks a value, or that no policy lets in, may be like all others: the catalogs tell.
_PROBLEMS_OF_ALL_ROWS = {"23502": ("default",), "42501": ("policy",)}

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


def translate(error: psycopg.Error) -> IidqError | None:
    """Our error for one of Postgres'; None where psycopg itself refuses a value, or was not asked in its way.

    A statement's own SQLSTATE tells less than where it was raised: see :func:`name_refusal`.
    """
    if isinstance(error, PoolTimeout | TooManyRequests):
        return DatabaseUnavailable("no connection to the database in time")
    function = _operators_function(error)
    if function is not None and _is_fault_of_code(error):
        return TriggerFault(f"function {function} in the database fails (SQLSTATE {error.sqlstate}){_wording(error)}")
    if isinstance(error, _NOT_MIGRATED):
        return DatabaseUnavailable(
            f"an object is missing (SQLSTATE {error.sqlstate}): run `iidq migrate`", code=NOT_MIGRATED
        )
    if isinstance(error, errors.QueryCanceled):
        return DatabaseUnavailable("the database took too long", code="database.timeout")
    if isinstance(error, errors.LockNotAvailable):
        return DatabaseUnavailable("another transaction keeps the row locked", code="database.locked")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return DatabaseUnavailable("the database is read-only for now", code="database.read_only")
    if not error.sqlstate and not isinstance(error, _CONNECTION_LOST):
        return None
    state = error.sqlstate or _refused_login(error)
    if not state or state.startswith(_LOST):
        return _unreachable()
    if state == "25006":
        return DatabaseUnavailable(
            "no server of DATABASE_URL takes writes: it is a standby, or default_transaction_read_only is on",
            code="database.read_only",
        )
    if state.startswith(_EXHAUSTED):
        return DatabaseUnavailable("the database is out of disk, memory or connections", code="database.exhausted")
    if state.startswith(_CONFLICT):
        return DatabaseUnavailable("other transactions came between", code="database.conflict")
    if state[:2] not in _CONCERN_ALL_ROWS or error.diag.source_function == _CHECKS_POLICIES:
        return RowRefused(f"{_rule(error, function)} (SQLSTATE {state})", conflict=state in _ROW_CONFLICTS)
    reason = _REFUSALS.get(state) or _REFUSALS.get(state[:2]) or "Postgres refuses a statement"
    table = error.diag.table_name
    return DatabaseRefusal(f"{reason} (SQLSTATE {state}{f', table {table}' if table else ''}){_wording(error)}")


def _operators_function(error: psycopg.Error) -> str | None:
    """The innermost function that the error came through, unless it is one of ours."""
    found = _FUNCTION.search(error.diag.context or "")
    name = found and (found[1] or found[2])
    return None if name is None or _OURS.fullmatch(name) else name


def fault_of_code(error: BaseException) -> TriggerFault | None:
    """Return the fault where a function of the operator's raised what would pass by itself elsewhere.

    It may raise that each time, and for one row alone. None: the error comes from elsewhere, or is another.
    """
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    if not is_passing(error) or not isinstance(cause, psycopg.Error) or (cause.sqlstate or "").startswith(_EXHAUSTED):
        return None
    function = _operators_function(cause)
    if function is None or _is_of_server(cause):
        return None
    return TriggerFault(f"function {function} in the database fails (SQLSTATE {cause.sqlstate})")


def _is_of_server(error: psycopg.Error) -> bool:
    # A server that ends the connection ends it with FATAL, also in the middle of a function.
    return error.diag.severity_nonlocalized in ("FATAL", "PANIC")


def _is_fault_of_code(error: psycopg.Error) -> bool:
    state = error.sqlstate or ""
    return state[:2] in _CONCERN_ALL_ROWS and not state.startswith(_PASSING) and not _is_of_server(error)


def _rule(error: psycopg.Error, function: str | None) -> str:
    """Return the name of what refuses the row, bounded: a function that raises can give others than the schema's.

    Clients read it in the error of a job, so it leaves the table out; the log has Postgres' own sentence.
    """
    known = error.diag
    if known.constraint_name:
        return f"constraint {known.constraint_name}"[:_WORDING_CHARACTERS]
    if known.column_name:
        return f"column {known.column_name}"[:_WORDING_CHARACTERS]
    if function is not None:
        return f"function {function}"
    if error.sqlstate == _DROPPED:
        return "a trigger that drops the row"
    return "a row-level security policy" if known.source_function == _CHECKS_POLICIES else "a rule of the database"


def _wording(error: psycopg.Error) -> str:
    state, message = error.sqlstate or "", error.diag.message_primary
    if not message or not state.startswith(_NAMES_OBJECTS) or state == _QUOTES_CODE:
        return ""
    return f": {message[:_WORDING_CHARACTERS]}"


async def name_refusal(error: psycopg.Error, connection: Connection) -> Exception:
    """Return our error for one of Postgres', or ``error`` itself. Its notes name what an operator has to mend.

    The catalogs tell whether an object of iidq's is missing or one that the operator's own code names, and whether
    the row that was refused is like all others.
    """
    ours = translate(error)
    problems = _problems_to_look_for(error, ours)
    obstacles = [] if problems is None else await find_obstacles(connection, *problems)
    if isinstance(error, _NOT_MIGRATED) and problems is not None and not obstacles:
        ours = DatabaseRefusal(
            f"what a constraint, trigger or policy names is missing (SQLSTATE {error.sqlstate}){_wording(error)}"
        )
    elif isinstance(error, _NOT_MIGRATED) and problems is not None and await is_migrated(connection):
        ours = ObjectMissing(f"an object of iidq's is missing (SQLSTATE {error.sqlstate})")
    elif isinstance(ours, RowRefused) and obstacles:
        ours = DatabaseRefusal(ours.message)
    for obstacle in obstacles:
        (ours or error).add_note(obstacle)
    return ours or error


def _problems_to_look_for(error: psycopg.Error, ours: IidqError | None) -> tuple[str, ...] | None:
    """Which obstacles may explain the error; no name: any of them. None: the error says all."""
    match ours:
        case RowRefused():
            return _PROBLEMS_OF_ALL_ROWS.get(error.sqlstate or "")
        case TriggerFault():
            return None
        case DatabaseRefusal():
            return ()
        case _:
            return () if isinstance(error, _NOT_MIGRATED) else None


def _refused_login(error: psycopg.Error) -> str:
    text = str(error)
    return next((state for words, state in _REFUSED_LOGINS.items() if _says(text, words)), "")


def _says(text: str, words: str) -> bool:
    # Names are the operator's: the rest of such a sentence is what tells.
    return words in text and (not words.endswith('"') or "does not exist" in text)


def is_passing(error: BaseException) -> bool:
    """Whether the same statement may succeed in a moment: connection lost, deadlock, shutdown, disk full."""
    if isinstance(error, psycopg.Error):
        error = translate(error) or error
    return isinstance(error, DatabaseUnavailable) and error.code != NOT_MIGRATED


def concerns_one_row(error: BaseException) -> bool:
    """Return whether a statement over many rows may succeed once a certain row is left out."""
    if isinstance(error, psycopg.Error):
        # psycopg's own refusal of a value, or Postgres' of a row.
        ours = translate(error)
        return isinstance(error, psycopg.DataError) if ours is None else concerns_one_row(ours)
    # Python's own refusals are those of values that it cannot hold.
    return isinstance(error, RowRefused | TriggerFault | InvalidInput | ValueError | OverflowError | RecursionError)


def may_be_of_one_row(error: BaseException) -> bool:
    """Return whether the rows are worth trying apart: one of them, or the operator's code for it, may be at fault."""
    return concerns_one_row(error) or fault_of_code(error) is not None


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
            _hang_up(connection)

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
            _hang_up(connection)
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
        if _problems_to_look_for(error, ours) is not None:
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
            raise _unreachable() from None

    def _absent(self) -> IidqError:
        return _unreachable() if self.refusal is None else DatabaseRefusal(self.refusal.message)


def _unreachable() -> DatabaseUnavailable:
    return DatabaseUnavailable("the database cannot be reached")


@contextlib.contextmanager
def answered_within(connection: Connection, seconds: float) -> Iterator[None]:
    """Hang up on a server that leaves us waiting for so long; the statement then fails as on any lost connection.

    A dead peer behind a proxy sends nothing and closes nothing. A mere time-out would not do: psycopg waits for the
    server's answer also when it is cancelled.

    Raises DatabaseUnavailable where the server answered, but gave up its wait for a standby.
    """
    connection.unconfirmed.clear()
    timer = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()
    if connection.unconfirmed:
        raise not_confirmed()


def _hang_up(connection: Connection) -> None:
    # Gone already: all the better.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


# Its callers are told of every failure; the pool's own lines beside that would name hosts, once per attempt.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


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


def server_fault(info: ConnectionInfo) -> str | None:
    """Return why the server or the database's encoding cannot be used, None where they can."""
    if info.server_version // 10000 < OLDEST_POSTGRES:
        return f"the server is PostgreSQL {info.server_version // 10000}; expected {OLDEST_POSTGRES} or later"
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
        connection = await Connection.connect(settings.database_url or "", **connect_arguments())
        try:
            await settle(connection, settings.database_schema)
        except BaseException:
            await connection.close()
            raise
    except psycopg.Error as error:
        raise translate(error) or error from error
    return connection
