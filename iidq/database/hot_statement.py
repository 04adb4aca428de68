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
    """As :meth:`Database.run`, without a visit to the pool at each statement: of 28 µs per enqueued job it took 5.

    One statement at a time; whoever has no more of them calls :meth:`release`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._pooled = False

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, by: float | None = None) -> T:
        """Do ``work``, which must bear repetition: it is done once more where another connection may serve it.

        ``by`` and what it raises are as for :meth:`Database.run`.
        """
        if self._pooled:
            return await self._database.run(work, by=by)
        connection: Connection | None = None
        try:
            connection = await self._hold(by)
            if is_shared(connection):
                # Its statements want what Database.run puts around them.
                self._pooled = True
                await self.release()
                return await self._database.run(work, by=by)
            with self._database.answered(connection, by):
                return await work(connection)
        except psycopg.Error as error:
            if connection is not None and isinstance(error, errors.ReadOnlySqlTransaction):
                # This server is no primary any more.
                await connection.close()
            await self.release()
            await self._database.recover(error, connection)
        async with self._database.connection(by) as connection:
            return await work(connection)

    async def release(self) -> None:
        """The connection is others' until the next statement."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._database.give_back(connection)

    async def _hold(self, by: float | None) -> Connection:
        if self._connection is None or self._connection.closed or self._database.away:
            await self.release()
            self._connection = await self._database.borrow(by)
        return self._connection


class Statement:
    """A statement with psycopg's named parameters, of the form ``%(name)s``, whose rows, if any, nobody reads.

    All values are given as text; casts in the statement give their types.
    """

    def __init__(self, statement: bytes) -> None:
        self._parameters = list(dict.fromkeys(found.decode() for found in _PARAMETER.findall(statement)))
        for number, parameter in enumerate(self._parameters, 1):
            statement = statement.replace(b"%%(%s)s" % parameter.encode(), b"$%d" % number)
        self._numbered = statement.replace(b"%%", b"%")

    async def run(self, connection: Connection, values: Mapping[str, str]) -> None:
        """Execute it with these values. Raises what psycopg would raise."""
        async with connection.lock:
            self._send(connection, values)
            results = await connection.wait(generators.execute(connection.pgconn))
        for result in results:
            if result.status not in _SUCCESS:
                raise errors.error_from_result(result, encoding=connection.info.encoding)

    async def run_before(
        self, connection: Connection, values: Mapping[str, str], then: "Statement", then_values: Mapping[str, str]
    ) -> bool:
        """Execute it, and at once ``then``, without a round trip between their two transactions.

        Return whether ``then`` succeeded, too. Raises only for the first. Not within a transaction.
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
    """The results before each of ``count`` ends of a transaction. A commit fails, or warns, just before such an end."""
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
        # Broken off in the middle: nobody reads what is still to come.
        pgconn.finish()
