"""``python -m iidq.worker``: a worker process. Settings, signals, wiring, exit code.

The queue meets the verification here: a claimed job becomes a subject, a verdict becomes the result of the job, and the
end of a job becomes a webhook.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from typing import Any

from iidq.bullmq.mirror import open_bull_mirror
from iidq.concurrency.background import END_SECONDS, end_within
from iidq.database.faults import Faults
from iidq.errors import SettingsFault
from iidq.observability import logs
from iidq.observability.traces import open_traces
from iidq.observability.worker_metrics import serve_metrics
from iidq.process import freeze_gc
from iidq.provenance.verifier import Verifier, open_verifier
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Handler, Progress
from iidq.queue.processing.loop import open_work_loop
from iidq.redis.accelerator import open_accelerator
from iidq.settings import Settings, load_settings
from iidq.web.reply.wire import job_shape
from iidq.webhooks.deliverer import open_deliverer


def new_worker_id() -> str:
    """Return an id with host and process for people. A new id at every start inherits no leases."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def verification(verifier: Verifier) -> Handler:
    """Return the handler of the queue, which has ``verifier`` verify the subject of a claimed job."""

    async def handle(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        return await verifier.run(job.type.value, job.subject, progress)

    return handle


async def work(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT, then drain; a second signal releases all jobs at once. Return the exit code.

    The process ends within ``END_SECONDS`` after the drain's deadline, even if a task or thread hangs.
    """
    worker_id = new_worker_id()
    faults = Faults()
    signals = 0
    async with (
        open_traces(settings, "worker"),
        open_accelerator(settings) as accelerator,
        open_bull_mirror(settings, accelerator.redis, faults),
        open_verifier(settings, accelerator.manifests, accelerator.verdicts) as verifier,
        open_deliverer(settings, job_shape, faults) as wake_deliverer,
        open_work_loop(settings, verification(verifier), worker_id, wake_deliverer, accelerator.relay, faults) as loop,
    ):

        def stop() -> None:
            nonlocal signals
            signals += 1
            end_within(END_SECONDS + (settings.drain_timeout_seconds if signals == 1 else 0))
            loop.stop()

        def draining() -> None:
            end_within(END_SECONDS + settings.drain_timeout_seconds)

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        freeze_gc()
        logs.worker_started(worker_id, settings.worker_concurrency)
        with serve_metrics(settings):
            released = await loop.run(draining)
        logs.worker_stopped(worker_id, released)
    return 1 if loop.crashed or signals > 1 else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code.

    0 after a clean drain, 1 after a hurried one or a crash, 2 for bad settings.
    """
    parser = argparse.ArgumentParser(prog="python -m iidq.worker", description="one iidq worker process")
    parser.add_argument("--concurrency", type=int, metavar="N", help="jobs at a time (WORKER_CONCURRENCY)")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings("database_url", "rpc_url", worker_concurrency=chosen.concurrency)
    except SettingsFault as fault:
        print(fault.message, file=sys.stderr)
        return 2
    logs.configure_logging(settings.log_level, settings.log_format)
    logs.database_parameters_ignored(settings.ignored_parameters)
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        return runner.run(work(settings))


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory, or None on platforms without uvloop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
