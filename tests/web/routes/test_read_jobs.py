"""Test reads: one job, pages of jobs, counts."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.job_rows import CONTENT_HASH, REGISTRY_ADDRESS
from tests.web.serving import JOBS

HASH = "0x" + "ab" * 32
KEYS = {
    *("id", "jobId", "type", "contentHash", "manifestUri", "registryAddress", "rpcUrl", "status", "result", "error"),
    *("retryCount", "progress", "startedAt", "completedAt", "createdAt", "updatedAt"),
}
INSERT = """
INSERT INTO "VerificationJob"
    (type, status, "contentHash", "manifestUri", "registryAddress", result, error, progress, "createdAt", "completedAt")
VALUES (%(type)s, %(status)s, %(hash)s, 'ipfs://x', %(address)s, %(result)s, %(error)s, %(progress)s, %(at)s, %(ended)s)
RETURNING id::text
"""


async def insert(database_url: str, **changes: Any) -> str:
    row = {
        "type": "verify",
        "status": "queued",
        "hash": HASH,
        "address": "0x" + "cd" * 20,
        "result": None,
        "error": None,
        "progress": 0,
        "at": "2024-01-01T00:00:00Z",
        "ended": None,
        **changes,
    }
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        found = await (await connection.execute(INSERT, row)).fetchone()
    assert found is not None
    return str(found[0])


async def test_a_job_is_read_as_the_contract_says(api: httpx.AsyncClient, database_url: str) -> None:
    """A row from plain SQL is shown like any other: all keys, ISO times, null for unset values."""
    ended = {
        "status": "completed",
        "progress": 100,
        "result": '{"status": "OK", "größe": 1}',
        "ended": "2024-01-01T00:00:05Z",
    }
    job_id = await insert(database_url, **ended)
    job = (await api.get(f"{JOBS}/{job_id}")).json()
    assert job.keys() >= KEYS
    assert job["id"] == job["jobId"] == job_id
    assert (job["createdAt"], job["completedAt"]) == ("2024-01-01T00:00:00.000Z", "2024-01-01T00:00:05.000Z")
    assert (job["result"], job["error"], job["rpcUrl"]) == ({"status": "OK", "größe": 1}, None, None)
    assert datetime.fromisoformat(job["updatedAt"]).tzinfo is not None


async def test_an_unknown_job_is_not_found(api: httpx.AsyncClient, database_url: str) -> None:
    """An unknown id and a malformed id give the same 404; upper case is accepted."""
    job_id = await insert(database_url)
    for other in (str(uuid4()), "1234567890", "null", "verify", job_id.replace("-", ""), f"{{{job_id}}}"):
        reply = await api.get(f"{JOBS}/{other}")
        assert (reply.status_code, reply.json()) == (404, {"error": "Job not found"})
    assert (await api.get(f"{JOBS}/{job_id.upper()}")).status_code == 200


async def test_imported_jobs_answer_to_their_old_id(api: httpx.AsyncClient, database_url: str) -> None:
    """Imported jobs are found by the ``jobId`` and ``pollUrl`` of the replaced system."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as sql:
        for old in ("1234567890", "0F8FAD5B-d9cb-469f-a165-70867728950e"):
            await sql.execute(
                """INSERT INTO "VerificationJob"
                     (id, type, status, "contentHash", "manifestUri", "registryAddress", "completedAt", error)
                   VALUES (iidq_imported_id(%s), 'verify', 'failed', %s, 'ipfs://x', %s, now(), 'gone')""",
                [old, CONTENT_HASH, REGISTRY_ADDRESS],
            )
            reply = await api.get(f"{JOBS}/{old}")
            assert (reply.status_code, reply.json()["error"]) == (200, "gone")
            assert (await api.get(f"/jobs/{old}")).status_code == 200
            assert (await api.get(f"{JOBS}/{old}/events")).status_code == 200
            assert (await api.post(f"{JOBS}/{old}/retry")).status_code == 200
            assert (await api.post(f"{JOBS}/{old}/cancel")).status_code == 200


async def test_the_list_is_newest_first_and_filtered(api: httpx.AsyncClient, database_url: str) -> None:
    """The list is newest first, with filters by status, type and hash; empty parameters have no effect."""
    old = await insert(database_url, at="2024-01-01T00:00:00Z")
    proof = await insert(database_url, at="2024-01-02T00:00:00Z", type="proof", hash="0x" + "00" * 32)
    failed = {"status": "failed", "error": "rpc.unavailable: down", "ended": "2024-01-04T00:00:00Z"}
    failed_id = await insert(database_url, at="2024-01-03T00:00:00Z", **failed)

    async def ids(query: str) -> list[str]:
        page = (await api.get(f"{JOBS}{query}")).json()
        assert page.keys() == {"jobs", "count", "nextCursor"}
        assert page["count"] == len(page["jobs"])
        return [job["id"] for job in page["jobs"]]

    everything = [failed_id, proof, old]
    assert await ids("") == await ids("/") == everything
    assert await ids("?status=&type=&contentHash=&limit=50&offset=0&cursor=") == everything
    assert await ids("?status=queued") == [proof, old]
    assert await ids("?status=failed&type=verify") == [failed_id]
    assert await ids("?type=proof") == [proof]
    assert await ids(f"?contentHash={HASH.upper().replace('X', 'x')}") == [failed_id, old]
    assert await ids("?limit=1&offset=1") == [proof]
    assert await ids("?offset=3") == []


async def test_cursors_lead_through_all_pages(api: httpx.AsyncClient, database_url: str) -> None:
    """Cursors show each job once, even with equal times and new rows; the last page has no cursor."""
    expected = {await insert(database_url, at="2024-01-01T00:00:00Z") for _ in range(5)}
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await api.get(JOBS, params={"limit": 2, "cursor": cursor})).json()
        seen += [job["id"] for job in page["jobs"]]
        await insert(database_url, at="2025-01-01T00:00:00Z")
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert len(seen) == 5
    assert set(seen) == expected
    both = await api.get(JOBS, params={"cursor": (await api.get(f"{JOBS}?limit=1")).json()["nextCursor"], "offset": 1})
    assert both.status_code == 400


async def test_a_rare_match_is_found_step_by_step(api: httpx.AsyncClient, database_url: str) -> None:
    """A page ends after a bounded number of rows; its cursor continues to a job after all these rows.

    A page with an offset continues with the cursor, too.
    """
    wanted = await insert(database_url, at="2024-01-01T00:00:00Z", type="proof")
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            """INSERT INTO "VerificationJob" (type, "contentHash", "manifestUri", "registryAddress")
            SELECT 'verify', %s, 'ipfs://x', %s FROM generate_series(1, 11000)""",
            [HASH, "0x" + "cd" * 20],
        )
    for query in ({"type": "proof"}, {"offset": "11000"}, {"status": "queued", "type": "proof"}):
        page = (await api.get(JOBS, params=query)).json()
        assert (page["jobs"], page["count"]) == ([], 0)
        pages = 1
        while page["nextCursor"] is not None:
            assert page["jobs"] == []
            asked = {name: value for name, value in query.items() if name != "offset"}
            page = (await api.get(JOBS, params={**asked, "cursor": page["nextCursor"]})).json()
            pages += 1
        assert [job["id"] for job in page["jobs"]] == [wanted]
        assert pages > 1


async def test_stats_count_by_state(api: httpx.AsyncClient, database_url: str) -> None:
    """The stats count jobs by state and give the age of the oldest waiting job."""
    before = (await api.get(f"{JOBS}/stats")).json()
    assert (before["available"], before["waiting"], before["oldestWaitingSeconds"]) == (True, 0, None)
    await insert(database_url)
    await insert(database_url, status="completed", result="{}", ended="2024-01-01T00:00:05Z")
    after = (await api.get(f"{JOBS}/stats")).json()
    assert {key: after[key] for key in ("waiting", "active", "completed", "failed", "delayed", "cancelled")} == {
        "waiting": 1,
        "active": 0,
        "completed": 1,
        "failed": 0,
        "delayed": 0,
        "cancelled": 0,
    }
    assert after["oldestWaitingSeconds"] > 0


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}/stats", "/livez", "/readyz", "/api/health"])
async def test_reads_answer_head_as_well(api: httpx.AsyncClient, path: str) -> None:
    """HEAD is GET without the body."""
    reply = await api.head(path)
    assert (reply.status_code, reply.content) == (200, b"")
