"""A queue in another database: its rows, the programs for the move, and the check of the moved queue."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from iidq.cli.operators.diagnosis import diagnose
from iidq.cli.operators.findings import Level
from iidq.database.connections import connect
from iidq.database.migrate import migrate
from iidq.queue import store
from iidq.queue.job import JobStatus
from iidq.queue.outcome import Outcome
from iidq.queue.read import queue_health, readers
from iidq.settings import Settings, load_settings
from tests.conftest import postgres_binaries
from tests.database.attempts import claim, finish, sweep
from tests.job_rows import CANCELLED, COMPLETED, FAILED, PROCESSING, Sql, insert, new_job, scalar

NEWEST = "embedded"
OLDER = [kind for kind in postgres_binaries() if kind != NEWEST]
# With only one version of Postgres installed, dumps move to the same version.
BOTH_WAYS = [pair for older in OLDER for pair in ((NEWEST, older), (older, NEWEST))] or [(NEWEST, NEWEST)]
# Long enough to be compressed, as a proof is.
LONG_RESULT = {"status": "OK", "report": "ab" * 2000}
HEALTH = "SELECT waiting, delayed, active, completed, failed, cancelled FROM queue_health"
MOVED = (2, 1, 1, 4, 1, 1)


def fill(url: str) -> None:
    """Insert jobs of each state, and pause the queue."""
    with psycopg.connect(url, autocommit=True) as sql:
        insert(sql, COMPLETED, copies=3)
        insert(sql, COMPLETED, result=Jsonb(LONG_RESULT))
        insert(sql, FAILED)
        insert(sql, CANCELLED)
        insert(sql, PROCESSING)
        insert(sql, copies=2)
        insert(sql, ready=False, runAt=Sql("now() + interval '1 hour'"))
        sql.execute("SELECT pause_queue('moving')")


def run(command: str, folder: Path, *, kind: str = NEWEST, **environment: str) -> None:
    """Run a command of the documentation in ``folder`` with the programs of one version; raise on failure."""
    programs = postgres_binaries()[kind]
    libraries = {"LD_LIBRARY_PATH": str(programs.parent / "lib")} if kind == NEWEST else {}
    done = subprocess.run(
        ["sh", "-e", "-c", command.replace("iidq migrate", "python -m iidq migrate")],
        cwd=folder,
        env={"PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}", **libraries, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr


async def works(url: str, moved: tuple[int, ...] = MOVED) -> None:
    """Check the counts, the migrations, the findings of doctor, and a job's whole life."""
    assert migrate(url) == []
    with psycopg.connect(url, autocommit=True) as sql:
        assert sql.execute(HEALTH).fetchone() == moved
        assert scalar(sql, "SELECT pause_reason FROM queue_health") == "moving"
        sql.execute("SELECT resume_queue()")
        assert await _complaints(url) == []
        async with await connect(load_settings(database_url=url)) as connection:
            await sweep(connection)
            insert(sql)
            await store.enqueue(connection, [new_job()], max_attempts=3)
            ok, again, *others = await claim(connection)
            assert len(others) == moved[0]
            await finish(
                connection,
                Outcome.completed(ok, LONG_RESULT),
                Outcome(again.id, again.attempt, JobStatus.QUEUED, failure="rpc.unavailable: away", delay_seconds=0.0),
            )
            assert scalar(sql, "SELECT retry_job(%s)", ok.id)
            assert scalar(sql, "SELECT cancel_job(%s)", ok.id)
            page = await readers.list_jobs(connection, limit=50)
            assert len(page.jobs) == sum(moved) + 2
            assert {job.id.version for job in page.jobs} == {7}
            counts = await queue_health.read_health(connection)
            waiting, _, active, completed, failed, cancelled = moved
            assert (counts.waiting, counts.active) == (1, active + waiting)
            assert (counts.completed, counts.failed, counts.cancelled) == (completed, failed, cancelled + 1)
            await store.leave(connection, "a:1:0")
            assert await _complaints(url) == []


async def _complaints(url: str) -> list[Any]:
    settings = Settings(
        _env_file=None, database_url=url, rpc_url=None, redis_url=None, ipfs_gateways=("http://127.0.0.1:9",)
    )
    looked_at = ("database", "migrations", "LISTEN", "rights", "queue")
    findings = await diagnose(settings)
    return [finding for finding in findings if finding.check in looked_at and finding.level is not Level.OK]
