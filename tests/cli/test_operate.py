"""The operators' commands, against a real database."""

import json
import os
import subprocess
import sys
from typing import Any

import psycopg
import pytest

from iidq.queue.identifiers import new_job_id
from tests.job_rows import insert, read

FAILED: dict[str, Any] = {"status": "failed", "error": "rpc.unavailable: no", "completedAt": "2024-01-01T00:00:00Z"}


@pytest.fixture
def sql(database_url: str) -> Any:
    """The database behind the commands."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def iidq(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``iidq`` as an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "iidq", *arguments],
        env=os.environ | {"DATABASE_URL": database_url, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_jobs_are_listed_and_shown(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """The list can be filtered and read by scripts; one job is shown as HTTP clients see it."""
    waiting, failed = insert(sql), insert(sql, **FAILED)
    listed = json.loads(iidq(database_url, "jobs", "list", "--json").stdout)
    assert {job["id"] for job in listed} == {str(waiting), str(failed)}
    table = iidq(database_url, "jobs", "list", "--status", "failed").stdout
    assert str(failed) in table
    assert str(waiting) not in table
    assert json.loads(iidq(database_url, "jobs", "show", str(failed)).stdout)["error"] == "rpc.unavailable: no"


def test_jobs_are_retried_and_cancelled(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Exit code 0 when done, 1 with the reason when the state does not allow it or the job is unknown."""
    job_id = insert(sql, **FAILED)
    assert iidq(database_url, "jobs", "retry", str(job_id)).returncode == 0
    assert read(sql, job_id)["status"] == "queued"
    refused = iidq(database_url, "jobs", "retry", str(job_id))
    assert (refused.returncode, "has not ended" in refused.stdout) == (1, True)
    assert iidq(database_url, "jobs", "cancel", str(job_id)).returncode == 0
    assert read(sql, job_id)["status"] == "cancelled"
    for unknown in (str(new_job_id()), "7"):
        assert iidq(database_url, "jobs", "cancel", unknown).returncode == 1


def test_the_queue_is_counted_paused_and_resumed(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """`stats` tells the counts, `pause` keeps its reason, `resume` ends it."""
    insert(sql, copies=3)
    assert json.loads(iidq(database_url, "stats", "--json").stdout)["waiting"] == 3
    assert iidq(database_url, "pause", "maintenance").returncode == 0
    assert sql.execute("SELECT state, pause_reason FROM queue_health").fetchone() == ("paused", "maintenance")
    assert iidq(database_url, "resume").returncode == 0
    assert sql.execute("SELECT state FROM queue_health").fetchone() == ("no workers",)


def test_what_cannot_be_found_out_is_exit_code_2(database_url: str) -> None:
    """A database that is away, or an option that does not exist, gives one line and exit code 2."""
    away = iidq("postgresql://nobody@127.0.0.1:1/none", "stats")
    assert (away.returncode, len(away.stderr.strip().splitlines())) == (2, 1)
    assert iidq(database_url, "jobs", "list", "--status", "done").returncode == 2
