"""Test rules of an operator on the job table: only the refused submission gets 409 or 422, without an outage."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from structlog.testing import capture_logs

from tests.job_rows import CONTENT_HASH, MANIFEST_URI, REGISTRY_ADDRESS, scalar
from tests.operators_rules import CONFLICTS, FAULTS, REFUSALS, apply, trigger
from tests.web.serving import JOBS, ServeApi

GOOD = {
    "registryAddress": REGISTRY_ADDRESS,
    "manifestURI": MANIFEST_URI,
    "contentHash": CONTENT_HASH,
    "fileName": "good",
}
ODD = {**GOOD, "fileName": "odd"}


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the owner of the tables."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def asking(serve_api: ServeApi, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an API with the synchronous fallback on, so that a fallback would be visible."""
    async with serve_api(database_url=database_url, sync_fallback="on") as api:
        yield api


def queued(sql: psycopg.Connection[Any]) -> int:
    """Return the number of queued jobs."""
    return int(scalar(sql, "SELECT count(*) FROM \"VerificationJob\" WHERE status = 'queued'"))


@pytest.mark.parametrize("kind", [*CONFLICTS, *REFUSALS])
async def test_a_refused_submission_is_409_or_422_alone(
    asking: httpx.AsyncClient, sql: psycopg.Connection[Any], kind: str
) -> None:
    """A rule refuses only the matching submission of many, with 409 or 422; only the log names the rule."""
    apply(sql, (CONFLICTS | REFUSALS)[kind])
    status = 409 if kind in CONFLICTS else 422
    with capture_logs() as logged:
        together = await asyncio.gather(
            *(asking.post(f"{JOBS}/{way}", json=body) for way in ("verify", "proof") for body in (GOOD, ODD, GOOD)),
            asking.post(f"{JOBS}/verify", json=ODD, headers={"Prefer": "wait=5"}),
        )
        keyed = [await asking.post(f"{JOBS}/verify", json=ODD, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        batch = await asking.post(
            f"{JOBS}/batch", json={"jobs": [{"type": "verify", **each} for each in (GOOD, ODD, GOOD)]}
        )
    assert [reply.status_code for reply in together] == [200, status, 200] * 2 + [status]
    refused = [reply for reply in (*together, *keyed, batch) if reply.status_code != 200]
    assert [reply.status_code for reply in refused] == [status] * 6
    for reply in refused:
        assert reply.json().keys() == {"error", "code", "correlationId"}
        assert reply.json()["code"] == "database.row_refused"
        assert not any(name in reply.text for name in ("only_one", "not_odd", "operators_rule", "secret"))
    assert "jobs[1]" in batch.json()["error"]
    assert queued(sql) == 4
    assert scalar(sql, "SELECT count(*) FROM iidq_idempotency_key") == 0
    assert scalar(sql, "SELECT waiting FROM queue_health") == 4
    lines = [line["error"] for line in logged if line["event"] == "submission.refused"]
    assert len(lines) == 6
    assert all(
        any(name in line for name in ("only_one", "not_odd", "operators_rule", "a trigger drops")) for line in lines
    )
    assert (await asking.get("/readyz")).json()["status"] == "ready"


@pytest.mark.parametrize("kind", FAULTS)
async def test_code_of_the_operators_that_fails_is_no_outage(
    asking: httpx.AsyncClient, sql: psycopg.Connection[Any], kind: str
) -> None:
    """A submission that breaks an operator's function gets 503 without a fallback; the others are queued.

    /readyz names the function.
    """
    apply(sql, FAULTS[kind])
    replies = await asyncio.gather(*(asking.post(f"{JOBS}/verify", json=body) for body in (GOOD, ODD, GOOD)))
    assert [reply.status_code for reply in replies] == [200, 503, 200]
    assert [reply.json()["mode"] for reply in replies if reply.status_code == 200] == ["async", "async"]
    assert replies[1].json()["code"] == "database.refused"
    assert "operators_rule" not in replies[1].text
    assert queued(sql) == 2
    ready = (await asking.get("/readyz")).json()
    assert ready["status"] == "degraded"
    assert any("function operators_rule in the database fails" in fault for fault in ready["faults"])
    sql.execute("DROP FUNCTION operators_rule() CASCADE")
    assert (await asking.post(f"{JOBS}/verify", json=ODD)).json()["mode"] == "async"


async def test_a_column_that_no_job_can_fill_is_the_services_fault(
    asking: httpx.AsyncClient, sql: psycopg.Connection[Any]
) -> None:
    """A NOT NULL column without a default gives 503 and a fault with the remedy, because callers are not at fault."""
    apply(sql, 'ALTER TABLE "VerificationJob" ADD tenant integer NOT NULL')
    refused = await asking.post(f"{JOBS}/verify", json=GOOD)
    assert (refused.status_code, refused.json()["code"]) == (503, "database.refused")
    [fault] = (await asking.get("/readyz")).json()["faults"]
    assert fault.startswith("column tenant of table VerificationJob takes no null and has no default: ALTER TABLE ")


async def test_a_dropped_object_of_an_operators_constraint_is_no_missing_migration(
    asking: httpx.AsyncClient, sql: psycopg.Connection[Any]
) -> None:
    """A dropped object of an operator's constraint gives 503 and a fault without advice to migrate."""
    apply(
        sql,
        """CREATE TABLE allowed (); CREATE FUNCTION none_allowed() RETURNS boolean LANGUAGE sql
           AS 'SELECT NOT EXISTS (SELECT FROM allowed)';
           ALTER TABLE "VerificationJob" ADD CHECK (none_allowed()); DROP TABLE allowed""",
    )
    refused = await asking.post(f"{JOBS}/verify", json=GOOD)
    assert (refused.status_code, refused.json()["code"]) == (503, "database.refused")
    [fault] = (await asking.get("/readyz")).json()["faults"]
    assert 'relation "allowed" does not exist' in fault
    assert "migrate" not in fault


async def test_steering_that_a_rule_refuses(asking: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """A cancellation refused by a trigger gives 422, and the job does not change."""
    job_id = (await asking.post(f"{JOBS}/verify", json=GOOD)).json()["jobId"]
    apply(
        sql,
        trigger("RAISE 'secret';", condition="true", when="UPDATE"),
    )
    refused = await asking.post(f"{JOBS}/{job_id}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (422, "database.row_refused")
    assert refused.json()["error"] == (
        "The service's database refuses this request because of a rule; ask the service's operator"
    )
    assert "secret" not in refused.text
    assert (await asking.get(f"{JOBS}/{job_id}")).json()["status"] == "queued"
