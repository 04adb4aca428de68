"""What the endpoints work with, opened once per process and kept on the app."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request

from iidq.database.pool import Database
from iidq.queue.enqueuer import Enqueuer
from iidq.queue.notify.watching import WatchHub
from iidq.redis.accelerator import Accelerator
from iidq.settings import Settings
from iidq.web.job_reads import JobReads
from iidq.web.queue_state import QueueState
from iidq.web.reads import Reads
from iidq.web.request.submission import SubmissionRules
from iidq.web.synchronous import SynchronousVerification


@dataclass(frozen=True, slots=True)
class Service:
    """The open parts of one API process."""

    settings: Settings
    rules: SubmissionRules
    database: Database
    lists: Reads
    """Pages of jobs, for clients and for the operations page."""
    overviews: Reads
    """Counts and probes: they must not wait behind lists."""
    job_reads: JobReads
    enqueuer: Enqueuer
    synchronous: SynchronousVerification
    queue_state: QueueState
    watching: WatchHub
    stopping: asyncio.Event
    """Set as soon as the process is asked to stop: whoever waits stops waiting."""
    hashing: ThreadPoolExecutor
    """Threads that hash uploads."""
    accelerator: Accelerator
    """What Redis makes quicker, if there is one."""


def service_of(request: Request) -> Service:
    """The parts that the app's lifespan opened."""
    app: Starlette = request.app
    service: Service = app.state.service
    return service
