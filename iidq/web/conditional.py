"""A job as the reply to GET: with an ``ETag``, as 304 to a client that has these very bytes, or after a wait."""

import re
from hashlib import blake2b
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from iidq.queue.job import FINAL, Job
from iidq.web.prefer import Preferences
from iidq.web.waiting import wait_for
from iidq.web.wire import JsonReply, job_shape

POLL_SECONDS: Final = 1
"""How soon it is worth asking again about a job that has not ended."""

_ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')
_HEADERS: Final = [(b"cache-control", b"no-cache"), (b"vary", b"Prefer")]


def job_reply(request: Request, job: Job, preferences: Preferences) -> Response:
    """The job's JSON, or 304; ``Retry-After`` tells pollers of an unfinished job when to come again."""
    reply: Response = JsonReply(job_shape(job))
    tag = entity_tag(bytes(reply.body))
    if has_seen(request, tag):
        reply = Response(status_code=304)
    reply.raw_headers += [(b"etag", tag.encode()), *_HEADERS]
    if job.status not in FINAL:
        reply.raw_headers.append((b"retry-after", b"%d" % POLL_SECONDS))
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


def entity_tag(body: bytes) -> str:
    """A strong tag (RFC 9110, section 8.8.3): equal in every process for equal bytes, and for no others."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def has_seen(request: Request, tag: str) -> bool:
    """Whether ``If-None-Match`` names the tag. Compared weakly: proxies weaken tags (RFC 9110, section 13.1.2)."""
    asked = request.headers.get("if-none-match")
    return asked is not None and (asked.strip() == "*" or tag in _ENTITY_TAG.findall(asked))
