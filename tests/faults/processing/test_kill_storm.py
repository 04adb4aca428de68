"""Workers killed one after the other, and crashes of Postgres: every acknowledged job ends exactly once.

``IIDQ_CHAOS_JOBS=10000`` runs the test at full size.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.database.pool import open_database
from iidq.embedded.postgres import EmbeddedPostgres
from iidq.errors import DatabaseUnavailable
from iidq.process import die_with_parent
from iidq.queue.enqueuer import Enqueuer, open_enqueuer
from iidq.settings import load_settings
from tests.job_rows import new_job, scalar, statuses

JOBS = int(os.environ.get("IIDQ_CHAOS_JOBS", "600"))
ASKERS = 20
WORKERS = 4
BETWEEN_KILLS_SECONDS = 0.3
# Bound of acknowledged jobs without an end, so that submissions go on through all kills and crashes.
LINE = 400
# Generous: workers that live for a second do little on a busy machine.
DEADLINE_SECONDS = 150 + JOBS / 50


class Nursery:
    """Starts and kills workers, and keeps their logs."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._living: list[int] = []
        self._born = 0
        self.killed = 0

    def start(self) -> None:
        """Start one more worker."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._folder / f'{self._born:05}.log'}\n")
        self._process.stdin.flush()
        self._born += 1
        self._living.append(int(self._process.stdout.readline()))

    def kill_the_oldest(self) -> None:
        """Kill the oldest worker with SIGKILL. Raise ``ProcessLookupError`` for a worker ended by itself, a fault."""
        os.kill(self._living.pop(0), signal.SIGKILL)
        self.killed += 1

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events of all logs in the order of starts, without lines cut off by a kill."""
        for log in sorted(self._folder.iterdir()):
            for line in log.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)


@pytest.fixture
def nursery(own_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[Nursery]:
    """A nursery of workers on a server of its own."""
    logs = tmp_path / "logs"
    logs.mkdir()
    environment = {
        "DATABASE_URL": own_server.url,
        "WORKER_CONCURRENCY": "10",
        "JOB_LEASE_SECONDS": "1",
        "POLL_INTERVAL_SECONDS": "0.5",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.worker_nursery"],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        preexec_fn=die_with_parent(signal.SIGKILL),
    ) as process:
        yield Nursery(process, logs)
        process.kill()


class Ends:
    """The number of ended jobs, read repeatedly, also through outages of the database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._changed = asyncio.Event()
        self.count = 0

    async def watch(self) -> None:
        """Read the number until cancelled."""
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
                    while True:
                        row = await (await connection.execute("SELECT count(*) FROM ending")).fetchone()
                        assert row is not None
                        self.count = row[0]
                        self._changed.set()
                        self._changed.clear()
                        await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)

    async def reach(self, count: int) -> None:
        """Return once ``count`` jobs have ended."""
        while self.count < count:
            await self._changed.wait()


async def ask(enqueuer: Enqueuer, ends: Ends, acknowledged: set[UUID], count: int) -> None:
    """Submit ``count`` jobs, each until acknowledged."""
    for _ in range(count):
        job = new_job()
        await ends.reach(len(acknowledged) - LINE)
        while job.id not in acknowledged:
            try:
                acknowledged.add(await enqueuer.enqueue(job))
            except DatabaseUnavailable:
                # The job may be stored already; the repetition does not double it.
                await asyncio.sleep(0.05)


async def kill_one_after_the_other(nursery: Nursery) -> None:
    """Kill and start workers until cancelled."""
    while True:
        await asyncio.sleep(BETWEEN_KILLS_SECONDS)
        nursery.kill_the_oldest()
        nursery.start()


async def test_every_acknowledged_job_ends_exactly_once(own_server: EmbeddedPostgres, nursery: Nursery) -> None:
    """No job is lost or ends twice while a worker is killed every 300 ms and Postgres crashes twice."""
    settings = load_settings(database_url=own_server.url, max_retry_attempts=100)
    acknowledged: set[UUID] = set()
    ends = Ends(own_server.url)
    for _ in range(WORKERS):
        nursery.start()
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        open_database(settings, pool_size=2) as database,
        open_enqueuer(database, settings) as enqueuer,
        asyncio.TaskGroup() as world,
    ):
        beside = [world.create_task(ends.watch()), world.create_task(kill_one_after_the_other(nursery))]
        askers = [world.create_task(ask(enqueuer, ends, acknowledged, JOBS // ASKERS)) for _ in range(ASKERS)]
        for part in (1, 2):
            await ends.reach(JOBS * part // 3)
            await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
            # In this thread: a server ends with its starting thread.
            own_server.start()
        await asyncio.wait(askers)
        await ends.reach(JOBS)
        for task in beside:
            task.cancel()

    with psycopg.connect(own_server.url, autocommit=True) as sql:
        assert statuses(sql) == {"completed": JOBS}
        assert acknowledged == {row[0] for row in sql.execute('SELECT id FROM "VerificationJob"')}
        assert scalar(sql, "SELECT count(*) FROM ending") == JOBS
        assert scalar(sql, "SELECT count(DISTINCT job_id) FROM ending") == JOBS
        health = "SELECT waiting + delayed + active + failed + cancelled, completed FROM queue_health"
        assert sql.execute(health.encode()).fetchone() == (0, JOBS)
        explain_every_recovery(sql, nursery)


def explain_every_recovery(sql: psycopg.Connection[Any], nursery: Nursery) -> None:
    """Assert that each lost attempt is in its row, and at least 80 % are in a log."""
    rows = sql.execute('SELECT id::text, "retryCount", attempt, errors FROM "VerificationJob"').fetchall()
    lost = {(job_id, entry["attempt"]) for job_id, _, _, errors in rows for entry in errors}
    for _, retry_count, attempt, errors in rows:
        assert min(retry_count, 20) == len(errors)
        assert attempt > retry_count
        assert {entry["error"].split(":")[0] for entry in errors} <= {"attempt.lost"}
    events = list(nursery.events())
    names = [event["event"] for event in events]
    told = {(event["job_id"], event["attempt"]) for event in events if event["event"] == "lease.expired"}
    given_back = sum(attempt - retry_count - 1 for _, retry_count, attempt, _ in rows)
    print(
        f"{JOBS} jobs, {nursery.killed} workers killed: {len(lost)} attempts lost ({len(lost - told)} of them untold),"
        f" {given_back} given back uncharged; database.lost {names.count('database.lost')},"
        f" listener.down {names.count('listener.down')}"
    )
    assert nursery.killed > 5
    assert lost
    assert len(lost & told) >= 0.8 * len(lost)
    assert {"database.lost", "listener.down", "listener.up"} <= set(names)
    assert not {"attempt.crashed", "attempt.failed"} & set(names)
