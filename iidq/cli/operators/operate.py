"""``iidq jobs``, ``stats``, ``pause``, ``resume``: the queue seen and steered by an operator."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table

from iidq.cli.api_client import Body, NotFoundOut
from iidq.cli.operators.queue_access import NotAllowed, QueueAccess, open_queue
from iidq.cli.terminal import NOT_FOUND_OUT, complain, printable
from iidq.cli.verification.verdict_words import verdict_of
from iidq.observability.redaction import redact_url
from iidq.queue.job import JobStatus, JobType

DONE, NOT_POSSIBLE = 0, 1
# Pages that one list follows where a filter matches few of many jobs: 100,000 jobs, and a tenth of the rate limit.
_MOST_PAGES: Final = 20
# Between two questions to a service that is busy.
_PATIENCE_SECONDS = 30.0

# Fits a terminal of 80 columns with the id whole, to be pasted into the next command.
_LINE: Final = "{:36}  {:6}  {:10}  {:>5}  {:>7}  {:>6}"
_UNITS: Final = {"d": 86_400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
_STATES: Final = ("waiting", "delayed", "active", "completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Place:
    """Which queue: that of ``server``, or without one that of ``DATABASE_URL``, or of this machine's service."""

    server: str | None
    api_key: str | None

    def work(
        self, step: Callable[[QueueAccess], Awaitable[int]], *, patience_seconds: float = _PATIENCE_SECONDS
    ) -> int:
        """Do ``step`` there; 1 where it is not allowed, 2 where the queue gives no answer, each with one line."""

        async def run() -> int:
            async with open_queue(self.server, self.api_key, patience_seconds=patience_seconds) as queue:
                return await step(queue)

        try:
            return asyncio.run(run())
        except NotAllowed as refusal:
            complain(str(refusal))
            return NOT_POSSIBLE
        except NotFoundOut as fault:
            complain(str(fault))
            return NOT_FOUND_OUT


def list_jobs(
    place: Place,
    *,
    status: JobStatus | None,
    kind: JobType | None,
    content_hash: str | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> int:
    """Print the newest jobs, or those after ``cursor``."""

    async def step(queue: QueueAccess) -> int:
        jobs: list[Body] = []
        following = cursor
        for _ in range(_MOST_PAGES):
            page = await queue.list_jobs(
                status=status, kind=kind, content_hash=content_hash, limit=limit - len(jobs), cursor=following
            )
            jobs += page.jobs
            following = page.next
            if following is None or len(jobs) >= limit:
                break
        else:
            complain(f"the search ended before the list did; to go on, add --cursor {following}")
        if as_json:
            print(json.dumps(jobs))
            return DONE
        print(HEADER if jobs else "no such jobs")
        for job in jobs:
            print_job_line(job)
        return DONE

    return place.work(step)


HEADER: Final = _LINE.format("id", "type", "status", "done", "retries", "age")


def print_job_line(job: Body) -> None:
    """Print a job as a line, and its error as another."""
    done = verdict_of(job) or f"{job.get('progress')} %"
    age = duration((datetime.now(UTC) - datetime.fromisoformat(str(job["createdAt"]))).total_seconds())
    texts = (str(job.get(name)) for name in ("id", "type", "status"))
    print(_LINE.format(*map(printable, texts), printable(done), str(job.get("retryCount")), age))
    if job.get("error"):
        print(f"    {printable(redact_url(str(job['error'])))}")


def duration(seconds: float) -> str:
    """A time span in its largest unit, such as ``2 h``."""
    unit, size = next((unit, size) for unit, size in _UNITS.items() if abs(seconds) >= size or unit == "s")
    return f"{seconds / size:.0f} {unit}"


def show_job(place: Place, job_id: str, *, as_json: bool) -> int:
    """Print one job: what was asked, where it stands, what came of it."""

    async def step(queue: QueueAccess) -> int:
        job = await queue.find(job_id)
        if job is None:
            return no_such_job(job_id)
        if as_json:
            print(json.dumps(job))
            return DONE
        for name, value in job.items():
            if value not in (None, []) and name != "jobId":
                shown = json.dumps(value, indent=2) if isinstance(value, dict | list) else str(value)
                first, *rest = map(printable, shown.split("\n"))
                print(f"{printable(name):16} {first}", *(f"{'':16} {line}" for line in rest), sep="\n")
        return DONE

    return place.work(step)


def retry_jobs(place: Place, job_ids: Sequence[str]) -> int:
    """Put jobs that ended back in line."""
    return _steer(place, job_ids, lambda queue: queue.retry, "queued again", "has not ended, so it cannot be retried")


def cancel_jobs(place: Place, job_ids: Sequence[str]) -> int:
    """End jobs that wait or run."""
    return _steer(
        place, job_ids, lambda queue: queue.cancel, "cancelled", "has ended already, so it cannot be cancelled"
    )


def _steer(
    place: Place,
    job_ids: Sequence[str],
    choose: Callable[[QueueAccess], Callable[[str], Awaitable[bool | None]]],
    done: str,
    refusal: str,
) -> int:
    async def step(queue: QueueAccess) -> int:
        code = DONE
        for job_id in job_ids:
            outcome = await choose(queue)(job_id)
            if outcome:
                print(f"{job_id}: {done}")
            elif outcome is None:
                code = no_such_job(job_id)
            else:
                complain(f"{job_id} {refusal}")
                code = NOT_POSSIBLE
        return code

    return place.work(step)


def no_such_job(job_id: str) -> int:
    """Say so; returns the exit code."""
    complain(f"there is no job {job_id}")
    return NOT_POSSIBLE


def stats(place: Place, *, as_json: bool) -> int:
    """Print how many jobs stand in each state, with ``as_json`` as HTTP clients get it."""

    async def step(queue: QueueAccess) -> int:
        counts = await queue.counts()
        if as_json:
            print(json.dumps(counts))
        else:
            console = Console(highlight=False)
            console.print(counts_table(counts))
            console.print(f"\n{signs(counts)}", markup=False, soft_wrap=True)
        return DONE

    return place.work(step)


def counts_table(counts: Body) -> Table:
    """One line per state."""
    table = Table("state", box=None, pad_edge=False)
    table.add_column("jobs", justify="right")
    for name in _STATES:
        table.add_row(name, f"{counts.get(name) or 0:,}")
    return table


def signs(counts: Body) -> str:
    """Whether the queue moves, in a line."""
    age = counts.get("oldestWaitingSeconds")
    waits = "nothing waits" if age is None else f"the first in line has waited {duration(age)}"
    reason = f" ({printable(str(counts['pauseReason']))})" if counts.get("pauseReason") else ""
    return f"{printable(str(counts.get('state')))}{reason}; {waits}; live workers: {counts.get('workers')}"


def pause(place: Place, reason: str | None) -> int:
    """Stop all claims; running jobs go on."""

    async def step(queue: QueueAccess) -> int:
        await queue.pause(reason)
        print("paused: no job is claimed until `iidq resume`; running jobs go on")
        return DONE

    return place.work(step)


def resume(place: Place) -> int:
    """Let claims go on."""

    async def step(queue: QueueAccess) -> int:
        await queue.resume()
        print("resumed")
        return DONE

    return place.work(step)
