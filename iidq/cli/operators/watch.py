"""``iidq jobs watch`` and ``iidq stats --watch``: print changes until Ctrl-C."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Final, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from iidq.cli.api_client import ENDED, Body, NoAnswer
from iidq.cli.operators.operate import Target, counts_table, no_such_job, signs
from iidq.cli.operators.queue_access import JobFilter, QueueAccess
from iidq.cli.terminal import INTERRUPTED, complain, job_bars, printable, say
from iidq.cli.verification.verdict_words import exit_code, step_of, verdict_of, why_not
from iidq.cli.verification.verify_one import print_verdict
from iidq.errors import TemporaryFault
from iidq.observability.redaction import redact_url

T = TypeVar("T")

_WATCHED_JOBS: Final = 200


def watch_job(target: Target, job_id: str, *, timeout_seconds: float, as_json: bool) -> int:
    """Follow a job to the end and return the exit code of the verdict, as `iidq verify` does."""

    async def step(queue: QueueAccess) -> int:
        with job_bars() as bars:
            bar = bars.add_task("waiting in line", total=100)
            last_line = ""

            def report(job: Body) -> None:
                nonlocal last_line
                bars.update(bar, completed=job.get("progress") or 0, description=step_of(job))
                line = f"{job.get('status')}, {job.get('progress')} %: {step_of(job)}"
                if bars.disable and not as_json and line != last_line and job.get("status") not in ENDED:
                    say(printable(line))
                    last_line = line

            async with asyncio.timeout(timeout_seconds):
                job = await queue.follow(job_id, report)
        if job is None:
            no_such_job(job_id)
            return exit_code(None)
        if as_json:
            print(json.dumps(job))
        elif verdict_of(job) is None:
            raise NoAnswer(f"it could not be found out: {redact_url(why_not(job))}")
        else:
            names = {"file": "fileName", "manifest": "manifestUri", "registry": "registryAddress"}
            facts = {name: str(job[key]) for name, key in names.items() if job.get(key)}
            chain = ["--chain", str(job["chainId"])] if job.get("chainId") else []
            options = ["--registry", facts.get("registry", ""), *chain, "--", facts.get("file", "FILE")]
            print_verdict(job, facts, options)
        return exit_code(verdict_of(job))

    try:
        return target.work(step, timeout_seconds=timeout_seconds)
    except TimeoutError:
        complain(f"no end within {timeout_seconds:g} s; the job goes on")
        return exit_code(None)
    except KeyboardInterrupt:
        complain("stopped; the job goes on")
        return INTERRUPTED


def watch_jobs(target: Target, wanted: JobFilter, *, interval_seconds: float, as_json: bool) -> int:
    """Print a line for each new or changed job among the newest, until interrupted."""

    async def step(queue: QueueAccess) -> int:
        seen: dict[str, tuple[object, object]] | None = None
        while True:
            page = await _retried(
                lambda: queue.list_jobs(wanted, limit=_WATCHED_JOBS), interval_seconds, first=seen is None
            )
            jobs = page.jobs
            states = {str(job["id"]): (job.get("status"), job.get("attempt")) for job in jobs}
            # The first page is the past.
            changed = [job for job in jobs if seen is not None and seen.get(str(job["id"])) != states[str(job["id"])]]
            if len(jobs) == len(changed) == _WATCHED_JOBS:
                complain(f"more than {_WATCHED_JOBS} jobs changed at a time; not all of them are shown")
            if seen is None:
                print("watching; Ctrl-C ends it", file=sys.stderr, flush=True)
            for job in reversed(changed):
                print(json.dumps(job) if as_json else _change(job), flush=True)
            seen = states
            await asyncio.sleep(interval_seconds)

    return _until_interrupted(target, step)


def _change(job: Body) -> str:
    verdict = verdict_of(job)
    outcome = verdict or (redact_url(str(job["error"])) if job.get("error") else "")
    line = f"{_now()}  {job['id']}  {job.get('type'):6}  {job.get('status'):10}  {outcome}"
    return printable(line.rstrip())


def watch_stats(target: Target, *, interval_seconds: float, as_json: bool) -> int:
    """Show the counts at each interval until interrupted: in place on a terminal, else a line each time."""
    console = Console(highlight=False)

    async def step(queue: QueueAccess) -> int:
        last: tuple[float, Body] | None = None
        drawn = console.is_terminal and not as_json
        with Live(console=console, auto_refresh=False, transient=False) if drawn else nullcontext() as shown:
            while True:
                counts = await _retried(queue.counts, interval_seconds, first=last is None)
                now = time.monotonic()
                rate = None if last is None else _ended_per_second(last, (now, counts))
                last = (now, counts)
                if as_json:
                    print(json.dumps({"at": _now(), **counts, "endedPerSecond": rate}), flush=True)
                elif isinstance(shown, Live):
                    speed = "" if rate is None else f"{rate:,.1f} jobs end per second"
                    footer = Text(f"\n{signs(counts)}\n{_now()}  {speed}")
                    shown.update(Group(counts_table(counts), footer), refresh=True)
                else:
                    speed = "" if rate is None else f"; {rate:,.1f} jobs end per second"
                    states = ", ".join(f"{counts.get(name) or 0} {name}" for name in ("waiting", "active", "failed"))
                    print(f"{_now()}  {states}; {signs(counts)}{speed}", flush=True)
                await asyncio.sleep(interval_seconds)

    return _until_interrupted(target, step)


def _ended_per_second(before: tuple[float, Body], after: tuple[float, Body]) -> float:
    (then, old), (now, new) = before, after
    # Retention and retries lower the counts; the speed is never negative.
    ended = sum(max(0, (new.get(name) or 0) - (old.get(name) or 0)) for name in ENDED)
    return ended / max(now - then, 0.001)


async def _retried(read: Callable[[], Awaitable[T]], pause_seconds: float, *, first: bool) -> T:
    """Return the result of ``read``; after the first reading, repeat until the queue answers."""
    reported = False
    while True:
        try:
            return await read()
        except (NoAnswer, TemporaryFault) as fault:
            if first:
                raise
            if not reported:
                complain(fault.message if isinstance(fault, TemporaryFault) else str(fault))
                reported = True
            await asyncio.sleep(pause_seconds)


def _until_interrupted(target: Target, step: Callable[[QueueAccess], Awaitable[int]]) -> int:
    try:
        return target.work(step)
    except KeyboardInterrupt:
        return INTERRUPTED


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
