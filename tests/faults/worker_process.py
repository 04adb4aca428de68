"""The real worker program with a handler steered by the manifest's address.

Each execution is first recorded in the table ``execution``, so that tests count real runs.
"""

import asyncio
import os
import signal
import sys
from typing import Any

import psycopg

from iidq import worker
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Handler, Progress


def handler_for(_verifier: object) -> Handler:
    """Return the handler for ``test:<action>:<seconds>``: sleep; ``hold`` at the first attempt only; ``kill`` dies."""
    ledger = asyncio.Lock()

    async def handle(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        async with ledger:
            await write_down(job)
        progress(10)
        _, what, seconds = job.subject.manifest_uri.split(":")
        match what:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hold" if job.attempt > 1:
                pass
            case _:
                await asyncio.sleep(float(seconds))
        return {"status": "OK", "attempt": job.attempt, "pid": os.getpid()}

    return handle


async def write_down(job: ClaimedJob) -> None:
    """Record the execution, through any outage of the database: an unrecorded execution would make the count wrong."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
                await connection.execute(
                    "INSERT INTO execution (job_id, attempt, pid) VALUES (%s, %s, %s)",
                    [job.id, job.attempt, os.getpid()],
                )
                return
        except psycopg.OperationalError:
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    worker.verification = handler_for  # type: ignore[assignment]
    sys.exit(worker.main())
