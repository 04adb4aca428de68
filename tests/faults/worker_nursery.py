"""Starts workers in milliseconds: fork one from a process with all imports for each line of standard input.

A line is the path of the worker's log; the reply is the worker's process id. The environment holds the settings of all
workers. A worker with its own imports would spend most of a life of one second on imports.
"""

import asyncio
import os
import random
import signal
import sys
import traceback
from typing import Any

from iidq.observability.logs import configure_logging
from iidq.process import die_with_parent
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Progress
from iidq.queue.processing.loop import open_work_loop
from iidq.settings import load_settings


async def handle(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
    """Sleep for up to a tenth of a second."""
    progress(10)
    await asyncio.sleep(random.uniform(0.02, 0.1))
    return {"status": "OK", "attempt": job.attempt, "pid": os.getpid()}


async def work() -> None:
    """Work until killed."""
    async with open_work_loop(load_settings("database_url"), handle, f"chaos:{os.getpid()}") as loop:
        await loop.run()


def become_a_worker(log_path: str) -> None:
    """Run a worker in the child process; never return."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    configure_logging("info", "json")
    try:
        asyncio.run(work())
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def main() -> None:
    """Fork for each line, until the input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    bind_to_parent = die_with_parent(signal.SIGKILL)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            if bind_to_parent is not None:
                bind_to_parent()
            become_a_worker(line.strip())
        print(pid, flush=True)


if __name__ == "__main__":
    main()
