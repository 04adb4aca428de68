"""``iidq jobs``, ``stats``, ``pause``, ``resume``: the queue seen and steered straight in the database."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import typer
from psycopg.errors import InsufficientPrivilege
from rich.console import Console
from rich.table import Table

from iidq.cli.terminal import printable
from iidq.database import Connection, open_database
from iidq.queue import store
from iidq.queue.identifiers import parse_job_id
from iidq.queue.job import JobStatus, JobType
from iidq.redaction import redact_url
from iidq.settings import load_settings
from iidq.web.wire import job_shape, stats_shape

T = TypeVar("T")

# The third one, 2 for what could not be found out, is that of an error of ours in iidq.cli.main.
DONE, NOT_POSSIBLE = 0, 1

# Fits a terminal of 80 columns with the id whole, to be pasted into the next command.
_LINE = "{:36}  {:6}  {:10}  {:>5}  {:>7}  {:>6}"
_UNITS = {"d": 86_400.0, "h": 3600.0, "min": 60.0, "s": 1.0}


def _in_database(work: Callable[[Connection], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_database(load_settings("database_url"), pool_size=1) as database:
            return await database.run(work)

    try:
        return asyncio.run(run())
    except InsufficientPrivilege:
        typer.echo("iidq: the role of DATABASE_URL may not do this; docs/sql.md has the GRANT lines", err=True)
        raise typer.Exit(NOT_POSSIBLE) from None


def list_jobs(*, status: JobStatus | None, kind: JobType | None, limit: int, as_json: bool) -> int:
    """Print the newest jobs."""
    jobs = _in_database(lambda connection: store.list_jobs(connection, status=status, type=kind, limit=limit))
    if as_json:
        print(json.dumps([job_shape(job) for job in jobs]))
        return DONE
    print(_LINE.format("id", "type", "status", "done", "retries", "age") if jobs else "no such jobs")
    now = datetime.now(UTC)
    for job in jobs:
        age = (now - job.created_at).total_seconds()
        print(_LINE.format(str(job.id), job.type, job.status, f"{job.progress} %", job.retry_count, _duration(age)))
        if job.error:
            print(f"    {printable(redact_url(job.error))}")
    return DONE


def _duration(seconds: float) -> str:
    unit, size = next((unit, size) for unit, size in _UNITS.items() if abs(seconds) >= size or unit == "s")
    return f"{seconds / size:.0f} {unit}"


def show_job(text: str, *, as_json: bool) -> int:
    """Print one job: what was asked, where it stands, what came of it."""
    job_id = parse_job_id(text)
    job = job_id and _in_database(lambda connection: store.find(connection, job_id))
    if not job:
        return _no_such_job(text)
    shape = job_shape(job)
    if as_json:
        print(json.dumps(shape))
        return DONE
    for name, value in shape.items():
        if value not in (None, []) and name != "jobId":
            shown = json.dumps(value, indent=2) if isinstance(value, dict | list) else str(value)
            first, *rest = map(printable, shown.split("\n"))
            print(f"{name:16} {first}", *(f"{'':16} {line}" for line in rest), sep="\n")
    return DONE


def retry_job(text: str) -> int:
    """Put a job that ended back in line."""
    return _steer(text, store.retry, "queued again", "has not ended, so it cannot be retried")


def cancel_job(text: str) -> int:
    """End a job that waits or runs."""
    return _steer(text, store.cancel, "cancelled", "has ended already, so it cannot be cancelled")


def _steer(text: str, step: Callable[[Connection, UUID], Awaitable[bool | None]], done: str, refusal: str) -> int:
    job_id = parse_job_id(text)
    outcome = _in_database(lambda connection: step(connection, job_id)) if job_id else None
    if outcome is None:
        return _no_such_job(text)
    print(f"{text}: {done}" if outcome else f"{text} {refusal}")
    return DONE if outcome else NOT_POSSIBLE


def _no_such_job(text: str) -> int:
    print(f"there is no job {printable(text)}")
    return NOT_POSSIBLE


def stats(*, as_json: bool) -> int:
    """Print how many jobs stand in each state, with ``as_json`` as HTTP clients get it."""
    counts = _in_database(store.count)
    if as_json:
        print(json.dumps(stats_shape(counts)))
        return DONE
    table = Table("state", box=None, pad_edge=False)
    table.add_column("jobs", justify="right")
    for name in ("waiting", "delayed", "active", "completed", "failed", "cancelled"):
        table.add_row(name, f"{getattr(counts, name):,}")
    console = Console(highlight=False)
    console.print(table)
    age = counts.oldest_waiting_seconds
    waits = "nothing waits" if age is None else f"the first in line has waited {_duration(age)}"
    reason = f" ({printable(counts.pause_reason)})" if counts.pause_reason else ""
    console.print(f"\n{counts.state}{reason}; {waits}; live workers: {counts.workers}", markup=False)
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
