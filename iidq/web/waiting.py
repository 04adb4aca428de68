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
from iidq.web.reply.wire import JsonReply, ReadyJson, accepted_body, accepted_shape, job_shape, poll_url
from iidq.web.request.prefer import NO_PREFERENCES, Preferences, parse_prefer
from iidq.web.request_context import exchange_of
from iidq.web.service import service_of


def read_preferences(request: Request) -> Preferences:
    """What ``Prefer`` asks for; where that is to wait, the first steps of waiting begin."""
    if b"prefer" not in exchange_of(request).headers:
        return NO_PREFERENCES
    preferences = parse_prefer(request.headers.getlist("prefer"))
    if preferences.wait_seconds:
        service_of(request).watching.expect()
    return preferences


async def submission_reply(request: Request, job_id: UUID, job_type: JobType, preferences: Preferences) -> Response:
    """The reply to a submission whose row is durable: at once, or with the job itself if it ends within the wait.

    200 without preferences, as the replaced system; else 202 (RFC 7240, section 4.1) unless the job has ended.
    """
    prefix = exchange_of(request).path_prefix
    location = poll_url(job_id, prefix)
    if not preferences.applied:
        body = accepted_body(job_id, job_type, prefix)
        return ReadyJson(body, [(b"location", location.encode()), (b"vary", b"Prefer")])
    headers = {"Location": location, "Vary": "Prefer", "Preference-Applied": preferences.applied}
    if preferences.wait_seconds:
        job = await wait_for(request, job_id, preferences.wait_seconds, _has_ended)
        if job is not None and _has_ended(job):
            return JsonReply(job_shape(job), headers=headers)
    return JsonReply(accepted_shape(job_id, job_type, prefix), 202, headers=headers)


async def wait_for(request: Request, job_id: UUID, wait_seconds: float, enough: Callable[[Job], bool]) -> Job | None:
    """The job's newest state, as soon as it is ``enough`` or has ended, at the latest after ``wait_seconds``.

    None where no state came to be known: no such job, no room for another watcher, no database, or no time.
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
    """Call ``gone`` when the client leaves before the block ends. The request's body must have been read."""

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
