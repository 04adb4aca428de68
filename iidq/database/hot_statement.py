"""The short way for many small statements: a connection that stays borrowed, and a statement without a cursor."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus, PipelineStatus
from psycopg.pq.abc import PGconn, PGresult

from iidq.database.connections import Connection, is_shared
from iidq.database.pool import Database
from iidq.database.queries import in_schema

T = TypeVar("T")

_PARAMETER = re.compile(rb"%\((\w+)\)s")
_SUCCESS = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


class HeldConnection:
    """:meth:`Database.run` without a visit to the pool at each statement, a sixth of an insert's time.

    One statement at a time. Call :meth:`release` after the last one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._pooled = False

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, by: float | None = None) -> T:
        """Do repeatable ``work``, once more where another connection may serve. Else as :meth:`Database.run`."""
        if self._pooled:
            return await self._database.run(work, by=by)
        connection: Connection | None = None
        try:
            connection = await self._hold(by)
            if is_shared(connection):
                # Database.run sets the session's parameters per transaction.
                self._pooled = True
                await self.release()
                return await self._database.run(work, by=by)
            with self._database.answered(connection, by):
                return await work(connection)
        except psycopg.Error as error:
            if connection is not None and isinstance(error, errors.ReadOnlySqlTransaction):
                # The server became a standby.
                await connection.close()
            await self.release()
            await self._database.recover(error, connection)
        async with self._database.connection(by) as connection:
            return await work(connection)

    async def release(self) -> None:
        """Return the connection to the pool until the next statement."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._database.give_back(connection)

    async def _hold(self, by: float | None) -> Connection:
        if self._connection is None or self._connection.closed or self._database.away:
            await self.release()
            self._connection = await self._database.borrow(by)
        return self._connection


class Statement:
    """A statement with parameters ``%(name)s``, sent by libpq's own call without a cursor; rows are dropped.

    psycopg's cursor takes 45 µs of Python per statement, this way half. All values are text; the statement casts them.
    Not prepared, because DEALLOCATE ALL or a pooler could remove the prepared statement unnoticed.
    """

    def __init__(self, statement: bytes) -> None:
        self._parameters = list(dict.fromkeys(found.decode() for found in _PARAMETER.findall(statement)))
        for number, parameter in enumerate(self._parameters, 1):
            statement = statement.replace(b"%%(%s)s" % parameter.encode(), b"$%d" % number)
        self._numbered = statement.replace(b"%%", b"%")

    async def run(self, connection: Connection, values: Mapping[str, str]) -> None:
        """Execute the statement with these values; raise psycopg's errors."""
        async with connection.lock:
            self._send(connection, values)
            results = await connection.wait(generators.execute(connection.pgconn))
        for result in results:
            if result.status not in _SUCCESS:
                raise errors.error_from_result(result, encoding=connection.info.encoding)

    async def run_before(
        self, connection: Connection, values: Mapping[str, str], then: "Statement", then_values: Mapping[str, str]
    ) -> bool:
        """Execute the statement and then ``then``, each in a transaction of its own, in one round trip.

        Return whether ``then`` succeeded; raise for the first alone. Not within a transaction.
        """
        pgconn = connection.pgconn
        async with connection.lock:
            pgconn.enter_pipeline_mode()
            try:
                for statement, its_values in ((self, values), (then, then_values)):
                    statement._send(connection, its_values)
                    pgconn.pipeline_sync()
                first, second = await connection.wait(_answers_until_sync(pgconn, count=2))
            finally:
                _leave_pipeline_mode(pgconn)
        for result in first:
            if result.status not in _SUCCESS:
                raise errors.error_from_result(result, encoding=connection.info.encoding)
        return all(result.status in _SUCCESS for result in second)

    def _send(self, connection: Connection, values: Mapping[str, str]) -> None:
        statement = in_schema(self._numbered, connection.schema)
        connection.pgconn.send_query_params(statement, [values[name].encode() for name in self._parameters])


def _answers_until_sync(pgconn: PGconn, *, count: int) -> PQGen[list[list[PGresult]]]:
    """Return the results of ``count`` transactions; a failed commit is the last result of a transaction."""
    yield from generators.send(pgconn)
    answers: list[list[PGresult]] = [[]]
    while len(answers) <= count:
        results = yield from generators.fetch_many(pgconn)
        if results and results[0].status == ExecStatus.PIPELINE_SYNC:
            answers.append([])
        else:
            answers[-1] += results
    return answers[:count]


def _leave_pipeline_mode(pgconn: PGconn) -> None:
    try:
        if pgconn.pipeline_status != PipelineStatus.OFF:
            pgconn.exit_pipeline_mode()
    except errors.Error:
        # Interrupted: the remaining results are never read.
        pgconn.finish()
