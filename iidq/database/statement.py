"""A statement that is sent so often, and is so small, that a cursor would cost more than it does.

psycopg's cursor takes 45 µs of Python for each statement; sent by libpq's own call and awaited by psycopg, which then
sees to cancellation and lost connections, it takes half of that. It is not prepared: what undoes that on the server,
such as psycopg's DEALLOCATE ALL after a rollback, or a pooler's other connection, would have to be noticed here.
"""

import re
from collections.abc import Mapping

from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus, PipelineStatus
from psycopg.pq.abc import PGconn, PGresult

from iidq.database.pool import Connection
from iidq.database.queries import in_schema

_PARAMETER = re.compile(rb"%\((\w+)\)s")
_SUCCESS = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


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
