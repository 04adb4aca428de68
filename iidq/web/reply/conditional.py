"""Conditional replies (RFC 9110, section 13): entity tags, 304, and a job's bytes with their tag."""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from iidq.queue.job import FINAL, Job
from iidq.web.reply.wire import JsonReply, ReadyJson, job_shape
from iidq.web.request.header_fields import Preferences
from iidq.web.request_context import context_of

POLL_SECONDS: Final = 1
"""``Retry-After`` of an unfinished job: the interval in which polling is worthwhile."""

_HEADERS: Final = ((b"cache-control", b"no-cache"), (b"vary", b"Prefer"))
_UNFINISHED_HEADERS: Final = (*_HEADERS, (b"retry-after", b"%d" % POLL_SECONDS))
_ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')


def entity_tag(body: bytes) -> str:
    """Return a strong tag (RFC 9110, section 8.8.3), equal in every process for equal bytes."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def has_seen(request: Request, tag: str) -> bool:
    """Return whether ``If-None-Match`` names the tag, strong or weak, because proxies weaken tags."""
    if b"if-none-match" not in context_of(request).headers:
        return False
    sent = request.headers.get("if-none-match")
    return sent is not None and (sent.strip() == "*" or tag in _ENTITY_TAG.findall(sent))


@dataclass(frozen=True, slots=True)
class JobBody:
    """A job as the bytes of a reply."""

    body: bytes
    """The job's JSON, as :class:`JsonReply` renders it."""
    tag: str
    """Entity tag of ``body``."""
    ended: bool
    """The job has ended, so clients need not poll again."""

    @classmethod
    def of(cls, job: Job) -> "JobBody":
        """Return the body of a job read from the database."""
        body = bytes(JsonReply(job_shape(job)).body)
        return cls(body, entity_tag(body), job.status in FINAL)

    @classmethod
    def of_ended(cls, body: bytes) -> "JobBody":
        """Return the body of an ended job from its JSON."""
        return cls(body, entity_tag(body), True)


def job_reply(request: Request, job: JobBody, preferences: Preferences) -> Response:
    """Return the job's JSON or 304, with ``Retry-After`` while the job has not ended."""
    reply: Response = Response(status_code=304) if has_seen(request, job.tag) else ReadyJson(job.body)
    reply.raw_headers += [(b"etag", job.tag.encode()), *(_HEADERS if job.ended else _UNFINISHED_HEADERS)]
    if preferences.wait_seconds is not None:
        reply.raw_headers.append((b"preference-applied", b"wait=%d" % preferences.wait_seconds))
    return reply
