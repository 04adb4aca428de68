"""A row refused by Postgres, Python or an operator's trigger leaves other rows unaffected."""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier, Placeholder

from iidq.bullmq.keys import BullState, job_fields
from iidq.database.pool import Database, open_database
from iidq.errors import RowRefused
from iidq.queue import control, row_faults, store, upkeep
from iidq.queue.enqueuer import open_enqueuer
from iidq.queue.job import ClaimedJob, JobStatus
from iidq.queue.notify.watching import open_watch_hub
from iidq.queue.outcome import Outcome
from iidq.queue.processing.execution import Progress
from iidq.queue.processing.writers import OutcomeWriter
from iidq.queue.read import queue_health, readers
from iidq.queue.read.browsing import JobState, browse
from iidq.queue.read.paging import Cursor
from iidq.queue.read.queue_health import read_health, read_live_overview, read_recent_overview
from iidq.queue.store import WorkerSigns
from iidq.queue.upkeep import Retention
from iidq.settings import load_settings
from iidq.strict_json import read_stored_json
from iidq.web.reads import JobReads
from iidq.web.reply.conditional import JobBody
from iidq.web.reply.wire import job_shape
from iidq.webhooks.deliverer import open_deliverer
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import (
    CANCELLED,
    COMPLETED,
    CONTENT_HASH,
    FAILED,
    PROCESSING,
    QUEUED,
    Sql,
    insert,
    new_job,
    read,
    scalar,
    statuses,
    update,
)
from tests.webhooks import LOOPBACK, SECRET, cancel, delivery, insert_with_callback, receiving

Pg = psycopg.Connection[Any]
OK = {"status": "OK"}
SIGNS = WorkerSigns("w", "host", 1, "0", 3, 0, True, 60.0)
EXPIRED: dict[str, Any] = {**PROCESSING, "leaseUntil": Sql("now() - interval '1 minute'")}
DUE: dict[str, Any] = {**QUEUED, "ready": False, "runAt": Sql("now() - interval '1 minute'")}

# Values refused by the table

REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    *(
        (PROCESSING if name in ("leaseUntil", "startedAt") else COMPLETED, {name: moment}, "VerificationJob_time_range")
        for name in ("createdAt", "updatedAt", "runAt", "startedAt", "completedAt", "leaseUntil")
        for moment in (
            Sql("'infinity'"),
            Sql("'-infinity'"),
            Sql("'20000-01-01Z'::timestamptz"),
            Sql("'0001-01-01 BC'::timestamptz"),
        )
    ),
    *(
        (QUEUED, {name: count}, "VerificationJob_counter_range")
        for name in ("attempt", "retryCount")
        for count in (-1, 2**31 - 1)
    ),
    *(
        (FAILED, {"errors": Sql("'{}'"), **extra}, "VerificationJob_errors_form")
        for extra in ({}, {"errors": Sql("'[1]'")}, {"errors": Sql("'[[{}]]'")}, {"errors": Sql("'null'")})
    ),
    (
        FAILED,
        {"errors": Sql("(SELECT jsonb_agg('{}'::jsonb) FROM generate_series(1, 21))")},
        "VerificationJob_errors_form",
    ),
    (COMPLETED, {"result": Sql("to_jsonb(repeat('x', 2200000))")}, "VerificationJob_result_size"),
]


def test_rows_that_nothing_could_handle_are_refused(sql: Pg) -> None:
    """Times beyond a client's range, counters at their limit and malformed or oversized values are refused on write."""
    rows = {id(base): insert(sql, base) for base, _, _ in REFUSED}
    for base, columns, constraint in REFUSED:
        for write in (
            lambda b=base, c=columns: insert(sql, b, **c),
            lambda b=base, c=columns: update(sql, rows[id(b)], **c),
        ):
            with pytest.raises(psycopg.errors.CheckViolation) as refusal:
                write()
            assert refusal.value.diag.constraint_name == constraint, columns


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("iidq_queue_control", "pausedAt"),
        ("iidq_queue_control", "upkeepAt"),
        ("iidq_queue_worker", "startedAt"),
        ("iidq_queue_worker", "seenAt"),
        ("iidq_queue_worker", "aliveUntil"),
        ("iidq_idempotency_key", "expiresAt"),
        ("iidq_webhook_delivery", "createdAt"),
        ("iidq_webhook_delivery", "nextAt"),
        ("iidq_webhook_delivery", "deliveredAt"),
    ],
)
def test_other_tables_hold_finite_times(sql: Pg, table: str, column: str) -> None:
    """Infinite and out-of-range times are refused in the other tables."""
    sql.execute("INSERT INTO iidq_queue_worker VALUES ('w', 'h', 1, '0', 1, 0, true, now(), now(), now())")
    sql.execute("INSERT INTO iidq_idempotency_key VALUES ('s', 'k', '', gen_random_uuid(), now())")
    sql.execute("INSERT INTO iidq_webhook_delivery (\"jobId\", url) VALUES (gen_random_uuid(), 'https://a.example')")
    state = {"nextAt": "pending", "deliveredAt": "delivered"}.get(column, "waiting")
    sql.execute(
        """UPDATE iidq_webhook_delivery SET state = %(state)s, "nextAt" = CASE %(state)s WHEN 'pending' THEN now() END,
             "deliveredAt" = CASE %(state)s WHEN 'delivered' THEN now() END""",
        {"state": state},
    )
    for moment in ("infinity", "-infinity", "20000-01-01Z", "0001-01-01 BC"):
        with pytest.raises(psycopg.errors.CheckViolation, match=f"{table}_time_range"):
            sql.execute(SQL("UPDATE {} SET {} = %s").format(Identifier(table), Identifier(column)), [moment])


# A raising trigger of the operator


def rule(sql: Pg, condition: str, table: str = "VerificationJob") -> None:
    """Create a trigger to refuse rows under the condition."""
    sql.execute(
        "CREATE FUNCTION operators_rule() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {condition} THEN RAISE EXCEPTION 'not this one'; END IF;"
        " RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$".encode()
    )
    sql.execute(
        SQL(
            "CREATE TRIGGER operators_rule BEFORE INSERT OR UPDATE OR DELETE ON {}"
            " FOR EACH ROW EXECUTE FUNCTION operators_rule()"
        ).format(Identifier(table))
    )


async def succeed(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
    """Handler with a result at once."""
    return OK


ODD = "NEW.\"fileName\" = 'odd' AND "
RULES = {
    "claim": (QUEUED, ODD + "NEW.status = 'processing'"),
    "result": (QUEUED, ODD + "NEW.status = 'completed'"),
    "every outcome but the last resort": (
        QUEUED,
        ODD + "OLD.status = 'processing' AND (NEW.status <> 'failed' OR NEW.errors <> '[]')",
    ),
    "lost lease": (EXPIRED, ODD + "NEW.status = 'queued'"),
    "due retry": (DUE, ODD + "NEW.ready"),
}


@pytest.mark.parametrize("name", RULES)
async def test_a_refused_row_ends_alone(database_url: str, sql: Pg, name: str) -> None:
    """A job with a row refusing a step fails with the error; the others succeed at the first attempt."""
    base, condition = RULES[name]
    before, odd, after = (insert(sql, base, fileName=file) for file in ("a", "odd", "b"))
    rule(sql, condition)
    async with working(database_url, succeed):
        await eventually(lambda: statuses(sql) == {"completed": 2, "failed": 1})
    assert read(sql, odd)["error"].startswith(
        "database.row_refused: function operators_rule (SQLSTATE P0001) refuses the "
    )
    charged = 1 if base is EXPIRED else 0
    assert [read(sql, job)["retryCount"] for job in (before, after)] == [charged, charged]
    assert scalar(sql, "SELECT failed = 1 AND completed = 2 AND waiting + delayed + active = 0 FROM queue_health")


async def test_a_trigger_that_lacks_an_object_stops_its_own_row_alone(database_url: str, sql: Pg) -> None:
    """A trigger without its table delays one outcome and is named to operators; the other jobs complete."""
    insert(sql, copies=5, fileName="a")
    odd = insert(sql, fileName="odd")
    sql.execute(
        "CREATE FUNCTION is_audited() RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN EXISTS (SELECT FROM missing_audit); END $$"
    )
    rule(sql, ODD + "NEW.status = 'completed' AND is_audited()")
    async with working(database_url, succeed) as work:
        await eventually(lambda: statuses(sql) == {"completed": 5, "processing": 1})
        faults = work.loop._database.faults
        await eventually(lambda: any("42P01" in fault for fault in faults.for_operators()))
        sql.execute("CREATE TABLE missing_audit ()")
        await eventually(lambda: statuses(sql) == {"completed": 6})
        assert read(sql, odd)["retryCount"] == 0


@pytest.mark.parametrize("base", [QUEUED, EXPIRED, DUE])
async def test_a_row_that_refuses_every_change_is_passed_by(database_url: str, sql: Pg, base: dict[str, Any]) -> None:
    """A row refusing every change stays as it is, and the other jobs go on."""
    odd = insert(sql, base, fileName="odd", priority=5)
    insert(sql, base, copies=3)
    rule(sql, "TG_OP = 'UPDATE' AND OLD.\"fileName\" = 'odd'")
    async with working(database_url, succeed):
        await eventually(lambda: statuses(sql).get("completed") == 3)
        insert(sql)
        await eventually(lambda: statuses(sql).get("completed") == 4)
    assert read(sql, odd)["status"] == base.get("status", "queued")


async def test_a_rule_that_refuses_every_job_fails_none(database_url: str, sql: Pg) -> None:
    """A trigger refusing every claim fails no job; the jobs stay in line."""
    insert(sql, copies=3)
    rule(sql, "NEW.status = 'processing'")
    async with open_database(load_settings(database_url=database_url), pool_size=1) as database:
        with pytest.raises(RowRefused, match="operators_rule"):
            await row_faults.claim(database, worker_id="w", slots=3, lease_seconds=30)
    assert statuses(sql) == {"queued": 3}


async def test_renewals_and_progress_of_the_others(database_url: str, sql: Pg) -> None:
    """A running job with a row refusing lease and progress leaves the leases and progress of others unaffected."""
    good, odd = insert(sql), insert(sql, fileName="odd")
    rule(sql, ODD + "OLD.status = 'processing' AND NEW.status = 'processing'")
    ended = asyncio.Event()

    async def run(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        progress(30)
        await ended.wait()
        return OK

    async with working(database_url, run, job_lease_seconds=5) as work:
        await eventually(lambda: read(sql, good)["progress"] == 30)
        lease = read(sql, good)["leaseUntil"]
        await eventually(lambda: read(sql, good)["leaseUntil"] > lease)
        faults = work.loop._database.faults
        await eventually(lambda: any("function operators_rule" in fault for fault in faults.for_operators()))
        ended.set()
        await eventually(lambda: statuses(sql) == {"completed": 2})
    assert (read(sql, good)["attempt"], read(sql, odd)["progress"]) == (1, 100)


async def test_an_insert_that_is_refused_is_refused_alone(database_url: str, sql: Pg) -> None:
    """Of callers in one statement only the caller of the refused row gets an error, without the trigger's text."""
    rule(sql, "TG_OP = 'INSERT' AND NEW.\"fileName\" = 'odd'")
    known = load_settings(database_url=database_url)
    jobs = [new_job(file_name=name) for name in ("a", "odd", "b")]
    async with open_database(known, pool_size=2) as database, open_enqueuer(database, known) as enqueuer:
        first, odd, last = await asyncio.gather(*map(enqueuer.enqueue, jobs), return_exceptions=True)
    assert (first, last) == (jobs[0].id, jobs[2].id)
    assert isinstance(odd, RowRefused)
    assert "not this one" not in str(odd)


async def test_a_delivery_that_cannot_be_claimed_is_given_up_alone(database_url: str, sql: Pg) -> None:
    """A delivery with a refused claim is given up; the other deliveries reach their receiver."""
    known = load_settings(database_url=database_url, webhook_secret=SECRET, fetch_allow_private=LOOPBACK)
    async with receiving() as receiver, open_deliverer(known, job_shape):
        first, odd, last = (insert_with_callback(sql, receiver.url) for _ in range(3))
        rule(sql, f"NEW.\"jobId\" = '{odd}' AND NEW.attempts > 0", "iidq_webhook_delivery")
        for job in (odd, first, last):
            cancel(sql, job)
        await eventually(lambda: len(receiver.received) == 2)
        await eventually(lambda: delivery(sql, odd)["state"] == "gave_up")
    assert {told.event["data"]["id"] for told in receiver.received} == {str(first), str(last)}


@pytest.mark.parametrize("retention", [{"retention_completed_days": 0.5}, {"retention_completed_count": 0}])
async def test_a_row_that_cannot_be_removed_is_kept_alone(
    database_url: str, sql: Pg, retention: dict[str, Any]
) -> None:
    """A row with a refused delete is kept; retention removes the others."""
    old: dict[str, Any] = {
        "createdAt": Sql("now() - interval '2 days'"),
        "completedAt": Sql("now() - interval '2 days'"),
    }
    insert(sql, COMPLETED, copies=3, **old)
    odd = insert(sql, COMPLETED, fileName="odd", **old)
    rule(sql, "TG_OP = 'DELETE' AND OLD.\"fileName\" = 'odd'")
    known = load_settings(database_url=database_url, **retention)
    async with open_database(known, pool_size=1) as database:
        await Retention(known).purge(database)
    assert scalar(sql, 'SELECT array_agg(id) FROM "VerificationJob"') == [odd]


async def test_a_read_that_fails_fails_alone(database_url: str, sql: Pg) -> None:
    """An unreadable row fails its own reader and watcher only; the others get their jobs."""
    good = insert(sql, COMPLETED)
    with sql.transaction():
        sql.execute("SET LOCAL session_replication_role = replica")
        odd = insert(sql, COMPLETED, completedAt="infinity")
    known = load_settings(database_url=database_url)
    async with (
        open_database(known, pool_size=2) as database,
        open_watch_hub(known, database, asyncio.Event()) as hub,
        asyncio.timeout(30),
    ):
        reads = JobReads(database)
        found, fault = await asyncio.gather(reads.find(good), reads.find(odd), return_exceptions=True)
        assert isinstance(found, JobBody)
        assert isinstance(fault, psycopg.DataError)
        with hub.watch(odd) as broken, hub.watch(good) as watch:
            seen = await watch.next()
            assert seen is not None
            assert seen.id == good
            assert await broken.next() is None


@pytest.mark.parametrize(
    "document", ["1" * 5_000, "1" * 400 + ".5", "[" * 3_000 + "]" * 3_000, '{"a": -' + "9" * 4_301 + "}"]
)
def test_json_that_python_cannot_hold(document: str) -> None:
    """A document too large for Python's JSON is shown as unreadable, without failing the statement."""
    assert list(read_stored_json(document)) == ["unreadable"]


# Any row accepted by the table

_MOMENTS = st.sampled_from(
    ["now", "epoch", "0002-01-01Z", "0002-01-01 23:00+05", "9998-12-31 23:59:59.999999Z", "1969-12-31Z", "2100-01-01Z",
     "infinity", "-infinity", "10000-01-01Z", "0044-03-15 BC"]
)  # fmt: skip
_INTEGERS = st.sampled_from([0, 1, 99, 100, 999_999_999, 1_000_000_000, 2**31 - 1, -1]) | st.integers(0, 10**9)
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50) | st.sampled_from(
    ["", "x" * 1_000_000, "\u202e\ufffe\U0010ffff", "../\n\r\t", "ipfs://", "http://u:p@[::1", "a:b:c"]
)
_DOCUMENTS = st.sampled_from(
    ["{}", "[]", "null", "1", '"x"', '{"status": {"a": [1e400]}}', '{"verification": 7}', "1e1000", f"[{'9' * 5_000}]",
     "[" * 900 + "]" * 900, '{"status": "OK", "report": []}', '{"big": "' + "x" * 900_000 + '"}']
)  # fmt: skip
_FAULTS = st.sampled_from(
    ["[]", "[{}]", '[{"at": 1, "error": null, "attempt": "x"}]', '[{"at": "infinity", "error": [], "attempt": 1e999}]',
     '[{"at": "0001-01-01T00:00:00+14:00", "error": "x", "attempt": -1}]', "{}", "[1]",
     f'[{{"attempt": {"7" * 5_000}}}]', f"[{','.join(['{}'] * 20)}]"]
)  # fmt: skip
_COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("createdAt", "updatedAt", "runAt", "startedAt"), _MOMENTS),
    **dict.fromkeys(("attempt", "retryCount"), _INTEGERS),
    **dict.fromkeys(("manifestUri", "rpcUrl", "fileName", "error"), _TEXTS),
    "priority": st.integers(-(2**15), 2**15 - 1),
    "progress": st.integers(0, 100),
    "maxAttempts": st.integers(1, 100),
    "chainId": st.sampled_from([1, 2**53 + 1, 2**63 - 1]),
    "ready": st.booleans(),
    "hasCallback": st.booleans(),
    "traceContext": st.sampled_from(
        ["ff-" + "0" * 32 + "-" + "0" * 16 + "-ff", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"]
    ),
    "type": st.sampled_from(["verify", "proof"]),
    "result": _DOCUMENTS,
    "errors": _FAULTS,
}
_ENDED = {"completedAt": _MOMENTS}
_STATES: list[tuple[dict[str, Any], dict[str, st.SearchStrategy[Any]]]] = [
    (QUEUED, {}),
    (PROCESSING, {"workerId": _TEXTS, "leaseUntil": _MOMENTS}),
    (COMPLETED, _ENDED),
    (FAILED, _ENDED),
    (CANCELLED, _ENDED),
]


def rows_of(base: dict[str, Any], more: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of rows in one state, with any value in any column."""
    return st.fixed_dictionaries({}, optional=_COLUMNS | more).map(lambda drawn: {**base, **drawn})


_ROWS = st.one_of(*(rows_of(base, more) for base, more in _STATES))


def insert_odd(sql: Pg, row: dict[str, Any]) -> UUID | None:
    """Insert the row; return its id, or None for a row refused by the table."""
    values = [SQL(value.text) if isinstance(value, Sql) else Placeholder(name) for name, value in row.items()]
    statement = SQL('INSERT INTO "VerificationJob" ({}) VALUES ({}) RETURNING id').format(
        SQL(", ").join(map(Identifier, row)), SQL(", ").join(values)
    )
    given_values = {name: value for name, value in row.items() if not isinstance(value, Sql)}
    with suppress(psycopg.errors.CheckViolation):
        [(job_id,)] = sql.execute(statement, given_values).fetchall()
        return UUID(str(job_id))
    return None


async def take_through_life(database: Database, database_url: str, sql: Pg, odd: UUID, retries: bool) -> None:
    """Run a good job while the odd row exists, and read both in every way."""
    good = insert(sql)
    await upkeep.sweep(database, SIGNS)
    await show(database, odd, good)
    known = load_settings(database_url=database_url)
    async with open_watch_hub(known, database, asyncio.Event()) as hub, asyncio.timeout(30):
        with hub.watch(odd) as first, hub.watch(good) as second:
            assert None not in await asyncio.gather(first.next(), second.next())
    claim = await row_faults.claim(database, worker_id="w", slots=10, lease_seconds=30)
    assert good in [job.id for job in claim.jobs]
    fences = [(job.id, job.attempt) for job in claim.jobs]
    async with database.connection() as connection:
        assert await store.renew(connection, fences, worker_id="w", lease_seconds=30) == set(fences)
        progress = [(fence, 50) for fence in fences]
        assert await store.report_progress(connection, progress, worker_id="w") == set(fences)
    stored: list[Outcome] = []
    writer = OutcomeWriter(database, "w", lambda outcomes, _: stored.extend(outcomes))
    for job in claim.jobs:
        failing = retries and job.id == odd
        writer.put(Outcome.retried(job, "x: y", 0.0) if failing else Outcome.completed(job, OK))
    await writer.written()
    row = read(sql, good)
    assert (row["status"], row["attempt"], row["retryCount"], row["errors"]) == ("completed", 1, 0, [])
    await show(database, odd, good)
    counted = "SELECT waiting + delayed + active + completed + failed + cancelled FROM queue_health"
    assert scalar(sql, counted) == 2
    async with database.connection() as connection:
        assert await control.retry(connection, good)
        await control.retry(connection, odd)
        await control.cancel(connection, odd)
        assert await control.cancel(connection, good)
        await upkeep.purge(connection, completed_seconds=0.0, failed_seconds=0.0, batch=10)
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob" WHERE id = %s', good) == 0


async def show(database: Database, odd: UUID, good: UUID) -> None:
    """Read both jobs in every way; each reader gets both, or none with another state."""
    reads = JobReads(database)
    assert None not in await asyncio.gather(reads.find(odd), reads.find(good))
    async with database.connection() as connection:
        listings: list[dict[str, Any]] = [
            *({"status": status} for status in JobStatus),
            {"content_hash": CONTENT_HASH},
            {},
        ]
        for listing in listings:
            page = (await readers.list_jobs(connection, limit=10, **listing)).jobs
            for job in page:
                JobBody.of(job)
                assert Cursor.decode(Cursor.of(job).encode()).id == job.id
            assert "status" in listing or {job.id for job in page} == {odd, good}
        for state in (None, *JobState):
            browsed = await browse(connection, limit=1, state=state)
            if browsed.next is not None:
                await browse(connection, limit=1, state=state, after=Cursor.decode(browsed.next.encode()))
        await queue_health.read_health(connection)
        await read_live_overview(connection)
        await read_recent_overview(connection)
        await read_health(connection)
        for _, _, changed in await readers.find_changed(connection, {str(odd): "", str(good): ""}):
            assert changed is not None
            for mirrored in BullState:
                job_fields(changed, state=mirrored, backoff_ms=5_000)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=_ROWS, retries=st.booleans())
@example(row={**EXPIRED, "attempt": 10**9, "retryCount": 10**9, "errors": "[{}]"}, retries=False)
@example(row={**QUEUED, "attempt": 10**9, "retryCount": 10**9, "priority": -(2**15)}, retries=True)
@example(row={**PROCESSING, "startedAt": None, "leaseUntil": "9998-12-31Z", "workerId": ""}, retries=False)
@example(row={**COMPLETED, "result": "1e1000", "completedAt": "0002-01-01Z"}, retries=False)
def test_any_row_leaves_its_neighbour_alone(database_url: str, row: dict[str, Any], retries: bool) -> None:
    """A good job is claimed, done, listed, watched, counted, retried and purged next to any row accepted by the table.

    Every read of the odd row is answered, too.
    """

    async def live(sql: Pg, odd: UUID) -> None:
        async with open_database(load_settings(database_url=database_url), pool_size=4) as database:
            await take_through_life(database, database_url, sql, odd, retries)

    with psycopg.connect(database_url, autocommit=True) as sql:
        sql.execute('TRUNCATE "VerificationJob"')
        odd = insert_odd(sql, row)
        event("refused" if odd is None else "accepted")
        if odd is not None:
            asyncio.run(live(sql, odd))
