"""The open parts of an API process, shared by all endpoints."""

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
from iidq.web.reads import BoundedReads, JobReads, QueueState
from iidq.web.request.submission import SubmissionRules
from iidq.web.synchronous import SynchronousVerification


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The open parts of an API process."""

    settings: Settings
    """Settings of the process."""
    rules: SubmissionRules
    """Checks of submissions under these settings."""
    database: Database
    """The pool, for statements that cost little."""
    lists: BoundedReads
    """Pages of jobs, for clients and for the operations page."""
    overviews: BoundedReads
    """Counts and probes, separate from lists so that they do not wait for them."""
    job_reads: JobReads
    """Reads of single jobs, several in one statement."""
    enqueuer: Enqueuer
    """Inserts jobs, several in one transaction."""
    synchronous: SynchronousVerification
    """Verification without queue and database."""
    queue_state: QueueState
    """Depth of the queue, and missing rights, at most a second old."""
    watching: WatchHub
    """Streams of job states, for events and waits."""
    stopping: asyncio.Event
    """Set once the process is asked to stop; streams and waits then end."""
    hashing: ThreadPoolExecutor
    """Threads that hash uploads."""
    accelerator: Accelerator
    """Caches and hints in Redis, or their replacements without it."""


def service_of(request: Request) -> Service:
    """Return the parts opened by the app's lifespan."""
    app: Starlette = request.app
    service: Service = app.state.service
    return service
