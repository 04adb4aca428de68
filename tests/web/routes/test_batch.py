"""Test POST /batch: up to a thousand jobs by hash, all or none."""

import asyncio
import json
from typing import Any

import httpx
import psycopg
import pytest

from iidq.queue.job import MAX_BATCH_JOBS
from iidq.web.routes.batch import MAX_BATCH_BYTES
from tests.eventually import eventually
from tests.job_rows import scalar
from tests.web.request.test_idempotency import QUESTION
from tests.web.serving import JOBS, ServeApi

BATCH = f"{JOBS}/batch"
VERIFY: dict[str, Any] = {"type": "verify", **QUESTION}
KEY = {"Idempotency-Key": "shipment-4711"}


@pytest.fixture
def sql(database_url: str) -> Any:
    """Connect to the database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def jobs(count: int) -> list[dict[str, Any]]:
    """Return ``count`` different jobs, every third a proof."""
    return [
        {**VERIFY, "type": "verify" if number % 3 else "proof", "contentHash": f"0x{number:064x}"}
        for number in range(count)
    ]


async def test_a_thousand_jobs_are_queued_in_order(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """Ids and URLs come in the order of the jobs, each row equals its request, and one transaction writes all rows."""
    asked = jobs(MAX_BATCH_JOBS)
    reply = await api.post(BATCH, json={"jobs": asked})
    body = reply.json()
    assert (reply.status_code, body["mode"], body["status"]) == (200, "async", "queued")
    assert body["message"] == "1000 jobs queued successfully"
    assert body["pollUrls"] == [f"{JOBS}/{job_id}" for job_id in body["jobIds"]]
    rows = {
        str(job_id): (kind, content_hash)
        for job_id, kind, content_hash in sql.execute(
            'SELECT id, type, "contentHash" FROM "VerificationJob" WHERE status = \'queued\' AND ready'
        )
    }
    assert [rows[job_id] for job_id in body["jobIds"]] == [(job["type"], job["contentHash"]) for job in asked]
    assert scalar(sql, 'SELECT count(DISTINCT xmin::text) FROM "VerificationJob"') == 1
    # Queued in the order of the batch.
    assert body["jobIds"] == sorted(body["jobIds"])
    assert (await api.get(body["pollUrls"][0])).json()["contentHash"] == asked[0]["contentHash"]


async def test_workers_are_woken(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """A batch notifies workers as a single submission does."""
    sql.execute("LISTEN iidq_jobs")
    await api.post(BATCH, json={"jobs": [VERIFY]})
    await eventually(lambda: list(sql.notifies(timeout=0.01)))


async def test_faults_are_named_by_index_and_nothing_is_queued(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any]
) -> None:
    """All faults are reported at once with the index of the job, and no job of the batch is queued."""
    reply = await api.post(
        BATCH,
        json={
            "jobs": [
                VERIFY,
                {**VERIFY, "type": "verification", "contentHash": "0x12"},
                7,
                {"type": "proof", "manifestURI": "ftp://x", "chainId": None},
                {**VERIFY, "share": True},
                {**VERIFY, "share": "TRUE"},
                {**VERIFY, "share": "false"},
            ]
        },
    )
    assert reply.status_code == 400
    body = reply.json()
    assert body["error"] == "Validation failed"
    assert {fault["field"] for fault in body["errors"]} == {
        "jobs[1].type",
        "jobs[1].contentHash",
        "jobs[2]",
        "jobs[3].contentHash",
        "jobs[3].manifestURI",
        "jobs[3].registryAddress",
        "jobs[4].share",
        "jobs[5].share",
    }
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob"') == 0


@pytest.mark.parametrize(
    "document", [{}, {"jobs": []}, {"jobs": {}}, {"jobs": None}, {"jobs": [VERIFY] * (MAX_BATCH_JOBS + 1)}]
)
async def test_a_batch_has_one_to_a_thousand_jobs(api: httpx.AsyncClient, document: dict[str, Any]) -> None:
    """A batch without jobs or with over a thousand jobs gives 400 with the field's name."""
    reply = await api.post(BATCH, json=document)
    assert (reply.status_code, [fault["field"] for fault in reply.json()["errors"]]) == (400, ["jobs"])


async def test_the_body_is_bounded_json(api: httpx.AsyncClient) -> None:
    """A too large body gives 413, another type 415, broken JSON 400."""
    padded = json.dumps({"jobs": [VERIFY], "x": "y" * MAX_BATCH_BYTES})
    headers = {"Content-Type": "application/json"}
    assert (await api.post(BATCH, content=padded, headers=headers)).status_code == 413
    assert (await api.post(BATCH, data={"jobs": "x"}, files={"x": ("", b"")})).status_code == 415
    assert (await api.post(BATCH, content="[]", headers=headers)).status_code == 400
    assert (await api.post(BATCH, content="{", headers=headers)).status_code == 400


async def test_a_repeated_batch_is_the_first_one(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """A batch under a key is queued once, even if sent many times at once; another batch gives 422."""
    replies = await asyncio.gather(*(api.post(BATCH, json={"jobs": jobs(20)}, headers=KEY) for _ in range(8)))
    assert {reply.status_code for reply in replies} == {200}
    assert all(reply.json() == replies[0].json() for reply in replies)
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob"') == 20
    other = await api.post(BATCH, json={"jobs": jobs(21)}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency.conflict")
    # Single submissions have separate keys.
    assert (await api.post(f"{JOBS}/verify", json=QUESTION, headers=KEY)).status_code == 200


async def test_without_a_key_each_batch_is_new(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """Without a key, each batch and each job is new, even with equal inputs."""
    first = await api.post(BATCH, json={"jobs": [VERIFY, VERIFY]})
    second = await api.post(BATCH, json={"jobs": [VERIFY, VERIFY]})
    assert len({*first.json()["jobIds"], *second.json()["jobIds"]}) == 4
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob"') == 4


async def test_the_key_is_asked_for(serve_api: ServeApi, database_url: str) -> None:
    """With API_KEY set, a batch needs the key."""
    async with serve_api(database_url=database_url, api_key="open sesame") as api:
        reply = await api.post(BATCH, json={"jobs": [VERIFY]})
        assert (reply.status_code, reply.json()) == (401, {"error": "Unauthorized"})
        reply = await api.post(BATCH, json={"jobs": [VERIFY]}, headers={"x-api-key": "open sesame"})
        assert reply.status_code == 200


async def test_without_a_database_503(lonely_api: httpx.AsyncClient) -> None:
    """Without a database a batch gives 503, because a batch has no synchronous fallback."""
    reply = await lonely_api.post(BATCH, json={"jobs": [VERIFY]})
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
