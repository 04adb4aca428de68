"""Statements that are sent so often, and are so small, that a cursor would cost more than they do.

A cursor of psycopg takes 45 µs of Python for each statement; sent by libpq's own call and awaited by psycopg, so that
its handling of cancellation and lost connections stays, it is half of that. Only for statements whose rows, if there
are any, nobody reads.
"""

import re
from collections.abc import Mapping
from weakref import WeakSet

from psycopg import errors, generators
from psycopg.pq import ExecStatus

from iidq.database import Connection, is_shared

_PARAMETER = re.compile(rb"%\((\w+)\)s")
_GOOD = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


class Prepared:
    """A statement with psycopg's named parameters, prepared once on each connection that it is run on.

    All values are given as text; casts in the statement give their types.
    """

    def __init__(self, name: str, statement: bytes) -> None:
        self._name = f"iidq_{name}".encode()
        self._statement = statement
        self._parameters = list(dict.fromkeys(found.decode() for found in _PARAMETER.findall(statement)))
        for number, parameter in enumerate(self._parameters, 1):
            statement = statement.replace(b"%%(%s)s" % parameter.encode(), b"$%d" % number)
        self._numbered = statement
        self._known: WeakSet[Connection] = WeakSet()

    async def run(self, connection: Connection, values: Mapping[str, str]) -> None:
        """Execute it with these values. Raises what psycopg would raise."""
        if is_shared(connection):
            # The next statement may meet another server connection, which knows nothing of it.
            await connection.execute(self._statement, values)
            return
        pgconn = connection.pgconn
        async with connection.lock:
            if connection not in self._known:
                pgconn.send_prepare(self._name, self._numbered)
                await _succeed(connection)
                self._known.add(connection)
            pgconn.send_query_prepared(self._name, [values[name].encode() for name in self._parameters])
            await _succeed(connection)


async def _succeed(connection: Connection) -> None:
    for result in await connection.wait(generators.execute(connection.pgconn)):
        if result.status not in _GOOD:
            raise errors.error_from_result(result, encoding=connection.info.encoding)
