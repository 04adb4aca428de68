"""The queue in SQL for operators: views, functions, kept counts and roles."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier

from iidq.queue.identifiers import new_job_id
from tests.job_rows import (
    CANCELLED,
    COMPLETED,
    CONTENT_HASH,
    PROCESSING,
    QUEUED,
    REGISTRY_ADDRESS,
    Sql,
    insert,
    read,
    scalar,
)
from tests.job_rows import FAILED as FAILED_NOW

DOCUMENT = Path(__file__).parents[3] / "docs" / "sql.md"
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
KEPT = (
    "SELECT sum(waiting), sum(delayed), sum(active), sum(completed), sum(failed), sum(cancelled) FROM iidq_queue_count"
)
REAL = """SELECT
  count(*) FILTER (WHERE status = 'queued' AND ready), count(*) FILTER (WHERE status = 'queued' AND NOT ready),
  count(*) FILTER (WHERE status = 'processing'), count(*) FILTER (WHERE status = 'completed'),
  count(*) FILTER (WHERE status = 'failed'), count(*) FILTER (WHERE status = 'cancelled') FROM "VerificationJob" """


def counted(sql: psycopg.Connection[Any]) -> tuple[list[int], list[int]]:
    """Return the kept counts and the real counts."""
    kept, real = sql.execute(KEPT).fetchone(), sql.execute(REAL.encode()).fetchone()
    assert kept is not None
    assert real is not None
    return [int(value or 0) for value in kept], [int(value) for value in real]


def test_every_documented_statement_runs(database_url: str) -> None:
    """Every statement of docs/sql.md runs unchanged, and twice except for the creation of roles."""
    with psycopg.connect(database_url) as connection:
        insert(connection, **FAILED)
        for statement in STATEMENTS:
            connection.execute(statement.encode())
        connection.rollback()


VIEWS = ("queue_health", "queue_workers", "queue_errors", "queue_throughput", "VerificationJob")


@contextmanager
def acting_as(database_url: str, role: str) -> Iterator[tuple[psycopg.Connection[Any], UUID]]:
    """A connection with the documented rights of ``role``, and a waiting job; roles are dropped at the end."""
    grants = [s for s in STATEMENTS if s.startswith(("CREATE ROLE", "GRANT"))]
    with psycopg.connect(database_url) as connection:
        job_id = insert(connection)
        for statement in grants:
            connection.execute(statement.encode())
        connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(role)))
        yield connection, job_id
        connection.rollback()


@pytest.mark.parametrize("role", ["iidq_reader", "iidq_asker", "iidq_operator"])
def test_every_role_reads_all(database_url: str, role: str) -> None:
    """A role with the documented GRANTs reads the table and every view."""
    with acting_as(database_url, role) as (connection, _):
        for view in VIEWS:
            connection.execute(SQL("SELECT * FROM {}").format(Identifier(view)))


def test_what_became_of_one_content(database_url: str) -> None:
    """With SELECT on the table the ended jobs of one content are found, newest first, up to an exact time."""
    with acting_as(database_url, "iidq_reader") as (connection, _):
        connection.execute("RESET ROLE")
        ids = [
            insert(connection, COMPLETED, createdAt=datetime(2024, 1, day, hour, tzinfo=UTC))
            for day, hour in ((1, 1), (1, 2), (1, 5), (2, 23))
        ]
        insert(connection, COMPLETED, contentHash="0x" + "0" * 64, createdAt=datetime(2024, 1, 1, 3, tzinfo=UTC))
        connection.execute("SET LOCAL ROLE iidq_reader")
        for until, found in (("infinity", ids[::-1]), ("2024-01-01 02:00Z", ids[1::-1]), ("2023-12-31", [])):
            rows = connection.execute("SELECT id FROM iidq_ended_jobs_of(%s, %s)", [CONTENT_HASH, until]).fetchall()
            assert [job_id for (job_id,) in rows] == found
        assert len(connection.execute("SELECT id FROM iidq_ended_jobs_of(%s) LIMIT 2", [CONTENT_HASH]).fetchall()) == 2


ALL_CHANGES = {
    "cancel": 'SELECT cancel_job(id) FROM "VerificationJob"',
    "retry": 'SELECT retry_job(id) FROM "VerificationJob"',
    "pause": "SELECT pause_queue('no')",
    "resume": "SELECT resume_queue()",
    "insert": """INSERT INTO "VerificationJob"(type, "contentHash", "manifestUri", "registryAddress")
                 SELECT type, "contentHash", "manifestUri", "registryAddress" FROM "VerificationJob" LIMIT 1""",
    "update": 'UPDATE "VerificationJob" SET priority = 1',
    "delete": 'DELETE FROM "VerificationJob"',
    "truncate": 'TRUNCATE "VerificationJob"',
    "recount": "SELECT iidq_recount_queue()",
    "counts": "DELETE FROM iidq_queue_count",
    "keys": "SELECT * FROM iidq_idempotency_key",
}
MAY = {
    "iidq_reader": set[str](),
    "iidq_asker": {"insert"},
    "iidq_operator": {"cancel", "retry", "pause", "resume", "update"},
}


@pytest.mark.parametrize("role", MAY)
def test_each_role_changes_what_it_may_and_nothing_else(database_url: str, role: str) -> None:
    """A reader changes nothing, an asker only inserts, an operator cancels, retries and pauses; counts stay right."""
    with acting_as(database_url, role) as (connection, _):
        allowed = set()
        for name, change in ALL_CHANGES.items():
            try:
                with connection.transaction():
                    connection.execute(change.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            allowed.add(name)
        assert allowed == MAY[role]
        connection.execute("RESET ROLE")
        kept, real = counted(connection)
        assert kept == real


def test_counting_is_not_lured_into_a_callers_table(database_url: str) -> None:
    """A caller's temporary table named like the counts is left alone by the counting trigger."""
    with acting_as(database_url, "iidq_asker") as (connection, _):
        connection.execute("CREATE TEMP TABLE iidq_queue_count (LIKE public.iidq_queue_count)")
        connection.execute(ALL_CHANGES["insert"].encode())
        assert scalar(connection, "SELECT count(*) FROM pg_temp.iidq_queue_count") == 0
        assert scalar(connection, "SELECT waiting FROM queue_health") == 2


def test_functions_steer_many_rows_at_once(sql: psycopg.Connection[Any]) -> None:
    """`retry_job` in a SELECT puts all failed jobs back in line; `cancel_job` ends all again."""
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
    """`cancel_job` and `retry_job` raise an error for an unknown id."""
    with pytest.raises(psycopg.errors.NoDataFound, match="there is no job"):
        sql.execute(f"SELECT {function}(%s)".encode(), [new_job_id()])


def test_errors_are_grouped_by_cause(sql: psycopg.Connection[Any]) -> None:
    """`queue_errors` shows each cause with the jobs of the last day and an example."""
    now = scalar(sql, "SELECT now()")
    ids = [insert(sql, **{**FAILED, "completedAt": now}) for _ in range(3)]
    insert(sql, **{**FAILED, "completedAt": now, "error": "manifest.not_found: gone"})
    insert(sql, **FAILED)
    rows = sql.execute("SELECT cause, jobs, example_id FROM queue_errors").fetchall()
    assert [row[:2] for row in rows] == [("fetch.unavailable", 3), ("manifest.not_found", 1)]
    assert rows[0][2] in ids


@pytest.mark.parametrize(
    ("base", "cancelled", "retried"),
    [
        (QUEUED, True, False),
        ({**QUEUED, "runAt": Sql("now() + interval '1 hour'")}, True, False),
        (PROCESSING, True, False),
        (COMPLETED, False, True),
        (FAILED_NOW, False, True),
        (CANCELLED, False, True),
    ],
    ids=["waiting", "delayed", "running", "completed", "failed", "cancelled"],
)
def test_functions_in_every_state(
    sql: psycopg.Connection[Any], base: dict[str, Any], cancelled: bool, retried: bool
) -> None:
    """An unfinished job can be cancelled and an ended job retried; otherwise the row is unchanged."""
    for function, possible, status in (("cancel_job", cancelled, "cancelled"), ("retry_job", retried, "queued")):
        job_id = insert(sql, base, retryCount=2, attempt=3)
        before = read(sql, job_id)
        assert scalar(sql, f"SELECT {function}(%s)", job_id) is possible
        row = read(sql, job_id)
        if not possible:
            assert row == before
            continue
        assert (row["status"], row["attempt"], row["workerId"], row["leaseUntil"]) == (status, 3, None, None)
        if function == "retry_job":
            assert (row["ready"], row["retryCount"], row["progress"]) == (True, 0, 0)
            assert (row["result"], row["error"], row["completedAt"], row["startedAt"]) == (None, None, None, None)
        else:
            assert (row["ready"], row["completedAt"] is not None) == (False, True)


def test_pausing_touches_no_job(sql: psycopg.Connection[Any]) -> None:
    """Pause and resume write and lock no row of the queue; a second pause keeps the first moment."""
    insert(sql, copies=3)
    rows = 'SELECT ctid, xmin, xmax, * FROM "VerificationJob" ORDER BY id'
    before = sql.execute(rows).fetchall()
    sql.execute("SELECT pause_queue('one')")
    since = scalar(sql, 'SELECT "pausedAt" FROM iidq_queue_control')
    sql.execute("SELECT pause_queue('two')")
    assert sql.execute('SELECT "pausedAt", "pauseReason" FROM iidq_queue_control').fetchone() == (since, "two")
    sql.execute("SELECT resume_queue()")
    sql.execute("SELECT resume_queue()")
    assert sql.execute('SELECT "pausedAt", "pauseReason" FROM iidq_queue_control').fetchone() == (None, None)
    assert sql.execute(rows).fetchall() == before


def state(sql: psycopg.Connection[Any]) -> str:
    """Return the queue's state."""
    return str(scalar(sql, "SELECT state FROM queue_health"))


def test_health_tells_every_state(sql: psycopg.Connection[Any]) -> None:
    """The state of `queue_health` follows from waiting jobs and live workers, and a pause overrides both."""
    assert state(sql) == "idle, no workers"
    for base in (QUEUED, {**QUEUED, "runAt": Sql("now() + interval '1 hour'")}, PROCESSING):
        job_id = insert(sql, base)
        assert state(sql) == "no workers"
        sql.execute('DELETE FROM "VerificationJob" WHERE id = %s', [job_id])
    sql.execute(
        'INSERT INTO iidq_queue_worker ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil")'
        " VALUES ('w', 'h', 1, '0', 4, 0, true, now() + interval '1 minute')"
    )
    insert(sql, COMPLETED)
    assert state(sql) == "idle"
    insert(sql)
    assert state(sql) == "running"
    sql.execute("SELECT pause_queue()")
    assert state(sql) == "paused"
    sql.execute("""UPDATE iidq_queue_worker SET "aliveUntil" = now() - interval '1 second'""")
    assert state(sql) == "paused"
    sql.execute("SELECT resume_queue()")
    assert state(sql) == "no workers"


def test_health_shows_the_signs(sql: psycopg.Connection[Any]) -> None:
    """`queue_health` shows ages, lapsed leases, and slots and listeners of live workers only."""
    insert(sql, runAt=Sql("now() - interval '1 hour'"))
    insert(sql, {**QUEUED, "runAt": Sql("now() + interval '1 hour'")})
    insert(sql, PROCESSING)
    insert(sql, PROCESSING, leaseUntil=Sql("now() - interval '1 second'"))
    sql.execute(
        'INSERT INTO iidq_queue_worker ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil")'
        " SELECT n, 'h', n, '0', 4, 0, n = 1, now() + n * interval '1 minute' FROM generate_series(-1, 2) AS n"
    )
    assert sql.execute(
        "SELECT oldest_waiting_seconds BETWEEN 3600 AND 3700, next_due_at > now(), expired_leases, workers, slots,"
        " listening_workers, waiting, delayed, active FROM queue_health"
    ).fetchone() == (True, True, 1, 2, 8, 1, 1, 1, 2)
    assert {row[0] for row in sql.execute("SELECT worker_id FROM queue_workers")} == {"1", "2"}


def test_throughput_has_a_row_per_minute(sql: psycopg.Connection[Any]) -> None:
    """`queue_throughput` has sixty rows, newest first, with the jobs enqueued and failed per minute."""
    insert(sql, copies=3)
    rows = sql.execute("SELECT enqueued, completed, failed FROM queue_throughput").fetchall()
    assert len(rows) == 60
    assert sum(row[0] for row in rows) == 3
    # Imported history belongs to its own time.
    insert(sql, COMPLETED, FAILED_NOW, copies=4)
    sql.execute("""UPDATE "VerificationJob" SET status = 'failed', error = 'a: b', "completedAt" = now(), ready = false
                   WHERE status = 'queued'""")
    rows = sql.execute("SELECT sum(enqueued), sum(completed), sum(failed) FROM queue_throughput").fetchall()
    assert rows == [(3, 0, 3)]


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
            "SELECT iidq_recount_queue()",
            """BEGIN; DELETE FROM "VerificationJob"; ROLLBACK""",
            """INSERT INTO "VerificationJob"(id, type, "contentHash", "manifestUri", "registryAddress")
               SELECT id, type, "contentHash", "manifestUri", "registryAddress" FROM "VerificationJob"
               ON CONFLICT (id) DO UPDATE SET priority = "VerificationJob".priority + 1""",
            """INSERT INTO "VerificationJob"(type, status, "contentHash", "manifestUri", "registryAddress", error,
                 "createdAt", "completedAt")
               VALUES ('proof', 'failed', '0x' || repeat('a', 64), 'x', '0x' || repeat('b', 40), 'a: b',
                 '2020-01-01', '2020-01-02')""",
            """UPDATE "VerificationJob" SET "runAt" = now() - interval '1 day' WHERE NOT ready""",
            """UPDATE "VerificationJob" SET status = 'queued', ready = true, "completedAt" = NULL, error = NULL
               WHERE status = 'failed'""",
        ]
    ),
    max_size=15,
)


def test_a_recount_waits_for_no_writer(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A recount waits for no writer: concurrent inserts and changes are counted once."""
    insert(sql, copies=3)
    sql.execute("DELETE FROM iidq_queue_count")
    sql.execute("SET lock_timeout = '2s'")
    with psycopg.connect(database_url) as writer:
        insert(writer)
        writer.execute('UPDATE "VerificationJob" SET priority = 1, ready = false, "runAt" = now() + interval \'1 h\'')
        writer.execute("SELECT pause_queue('not committed yet')")
        for _ in range(2):
            sql.execute("SELECT iidq_recount_queue()")
        kept, real = counted(sql)
        assert kept == real
        writer.commit()
    kept, real = counted(sql)
    assert kept == real == [0, 4, 0, 0, 0, 0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_counts_stay_right_whatever_is_done_by_hand(sql: psycopg.Connection[Any], changes: list[str]) -> None:
    """The kept counts equal the real counts after any sequence of changes in psql."""
    for change in changes:
        sql.execute(change.encode())
        kept, real = counted(sql)
        assert kept == real


def test_a_time_ahead_holds_a_job_back_whoever_sets_it(sql: psycopg.Connection[Any]) -> None:
    """A ``runAt`` in the future holds a job back, also when an operator's trigger sets it."""
    sql.execute(
        "CREATE FUNCTION at_night() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN NEW.\"runAt\" := now() + interval '1 h'; RETURN NEW; END$$"
    )
    sql.execute('CREATE TRIGGER at_night BEFORE INSERT ON "VerificationJob" FOR EACH ROW EXECUTE FUNCTION at_night()')
    job = {"id": str(new_job_id()), "type": "verify", "content_hash": CONTENT_HASH, "manifest_uri": "ipfs://x"}
    sql.execute("CALL iidq_enqueue(%s::json, 3)", [json.dumps([job | {"registry_address": REGISTRY_ADDRESS}])])
    assert scalar(sql, 'SELECT ready FROM "VerificationJob"') is False
    assert sql.execute("SELECT waiting, delayed FROM queue_health").fetchone() == (0, 1)


def test_no_function_with_the_owners_rights_is_lent(database_url: str) -> None:
    """A role without rights cannot use iidq's trigger functions on a table of its own."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        names = owner.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef ORDER BY 1"
        ).fetchall()
    assert len(names) == 4
    with acting_as(database_url, "iidq_reader") as (connection, _):
        connection.execute('CREATE TEMP TABLE "VerificationJob" (id uuid)')
        for (name,) in names:
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(
                    SQL(
                        'CREATE TRIGGER t BEFORE INSERT ON pg_temp."VerificationJob"'
                        " FOR EACH ROW EXECUTE FUNCTION public.{}()"
                    ).format(Identifier(name))
                )
