"""Claims: in the order of the line, and never the same job twice."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from iidq.database.pool import open_database
from iidq.database.queries import load_queries
from iidq.queue import store
from iidq.queue.job import JobType
from iidq.queue.processing.claiming import FROM_HEAD
from iidq.settings import Settings
from tests.database.attempts import LEASE_SECONDS, WORKER, claim, claim_one, sweep
from tests.job_rows import COMPLETED, PROCESSING, Sql, insert, new_job, read, scalar, update

QUERIES = load_queries("iidq.queue")


async def test_a_claim_counts_the_attempt_and_leases_the_row(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A claimed job is processing, belongs to the worker for the length of its lease, and counts the attempt."""
    asked = new_job(JobType.PROOF, rpc_url="https://x.example", endpoint_id="ab", chain_id=5, file_name="a.png")
    await store.enqueue(connection, [asked], max_attempts=4)
    job = await claim_one(connection)
    assert (job.id, job.attempt, job.type, job.retry_count, job.max_attempts) == (asked.id, 1, JobType.PROOF, 0, 4)
    assert job.subject == asked.subject
    row = read(sql, asked.id)
    assert (row["status"], row["attempt"], row["workerId"], row["ready"]) == ("processing", 1, WORKER, False)
    assert row["leaseUntil"] - row["startedAt"] == timedelta(seconds=LEASE_SECONDS)
    assert row["startedAt"] == row["updatedAt"]


async def test_no_more_than_the_free_slots(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A claim takes at most the free slots; the other jobs stay in line."""
    insert(sql, copies=5)
    assert len(await claim(connection, 3)) == 3
    assert len(await claim(connection, 3)) == 2
    assert await claim(connection, 3) == []


@pytest.mark.parametrize("first_commits", [True, False], ids=["first commits", "first rolls back"])
async def test_two_claims_at_once_share_no_job(
    connection: Any, rival: Any, sql: psycopg.Connection[Any], first_commits: bool
) -> None:
    """A claim skips the rows of another open claim without waiting, whether the other commits or rolls back."""
    insert(sql, copies=6)
    await connection.set_autocommit(False)
    mine = await claim(connection, 4, "a")
    async with asyncio.timeout(5):
        others = await claim(rival, 4, "b")
    await (connection.commit() if first_commits else connection.rollback())
    assert len(mine) == 4
    assert len(others) == 2
    assert not {job.id for job in mine} & {job.id for job in others}
    if not first_commits:
        again = await claim(rival, 10, "b")
        assert {job.id for job in again} == {job.id for job in mine}


async def test_racing_workers_claim_every_job_once(connection: Any, rival: Any, sql: psycopg.Connection[Any]) -> None:
    """Two workers with racing claims take each job exactly once."""
    insert(sql, copies=300)

    async def take_all(of: Any, worker_id: str) -> list[Any]:
        taken: list[Any] = []
        while jobs := await claim(of, 7, worker_id):
            taken += [job.id for job in jobs]
        return taken

    first, second = await asyncio.gather(take_all(connection, "a"), take_all(rival, "b"))
    taken = first + second + await take_all(connection, "a")
    assert len(taken) == len(set(taken)) == 300
    assert scalar(sql, 'SELECT max(attempt) FROM "VerificationJob"') == 1


@pytest.mark.parametrize("slots", [1, 10], ids=["one by one", "in one claim"])
async def test_line_is_by_time_with_proofs_and_priority(
    connection: Any, sql: psycopg.Connection[Any], slots: int
) -> None:
    """Older jobs come first; a proof counts as 30 s younger, a step of priority as 30 s older, so no job starves."""
    ages = {
        "old verify": ("verify", 10, 0),
        "proof 31 s older than that": ("proof", 41, 0),
        "proof 29 s older than that": ("proof", 39, 0),
        "new verify": ("verify", 1, 0),
        "new but urgent": ("verify", 0, 1),
        "old but patient": ("verify", 35, -1),
    }
    moment = scalar(sql, "SELECT now()")
    names = {
        insert(sql, type=kind, priority=priority, runAt=moment - timedelta(seconds=age)): name
        for name, (kind, age, priority) in ages.items()
    }
    order: list[str] = []
    while len(order) < len(ages):
        order += [names[job.id] for job in await claim(connection, slots)]
    assert order == [
        "new but urgent",
        "proof 31 s older than that",
        "old verify",
        "proof 29 s older than that",
        "old but patient",
        "new verify",
    ]


async def test_future_rows_wait_for_their_time(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A job for later is not claimed before its time, and is put in line by the next sweep."""
    later = insert(sql, runAt=Sql("now() + interval '1 hour'"))
    assert await claim(connection) == []
    seen = await sweep(connection)
    assert (seen.promoted, seen.waiting) == (0, False)
    assert seen.next_event_seconds == pytest.approx(3600, abs=60)

    update(sql, later, runAt=Sql("now()"))
    assert await claim(connection) == []
    assert (await sweep(connection)).promoted == 1
    assert (await claim_one(connection)).id == later


async def test_a_job_moved_into_the_future_leaves_the_line(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A ``runAt`` in the future, set in psql, postpones the job."""
    job_id = insert(sql)
    update(sql, job_id, runAt=Sql("now() + interval '1 hour'"))
    assert read(sql, job_id)["ready"] is False
    assert await claim(connection) == []


@pytest.mark.parametrize("statistics", ["none", "fresh", "from when it was empty"])
async def test_the_claim_walks_its_index_without_sorting(
    settings: Settings, sql: psycopg.Connection[Any], statistics: str
) -> None:
    """A claim among many rows uses the line's index in its order, for any statistics of the table.

    Only the claimed rows are sorted.
    """
    sql.execute('ALTER TABLE "VerificationJob" SET (autovacuum_enabled = off)')
    insert(sql, COMPLETED, copies=3000)
    if statistics == "from when it was empty":
        sql.execute('ANALYZE "VerificationJob"')
    insert(sql, copies=6000)
    insert(sql, copies=1000, runAt=Sql("now() + interval '1 hour'"))
    insert(sql, PROCESSING, copies=1000)
    if statistics == "fresh":
        sql.execute('ANALYZE "VerificationJob"')
    async with open_database(settings, pool_size=1, sorts=False) as database, database.connection() as connection:
        for mode in (b"force_custom_plan", b"force_generic_plan"):
            await connection.execute(b"SET plan_cache_mode = " + mode)
            for slots in (1, 50, 1000):
                values = {
                    "worker_id": WORKER,
                    "slots": slots,
                    "lease_seconds": LEASE_SECONDS,
                    "from_order": FROM_HEAD,
                    "only": None,
                }
                cursor = await connection.execute(b"EXPLAIN (FORMAT JSON) " + QUERIES["claim"], values, prepare=True)
                nodes = list(plan_nodes((await cursor.fetchall())[0][0][0]["Plan"]))
                scans = [
                    node
                    for node in nodes
                    if node.get("Relation Name") == "VerificationJob" and "Scan" in node["Node Type"]
                ]
                assert {node["Node Type"] for node in scans} == {"Index Scan", "Tid Scan"}
                assert [node["Index Name"] for node in scans if "Index Name" in node] == ["VerificationJob_line"]
                sorts = [node["Sort Key"] for node in nodes if "Sort" in node["Node Type"]]
                assert sorts == [["claimed.place", "claimed.id"]]


async def test_no_claim_is_compiled_first(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """A claim is never compiled by JIT, which would take 200 times as long as the claim."""
    insert(sql, copies=10)
    async with open_database(settings, pool_size=1, sorts=False) as database, database.connection() as connection:
        values = {
            "worker_id": WORKER,
            "slots": 3,
            "lease_seconds": LEASE_SECONDS,
            "from_order": FROM_HEAD,
            "only": None,
        }
        cursor = await connection.execute(b"EXPLAIN (FORMAT JSON) " + QUERIES["claim"], values)
        [[[explained]]] = await cursor.fetchall()
        assert "JIT" not in explained
        # Some builds of Postgres have no JIT.
        cursor = await connection.execute(b"SHOW jit")
        assert await cursor.fetchone() == ("off",)


def plan_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's node and all nodes below."""
    yield node
    for child in node.get("Plans", []):
        yield from plan_nodes(child)
