"""Replies that wait for a job: ``Prefer: wait=N`` on a submission, and on GET of a job (long poll)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from iidq.errors import TooManyWatchers
from iidq.queue.job import FINAL, Job, JobType
from iidq.web.reply.conditional import entity_tag, has_seen
from iidq.web.reply.wire import JsonReply, accepted_shape, job_shape, poll_url
from iidq.web.request.header_fields import Preferences
from iidq.web.request_context import context_of
from iidq.web.service import service_of


async def preferred_reply(request: Request, job_id: UUID, job_type: JobType, preferences: Preferences) -> Response:
    """Return the reply to a submission with ``Prefer``, after a preferred wait.

    200 with the job if ended within the wait, otherwise 202 (RFC 7240, section 4.1).
    """
    prefix = context_of(request).path_prefix
    headers = {"Location": poll_url(job_id, prefix), "Vary": "Prefer", "Preference-Applied": preferences.applied}
    if preferences.wait_seconds:
        job = await wait_for(request, job_id, preferences.wait_seconds, _has_ended)
        if job is not None and _has_ended(job):
            return JsonReply(job_shape(job), headers=headers)
    return JsonReply(accepted_shape(job_id, job_type, prefix), 202, headers=headers)


async def awaited_job(request: Request, job_id: UUID, preferences: Preferences) -> Job | None:
    """Return the job once it has ended or no longer matches ``If-None-Match``, or at the end of the wait.

    Return None if the job must be read without a wait.
    """
    conditional = "if-none-match" in request.headers

    def has_changed(job: Job) -> bool:
        return conditional and not has_seen(request, entity_tag(bytes(JsonReply(job_shape(job)).body)))

    return await wait_for(request, job_id, preferences.wait_seconds or 0, has_changed)


async def wait_for(request: Request, job_id: UUID, wait_seconds: float, enough: Callable[[Job], bool]) -> Job | None:
    """Return the job's newest state once it is ``enough`` or has ended, at the latest after ``wait_seconds``.

    Return None without a known state: no such job, too many watchers, no database, or no time.
    """
    latest: Job | None = None
    with contextlib.suppress(TooManyWatchers, TimeoutError), service_of(request).watching.watch(job_id) as watch:
        async with until_gone(request.receive, watch.end), asyncio.timeout(wait_seconds):
            while (job := await watch.next()) is not None:
                latest = job
                if _has_ended(job) or enough(job):
                    break
    return latest


@asynccontextmanager
async def until_gone(receive: Receive, gone: Callable[[], None]) -> AsyncIterator[None]:
    """Call ``gone`` if the client disconnects within the block. The request's body must have been read."""

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone()

    listening = asyncio.create_task(listen())
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def _has_ended(job: Job) -> bool:
    return job.status in FINAL
