"""Operators' additions to the tables of iidq: rules for rows, rights, policies. The queue works, or reports why not."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from structlog.testing import capture_logs

from iidq.database.obstacles import find_obstacles
from iidq.database.pool import Database, open_database
from iidq.errors import DatabaseRefusal, RowRefused
from iidq.queue import control, row_faults, store, upkeep
from iidq.queue.enqueuer import open_enqueuer
from iidq.queue.job import ClaimedJob, JobStatus
from iidq.queue.outcome import Outcome
from iidq.queue.processing.execution import Progress
from iidq.queue.processing.writers import OutcomeWriter
from iidq.queue.read import queue_health, readers
from iidq.queue.store import WorkerSigns
from iidq.queue.upkeep import Retention
from iidq.settings import load_settings
from tests.conftest import ON_ONE_POSTGRES
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import COMPLETED, Sql, insert, new_job, read, scalar, statuses
from tests.operators_rules import apply, trigger
from tests.restricted_role import RestrictedRole, restricted_role

Pg = psycopg.Connection[Any]
OK = {"status": "OK"}
SIGNS = WorkerSigns("w", "host", 1, "0", 3, 0, True, 60.0)
TABLES = (
    "VerificationJob",
    "iidq_queue_count",
    "iidq_queue_control",
    "iidq_queue_worker",
    "iidq_idempotency_key",
    "iidq_webhook_delivery",
    "iidq_rate_count",
    "iidq_accelerator_key",
)


@pytest.fixture
def role(database_url: str) -> Iterator[RestrictedRole]:
    """A role with rights on all tables and without ownership."""
    with restricted_role(database_url) as role:
        yield role


async def succeed(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
    """Handler with a result at once."""
    return OK


def is_shown(sql: Pg, fault: str) -> bool:
    """Return whether a live worker shows the fault to operators."""
    shown = "SELECT EXISTS (SELECT FROM queue_workers, unnest(faults) AS each_one WHERE strpos(each_one, %s) > 0)"
    return bool(scalar(sql, shown, fault))


# A rule for one row

ODD = "NEW.\"fileName\" = 'odd' AND "
RESULT_RULES = {
    "constraint": (
        """ALTER TABLE "VerificationJob" ADD CONSTRAINT no_odd_result
           CHECK ("fileName" <> 'odd' OR status <> 'completed')""",
        "constraint no_odd_result (SQLSTATE 23514)",
    ),
    "unique index": (
        """INSERT INTO "VerificationJob" (type, status, ready, "contentHash", "manifestUri", "registryAddress",
             "fileName", result, "completedAt") SELECT 'verify', 'completed', false, '0x' || repeat('ab', 32), 'x',
             '0x' || repeat('ab', 20), 'odd', '{}', now();
           CREATE UNIQUE INDEX no_odd_result ON "VerificationJob" ("fileName")
           WHERE "fileName" = 'odd' AND status = 'completed'""",
        "constraint no_odd_result (SQLSTATE 23505)",
    ),
    "late foreign key": (
        """CREATE TABLE verdicts (status text PRIMARY KEY);
           ALTER TABLE "VerificationJob" ADD odd_result text GENERATED ALWAYS AS
             (CASE WHEN "fileName" = 'odd' THEN result ->> 'status' END) STORED,
             ADD CONSTRAINT no_odd_result FOREIGN KEY (odd_result) REFERENCES verdicts DEFERRABLE INITIALLY DEFERRED""",
        "constraint no_odd_result (SQLSTATE 23503)",
    ),
    "trigger": (
        trigger("RAISE 'secret %', NEW.id USING ERRCODE = 'AB123';", ODD + "NEW.status = 'completed'", "UPDATE"),
        "function operators_rule (SQLSTATE AB123)",
    ),
    "trigger that drops": (
        trigger("RETURN NULL;", ODD + "NEW.status = 'completed'", "UPDATE"),
        "a trigger that drops the row",
    ),
}


@pytest.mark.parametrize("kind", RESULT_RULES)
@ON_ONE_POSTGRES
async def test_a_result_that_a_rule_refuses_fails_its_job_alone(database_url: str, sql: Pg, kind: str) -> None:
    """A result refused by a rule fails its job with the rule's name; the others end at their first attempt."""
    rule, name = RESULT_RULES[kind]
    insert(sql, copies=4, fileName="good")
    odd = insert(sql, fileName="odd")
    insert(sql, copies=4, fileName="good")
    apply(sql, rule)
    before = statuses(sql).get("completed", 0)
    async with open_database(load_settings(database_url=database_url), pool_size=1) as database:
        claim = await row_faults.claim(database, worker_id="w", slots=9, lease_seconds=30)
        lost: set[Any] = set()
        writer = OutcomeWriter(database, "w", lambda _, gone: lost.update(gone))
        with capture_logs() as logged:
            for job in claim.jobs:
                writer.put(Outcome.completed(job, OK))
            await writer.written()
        assert lost == {(odd, 1)} if kind == "trigger that drops" else lost == set()
    assert read(sql, odd)["error"] == f"database.row_refused: {name} refuses the result"
    ended = 'SELECT count(*) FROM "VerificationJob" WHERE status = \'completed\' AND attempt = 1 AND "retryCount" = 0'
    assert statuses(sql) == {"completed": before + 8, "failed": 1}
    assert scalar(sql, ended) == 8
    [line] = [line for line in logged if line["event"] == "row.refused"]
    assert line["job_id"] == str(odd)
    assert name in line["error"]
    assert scalar(sql, "SELECT active = 0 AND failed = 1 FROM queue_health")


CODE = {
    "missing table": "PERFORM FROM missing_audit;",
    "lacking right": "PERFORM FROM secret_audit;",
    "conflict": "IF to_regclass('missing_audit') IS NULL THEN RAISE 'again' USING ERRCODE = '40001'; END IF;",
    "time-out": "IF to_regclass('missing_audit') IS NULL THEN RAISE 'again' USING ERRCODE = '57014'; END IF;",
}


@pytest.mark.parametrize("fault", CODE)
@ON_ONE_POSTGRES
async def test_code_of_the_operators_that_fails_for_one_row_stops_no_claim(
    role: RestrictedRole, sql: Pg, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator's code failing for one row leaves its job waiting, logged once by name; other jobs run at once."""
    monkeypatch.setattr(row_faults, "_REST_SECONDS", 1.0)
    sql.execute("CREATE TABLE secret_audit ()")
    odd = insert(sql, fileName="odd", priority=5)
    insert(sql, copies=5, fileName="good")
    apply(sql, trigger(CODE[fault], ODD + "NEW.status = 'processing'", "UPDATE"))
    with capture_logs() as logged:
        async with working(role.url, succeed, poll_interval_seconds=0.1) as work:
            await eventually(lambda: statuses(sql) == {"completed": 5, "queued": 1})
            faults = work.loop._database.faults
            await eventually(lambda: any("function operators_rule" in each for each in faults.for_operators()))
            await eventually(lambda: is_shown(sql, "function operators_rule in the database fails"))
            sql.execute("CREATE TABLE missing_audit ()")
            sql.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
            await eventually(lambda: statuses(sql) == {"completed": 6})
    row = read(sql, odd)
    assert (row["attempt"], row["retryCount"], row["errors"]) == (1, 0, [])
    assert len([line for line in logged if line["event"] == "row.refused" and line["job_id"] == str(odd)]) == 1


@pytest.mark.parametrize("state", ["40001", "40P01", "57014"])
@ON_ONE_POSTGRES
async def test_code_that_always_fails_as_if_it_would_pass_stops_no_other_outcome(
    database_url: str, sql: Pg, state: str
) -> None:
    """An operator's code with a lasting transient error delays one outcome, logged once by name; others are stored."""
    odd = insert(sql, fileName="odd", priority=5)
    insert(sql, copies=4, fileName="good")
    apply(sql, trigger(f"RAISE 'again' USING ERRCODE = '{state}';", ODD + "NEW.status <> 'processing'", "UPDATE"))
    async with open_database(load_settings(database_url=database_url), pool_size=1) as database:
        claim = await row_faults.claim(database, worker_id="w", slots=5, lease_seconds=30)
        lost: set[Any] = set()
        writer = OutcomeWriter(database, "w", lambda _, gone: lost.update(gone))
        with capture_logs() as logged:
            for job in claim.jobs:
                writer.put(Outcome.completed(job, OK))
            await eventually(lambda: statuses(sql) == {"completed": 4, "processing": 1})
            await eventually(lambda: len(database.faults.for_operators()) > 0)
            [fault] = database.faults.for_operators()
            assert f"function operators_rule in the database fails (SQLSTATE {state})" in fault
            sql.execute("DROP FUNCTION operators_rule() CASCADE")
            await writer.written()
        assert lost == set()
        assert read(sql, odd)["status"] == "completed"
    assert len([line for line in logged if line["event"] == "database.refuses"]) == 1


@ON_ONE_POSTGRES
async def test_a_rule_that_refuses_every_claim_is_told(database_url: str, sql: Pg) -> None:
    """A rule refusing every claim fails no job, is logged once and shown by name; claims go on after its removal."""
    insert(sql, copies=4)
    apply(sql, trigger("RAISE 'secret';", "NEW.status = 'processing'", "UPDATE"))
    with capture_logs() as logged:
        async with working(database_url, succeed, poll_interval_seconds=0.1) as work:
            await eventually(lambda: is_shown(sql, "database.row_refused: function operators_rule (SQLSTATE P0001)"))
            assert not any("secret" in fault for fault in work.loop._database.faults.for_operators())
            sql.execute("DROP FUNCTION operators_rule() CASCADE")
            await eventually(lambda: statuses(sql) == {"completed": 4})
            await eventually(lambda: work.loop._database.faults.for_operators() == [])
    assert len([line for line in logged if line["event"] == "database.refuses" and line["what"] == "claim"]) == 1
    assert scalar(sql, 'SELECT max(attempt) = 1 AND max("retryCount") = 0 FROM "VerificationJob"')


@ON_ONE_POSTGRES
async def test_a_row_that_refuses_even_its_end_is_told_once_and_left_out(database_url: str, sql: Pg) -> None:
    """A row refusing even its end is logged once per step and left out of claims."""
    odd = insert(sql, fileName="odd", priority=5)
    apply(sql, trigger("RAISE 'no';", "OLD.\"fileName\" = 'odd'", "UPDATE"))
    async with open_database(load_settings(database_url=database_url), pool_size=1) as database:
        with capture_logs() as logged:
            for _ in range(3):
                good = insert(sql)
                claim = await row_faults.claim(database, worker_id="w", slots=2, lease_seconds=30)
                assert [job.id for job in claim.jobs] == [good]
                await upkeep.sweep(database, SIGNS)
        assert database.faults.refused_rows("claim", 60) == [odd]
        fault = "database.row_refused: function operators_rule (SQLSTATE P0001)"
        assert database.faults.for_operators() == [fault]
        await upkeep.sweep(database, replace(SIGNS, faults=database.faults.for_operators()))
        assert is_shown(sql, fault)
    lines = [(line["what"], line["job_id"]) for line in logged if line["event"] == "row.refused"]
    assert lines == [("claim", str(odd)), ("end", str(odd))]


@pytest.mark.parametrize("when", ["ON DELETE RESTRICT", "DEFERRABLE INITIALLY DEFERRED"])
@ON_ONE_POSTGRES
async def test_retention_removes_all_but_what_a_foreign_key_holds(database_url: str, sql: Pg, when: str) -> None:
    """Retention removes all rows but those held by a foreign key; held rows are logged once, and removed once free."""
    old: dict[str, Any] = {
        "createdAt": Sql("now() - interval '2 days'"),
        "completedAt": Sql("now() - interval '2 days'"),
    }
    insert(sql, COMPLETED, copies=3, **old)
    held = insert(sql, COMPLETED, **old)
    insert(sql, COMPLETED, copies=3, **old)
    insert(sql, COMPLETED, copies=4)
    sql.execute(f'CREATE TABLE invoices (job uuid REFERENCES "VerificationJob" {when})'.encode())
    sql.execute("INSERT INTO invoices VALUES (%s)", [held])
    known = load_settings(database_url=database_url, retention_completed_days=1, retention_completed_count=3)
    async with open_database(known, pool_size=1) as database:
        retention = Retention(known)
        with capture_logs() as logged:
            for _ in range(6):
                await retention.purge(database)
        assert statuses(sql) == {"completed": 4}
        assert read(sql, held)["status"] == "completed"
        lines = [line for line in logged if line["event"] == "row.refused"]
        assert [(line["what"], line["job_id"]) for line in lines] == [("retention", str(held))]
        assert "invoices" in lines[0]["error"]
        assert "Key (" not in lines[0]["error"], "what Postgres tells of the row is in no log"
        sql.execute("DELETE FROM invoices")
    async with open_database(known, pool_size=1) as database:
        await Retention(known).purge(database)
    assert scalar(sql, "SELECT completed FROM queue_health") == 3


LATE_RULE = """CREATE TABLE {name}s (name text PRIMARY KEY);
    ALTER TABLE "VerificationJob" ADD {name} text GENERATED ALWAYS AS (CASE WHEN {condition} THEN 'odd' END) STORED,
      ADD CONSTRAINT no_odd_{name} FOREIGN KEY ({name}) REFERENCES {name}s DEFERRABLE INITIALLY DEFERRED"""
"""A rule for odd jobs under a condition, checked at the commit."""


def late_rule(name: str, condition: str) -> str:
    """Return the statements of the rule."""
    return LATE_RULE.format(name=name, condition=f"\"fileName\" = 'odd' AND {condition}")


@ON_ONE_POSTGRES
async def test_a_rule_that_refuses_at_the_commit_refuses_one_row(database_url: str, sql: Pg) -> None:
    """A rule checked at the commit refuses one row: in a submission, a batch, a claim and a due retry."""
    apply(sql, late_rule("start", "status = 'queued' AND ready"))
    known = load_settings(database_url=database_url)
    jobs = [new_job(file_name=name) for name in ("a", "odd", "b")]
    async with open_database(known, pool_size=2) as database:
        async with open_enqueuer(database, known) as enqueuer:
            first, odd, last = await asyncio.gather(*map(enqueuer.enqueue, jobs), return_exceptions=True)
            assert (first, last) == (jobs[0].id, jobs[2].id)
            assert isinstance(odd, RowRefused)
            with pytest.raises(RowRefused) as refused:
                await enqueuer.enqueue_batch(jobs[0].id, [new_job(file_name=name) for name in ("a", "odd", "b")], None)
            assert refused.value.item == 1
        due = insert(sql, ready=False, fileName="odd", runAt=Sql("now() - interval '1 second'"))
        await upkeep.sweep(database, SIGNS)
        refusal = "database.row_refused: constraint no_odd_start (SQLSTATE 23503) refuses the sweep"
        assert read(sql, due)["error"] == refusal
        sql.execute('ALTER TABLE "VerificationJob" DROP start')
        apply(sql, late_rule("claim", "status = 'processing'"))
        claimed = insert(sql, fileName="odd", priority=5)
        claim = await row_faults.claim(database, worker_id="w", slots=5, lease_seconds=30)
        assert {job.id for job in claim.jobs} == {jobs[0].id, jobs[2].id}
        assert read(sql, claimed)["status"] == "failed"


# Rights and policies

_NEEDED = {
    "VerificationJob": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "iidq_queue_count": ("SELECT", "INSERT", "DELETE"),
    "iidq_queue_control": ("SELECT", "UPDATE"),
    "iidq_queue_worker": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "iidq_idempotency_key": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "iidq_webhook_delivery": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "iidq_rate_count": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "iidq_accelerator_key": ("SELECT", "INSERT"),
    "queue_health": ("SELECT",),
    "queue_workers": ("SELECT",),
    "queue_throughput": ("SELECT",),
}


async def test_each_right_is_named_with_its_grant(role: RestrictedRole, sql: Pg) -> None:
    """Each right missing on tables, views, functions and the schema is named, with the grant as remedy."""
    async with open_database(load_settings(database_url=role.url), pool_size=1) as database:
        for table, privileges in _NEEDED.items():
            for privilege in privileges:
                role.revoke(privilege, table)
                [obstacle] = await database.run(find_obstacles)
                assert f"role {role.name} lacks {privilege} on " in obstacle
                sql.execute(obstacle.partition(": ")[2].encode())
        sql.execute(SQL("REVOKE USAGE ON SCHEMA public FROM {}").format(Identifier(role.name)))
        for change, back, name in (
            ("REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC", "GRANT EXECUTE ON FUNCTION {} TO PUBLIC", "iidq_claim_order"),
            ("REVOKE EXECUTE ON PROCEDURE {} FROM PUBLIC", "GRANT EXECUTE ON PROCEDURE {} TO PUBLIC", "iidq_enqueue"),
            ("REVOKE USAGE ON SCHEMA {} FROM PUBLIC", "GRANT USAGE ON SCHEMA {} TO PUBLIC", "public"),
        ):
            sql.execute(SQL(change).format(Identifier(name)))
            [obstacle] = await database.run(find_obstacles)
            assert f"role {role.name} lacks " in obstacle
            sql.execute(obstacle.partition(": ")[2].encode())
            assert await database.run(find_obstacles) == []
            sql.execute(SQL(back).format(Identifier(name)))


@pytest.mark.parametrize("table", TABLES)
async def test_row_level_security_without_a_policy_is_named(role: RestrictedRole, sql: Pg, table: str) -> None:
    """Row-level security without a policy is reported with table, role and remedy, and the remedy works."""
    sql.execute(SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(Identifier(table)))
    async with open_database(load_settings(database_url=role.url), pool_size=1) as database:
        [obstacle] = await database.run(find_obstacles)
        assert obstacle.startswith(
            f"row-level security of table {table} has no policy that lets role {role.name} SELECT"
        )
        sql.execute(obstacle.partition(": ")[2].encode())
        assert await database.run(find_obstacles) == []
        await core(database, role.url, sql)


async def test_policies_that_can_hide_rows_are_named(role: RestrictedRole, sql: Pg) -> None:
    """A policy able to hide rows is reported; a policy with a check of new rows only is not."""
    sql.execute('ALTER TABLE "VerificationJob" ENABLE ROW LEVEL SECURITY')
    sql.execute('CREATE POLICY mine ON "VerificationJob" USING ("fileName" = \'mine\')')
    async with open_database(load_settings(database_url=role.url), pool_size=1) as database:
        [obstacle] = await database.run(find_obstacles)
        assert obstacle.startswith(
            f"row-level security of table VerificationJob can hide rows from role {role.name} (policy"
        )
        sql.execute('ALTER POLICY mine ON "VerificationJob" USING (true) WITH CHECK ("fileName" <> \'odd\')')
        assert await database.run(find_obstacles) == []
        sql.execute('CREATE POLICY narrow ON "VerificationJob" AS RESTRICTIVE FOR SELECT USING ("fileName" <> \'odd\')')
        assert len(await database.run(find_obstacles)) == 1


async def test_forced_security_concerns_the_owner_and_its_functions(role: RestrictedRole, sql: Pg) -> None:
    """With FORCE ROW LEVEL SECURITY the owner's missing policy is reported: triggers run with the owner's rights."""
    owner = f"{role.name}_owner"
    sql.execute(SQL("CREATE ROLE {}").format(Identifier(owner)))
    try:
        for table in TABLES:
            sql.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(table), Identifier(owner)))
        for function in ("iidq_note_change", "iidq_follow_callback"):
            sql.execute(SQL("ALTER FUNCTION {} OWNER TO {}").format(Identifier(function), Identifier(owner)))
        sql.execute("ALTER TABLE iidq_queue_count ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        sql.execute(SQL("CREATE POLICY service ON iidq_queue_count TO {} USING (true)").format(Identifier(role.name)))
        async with open_database(load_settings(database_url=role.url), pool_size=1) as database:
            [obstacle] = await database.run(find_obstacles)
            assert f"no policy that lets role {owner} INSERT" in obstacle
            sql.execute(obstacle.partition(": ")[2].encode())
            assert await database.run(find_obstacles) == []
            await core(database, role.url, sql)
    finally:
        sql.execute(SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(Identifier(owner)))
        sql.execute(SQL("DROP OWNED BY {}").format(Identifier(owner)))
        sql.execute(SQL("DROP ROLE {}").format(Identifier(owner)))


@ON_ONE_POSTGRES
async def test_jobs_behind_row_level_security_are_told_by_the_worker(role: RestrictedRole, sql: Pg) -> None:
    """A worker with all jobs hidden by row-level security reports the fault, and works once a policy exists."""
    insert(sql)
    sql.execute('ALTER TABLE "VerificationJob" ENABLE ROW LEVEL SECURITY')
    known = load_settings(database_url=role.url)
    async with open_database(known, pool_size=2) as database, open_enqueuer(database, known) as enqueuer:
        with pytest.raises(DatabaseRefusal) as refused:
            await enqueuer.enqueue(new_job())
        assert refused.value.__notes__[0].startswith("row-level security of table VerificationJob has no policy")
    with capture_logs() as logged:
        async with working(role.url, succeed, poll_interval_seconds=0.1):
            await eventually(lambda: is_shown(sql, "row-level security of table VerificationJob"))
            sql.execute('CREATE POLICY service ON "VerificationJob" USING (true)')
            await eventually(lambda: statuses(sql) == {"completed": 1})
            await eventually(lambda: not is_shown(sql, "row-level security"))
    assert len([line for line in logged if line["event"] == "database.refuses"]) == 1


@ON_ONE_POSTGRES
async def test_a_policy_that_refuses_a_row_refuses_that_one(role: RestrictedRole, sql: Pg) -> None:
    """A row refused by a policy fails its own submission only."""
    sql.execute('ALTER TABLE "VerificationJob" ENABLE ROW LEVEL SECURITY')
    sql.execute('CREATE POLICY service ON "VerificationJob" USING (true) WITH CHECK ("fileName" <> \'odd\')')
    known = load_settings(database_url=role.url)
    jobs = [new_job(file_name=name) for name in ("a", "odd", "b")]
    async with open_database(known, pool_size=2) as database, open_enqueuer(database, known) as enqueuer:
        first, odd, last = await asyncio.gather(*map(enqueuer.enqueue, jobs), return_exceptions=True)
    assert (first, last) == (jobs[0].id, jobs[2].id)
    assert isinstance(odd, RowRefused)
    assert "policy" in odd.message


# The core of the queue in an operator's database


async def core(database: Database, url: str, sql: Pg) -> None:
    """Enqueue jobs (single, in a batch, by SQL), then claim, store, retry, cancel, list, count and remove the jobs."""
    known = load_settings(database_url=url)
    jobs = [new_job(file_name=name) for name in ("a", "b", "c")]
    async with open_enqueuer(database, known) as enqueuer:
        await asyncio.gather(*map(enqueuer.enqueue, jobs))
        await enqueuer.enqueue_batch(jobs[0].id, [new_job(), new_job()], None)
    insert(sql)
    await upkeep.sweep(database, SIGNS)
    claim = await row_faults.claim(database, worker_id="w", slots=10, lease_seconds=30)
    assert len(claim.jobs) == 6
    fences = [(job.id, job.attempt) for job in claim.jobs]
    async with database.connection() as connection:
        assert await store.renew(connection, fences, worker_id="w", lease_seconds=30) == set(fences)
        assert await store.report_progress(connection, [(fences[0], 50)], worker_id="w") == {fences[0]}
    lost: set[Any] = set()
    writer = OutcomeWriter(database, "w", lambda _, gone: lost.update(gone))
    for job in claim.jobs:
        writer.put(Outcome.completed(job, OK))
    await writer.written()
    assert lost == set()
    async with database.connection() as connection:
        assert await control.retry(connection, claim.jobs[0].id)
        assert await control.cancel(connection, claim.jobs[0].id)
        assert len((await readers.list_jobs(connection, limit=10, status=JobStatus.COMPLETED)).jobs) == 5
        counts = await queue_health.read_health(connection)
        assert (counts.completed, counts.cancelled, counts.waiting) == (5, 1, 0)
        assert (await upkeep.purge(connection, completed_seconds=0.0, failed_seconds=0.0, batch=10))[0] == 6


HARMLESS = {
    "foreign keys": """CREATE TABLE files (name text PRIMARY KEY); INSERT INTO files VALUES ('a'), ('b'), ('c');
        ALTER TABLE "VerificationJob" ADD FOREIGN KEY ("fileName") REFERENCES files;
        CREATE TABLE invoices (job uuid REFERENCES "VerificationJob" ON DELETE CASCADE)""",
    "unique index": 'CREATE UNIQUE INDEX ON "VerificationJob" ("fileName", "createdAt", id)',
    "triggers": "CREATE TABLE audit (status text);"  # noqa: S608
    + trigger("INSERT INTO audit VALUES (NEW.status);", "TG_OP <> 'DELETE'", "INSERT OR UPDATE OR DELETE"),
    "publication": "CREATE PUBLICATION everything FOR ALL TABLES",
    "columns": """ALTER TABLE "VerificationJob" ADD tenant text NOT NULL DEFAULT 'one', ADD note text,
        ADD CHECK (tenant <> ''), ADD CHECK (length("manifestUri") < 10000)""",
}


@pytest.mark.parametrize("kind", HARMLESS)
async def test_the_core_works_with_what_operators_add(database_url: str, sql: Pg, kind: str) -> None:
    """The core works with rules of operators that no row breaks, and reports no obstacle."""
    apply(sql, HARMLESS[kind])
    async with open_database(load_settings(database_url=database_url), pool_size=2) as database:
        assert await database.run(find_obstacles) == []
        await core(database, database_url, sql)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "policies"])
async def test_the_core_works_for_a_role_that_owns_nothing(role: RestrictedRole, sql: Pg, secured: bool) -> None:
    """The core works for a role without ownership, with the grants of docs/sql.md, also under row-level security."""
    for table in TABLES if secured else ():
        sql.execute(SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(Identifier(table)))
        sql.execute(SQL("CREATE POLICY iidq ON {} USING (true)").format(Identifier(table)))
    async with open_database(load_settings(database_url=role.url), pool_size=2) as database:
        assert await database.run(find_obstacles) == []
        await core(database, role.url, sql)
