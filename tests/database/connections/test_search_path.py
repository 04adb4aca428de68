"""Functions, triggers and views find their tables under any search_path of the session."""

import json
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from tests.job_rows import CONTENT_HASH, REGISTRY_ADDRESS

PATHS = ["''", "decoy", "decoy, public", "decoy, pg_catalog, public"]
_ID = "01900000-0000-7000-8000-000000000001"
_VALUES = {
    "id": _ID,
    "hash": CONTENT_HASH,
    "jobs": json.dumps(
        [
            {
                "id": _ID,
                "type": "verify",
                "content_hash": CONTENT_HASH,
                "manifest_uri": "ipfs://x",
                "registry_address": REGISTRY_ADDRESS,
                "has_callback": True,
            }
        ]
    ),
}
# In this order: each function except trigger functions, a statement with the function, and the expected value.
CALLS: list[tuple[str, str, Any]] = [
    ("iidq_new_job_id", "SELECT public.iidq_new_job_id() IS NOT NULL", True),
    ("iidq_imported_id", "SELECT public.iidq_imported_id('1234567890')::text", "e807f1fc-f82d-132f-9bb0-18ca6738a19f"),
    ("iidq_new_jobs", "SELECT type FROM public.iidq_new_jobs(%(jobs)s::json)", "verify"),
    ("iidq_enqueue", "CALL public.iidq_enqueue(%(jobs)s::json, 3, false)", None),
    (
        "iidq_callback_state",
        "INSERT INTO public.iidq_webhook_delivery (\"jobId\", url) VALUES (%(id)s, 'https://a.example')",
        None,
    ),
    ("iidq_callback_state", "SELECT public.iidq_callback_state(%(id)s) ->> 'state'", "waiting"),
    (
        "iidq_claim_order",
        'SELECT public.iidq_claim_order("runAt", type, priority) IS NOT NULL FROM public."VerificationJob"',
        True,
    ),
    ("iidq_content_span", 'SELECT public.iidq_content_span("createdAt") <= now() FROM public."VerificationJob"', True),
    ("iidq_queue_state", 'SELECT public.iidq_queue_state(status, ready) FROM public."VerificationJob"', "waiting"),
    ("pause_queue", "SELECT public.pause_queue('because')", None),
    ("pause_queue", 'SELECT "pauseReason" FROM public.iidq_queue_control', "because"),
    ("resume_queue", "SELECT public.resume_queue()", None),
    ("cancel_job", "SELECT public.cancel_job(%(id)s)", True),
    ("iidq_callback_state", "SELECT public.iidq_callback_state(%(id)s) ->> 'state'", "pending"),
    ("iidq_ended_jobs_of", "SELECT status FROM public.iidq_ended_jobs_of(%(hash)s)", "cancelled"),
    ("retry_job", "SELECT public.retry_job(%(id)s)", True),
    (
        "iidq_broken_rules",
        "SELECT count(*) FROM public.\"VerificationJob\" AS job WHERE public.iidq_broken_rules(job) <> '{}'",
        0,
    ),
    ("iidq_recount_queue", "SELECT public.iidq_recount_queue()", None),
]


@pytest.fixture
def decoyed(sql: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database with a second schema: empty tables with the names of iidq's tables, and raising functions."""
    sql.execute("CREATE SCHEMA decoy")
    for (table,) in sql.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
    ).fetchall():
        sql.execute(SQL("CREATE TABLE decoy.{0} AS SELECT * FROM public.{0} LIMIT 0").format(Identifier(table)))
    for name, kind, arguments, result in functions(sql):
        sql.execute(
            SQL("CREATE {} decoy.{}({}) {} LANGUAGE plpgsql AS 'BEGIN RAISE ''decoy''; END'").format(
                SQL("PROCEDURE" if kind == "p" else "FUNCTION"),
                Identifier(name),
                SQL(arguments),
                SQL(f"RETURNS {result}" if result else ""),
            )
        )
    return sql


def functions(sql: psycopg.Connection[Any]) -> list[Any]:
    """Return name, kind, arguments and result of every function and procedure of iidq."""
    return sql.execute(
        "SELECT proname, prokind::text, pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace"
    ).fetchall()


def test_every_function_is_called_here(sql: psycopg.Connection[Any]) -> None:
    """Every function of iidq has a line in CALLS."""
    named = {name for name, _, _, result in functions(sql) if result != "trigger"}
    assert named == {name for name, _, _ in CALLS}


@pytest.mark.parametrize("path", PATHS)
def test_functions_triggers_and_views(decoyed: psycopg.Connection[Any], path: str) -> None:
    """Operators' SQL with the schema's name works under any path, without another schema's tables."""
    sql = decoyed
    sql.execute(SQL("SET search_path = {}").format(SQL(path)))
    wrong: dict[str, Any] = {}
    for _, call, expected in CALLS:
        cursor = sql.execute(call.encode(), _VALUES)
        row = cursor.fetchone() if cursor.description else None
        if expected is not None and row != (expected,):
            wrong[call] = row
    assert wrong == {}
    views = sql.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'"
    ).fetchall()
    for (view,) in views:
        sql.execute(SQL("SELECT * FROM public.{}").format(Identifier(view)))
    assert sql.execute("SELECT waiting, completed FROM public.queue_health").fetchone() == (1, 0)


@pytest.mark.parametrize("path", PATHS)
def test_plain_writes(decoyed: psycopg.Connection[Any], path: str) -> None:
    """INSERT, UPDATE, DELETE and TRUNCATE are counted, followed and checked under any path."""
    sql = decoyed
    sql.execute(SQL("SET search_path = {}").format(SQL(path)))
    insert = SQL(
        'INSERT INTO public."VerificationJob" (type, "contentHash", "manifestUri", "registryAddress", "runAt",'
        " \"hasCallback\") VALUES ('verify', {}, 'ipfs://x', {}, now() + {}::interval, true) RETURNING id"
    )
    [(job,)] = sql.execute(insert.format(Literal(CONTENT_HASH), Literal(REGISTRY_ADDRESS), "0 s")).fetchall()
    [(late,)] = sql.execute(insert.format(Literal(CONTENT_HASH), Literal(REGISTRY_ADDRESS), "1 h")).fetchall()
    ready = 'SELECT ready FROM public."VerificationJob" ORDER BY "runAt"'
    assert sql.execute(ready).fetchall() == [(True,), (False,)]
    sql.execute("INSERT INTO public.iidq_webhook_delivery (\"jobId\", url) VALUES (%s, 'https://a.example')", [job])
    sql.execute('UPDATE public."VerificationJob" SET "runAt" = now() + interval \'1 h\' WHERE id = %s', [job])
    health = "SELECT waiting, delayed, cancelled FROM public.queue_health"
    assert sql.execute(health).fetchone() == (0, 2, 0)
    sql.execute(
        'UPDATE public."VerificationJob" SET status = \'cancelled\', "completedAt" = now() WHERE id = %s', [job]
    )
    assert sql.execute("SELECT state FROM public.iidq_webhook_delivery").fetchone() == ("pending",)
    sql.execute('DELETE FROM public."VerificationJob" WHERE id = %s', [job])
    assert sql.execute(health).fetchone() == (0, 1, 0)
    assert sql.execute("SELECT state FROM public.iidq_webhook_delivery").fetchone() is None
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute('UPDATE public."VerificationJob" SET "runAt" = \'infinity\' WHERE id = %s', [late])
    sql.execute('TRUNCATE public."VerificationJob"')
    assert sql.execute(health).fetchone() == (0, 0, 0)
