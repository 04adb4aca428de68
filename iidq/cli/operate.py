"""``iidq jobs``, ``stats``, ``pause``, ``resume``: the queue seen and steered straight in the database."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar
from uuid import UUID

from rich.console import Console
from rich.table import Table

from iidq.database import Connection, open_database
from iidq.queue import store
from iidq.queue.identifiers import parse_job_id
from iidq.queue.job import JobStatus, JobType
from iidq.settings import load_settings
from iidq.web.wire import job_shape

T = TypeVar("T")

DONE, NOT_POSSIBLE, NOT_FOUND_OUT = 0, 1, 2


def _in_database(work: Callable[[Connection], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_database(load_settings("database_url"), pool_size=1) as database:
            return await database.run(work)

    return asyncio.run(run())


def list_jobs(*, status: JobStatus | None, kind: JobType | None, limit: int, as_json: bool) -> int:
    """Print the newest jobs."""
    jobs = _in_database(lambda connection: store.list_jobs(connection, status=status, type=kind, limit=limit))
    if as_json:
        print(json.dumps([job_shape(job) for job in jobs]))
        return DONE
    table = Table("id", "type", "status", "progress", "retries", "created", "error")
    for job in jobs:
        created = job.created_at.isoformat(sep=" ", timespec="seconds")
        table.add_row(
            str(job.id), job.type, job.status, f"{job.progress} %", str(job.retry_count), created, job.error or ""
        )
    Console().print(table if jobs else "no such jobs")
    return DONE


def show_job(text: str) -> int:
    """Print one job as JSON."""
    job_id = _job_id(text)
    job = job_id and _in_database(lambda connection: store.find(connection, job_id))
    if not job:
        return _no_such_job(text)
    Console().print_json(data=job_shape(job))
    return DONE


def retry_job(text: str) -> int:
    """Put a job that ended back in line."""
    return _steer(text, store.retry, "queued again", "has not ended, so it cannot be retried")


def cancel_job(text: str) -> int:
    """End a job that waits or runs."""
    return _steer(text, store.cancel, "cancelled", "has ended already, so it cannot be cancelled")


def _steer(text: str, step: Callable[[Connection, UUID], Awaitable[bool | None]], done: str, refusal: str) -> int:
    job_id = _job_id(text)
    outcome = _in_database(lambda connection: step(connection, job_id)) if job_id else None
    if outcome is None:
        return _no_such_job(text)
    print(f"{text}: {done}" if outcome else f"{text} {refusal}")
    return DONE if outcome else NOT_POSSIBLE


def _job_id(text: str) -> UUID | None:
    return parse_job_id(text)


def _no_such_job(text: str) -> int:
    print(f"there is no job {text}")
    return NOT_POSSIBLE


def stats(*, as_json: bool) -> int:
    """Print how many jobs stand in each state."""
    counts: dict[str, Any] = asdict(_in_database(store.count))
    if as_json:
        print(json.dumps(counts))
        return DONE
    table = Table("state", "jobs")
    for name in ("waiting", "delayed", "active", "completed", "failed", "cancelled"):
        table.add_row(name, f"{counts[name]:,}")
    console = Console()
    console.print(table)
    age = counts["oldest_waiting_seconds"]
    console.print(
        f"{counts['workers']} live workers; " + ("nothing waits" if age is None else f"oldest waits {age:.0f} s")
    )
    return DONE


def pause(reason: str | None) -> int:
    """Stop all claims; running jobs go on."""
    _in_database(lambda connection: store.pause(connection, reason))
    print("paused: no job is claimed until `iidq resume`; running jobs go on")
    return DONE


def resume() -> int:
    """Let claims go on."""
    _in_database(store.resume)
    print("resumed")
    return DONE
