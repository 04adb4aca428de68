"""The SQL of docs/migration.md and docs/operations.md, run unchanged."""

from typing import Any

import psycopg

from iidq.database.migrate import migrate
from iidq.queue.identifiers import find_job_id
from tests.document_pages import PAGES, statements
from tests.job_rows import QUEUED, insert, scalar

HASH = "0x" + "A" * 64
ADDRESS = "0xb8266292aCd2D5e6b9398Ddd6Fbce81f49088A01"

# The documented columns of the replaced system, with the types of its ORM.
REPLACED_TABLE = """
  CREATE TYPE "JobState" AS ENUM ('queued', 'processing', 'completed', 'failed');
  CREATE TABLE "VerificationJob" (
    id text PRIMARY KEY, "jobId" text UNIQUE, type text NOT NULL, status "JobState" NOT NULL, progress integer NOT NULL,
    "contentHash" text, "manifestUri" text, "registryAddress" text, "rpcUrl" text, result jsonb, error text,
    "retryCount" integer NOT NULL, "startedAt" timestamp(3), "completedAt" timestamp(3),
    "createdAt" timestamp(3) NOT NULL, "updatedAt" timestamp(3) NOT NULL);
  CREATE INDEX "VerificationJob_newest" ON "VerificationJob" ("createdAt")
"""
REPLACED_ROW = """
  INSERT INTO "VerificationJob" VALUES (%(id)s, %(id)s, 'verify', %(status)s, 100, %(hash)s, 'ipfs://x', %(address)s,
    'https://u:secret@rpc.example.org', %(result)s, %(error)s, 1, '2024-01-01 12:00', %(completed)s, '2024-01-01 11:00',
    '2024-01-01 12:00')
"""
OPTIONS = """
  SELECT array_agg(option ORDER BY option) FROM pg_class, unnest(reloptions) AS option
  WHERE oid = '"VerificationJob"'::regclass
"""
WAITING_PAGES = """SELECT count(DISTINCT (ctid::text::point)[0]) FROM "VerificationJob" WHERE status = 'queued'"""
# Sizes differ as in real results.
ENDED_ROWS = """
  INSERT INTO "VerificationJob"
    (type, status, ready, progress, "contentHash", "manifestUri", "registryAddress", "completedAt", result)
  SELECT 'verify', 'completed', false, 100, '0x' || repeat('a', 64), 'ipfs://x', '0x' || repeat('b', 40), now(),
    jsonb_build_object('status', 'OK', 'fileHash', substr(repeat(md5(number::text), 30), 1, 300 + number % 500))
  FROM generate_series(1, 3000) AS number
"""


def replaced_row(connection: psycopg.Connection[Any], job_id: str, **values: object) -> None:
    defaults = {"status": "completed", "hash": HASH, "address": ADDRESS, "result": '{"status":"OK"}', "error": None}
    connection.execute(REPLACED_ROW, {"id": job_id, "completed": "2024-01-01 12:00", **defaults, **values})


def test_history_of_the_replaced_system_moves_over(empty_database_url: str) -> None:
    """A move from the replaced system keeps ended jobs and enqueues the others; a repetition changes nothing."""
    aside, make_room, fill_pages, bring, leave_gaps, ask_again, look = statements("migration.md")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(REPLACED_TABLE.encode())
        replaced_row(connection, "1234567890")
        replaced_row(connection, "no-times", status="failed", result=None, completed=None)
        replaced_row(connection, "failed", status="failed", result=None, error="no gateway")
        replaced_row(connection, "waiting", status="queued", result=None, completed=None)
        replaced_row(connection, "no-hash", status="failed", hash=None, result=None, error="file gone")
        for statement in (aside, make_room):
            connection.execute(statement.encode())
        migrate(empty_database_url)
        for _ in range(2):
            for statement in (fill_pages, bring, leave_gaps):
                connection.execute(statement.encode())
            connection.execute(ask_again.encode())
        assert connection.execute(look.encode()).fetchall() == [("completed", "OK")]
        ended = connection.execute(
            """SELECT status, error, "contentHash", "rpcUrl", "retryCount", "completedAt" AT TIME ZONE 'UTC'
               FROM "VerificationJob" WHERE "completedAt" IS NOT NULL ORDER BY status, error"""
        ).fetchall()
        assert [row[:2] for row in ended] == [
            ("completed", None),
            ("failed", "no gateway"),
            ("failed", "unknown: the replaced system kept no error"),
        ]
        assert {row[2:5] for row in ended} == {(HASH.lower(), None, 1)}
        assert {str(row[5]) for row in ended} == {"2024-01-01 12:00:00"}
        counts = connection.execute("SELECT waiting, completed, failed FROM queue_health").fetchone()
        assert counts == (1, 1, 2)
        for old in ("1234567890", "no-times", "failed", "waiting"):
            assert scalar(connection, 'SELECT count(*) FROM "VerificationJob" WHERE id = %s', find_job_id(old)) == 1


def test_jobs_do_not_wait_in_the_gaps_of_an_import(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """After an import the waiting rows of a burst are on few pages, and the table's options are as before."""
    _, _, fill_pages, _, leave_gaps, *_ = statements("migration.md")
    before = scalar(sql, OPTIONS)
    sql.execute(fill_pages.encode())
    sql.execute(ENDED_ROWS)
    sql.execute(leave_gaps.encode())
    assert scalar(sql, OPTIONS) == before
    sql.execute('VACUUM "VerificationJob"')
    insert(sql, QUEUED, copies=200)
    # With the usual fillfactor the number is more than a hundred.
    assert scalar(sql, WAITING_PAGES) <= 15


def test_statements_of_every_page_run(database_url: str) -> None:
    """The SQL of every page runs; migration.md needs the old table, and has its test above."""
    with psycopg.connect(database_url) as connection:
        for page in PAGES.keys() - {"migration.md"}:
            for statement in statements(page):
                connection.execute(statement.encode())
            connection.rollback()
