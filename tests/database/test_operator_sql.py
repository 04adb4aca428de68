"""The queue as operators see and steer it in SQL: views, functions, kept counts, a read-only role."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier

from iidq.queue.identifiers import new_job_id
from tests.job_rows import insert, read, scalar

DOCUMENT = Path(__file__).parents[2] / "docs" / "sql.md"
STATEMENTS = [
    statement.strip()
    for block in re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for statement in re.sub(r"--.*", "", block).split(";")
    if statement.strip()
]
FAILED: dict[str, Any] = {
    "status": "failed",
    "error": "fetch.unavailable: no gateway",
    "completedAt": "2024-01-01T00:00:00Z",
}
KEPT = "SELECT sum(waiting), sum(delayed), sum(active), sum(completed), sum(failed), sum(cancelled) FROM queue_count"
REAL = """SELECT
  count(*) FILTER (WHERE status = 'queued' AND ready), count(*) FILTER (WHERE status = 'queued' AND NOT ready),
  count(*) FILTER (WHERE status = 'processing'), count(*) FILTER (WHERE status = 'completed'),
  count(*) FILTER (WHERE status = 'failed'), count(*) FILTER (WHERE status = 'cancelled') FROM "VerificationJob" """


def counted(sql: psycopg.Connection[Any]) -> tuple[list[int], list[int]]:
    """The kept counts and the real ones."""
    kept, real = sql.execute(KEPT).fetchone(), sql.execute(REAL.encode()).fetchone()
    assert kept is not None
    assert real is not None
    return [int(value or 0) for value in kept], [int(value) for value in real]


@pytest.fixture
def sql(database_url: str) -> Any:
    """An operator's connection."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_every_documented_statement_runs(database_url: str) -> None:
    """What docs/sql.md shows can be pasted as it stands, also twice but for the role."""
    with psycopg.connect(database_url) as connection:
        insert(connection, **FAILED)
        for statement in STATEMENTS:
            connection.execute(statement.encode())
        connection.rollback()


def test_a_read_only_role_reads_all_and_changes_nothing(database_url: str) -> None:
    """With the documented GRANTs every view can be read; inserts, functions and pauses are refused."""
    grants = [s for s in STATEMENTS if s.startswith(("CREATE ROLE", "GRANT"))]
    with psycopg.connect(database_url) as connection:
        job_id = insert(connection)
        for statement in grants:
            connection.execute(statement.encode())
        connection.execute("SET LOCAL ROLE iidq_reader")
        for view in ("queue_health", "queue_workers", "queue_errors", "queue_throughput", "VerificationJob"):
            connection.execute(SQL("SELECT * FROM {}").format(Identifier(view)))
        for change in (
            f"SELECT cancel_job('{job_id}')",
            f"SELECT retry_job('{job_id}')",
            "SELECT pause_queue('no')",
            "SELECT resume_queue()",
            'DELETE FROM "VerificationJob"',
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(change.encode())
        connection.rollback()


def test_functions_steer_many_rows_at_once(sql: psycopg.Connection[Any]) -> None:
    """`SELECT retry_job(id) … WHERE` puts all failed jobs back in line; `cancel_job` ends them again."""
    ids = [insert(sql, **FAILED) for _ in range(5)]
    assert (
        sql.execute("""SELECT retry_job(id) FROM "VerificationJob" WHERE status = 'failed'""").fetchall()
        == [(True,)] * 5
    )
    assert {read(sql, job_id)["status"] for job_id in ids} == {"queued"}
    assert sql.execute('SELECT retry_job(id) FROM "VerificationJob"').fetchall() == [(False,)] * 5
    assert sql.execute('SELECT cancel_job(id) FROM "VerificationJob"').fetchall() == [(True,)] * 5
    assert {read(sql, job_id)["status"] for job_id in ids} == {"cancelled"}


@pytest.mark.parametrize("function", ["cancel_job", "retry_job"])
def test_an_unknown_id_is_an_error(sql: psycopg.Connection[Any], function: str) -> None:
    """It says that there is no such job, instead of doing nothing in silence."""
    with pytest.raises(psycopg.errors.NoDataFound, match="there is no job"):
        sql.execute(f"SELECT {function}(%s)".encode(), [new_job_id()])


def test_errors_are_grouped_by_cause(sql: psycopg.Connection[Any]) -> None:
    """The view names the code, how many jobs met it in the last day, and an example."""
    now = scalar(sql, "SELECT now()")
    ids = [insert(sql, **{**FAILED, "completedAt": now}) for _ in range(3)]
    insert(sql, **{**FAILED, "completedAt": now, "error": "manifest.not_found: gone"})
    insert(sql, **FAILED)
    rows = sql.execute("SELECT cause, jobs, example_id FROM queue_errors").fetchall()
    assert [row[:2] for row in rows] == [("fetch.unavailable", 3), ("manifest.not_found", 1)]
    assert rows[0][2] in ids


def test_throughput_has_a_row_per_minute(sql: psycopg.Connection[Any]) -> None:
    """Sixty rows, the newest first, with what was asked for and failed in each minute."""
    insert(sql, copies=3)
    rows = sql.execute("SELECT enqueued, completed, failed FROM queue_throughput").fetchall()
    assert len(rows) == 60
    assert sum(row[0] for row in rows) == 3


CHANGES = st.lists(
    st.sampled_from(
        [
            """INSERT INTO "VerificationJob"(type, "contentHash", "manifestUri", "registryAddress", "runAt")
               SELECT 'verify', '0x' || repeat('a', 64), 'ipfs://x', '0x' || repeat('b', 40),
                 now() + n * interval '1 hour' FROM generate_series(-1, 1) AS n""",
            """UPDATE "VerificationJob" SET "runAt" = now() + interval '1 day' WHERE status = 'queued' AND ready""",
            """UPDATE "VerificationJob" SET status = 'processing', ready = false, "workerId" = 'w', "leaseUntil" = now()
               WHERE id IN (SELECT id FROM "VerificationJob" WHERE status = 'queued' ORDER BY id LIMIT 2)""",
            """UPDATE "VerificationJob" SET status = 'completed', result = '{}', "completedAt" = now(),
               "workerId" = NULL, "leaseUntil" = NULL WHERE status = 'processing'""",
            """UPDATE "VerificationJob" SET ready = NOT ready WHERE status = 'queued'""",
            """SELECT cancel_job(id) FROM "VerificationJob" WHERE status IN ('queued', 'processing')""",
            """SELECT retry_job(id) FROM "VerificationJob" WHERE "completedAt" IS NOT NULL""",
            """DELETE FROM "VerificationJob" WHERE id IN (SELECT id FROM "VerificationJob" ORDER BY id DESC LIMIT 2)""",
            'TRUNCATE "VerificationJob"',
            "SELECT recount_queue()",
        ]
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_counts_stay_right_whatever_is_done_by_hand(sql: psycopg.Connection[Any], changes: list[str]) -> None:
    """After any sequence of changes in psql the kept counts are the real ones."""
    for change in changes:
        sql.execute(change.encode())
        kept, real = counted(sql)
        assert kept == real
