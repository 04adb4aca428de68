"""The commands in the documentation of the replaced system, as found in users' notes and scripts."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.cli.conftest import Playground
from tests.cli.sandbox import wait_until
from tests.cli.shell import curl
from tests.job_rows import scalar
from tests.redis_server import RedisServer

SUBMIT = """\
curl -X POST http://localhost:3001/api/verification-jobs/{kind} \\
  -F "file=@/path/to/file.jpg" \\
  -F "registryAddress=0x..." \\
  -F "manifestURI=ipfs://..."
"""
POLL = "curl http://localhost:3001/api/verification-jobs/1234567890"
LIST = "curl http://localhost:3001/api/verification-jobs"
LIST_BY_STATUS = "curl http://localhost:3001/api/verification-jobs?status=completed"
LIST_PAGE = "curl http://localhost:3001/api/verification-jobs?limit=20&offset=0"
STATS = "curl http://localhost:3001/api/verification-jobs/stats"
STATS_SILENTLY = "curl -s http://localhost:3001/api/verification-jobs/stats"
RECENT_JOBS = """\
SELECT
  id,
  type,
  status,
  progress,
  DATE_PART('second', NOW() - "createdAt") as age_seconds
FROM "VerificationJob"
ORDER BY "createdAt" DESC
LIMIT 10;
"""
FAILED_JOBS = """\
SELECT
  id,
  type,
  status,
  error,
  "retryCount",
  "createdAt"
FROM "VerificationJob"
WHERE status = 'failed'
ORDER BY "createdAt" DESC;
"""
# Typed into redis-cli.
MONITOR = "MONITOR"
LINE_LENGTH = "LLEN bull:verification:wait"
JOB_DETAILS = "HGETALL bull:verification:1234567890"
NO_REGISTRY = "0x000000000000000000000000000000000000dEaD"


def _pasted(playground: Playground, command: str, registry: str | None = None, job_id: str = "") -> Any:
    """Return the reply to ``command`` with real values in place of the documented values."""
    values = {
        "http://localhost:3001": playground.api,
        "/path/to/file.jpg": playground.file,
        "0x...": registry or playground.registry,
        "ipfs://...": playground.manifest,
        "1234567890": job_id,
    }
    for documented, real in values.items():
        command = command.replace(documented, real)
    return json.loads(curl(command))


def _ended(playground: Playground, job_id: str) -> dict[str, Any]:
    """Poll until the job ends; return the job."""
    job: dict[str, Any] = {}

    def polled_to_the_end() -> bool:
        job.update(_pasted(playground, POLL, job_id=job_id))
        return job["status"] in ("completed", "failed")

    wait_until(polled_to_the_end, "the job's end")
    return job


@pytest.mark.parametrize(
    ("kind", "message"),
    [("verify", "Verification job queued successfully"), ("proof", "Proof generation job queued successfully")],
)
def test_enqueue_and_poll(playground: Playground, kind: str, message: str) -> None:
    """Both submit commands queue a job, and the poll command shows the job until its result."""
    accepted = _pasted(playground, SUBMIT.format(kind=kind))
    job_id = accepted["jobId"]
    assert accepted == {
        "mode": "async",
        "jobId": job_id,
        "status": "queued",
        "message": message,
        "pollUrl": f"/api/verification-jobs/{job_id}",
    }
    job = _ended(playground, job_id)
    assert (job["id"], job["jobId"], job["type"]) == (job_id, job_id, kind)
    assert (job["status"], job["progress"], job["error"]) == ("completed", 100, None)
    assert job["manifestUri"] == playground.manifest
    if kind == "verify":
        assert job["result"]["status"] == "OK"
        assert job["result"]["fileHash"] == job["contentHash"]
        assert job["result"]["checks"] == {"manifestHashOk": True, "creatorOk": True, "manifestOk": True}
    else:
        assert job["result"]["verification"]["status"] == "OK"
        assert job["result"]["tx"]["txHash"].startswith("0x")


def test_lists_and_statistics(playground: Playground) -> None:
    """The list and statistics commands show the submitted jobs, even with the original's unquoted &."""
    job_id = _pasted(playground, SUBMIT.format(kind="verify"))["jobId"]
    _ended(playground, job_id)
    for command in (LIST, LIST_BY_STATUS, LIST_PAGE):
        listed = _pasted(playground, command)
        assert job_id in [job["jobId"] for job in listed["jobs"]]
        assert listed["count"] == len(listed["jobs"])
    assert {job["status"] for job in _pasted(playground, LIST_BY_STATUS)["jobs"]} == {"completed"}
    for command in (STATS, STATS_SILENTLY):
        stats = _pasted(playground, command)
        assert stats["available"] is True
        assert stats["completed"] >= 1
        assert {"waiting", "active", "failed"} <= stats.keys()


def test_monitoring_statements(playground: Playground) -> None:
    """Both SQL statements run as documented: the newest jobs, and the failed jobs with the cause."""
    job_id = _pasted(playground, SUBMIT.format(kind="verify"), registry=NO_REGISTRY)["jobId"]
    assert _ended(playground, job_id)["status"] == "failed"
    with psycopg.connect(playground.database_url) as connection:
        recent = connection.execute(RECENT_JOBS.encode())
        assert [column.name for column in recent.description or ()] == [
            "id",
            "type",
            "status",
            "progress",
            "age_seconds",
        ]
        assert 1 <= len(recent.fetchall()) <= 10
        failed = {str(row[0]): row for row in connection.execute(FAILED_JOBS.encode())}
    _, kind, status, error, retries, _ = failed[job_id]
    assert (kind, status, retries) == ("verify", "failed", 0)
    assert error.startswith("registry.")


@pytest.fixture
def redis_keys(playground: Playground) -> Iterator[RedisServer]:
    """Start a Redis, and a worker of the playground with ``REDIS_BULL_KEYS=on``."""
    with RedisServer() as server:
        worker = playground.sandbox.start(
            "worker",
            DATABASE_URL=playground.database_url,
            RPC_URL=playground.rpc_url,
            REDIS_URL=server.url,
            REDIS_BULL_KEYS="on",
            FETCH_ALLOW_PRIVATE="127.0.0.0/8",
        )
        worker.wait_until_says("bull_keys.kept")
        yield server
        worker.interrupt(whole_group=False)
        worker.wait()


def _typed(server: RedisServer, command: str) -> list[str]:
    """Return the lines printed by redis-cli for ``command``."""
    done = subprocess.run(
        server.cli(), input=f"{command}\n", capture_output=True, text=True, check=True, timeout=30, cwd="/"
    )
    return done.stdout.splitlines()


def test_redis_commands(playground: Playground, redis_keys: RedisServer) -> None:
    """In redis-cli LLEN gives the number of waiting jobs, HGETALL shows a job, and MONITOR shows the queue's work."""
    monitor = playground.sandbox.start_program(*redis_keys.cli(), MONITOR)
    monitor.wait_until_says("OK")
    with psycopg.connect(playground.database_url, autocommit=True) as connection:
        connection.execute(b"SELECT pause_queue('a test')")
        try:
            job_ids = [_pasted(playground, SUBMIT.format(kind="verify"))["jobId"] for _ in range(2)]
            wait_until(lambda: _typed(redis_keys, LINE_LENGTH) == ["2"], "two jobs in line")
        finally:
            connection.execute(b"SELECT resume_queue()")
    _ended(playground, job_ids[1])

    def details() -> dict[str, str]:
        lines = _typed(redis_keys, JOB_DETAILS.replace("1234567890", job_ids[1]))
        return dict(zip(lines[::2], lines[1::2], strict=True))

    wait_until(lambda: "finishedOn" in details(), "the job's end in Redis")
    job = details()
    with psycopg.connect(playground.database_url) as connection:
        attempts = scalar(connection, 'SELECT attempt FROM "VerificationJob" WHERE id = %s', job_ids[1])
    assert (job["name"], job["progress"], job["atm"]) == ("verify", "100", str(attempts))
    assert json.loads(job["data"])["manifestUri"] == playground.manifest
    assert json.loads(job["returnvalue"])["status"] == "OK"
    assert _typed(redis_keys, LINE_LENGTH) == ["0"]
    monitor.wait_until_says(f'"HSET" "bull:verification:{job_ids[1]}"')
    monitor.interrupt(whole_group=False)
    monitor.wait()
