"""A job as the reply to GET: with an ``ETag``, as 304 to a client that has these very bytes, or after a wait."""

from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from iidq.queue.job import Job
from iidq.web.reply.entity_tags import entity_tag, has_seen
from iidq.web.reply.job_body import JobBody
from iidq.web.reply.wire import JsonReply, ReadyJson, job_shape
from iidq.web.request.prefer import Preferences
from iidq.web.waiting import wait_for

POLL_SECONDS: Final = 1
"""How soon it is worth asking again about a job that has not ended."""

_HEADERS: Final = ((b"cache-control", b"no-cache"), (b"vary", b"Prefer"))
_UNFINISHED_HEADERS: Final = (*_HEADERS, (b"retry-after", b"%d" % POLL_SECONDS))


def job_reply(request: Request, job: JobBody, preferences: Preferences) -> Response:
    """The job's JSON, or 304; ``Retry-After`` tells pollers of an unfinished job when to come again."""
    reply: Response = Response(status_code=304) if has_seen(request, job.tag) else ReadyJson(job.body)
    reply.raw_headers += [(b"etag", job.tag.encode()), *(_HEADERS if job.ended else _UNFINISHED_HEADERS)]
    if preferences.wait_seconds is not None:
        reply.raw_headers.append((b"preference-applied", b"wait=%d" % preferences.wait_seconds))
    return reply


async def awaited_job(request: Request, job_id: UUID, preferences: Preferences) -> Job | None:
    """The job once it has ended, or is not any more what ``If-None-Match`` names; at the latest when the wait is over.

    None where it has to be read as without a wait.
    """
    asked = "if-none-match" in request.headers

    def is_news(job: Job) -> bool:
        return asked and not has_seen(request, entity_tag(bytes(JsonReply(job_shape(job)).body)))

    return await wait_for(request, job_id, preferences.wait_seconds or 0, is_news)
