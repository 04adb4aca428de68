"""The real BullMQ from npm reads the keys as a queue of BullMQ, and changes nothing by reading."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.job_rows import CANCELLED, COMPLETED, FAILED, MANIFEST_URI, PROCESSING, QUEUED, Sql, insert, scalar
from tests.redis.bull_view import QUEUE, agree, mirroring
from tests.redis_server import RedisServer

redis = pytest.importorskip("redis")
_SCRIPT = Path(__file__).with_name("read_with_bullmq.cjs")


@pytest.fixture(scope="module")
def node_path() -> str:
    """Return node's search path for BullMQ: the folder in ``BULLMQ``, or node's own."""
    if not shutil.which("node"):
        pytest.skip("no node: BullMQ itself was not asked")
    folder = os.environ.get("BULLMQ")
    found = str(Path(folder, "node_modules")) if folder else os.environ.get("NODE_PATH", "")
    asked = ["node", "-e", "require('ioredis'); require('bullmq')"]
    if subprocess.run(asked, env={**os.environ, "NODE_PATH": found}, capture_output=True, check=False).returncode:
        pytest.skip("no BullMQ: npm install bullmq@6 ioredis in a folder, and name it in BULLMQ")
    return found


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis for one test."""
    with RedisServer() as running:
        yield running


def read_with_bullmq(server: RedisServer, node_path: str) -> dict[str, Any]:
    """Return the script's output."""
    done = subprocess.run(
        ["node", str(_SCRIPT), server.url],
        env={**os.environ, "NODE_PATH": node_path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


async def test_bullmq_reads_the_queue(database_url: str, server: RedisServer, node_path: str) -> None:
    """BullMQ reads counts, jobs by state, order, fields of a job and the pause as in the rows."""
    with (
        redis.Redis(port=server.port, decode_responses=True) as client,
        psycopg.connect(database_url, autocommit=True) as sql,
    ):
        ids = _rows_of_every_kind(sql)
        sql.execute("SELECT pause_queue()")
        async with mirroring(database_url, server):
            await agree(client, sql)
        before = _dump(server)
        seen = read_with_bullmq(server, node_path)
        assert _dump(server) == before
        times = {
            job_id: scalar(
                sql,
                'SELECT round(extract(epoch FROM "createdAt") * 1000)::bigint FROM "VerificationJob" WHERE id = %s',
                job_id,
            )
            for job_id in ids.values()
        }
    names = {str(job_id): name for name, job_id in ids.items()}
    assert seen["counts"] == {
        "waiting": 3,
        "active": 1,
        "delayed": 1,
        "completed": 1,
        "failed": 1,
        "prioritized": 0,
        "waiting-children": 0,
    }
    by_state = {state: [names[job_id] for job_id in found] for state, found in seen["states"].items()}
    assert by_state == {
        # The next job is last.
        "waiting": ["third", "second", "first"],
        "active": ["active"],
        "delayed": ["delayed"],
        "completed": ["completed"],
        "failed": ["failed"],
    }
    assert [names[job_id] for job_id in seen["page"]] == ["third", "second"]
    assert seen["paused"] is True
    assert 'bullmq_job_count{queue="verification", state="waiting"} 3' in seen["metrics"]
    jobs = {names[job_id]: job for job_id, job in seen["jobs"].items()}
    assert {name: job["state"] for name, job in jobs.items()} == {
        **dict.fromkeys(("first", "second", "third"), "waiting"),
        **{state: state for state in ("active", "delayed", "completed", "failed")},
    }
    assert all(job["timestamp"] == times[ids[name]] for name, job in jobs.items())
    first = jobs["first"]
    assert (first["name"], first["progress"], first["attemptsMade"], first["attemptsStarted"]) == ("verify", 0, 0, 0)
    assert first["data"]["manifestUri"] == MANIFEST_URI
    assert first["opts"]["attempts"] == 3
    assert (jobs["active"]["progress"], jobs["active"]["attemptsStarted"]) == (30, 1)
    assert jobs["active"]["processedOn"] >= jobs["active"]["timestamp"]
    assert (jobs["completed"]["returnvalue"], jobs["completed"]["progress"]) == ({"status": "OK"}, 100)
    assert jobs["completed"]["finishedOn"] >= jobs["completed"]["timestamp"]
    assert (jobs["failed"]["failedReason"], jobs["failed"]["attemptsMade"]) == ("manifest.missing: 404", 1)
    assert jobs["delayed"]["delay"] == pytest.approx(3_600_000, abs=1)


def _rows_of_every_kind(sql: psycopg.Connection[Any]) -> dict[str, UUID]:
    insert(sql, CANCELLED)
    return {
        "first": insert(sql),
        "second": insert(sql),
        "third": insert(sql, type="proof"),
        "active": insert(sql, PROCESSING, progress=30),
        "delayed": insert(sql, QUEUED, runAt=Sql("now() + interval '1 hour'")),
        "completed": insert(sql, COMPLETED),
        "failed": insert(sql, FAILED),
    }


def _dump(server: RedisServer) -> dict[bytes, bytes]:
    """Return all keys but ``meta``, the only key written by BullMQ's ``Queue`` on opening."""
    with redis.Redis(port=server.port) as client:
        return {key: client.dump(key) for key in client.scan_iter(f"{QUEUE}:*") if not key.endswith(b":meta")}
