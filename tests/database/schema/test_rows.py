"""The table in psql: accepted rows, and rows refused by the database."""

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from iidq.queue.outcome import Outcome
from tests.database.attempts import claim, claim_one, finish
from tests.job_rows import (
    CANCELLED,
    COMPLETED,
    CONTENT_HASH,
    FAILED,
    PROCESSING,
    QUEUED,
    REGISTRY_ADDRESS,
    Sql,
    insert,
    read,
    scalar,
    statuses,
    update,
)

IMPOSSIBLE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unknown type": (QUEUED, {"type": "sign"}, "type_known"),
    "unknown status": (QUEUED, {"status": "paused"}, "state_is_whole"),
    "short hash": (QUEUED, {"contentHash": "0x" + "a" * 63}, "contentHash_form"),
    "long hash": (QUEUED, {"contentHash": "0x" + "a" * 65}, "contentHash_form"),
    "upper-case hash": (QUEUED, {"contentHash": "0x" + "A" * 64}, "contentHash_form"),
    "hash without 0x": (QUEUED, {"contentHash": "a" * 66}, "contentHash_form"),
    "hash and a newline": (QUEUED, {"contentHash": CONTENT_HASH + "\n"}, "contentHash_form"),
    "short address": (QUEUED, {"registryAddress": "0x" + "a" * 39}, "address_form"),
    "address of other letters": (QUEUED, {"registryAddress": "0x" + "g" * 40}, "address_form"),
    "progress below 0": (QUEUED, {"progress": -1}, "progress_range"),
    "progress above 100": (QUEUED, {"progress": 101}, "progress_range"),
    "no attempts allowed": (QUEUED, {"maxAttempts": 0}, "attempts_range"),
    "chain 0": (QUEUED, {"chainId": 0}, "chainId_range"),
    "queued with an end": (QUEUED, {"completedAt": Sql("now()")}, "state_is_whole"),
    "processing with an end": (PROCESSING, {"completedAt": Sql("now()")}, "state_is_whole"),
    "completed without its time": (COMPLETED, {"completedAt": None}, "state_is_whole"),
    "failed without its time": (FAILED, {"completedAt": None}, "state_is_whole"),
    "cancelled without its time": (CANCELLED, {"completedAt": None}, "state_is_whole"),
    "processing without a lease": (PROCESSING, {"leaseUntil": None}, "state_is_whole"),
    "processing without a worker": (PROCESSING, {"workerId": None}, "state_is_whole"),
    "queued with a lease": (QUEUED, {"leaseUntil": Sql("now()")}, "state_is_whole"),
    "queued with a worker": (QUEUED, {"workerId": "somebody"}, "state_is_whole"),
    "completed with a worker": (COMPLETED, {"workerId": "somebody"}, "state_is_whole"),
    "completed without result": (COMPLETED, {"result": None}, "state_is_whole"),
    "failed without error": (FAILED, {"error": None}, "state_is_whole"),
}


def test_impossible_rows_are_refused(sql: psycopg.Connection[Any]) -> None:
    """Each impossible row is refused by the constraint for its fault, at insert and at update alike."""
    possible = {id(base): insert(sql, base) for base, _, _ in IMPOSSIBLE.values()}
    wrong: dict[str, object] = {}
    for name, (base, columns, constraint) in IMPOSSIBLE.items():
        for write in ("insert", "update"):
            try:
                if write == "insert":
                    insert(sql, base, **columns)
                else:
                    update(sql, possible[id(base)], **columns)
            except psycopg.errors.CheckViolation as error:
                if error.diag.constraint_name != f"VerificationJob_{constraint}":
                    wrong[f"{name}, {write}"] = error.diag.constraint_name
            else:
                wrong[f"{name}, {write}"] = "accepted"
    assert wrong == {}


@pytest.mark.parametrize("column", ["type", "contentHash", "manifestUri", "registryAddress"])
def test_inputs_are_needed(sql: psycopg.Connection[Any], column: str) -> None:
    """A job without one of its inputs is refused."""
    with pytest.raises(psycopg.errors.NotNullViolation):
        insert(sql, {**QUEUED, column: None})


async def test_a_plain_insert_runs_like_any_job(sql: psycopg.Connection[Any], connection: Any) -> None:
    """The contract's INSERT gets an id and every default, and the job is claimed and ends."""
    sql.execute(
        'INSERT INTO "VerificationJob"(type, "contentHash", "manifestUri", "registryAddress")'
        " VALUES ('verify', %s, 'ipfs://x', %s)",
        [CONTENT_HASH, REGISTRY_ADDRESS],
    )
    job_id = scalar(sql, 'SELECT id FROM "VerificationJob"')
    row = read(sql, job_id)
    assert job_id.version == 7
    assert (row["status"], row["progress"], row["attempt"], row["retryCount"], row["maxAttempts"]) == (
        "queued",
        0,
        0,
        0,
        3,
    )
    assert (row["error"], row["errors"], row["result"], row["startedAt"], row["completedAt"]) == (
        None,
        [],
        None,
        None,
        None,
    )
    assert row["createdAt"] == row["updatedAt"] == row["runAt"]
    assert scalar(sql, 'SELECT now() - "createdAt" < interval \'1 minute\' FROM "VerificationJob"')

    job = await claim_one(connection)
    assert job.id == job_id
    await finish(connection, Outcome.completed(job, {"status": "OK"}))
    assert read(sql, job_id)["status"] == "completed"


def test_ids_of_plain_inserts_sort_by_time(sql: psycopg.Connection[Any]) -> None:
    """Ids of plain inserts sort by time, so that the list has the order of submissions."""
    ids = []
    for _ in range(5):
        ids.append(insert(sql))
        sql.execute("SELECT pg_sleep(0.002)")
    assert ids == sorted(ids)
    assert all(job_id.version == 7 for job_id in ids)


def test_history_of_the_replaced_system_fits(sql: psycopg.Connection[Any]) -> None:
    """Finished rows with the contract's columns alone are accepted."""
    listed = {
        "type": "verify",
        "status": "completed",
        "progress": 100,
        "contentHash": CONTENT_HASH,
        "manifestUri": "https://example.org/m.json",
        "registryAddress": REGISTRY_ADDRESS,
        "rpcUrl": None,
        "result": Jsonb({"status": "WARN"}),
        "error": None,
        "retryCount": 1,
        "createdAt": "2024-01-01T00:00:00Z",
        "startedAt": "2024-01-01T00:00:01Z",
        "completedAt": "2024-01-01T00:00:02Z",
        "updatedAt": "2024-01-01T00:00:02Z",
    }
    insert(sql, listed, id="c0ffee00-0000-4000-8000-000000000001")
    insert(sql, listed, type="proof", status="failed", progress=30, result=None, error="gone")
    assert statuses(sql) == {"completed": 1, "failed": 1}


async def test_history_is_not_claimed(sql: psycopg.Connection[Any], connection: Any) -> None:
    """A finished row is not claimed, however inserted."""
    for base in (COMPLETED, FAILED, CANCELLED):
        insert(sql, {name: value for name, value in base.items() if name != "ready"})
    assert await claim(connection) == []


def test_the_operators_queries_run(sql: psycopg.Connection[Any]) -> None:
    """Both SELECTs of the reference run unchanged."""
    failed = insert(sql, FAILED)
    newest = insert(sql)
    rows = sql.execute(
        "SELECT id, type, status, progress, DATE_PART('second', NOW() - \"createdAt\") AS age_seconds"
        ' FROM "VerificationJob" ORDER BY "createdAt" DESC LIMIT 10;'
    ).fetchall()
    assert [row[0] for row in rows] == [newest, failed]
    assert all(0 <= row[4] < 60 for row in rows)
    rows = sql.execute(
        'SELECT id, type, status, error, "retryCount", "createdAt" FROM "VerificationJob"'
        " WHERE status = 'failed' ORDER BY \"createdAt\" DESC;"
    ).fetchall()
    assert [(row[0], row[3]) for row in rows] == [(failed, "manifest.missing: 404")]
