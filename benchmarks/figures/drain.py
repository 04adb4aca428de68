"""Jobs per second through one and two worker processes, on the real path: claim, deadline, lease, stored outcome."""

import contextlib
import time
from collections.abc import Iterator

import psycopg

from benchmarks.bench import Bench
from benchmarks.child import Child, call
from benchmarks.server import STATEMENTS, execute, settle

_POLL_SECONDS = 0.005


class DrainFailed(Exception):
    """Not every job completed in time."""


def drain1(bench: Bench) -> dict[str, float]:
    """Drain with one worker."""
    with filled(bench, bench.options.jobs) as url:
        return {"drain1": drain(bench, url, workers=1)}


def drain2(bench: Bench) -> dict[str, float]:
    """Drain with two workers."""
    with filled(bench, bench.options.jobs) as url:
        return {"drain2": drain(bench, url, workers=2)}


@contextlib.contextmanager
def filled(bench: Bench, jobs: int) -> Iterator[str]:
    """Make a new database with ``jobs`` waiting jobs, settled."""
    with bench.server.migrated_database() as url:
        fill(url, jobs)
        settle(url)
        yield url


def fill(url: str, jobs: int) -> None:
    """Enqueue through group commit, from a separate process."""
    call("enqueuer", ["--jobs", jobs, "--tasks", min(jobs, 1000)], {"DATABASE_URL": url}, timeout_seconds=600)


def drain(bench: Bench, url: str, *, workers: int, jobs: int | None = None) -> float:
    """Return jobs per second, from ``go`` to started workers until no verify is unfinished."""
    return timed_drain(
        url,
        jobs=jobs or bench.options.jobs,
        workers=workers,
        concurrency=bench.options.concurrency,
        limit_seconds=bench.options.limit_seconds,
    )


def timed_drain(
    url: str, *, jobs: int, workers: int, concurrency: int, limit_seconds: float, pause_ms: float = 0
) -> float:
    """Drain as :func:`drain`; raise :class:`DrainFailed` unless each job completed within the limit."""
    environment = {"DATABASE_URL": url, "WORKER_CONCURRENCY": str(concurrency)}
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Child("worker", ["--pause-ms", pause_ms], environment)) for _ in range(workers)]
        for child in children:
            child.ready()
        watcher = stack.enter_context(psycopg.connect(url, autocommit=True))
        [(since,)] = execute(url, STATEMENTS["clock"])
        seconds = time_until_drained(children, watcher, jobs, limit_seconds)
        completed, failed = watcher.execute(STATEMENTS["ended"], {"since": since}).fetchone() or (0, 0)
        for child in children:
            child.finish()
    if (completed, failed) != (jobs, 0):
        raise DrainFailed(f"{completed} jobs completed and {failed} failed; expected {jobs} completed")
    return jobs / seconds


def time_until_drained(
    children: list[Child], watcher: psycopg.Connection[tuple[object, ...]], jobs: int, limit_seconds: float
) -> float:
    """Send ``go`` and return the seconds until no verify is unfinished in the database."""
    started_at = time.perf_counter()
    for child in children:
        child.go()
    while True:
        time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - started_at
        begun = sum(child.progress() for child in children)
        # The count costs the database time, so the count begins near the end.
        if begun >= jobs and watcher.execute(STATEMENTS["verifies_left"]).fetchone() == (False,):
            return time.perf_counter() - started_at
        if seconds > limit_seconds:
            raise DrainFailed(f"{begun} of {jobs} jobs begun after {limit_seconds:g} s")
