"""A statement that is sent so often, and is so small, that a cursor would cost more than it does.

psycopg's cursor takes 45 µs of Python for each statement; sent by libpq's own call and awaited by psycopg, which then
sees to cancellation and lost connections, it takes half of that. It is not prepared: what undoes that on the server,
such as psycopg's DEALLOCATE ALL after a rollback, or a pooler's other connection, would have to be noticed here.
"""

import re
from collections.abc import Mapping

from psycopg import errors, generators
from psycopg.pq import ExecStatus

from iidq.database import Connection

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
            connection.pgconn.send_query_params(self._numbered, [values[name].encode() for name in self._parameters])
            results = await connection.wait(generators.execute(connection.pgconn))
        for result in results:
            if result.status not in _SUCCESS:
                raise errors.error_from_result(result, encoding=connection.info.encoding)
