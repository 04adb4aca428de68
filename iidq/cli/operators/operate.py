"""``iidq jobs``, ``stats``, ``pause``, ``resume``: an operator reads and controls the queue."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table

from iidq.cli.api_client import Body, NoAnswer
from iidq.cli.operators.queue_access import JobFilter, NotAllowed, QueueAccess, open_queue
from iidq.cli.terminal import complain, printable
from iidq.cli.verification.verdict_words import NO_VERDICT, verdict_of
from iidq.observability.redaction import redact_url

DONE, NOT_POSSIBLE = 0, 1
# Pages that one list reads if its filter matches few jobs: 100,000 jobs, and a tenth of the rate limit.
_MOST_PAGES: Final = 20
_REPLY_SECONDS = 30.0

# Fits a terminal of 80 columns with the whole id, to be pasted into the next command.
_LINE: Final = "{:36}  {:6}  {:10}  {:>5}  {:>7}  {:>6}"
_HEADER: Final = _LINE.format("id", "type", "status", "done", "retries", "age")
_UNITS: Final = {"d": 86_400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
_STATES: Final = ("waiting", "delayed", "active", "completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Target:
    """The queue of a command."""

    server: str | None
    """URL of a service; None for the queue of ``DATABASE_URL``, without one for this machine's service."""
    api_key: str | None
    """The service's key; None for a service without one."""

    def work(self, step: Callable[[QueueAccess], Awaitable[int]], *, timeout_seconds: float = _REPLY_SECONDS) -> int:
        """Run ``step`` and return the exit code; 1 if ``step`` is not allowed, 2 if the queue does not answer."""

        async def run() -> int:
            async with open_queue(self.server, self.api_key, timeout_seconds=timeout_seconds) as queue:
                return await step(queue)

        try:
            return asyncio.run(run())
        except NotAllowed as refusal:
            complain(str(refusal))
            return NOT_POSSIBLE
        except NoAnswer as fault:
            complain(str(fault))
            return NO_VERDICT


def list_jobs(target: Target, wanted: JobFilter, *, limit: int, cursor: str | None, as_json: bool) -> int:
    """Print the newest jobs, or the next jobs after ``cursor``."""

    async def step(queue: QueueAccess) -> int:
        jobs: list[Body] = []
        following = cursor
        for _ in range(_MOST_PAGES):
            page = await queue.list_jobs(wanted, limit=limit - len(jobs), cursor=following)
            jobs += page.jobs
            following = page.next
            if following is None or len(jobs) >= limit:
                break
        else:
            complain(f"the search ended before the list did; to go on, add --cursor {following}")
        if as_json:
            print(json.dumps(jobs))
            return DONE
        print(_HEADER if jobs else "no such jobs")
        for job in jobs:
            _print_job_line(job)
        return DONE

    return target.work(step)


def _print_job_line(job: Body) -> None:
    done = verdict_of(job) or f"{job.get('progress')} %"
    age = duration((datetime.now(UTC) - datetime.fromisoformat(str(job["createdAt"]))).total_seconds())
    texts = (str(job.get(name)) for name in ("id", "type", "status"))
    print(_LINE.format(*map(printable, texts), printable(done), str(job.get("retryCount")), age))
    if job.get("error"):
        print(f"    {printable(redact_url(str(job['error'])))}")


def duration(seconds: float) -> str:
    """Return a time span in the largest unit, such as ``2 h``."""
    unit, size = next((unit, size) for unit, size in _UNITS.items() if abs(seconds) >= size or unit == "s")
    return f"{seconds / size:.0f} {unit}"


def show_job(target: Target, job_id: str, *, as_json: bool) -> int:
    """Print every field of a job."""

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

    return target.work(step)


def retry_jobs(target: Target, job_ids: Sequence[str]) -> int:
    """Queue ended jobs again."""
    return _change_jobs(
        target, job_ids, lambda queue: queue.retry, "queued again", "has not ended, so it cannot be retried"
    )


def cancel_jobs(target: Target, job_ids: Sequence[str]) -> int:
    """End waiting or running jobs."""
    return _change_jobs(
        target, job_ids, lambda queue: queue.cancel, "cancelled", "has ended already, so it cannot be cancelled"
    )


def _change_jobs(
    target: Target,
    job_ids: Sequence[str],
    choose: Callable[[QueueAccess], Callable[[str], Awaitable[bool | None]]],
    done: str,
    refusal: str,
) -> int:
    async def step(queue: QueueAccess) -> int:
        code = DONE
        for job_id in job_ids:
            changed = await choose(queue)(job_id)
            if changed:
                print(f"{job_id}: {done}")
            elif changed is None:
                code = no_such_job(job_id)
            else:
                complain(f"{job_id} {refusal}")
                code = NOT_POSSIBLE
        return code

    return target.work(step)


def no_such_job(job_id: str) -> int:
    """Report an unknown job; return the exit code."""
    complain(f"there is no job {job_id}")
    return NOT_POSSIBLE


def stats(target: Target, *, as_json: bool) -> int:
    """Print the number of jobs in each state; with ``as_json`` the reply of ``/stats``."""

    async def step(queue: QueueAccess) -> int:
        counts = await queue.counts()
        if as_json:
            print(json.dumps(counts))
        else:
            console = Console(highlight=False)
            console.print(counts_table(counts))
            console.print(f"\n{signs(counts)}", markup=False, soft_wrap=True)
        return DONE

    return target.work(step)


def counts_table(counts: Body) -> Table:
    """Return a table with a line per state."""
    table = Table("state", box=None, pad_edge=False)
    table.add_column("jobs", justify="right")
    for name in _STATES:
        table.add_row(name, f"{counts.get(name) or 0:,}")
    return table


def signs(counts: Body) -> str:
    """Return a line with the queue's state, longest wait and workers."""
    age = counts.get("oldestWaitingSeconds")
    waits = "nothing waits" if age is None else f"the first in line has waited {duration(age)}"
    reason = f" ({printable(str(counts['pauseReason']))})" if counts.get("pauseReason") else ""
    return f"{printable(str(counts.get('state')))}{reason}; {waits}; live workers: {counts.get('workers')}"


def pause(target: Target, reason: str | None) -> int:
    """Stop all claims."""

    async def step(queue: QueueAccess) -> int:
        await queue.pause(reason)
        print("paused: no job is claimed until `iidq resume`; running jobs go on")
        return DONE

    return target.work(step)


def resume(target: Target) -> int:
    """Allow claims again."""

    async def step(queue: QueueAccess) -> int:
        await queue.resume()
        print("resumed")
        return DONE

    return target.work(step)
