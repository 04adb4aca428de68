"""Rows of ``"VerificationJob"`` as made and seen with psql."""

from collections.abc import Mapping
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Identifier, Placeholder
from psycopg.types.json import Jsonb

from iidq.queue.job import JobType, NewJob
from iidq.subject import Subject

CONTENT_HASH = "0x" + "ab" * 32
MANIFEST_URI = "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o"
REGISTRY_ADDRESS = "0x" + "Cd" * 20


class Sql:
    """A literal of SQL for a column, such as a moment by the database's own clock."""

    def __init__(self, text: LiteralString) -> None:
        self.text = text


QUEUED: dict[str, Any] = {
    "type": "verify",
    "contentHash": CONTENT_HASH,
    "manifestUri": MANIFEST_URI,
    "registryAddress": REGISTRY_ADDRESS,
}
PROCESSING: dict[str, Any] = {
    **QUEUED,
    "status": "processing",
    "ready": False,
    "attempt": 1,
    "workerId": "somebody",
    "leaseUntil": Sql("now() + interval '1 minute'"),
    "startedAt": Sql("now()"),
}
COMPLETED: dict[str, Any] = {
    **QUEUED,
    "status": "completed",
    "ready": False,
    "progress": 100,
    "result": Jsonb({"status": "OK"}),
    "completedAt": Sql("now()"),
}
FAILED: dict[str, Any] = {
    **QUEUED,
    "status": "failed",
    "ready": False,
    "error": "manifest.missing: 404",
    "completedAt": Sql("now()"),
}
CANCELLED: dict[str, Any] = {**QUEUED, "status": "cancelled", "ready": False, "completedAt": Sql("now()")}


def new_job(type: JobType = JobType.VERIFY, **fields: Any) -> NewJob:  # noqa: A002
    """Return a submitted job; ``fields`` replace fields of the job or of the usual subject."""
    inputs = {name: fields.pop(name) for name in Subject._fields if name in fields}
    return NewJob(type, Subject(CONTENT_HASH, MANIFEST_URI, REGISTRY_ADDRESS)._replace(**inputs), **fields)


def insert(connection: psycopg.Connection[Any], *bases: Mapping[str, Any], copies: int = 1, **columns: Any) -> UUID:
    """Run a plain INSERT; return the id of the (last) row. Without a base the row is queued."""
    row: dict[str, Any] = {}
    for base in bases or (QUEUED,):
        row |= base
    row |= columns
    values: list[Composable] = [
        SQL(value.text) if isinstance(value, Sql) else Placeholder(name) for name, value in row.items()
    ]
    statement = SQL('INSERT INTO "VerificationJob" ({}) SELECT {} FROM generate_series(1, {}) RETURNING id').format(
        SQL(", ").join(map(Identifier, row)), SQL(", ").join(values), copies
    )
    cursor = connection.execute(statement, {name: value for name, value in row.items() if not isinstance(value, Sql)})
    return UUID(str(cursor.fetchall()[-1][0]))


def read(connection: psycopg.Connection[Any], job_id: UUID) -> dict[str, Any]:
    """Return the whole row."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute('SELECT * FROM "VerificationJob" WHERE id = %s', [job_id]).fetchone()
    assert row is not None
    return row


def update(connection: psycopg.Connection[Any], job_id: UUID, **columns: Any) -> None:
    """Run a plain UPDATE of a single row."""
    assignments = [
        SQL("{} = {}").format(Identifier(name), SQL(value.text) if isinstance(value, Sql) else Placeholder(name))
        for name, value in columns.items()
    ]
    statement = SQL('UPDATE "VerificationJob" SET {} WHERE id = {}').format(SQL(", ").join(assignments), job_id)
    connection.execute(statement, {name: value for name, value in columns.items() if not isinstance(value, Sql)})


def statuses(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Return the number of rows by status."""
    rows = connection.execute('SELECT status, count(*) FROM "VerificationJob" GROUP BY status').fetchall()
    return dict(rows)


def scalar(connection: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    """Return the single value of a query."""
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]
