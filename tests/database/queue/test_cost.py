"""The cost of claims and outcomes does not grow with history, delayed jobs or old snapshots."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any, LiteralString

import psycopg
import pytest

from iidq.database.connections import Connection
from iidq.database.pool import open_database
from iidq.database.queries import load_queries
from iidq.queue import store
from iidq.queue.job import ClaimedJob, JobType
from iidq.queue.outcome import Outcome
from iidq.queue.processing.claiming import FROM_HEAD
from iidq.queue.read import readers
from iidq.settings import Settings
from tests.database.attempts import LEASE_SECONDS, WORKER, claim, claim_one, fence, finish, renew, report, sweep
from tests.job_rows import COMPLETED, QUEUED, Sql, insert, new_job, scalar

FINISHED = 60_000
DELAYED = 20_000
COME_AND_GONE = 15_000
SLOTS = 50
TABLE = '"VerificationJob"'
SOME_HASH = Sql("'0x' || encode(sha256(gen_random_uuid()::text::bytea), 'hex')")
_OVER_SIX_DAYS: LiteralString = "now() - interval '6 days' * random()"


@pytest.fixture
def postgres_kind() -> str:
    """The Postgres version of the measured costs."""
    return "embedded"


@pytest.fixture
def unwatched(sql: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection to a table without autovacuum; counts are made at the end of the filling."""
    sql.execute(f"ALTER TABLE {TABLE} SET (autovacuum_enabled = off)".encode())
    sql.execute("SET iidq.writer = 'on'")
    return sql


def fill(sql: psycopg.Connection[Any], *, finished: int = 0, delayed: int = 0, waiting: int = 0) -> None:
    """Insert ``finished``, ``delayed`` and ``waiting`` rows."""
    if finished:
        insert(sql, COMPLETED, copies=finished)
    if delayed:
        insert(sql, QUEUED, copies=delayed, ready=False, runAt=Sql("now() + interval '1 hour'"))
    if waiting:
        insert(sql, copies=waiting)
    sql.execute("SELECT iidq_recount_queue()")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's node and all nodes below."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def explain(
    connection: Connection, name: str, parameters: dict[str, Any], package: str = "iidq.queue"
) -> dict[str, Any]:
    """Return the plan of an executed statement, with the buffers; the effect is rolled back."""
    async with connection.transaction(force_rollback=True):
        cursor = await connection.execute(
            b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + load_queries(package)[name], parameters, prepare=False
        )
        row = await cursor.fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


async def explain_claim(connection: Connection, from_order: float = FROM_HEAD) -> dict[str, Any]:
    values = {
        "worker_id": WORKER,
        "slots": SLOTS,
        "lease_seconds": LEASE_SECONDS,
        "from_order": from_order,
        "only": None,
    }
    return await explain(connection, "claim", values)


def blocks(plan: dict[str, Any]) -> int:
    """Return the number of blocks read of tables and indexes."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def scans(plan: dict[str, Any]) -> dict[str, list[str]]:
    """Return the scans of the table of jobs: kind of scan → indexes."""
    found: dict[str, list[str]] = {}
    for node in nodes(plan):
        if node.get("Relation Name") == "VerificationJob" and "Scan" in node["Node Type"]:
            found.setdefault(node["Node Type"], []).append(node.get("Index Name", ""))
    return found


SORTS_WHAT_IT_TOOK = [["claimed.place", "claimed.id"]]


async def test_a_claim_costs_the_same_in_an_old_and_crowded_table(
    settings: Settings, unwatched: psycopg.Connection[Any], database_url: str
) -> None:
    """A claim touches few blocks with a long history, many delayed rows, and dead rows under an old snapshot."""
    fill(unwatched, waiting=3 * SLOTS)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings, pool_size=1, sorts=False))
        connection = await stack.enter_async_context(database.connection())
        fresh = blocks(await explain_claim(connection))

        fill(unwatched, finished=FINISHED, delayed=DELAYED)
        unwatched.execute(f"ANALYZE {TABLE}".encode())
        plan = await explain_claim(connection)
        assert scans(plan) == {"Index Scan": ["VerificationJob_line"], "Tid Scan": [""]}
        assert [node["Sort Key"] for node in nodes(plan) if "Sort" in node["Node Type"]] == SORTS_WHAT_IT_TOOK
        assert blocks(plan) < 1.5 * fresh

        # A reader holds a snapshot while jobs come and go: their dead entries stay in the claim's index, and a claim
        # from the head of the line would walk over all of them.
        reader = stack.enter_context(psycopg.connect(database_url, autocommit=True))
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM iidq_queue_control")
        insert(unwatched, copies=COME_AND_GONE, runAt=Sql("now() - (1 + random()) * interval '1 second'"))
        reached = FROM_HEAD
        while True:
            taken = await store.claim(
                connection, worker_id=WORKER, slots=1000, lease_seconds=LEASE_SECONDS, from_order=reached
            )
            if taken.reached is None:
                break
            reached = taken.reached
            await finish(connection, *(Outcome.completed(job, {"status": "OK"}) for job in taken.jobs))
        fill(unwatched, waiting=SLOTS)
        plan = await explain_claim(connection, reached)
        assert blocks(plan) < 0.5 * blocks(await explain_claim(connection))
        assert scans(plan) == {"Index Scan": ["VerificationJob_line"], "Tid Scan": [""]}
        assert [node["Sort Key"] for node in nodes(plan) if "Sort" in node["Node Type"]] == SORTS_WHAT_IT_TOOK
        assert blocks(plan) < 2 * fresh


async def test_outcomes_are_found_by_id_in_batches_of_any_size(
    settings: Settings, unwatched: psycopg.Connection[Any]
) -> None:
    """The outcome statement neither scans the table nor compares row by row, for any statistics and batch size."""
    fill(unwatched, finished=50_000)
    for statistics in ("none", "from before the jobs came", "fresh"):
        if statistics == "from before the jobs came":
            unwatched.execute(f"ANALYZE {TABLE}".encode())
        fill(unwatched, waiting=600)
        if statistics == "fresh":
            unwatched.execute(f"ANALYZE {TABLE}".encode())
        async with open_database(settings, pool_size=1) as database, database.connection() as connection:
            for size in (1, 10, 500):
                jobs = await claim(connection, size)
                assert len(jobs) == size
                plan = await explain(connection, "store_outcomes", outcome_parameters(jobs))
                assert "Seq Scan" not in scans(plan)
                compared = sum(removed(node) for node in nodes(plan))
                # Each row is met about once; row by row the number would be size × size.
                assert compared <= 4 * size + 10, (statistics, size, compared)
                stored = await finish(connection, *(Outcome.completed(job, {"status": "OK"}) for job in jobs))
                assert len(stored) == size


async def test_outcomes_change_as_few_pages_behind_a_long_history(
    settings: Settings, unwatched: psycopg.Connection[Any]
) -> None:
    """Outcomes behind a long history of contents change neighbouring pages, not one page each."""

    async def pages_changed(connection: Connection) -> int:
        jobs = []
        insert(unwatched, copies=300, contentHash=SOME_HASH)
        while taken := await claim(connection, 300):
            jobs += taken
        unwatched.execute("CHECKPOINT")
        plan = await explain(connection, "store_outcomes", outcome_parameters(jobs))
        assert len(await finish(connection, *(Outcome.completed(job, {}) for job in jobs))) == 300
        return int(plan["Shared Dirtied Blocks"])

    async with open_database(settings, pool_size=1, sorts=False) as database, database.connection() as connection:
        fresh = await pages_changed(connection)
        insert(unwatched, COMPLETED, copies=FINISHED, contentHash=SOME_HASH, createdAt=Sql(_OVER_SIX_DAYS))
        assert await pages_changed(connection) < 1.5 * fresh


async def test_plans_made_for_an_empty_table_serve_a_burst(
    settings: Settings, unwatched: psycopg.Connection[Any]
) -> None:
    """Plans made for a small table do not scan the table after its growth."""
    unwatched.execute(f"ANALYZE {TABLE}".encode())
    async with open_database(settings, pool_size=1, sorts=False) as database, database.connection() as connection:

        async def live_through_one_job() -> None:
            job = await claim_one(connection)
            assert await report(connection, (fence(job), 50)) == await renew(connection, fence(job)) == {fence(job)}
            await sweep(connection)
            assert await finish(connection, Outcome.completed(job, {"status": "OK"})) == {fence(job)}
            assert await readers.find(connection, job.id)

        for _ in range(10):
            fill(unwatched, waiting=1)
            await live_through_one_job()
        fill(unwatched, finished=2_000, delayed=500, waiting=500)
        async with connection.transaction():
            await live_through_one_job()
            cursor = await connection.execute(
                "SELECT seq_scan, idx_scan > 0 FROM pg_stat_xact_user_tables WHERE relname = 'VerificationJob'"
            )
            assert await cursor.fetchone() == (0, True)


async def test_a_kept_plan_for_few_outcomes_meets_no_others(
    settings: Settings, unwatched: psycopg.Connection[Any]
) -> None:
    """A plan made for single outcomes on a small table uses the index on a large table."""
    async with open_database(settings, pool_size=1, sorts=False) as database, database.connection() as connection:
        for _ in range(10):
            fill(unwatched, waiting=1)
            job = await claim_one(connection)
            assert await finish(connection, Outcome.completed(job, {})) == {fence(job)}
        fill(unwatched, finished=FINISHED, delayed=DELAYED, waiting=500)
        jobs = await claim(connection, 10)
        async with connection.transaction():
            assert len(await finish(connection, *(Outcome.completed(job, {}) for job in jobs))) == 10
            cursor = await connection.execute(
                "SELECT seq_scan, idx_tup_fetch < 200 FROM pg_stat_xact_user_tables WHERE relname = 'VerificationJob'"
            )
            assert await cursor.fetchone() == (0, True)


def outcome_parameters(jobs: list[ClaimedJob]) -> dict[str, Any]:
    """Return the parameters as the store passes them."""
    outcomes = [Outcome.completed(job, {"status": "OK", "padding": "x" * 1500}) for job in jobs]
    return {
        "worker_id": WORKER,
        "ids": f"{{{','.join(str(outcome.id) for outcome in outcomes)}}}",
        "outcomes": f"[{','.join(outcome.as_json() for outcome in outcomes)}]",
    }


def removed(node: dict[str, Any]) -> int:
    """Return the number of rows read and dropped by a node."""
    lost = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
    return int(lost * node["Actual Loops"])


async def test_proofs_do_not_starve_behind_an_endless_stream_of_verifies(
    connection: Any, sql: psycopg.Connection[Any]
) -> None:
    """A proof is overtaken by the verifies of the next thirty seconds only."""
    moment = scalar(sql, "SELECT now() - interval '10 minutes'")
    proof = insert(sql, type="proof", runAt=Sql("now() - interval '10 minutes'"))
    # Ten verifies per second, and claims of ten jobs each: the line never gets shorter.
    overtakers = 0
    for second in range(60):
        sql.execute(
            'INSERT INTO "VerificationJob"(type, "contentHash", "manifestUri", "registryAddress", "runAt")'
            ' SELECT type, "contentHash", "manifestUri", "registryAddress", %s + make_interval(secs => %s)'
            ' FROM (SELECT \'verify\' AS type, "contentHash", "manifestUri", "registryAddress"'
            '       FROM "VerificationJob" WHERE id = %s) AS one, generate_series(1, 10)',
            [moment, second + 0.5, proof],
        )
        jobs = await claim(connection, 10)
        assert len(jobs) == 10
        if any(job.type is JobType.PROOF for job in jobs):
            break
        overtakers += len(jobs)
    assert 290 <= overtakers <= 310
    assert (await readers.find(connection, proof)).status == "processing"  # type: ignore[union-attr]


async def test_waiting_proofs_cost_a_verify_nothing(settings: Settings, unwatched: psycopg.Connection[Any]) -> None:
    """A claim of verifies does not read the waiting proofs."""
    insert(unwatched, copies=20_000, type="proof")
    fill(unwatched, waiting=SLOTS)
    unwatched.execute(f"ANALYZE {TABLE}".encode())
    async with open_database(settings, pool_size=1, sorts=False) as database, database.connection() as connection:
        plan = await explain_claim(connection)
        [scan] = [node for node in nodes(plan) if node.get("Index Name") == "VerificationJob_line"]
        assert scan["Actual Rows"] == SLOTS
        jobs = await claim(connection, SLOTS)
    assert {job.type for job in jobs} == {JobType.VERIFY}
    assert removed(scan) == 0


async def test_a_first_insert_is_logged_once_per_row_and_index(connection: Connection) -> None:
    """A first insert writes one log record for the row and one for each of three indexes."""

    async def records() -> int:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        cursor = await connection.execute("SELECT wal_records FROM pg_stat_get_backend_wal(pg_backend_pid())")
        return int((await cursor.fetchone() or (0,))[0])

    await store.enqueue(connection, [new_job()], max_attempts=3)
    before = await records()
    await store.enqueue(connection, [new_job() for _ in range(1000)], max_attempts=3)
    assert (await records() - before) / 1000 < 4.5


def test_nobody_gathers_statistics_of_results(unwatched: psycopg.Connection[Any]) -> None:
    """ANALYZE skips columns without influence on plans, above all the wide results, and covers all others."""
    fill(unwatched, finished=100, waiting=100)
    unwatched.execute(f"ANALYZE {TABLE}".encode())
    rows = unwatched.execute("SELECT attname FROM pg_stats WHERE tablename = 'VerificationJob'").fetchall()
    known = {column for (column,) in rows}
    assert not {"result", "errors", "manifestUri", "rpcUrl", "fileName", "traceContext"} & known
    assert {"id", "status", "ready", "createdAt", "runAt", "completedAt", "contentHash"} <= known


def test_indexes_are_told_how_jobs_live(unwatched: psycopg.Connection[Any]) -> None:
    """Indexes with entries for each version of a job have free room; the index of contents includes the end."""
    rows = unwatched.execute(
        "SELECT relname, array_to_string(reloptions, ','), pg_get_indexdef(oid) FROM pg_class WHERE relkind = 'i'"
        " AND relname IN ('VerificationJob_pkey', 'VerificationJob_newest', 'VerificationJob_content')"
    ).fetchall()
    options = {name: (said, definition) for name, said, definition in rows}
    assert options["VerificationJob_pkey"][0] == options["VerificationJob_newest"][0] == "fillfactor=30"
    # Before WHERE: Postgres does not conclude from an index's predicate that the entry is new.
    assert '"completedAt"' in options["VerificationJob_content"][1].partition(" WHERE ")[0]
