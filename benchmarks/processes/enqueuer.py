"""One process enqueues through :func:`iidq.queue.enqueuer.open_enqueuer`, as an API process does."""

import argparse
import asyncio
import hashlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.processes.lines import Lines, run
from benchmarks.samples import REGISTRY, read_samples
from iidq.database.pool import open_database
from iidq.observability.logs import configure_logging
from iidq.process import freeze_gc
from iidq.queue.enqueuer import Enqueuer, open_enqueuer
from iidq.queue.job import JobType, NewJob
from iidq.queue.notify import channels
from iidq.settings import load_settings
from iidq.subject import Subject

_ADDRESS = "0x" + "5a" * 20


def job(number: int, file_name: str | None = None) -> NewJob:
    """Return a verification as submitted over HTTP, with a different content for each number."""
    digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
    subject = Subject(f"0x{digest}", f"ipfs://bafkrei{digest[:52]}", _ADDRESS, file_name=file_name)
    return NewJob(JobType.VERIFY, subject)


def jobs_from(path: Path | None, count: int) -> Iterable[NewJob]:
    """Yield ``count`` made-up jobs, or the jobs described by a file of samples."""
    if path is None:
        yield from (job(number) for number in range(count))
        return
    for sample in read_samples(path)[:count]:
        yield NewJob(JobType.VERIFY, Subject(sample.content_hash, sample.manifest_uri, REGISTRY))


async def enqueue(jobs: Iterable[NewJob], tasks: int) -> None:
    """Enqueue all jobs, ``tasks`` at a time, each waiting for the commit; print the time."""
    settings = load_settings("database_url")
    async with open_database(settings, pool_size=8) as database, open_enqueuer(database, settings) as enqueuer:
        # A connection is open before the clock starts.
        await database.run(channels.announce)
        freeze_gc()
        lines = Lines()
        await lines.ready()
        source = iter(jobs)

        async def one_by_one(enqueuer: Enqueuer) -> int:
            done = 0
            for each in source:
                await enqueuer.enqueue(each)
                done += 1
            return done

        started_at = time.perf_counter()
        done = sum(await asyncio.gather(*(one_by_one(enqueuer) for _ in range(tasks))))
        lines.result(jobs=done, seconds=time.perf_counter() - started_at)


async def trickle(count: int, gap_ms: float) -> None:
    """Enqueue one job after the other with pauses; each carries its time of enqueueing, in µs."""
    settings = load_settings("database_url")
    async with open_database(settings, pool_size=8) as database, open_enqueuer(database, settings) as enqueuer:
        lines = Lines()
        await lines.ready()
        for number in range(count):
            await enqueuer.enqueue(job(number, str(time.monotonic_ns() // 1000)))
            await asyncio.sleep(gap_ms / 1000)
        lines.result(jobs=count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--gap-ms", type=float, default=0)
    parser.add_argument("--samples", type=Path)
    chosen = parser.parse_args()
    configure_logging("warning", "json", sys.stderr)
    if chosen.gap_ms:
        run(trickle(chosen.jobs, chosen.gap_ms))
    else:
        run(enqueue(jobs_from(chosen.samples, chosen.jobs), chosen.tasks))
