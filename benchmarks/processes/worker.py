"""One worker process on the real execution path; only the handler is replaced, except for ``verify``."""

import argparse
import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.processes.lines import Lines, run
from iidq.observability.logs import configure_logging
from iidq.process import freeze_gc
from iidq.provenance.verifier import open_verifier
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Handler, Progress
from iidq.queue.processing.loop import open_work_loop
from iidq.settings import load_settings
from iidq.worker import new_worker_id, verification


class Hits:
    """Count begun jobs; a file name with a time in µs also gives the job's waiting time."""

    def __init__(self) -> None:
        self.count = 0
        self.latency_ms: list[float] = []

    def __call__(self, job: ClaimedJob) -> None:
        if job.subject.file_name:
            self.latency_ms.append((time.monotonic_ns() // 1000 - int(job.subject.file_name)) / 1000)
        if job.type == "verify":
            self.count += 1


def no_op(hits: Hits, pause_seconds: float) -> Handler:
    """Return a verdict of some 400 bytes at once, or after a pause."""

    async def handle(job: ClaimedJob, _progress: Progress) -> dict[str, Any]:
        hits(job)
        if pause_seconds:
            await asyncio.sleep(pause_seconds)
        return {
            "status": "OK",
            "fileHash": job.subject.content_hash,
            "recovered": job.subject.registry_address,
            "onchain": {
                "creator": job.subject.registry_address,
                "contentHash": job.subject.content_hash,
                "manifestURI": job.subject.manifest_uri,
                "timestamp": 1_700_000_000,
            },
            "checks": {"manifestHashOk": True, "creatorOk": True, "manifestOk": True},
        }

    return handle


def counted(handler: Handler, hits: Hits) -> Handler:
    """Return ``handler`` with a count of ended jobs."""

    async def handle(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        try:
            return await handler(job, progress)
        finally:
            hits(job)

    return handle


async def work(handler_name: str, pause_ms: float) -> None:
    """Run until standard input closes; print jobs, latencies, CPU seconds."""
    settings = load_settings("database_url")
    configure_logging("warning", "json")
    hits = Hits()
    async with AsyncExitStack() as stack:
        if handler_name == "verify":
            handler = counted(verification(await stack.enter_async_context(open_verifier(settings))), hits)
        else:
            handler = no_op(hits, pause_ms / 1000)
        lines = Lines()
        await lines.ready()
        cpu_at_go = time.process_time()
        telling = asyncio.create_task(lines.tell(lambda: hits.count))
        async with open_work_loop(settings, handler, new_worker_id()) as loop:
            freeze_gc()
            running = asyncio.create_task(loop.run())
            closed = asyncio.create_task(lines.closed())
            await asyncio.wait([running, closed], return_when=asyncio.FIRST_COMPLETED)
            cpu_seconds = time.process_time() - cpu_at_go
            loop.stop()
            await running
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
    lines.result(jobs=hits.count, latency_ms=hits.latency_ms, cpu_seconds=cpu_seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--handler", choices=["no_op", "verify"], default="no_op")
    parser.add_argument("--pause-ms", type=float, default=0)
    chosen = parser.parse_args()
    run(work(chosen.handler, chosen.pause_ms))
