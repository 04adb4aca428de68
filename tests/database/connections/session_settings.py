"""Settings of a role or database without influence on iidq, and a run through the queue's core."""

from datetime import timedelta
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from iidq.database.connections import Connection
from iidq.database.pool import open_database
from iidq.queue import control, store, upkeep
from iidq.queue.job import Job, JobStatus, NewJob
from iidq.queue.outcome import Outcome
from iidq.queue.read import browsing, queue_health, readers
from iidq.settings import load_settings
from iidq.webhooks import delivery_store as deliveries
from tests.database.attempts import claim, fence, finish, renew, report, sweep
from tests.job_rows import new_job

HOSTILE: dict[str, tuple[str, ...]] = {
    "DateStyle": ("German", "SQL, DMY", "Postgres, YMD"),
    "IntervalStyle": ("sql_standard", "iso_8601", "postgres_verbose"),
    "TimeZone": ("Asia/Kathmandu", "Pacific/Kiritimati", "UTC+11"),
    "client_encoding": ("LATIN1", "SQL_ASCII"),
    "extra_float_digits": ("-15", "0"),
    "bytea_output": ("escape",),
    "standard_conforming_strings": ("off",),
    "search_path": ("", "pg_catalog", "elsewhere"),
    "default_transaction_isolation": ("serializable", "repeatable read"),
    "default_transaction_deferrable": ("on",),
    "statement_timeout": ("1s",),
    "lock_timeout": ("1s",),
    "idle_in_transaction_session_timeout": ("1s",),
    "idle_session_timeout": ("1s",),
    "transaction_timeout": ("1s",),
    "plan_cache_mode": ("force_generic_plan", "force_custom_plan"),
    "client_min_messages": ("error",),
    "synchronous_commit": ("off",),
    "row_security": ("off",),
    "escape_string_warning": ("off",),
    "quote_all_identifiers": ("on",),
    "lc_messages": ("C",),
    "enable_indexscan": ("off",),
    "enable_nestloop": ("off",),
    "array_nulls": ("off",),
}
_SEEN = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "client_encoding": "UTF8",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "transaction_isolation": "read committed",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "plan_cache_mode": "auto",
    "client_min_messages": "notice",
}
_TEXT = "Grüße – 音"


def impose(sql: psycopg.Connection[Any], settings: dict[str, str], *, role: bool = False) -> None:
    """Set exactly these settings on the database of ``sql``, or on its role there, for new connections."""
    database = Identifier(sql.info.dbname)
    whom = SQL("ROLE CURRENT_USER IN DATABASE {}").format(database) if role else SQL("DATABASE {}").format(database)
    sql.execute(SQL("ALTER DATABASE {} RESET ALL").format(database))
    sql.execute(SQL("ALTER ROLE CURRENT_USER IN DATABASE {} RESET ALL").format(database))
    for name, value in settings.items():
        if name != "transaction_timeout" or sql.info.server_version >= 170_000:
            sql.execute(SQL("ALTER {} SET {} = {}").format(whom, Identifier(name), Literal(value)))


async def _settings_seen(connection: Connection) -> dict[str, str]:
    cursor = await connection.execute(
        "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name WHERE current_setting(name, true) <> ''",
        [list(_SEEN)],
    )
    return dict(await cursor.fetchall())


async def run_core(database_url: str, **overrides: Any) -> None:
    """Take jobs through all steps of the queue; raise AssertionError on a wrong result."""
    settings = load_settings(database_url=database_url, **overrides)
    async with open_database(settings, pool_size=2, statement_timeout_seconds=9) as database:
        seen = await database.run(_settings_seen)
        assert seen == {name: value for name, value in _SEEN.items() if name in seen}

        good, bad, shaky = new_job(file_name=_TEXT), new_job(callback_url="https://a.example/h?k=1"), new_job()
        await database.run(lambda c: store.enqueue(c, [good, bad, shaky], max_attempts=3))
        taken = {job.id: job for job in await database.run(claim)}
        assert taken.keys() == {good.id, bad.id, shaky.id}
        assert taken[good.id].subject.file_name == _TEXT
        held = [fence(job) for job in taken.values()]
        assert await database.run(lambda c: renew(c, *held)) == set(held)
        assert await database.run(lambda c: report(c, (held[0], 50))) == {held[0]}
        outcomes = (
            Outcome.completed(taken[good.id], {"status": "OK", "text": _TEXT, "number": 0.1}),
            Outcome.failed(taken[bad.id], f"manifest.missing: {_TEXT}\\"),
            Outcome.retried(taken[shaky.id], "gateway.unavailable: 503", 0.0),
        )
        assert await database.run(lambda c: finish(c, *outcomes)) == set(held)
        await database.run(sweep)

        async def find(job: NewJob) -> Job:
            found = await database.run(lambda c: readers.find(c, job.id))
            assert found is not None
            return found

        done, failed, again = [await find(job) for job in (good, bad, shaky)]
        callback = failed.callback or {}
        assert done.completed_at is not None
        assert (done.status, done.result, done.subject.file_name) == (
            JobStatus.COMPLETED,
            {"status": "OK", "text": _TEXT, "number": 0.1},
            _TEXT,
        )
        assert (failed.status, failed.error, callback["state"]) == (
            JobStatus.FAILED,
            f"manifest.missing: {_TEXT}\\",
            "pending",
        )
        assert callback["url"] == "https://a.example/h?***"
        assert (again.status, again.retry_count) == (JobStatus.QUEUED, 1)
        assert done.completed_at.utcoffset() == timedelta(0)
        listed = await database.run(lambda c: readers.list_jobs(c, limit=3))
        assert {job.id for job in listed.jobs} == {good.id, bad.id, shaky.id}
        assert (await database.run(queue_health.read_health)).completed >= 1
        changed = await database.run(lambda c: readers.find_changed(c, {str(good.id): ""}))
        assert [job.id for _, _, job in changed if job is not None] == [good.id]
        await database.run(queue_health.read_live_overview)
        await database.run(queue_health.read_recent_overview)
        assert await database.run(lambda c: browsing.browse(c, limit=3))

        claimed = await database.run(lambda c: deliveries.claim(c, slots=5, per_host=5, running={}, lease_seconds=30))
        assert [delivery.job_id for delivery in claimed] == [bad.id]
        await database.run(lambda c: control.pause(c, _TEXT))
        assert await database.run(claim) == []
        await database.run(control.resume)
        assert await database.run(lambda c: control.retry(c, bad.id)) is True
        for job in (bad, shaky):
            assert await database.run(lambda c, i=job.id: control.cancel(c, i)) is True  # type: ignore[misc]
        await database.run(lambda c: upkeep.purge(c, completed_seconds=0.0, failed_seconds=0.0, batch=100))
