"""The real worker program with a handler of several steps for any job; each execution is recorded."""

import asyncio
import os
import sys
from typing import Any

from iidq import worker
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Handler, Progress
from tests.faults.worker_process import write_down

_STEP_SECONDS = 0.01


def handler_for(_verifier: object) -> Handler:
    """Return a handler with the progress steps of a verification."""
    ledger = asyncio.Lock()

    async def handle(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        async with ledger:
            await write_down(job)
        for percent in (10, 30, 50, 70, 90):
            progress(percent)
            await asyncio.sleep(_STEP_SECONDS)
        return {"status": "OK", "attempt": job.attempt, "pid": os.getpid()}

    return handle


if __name__ == "__main__":
    worker.verification = handler_for  # type: ignore[assignment]
    sys.exit(worker.main())
