"""A job as the bytes of a reply. Pure."""

from dataclasses import dataclass

from iidq.queue.job import FINAL, Job
from iidq.web.reply.entity_tags import entity_tag
from iidq.web.reply.wire import JsonReply, job_shape


@dataclass(frozen=True, slots=True)
class JobBody:
    """A job as the bytes of a reply."""

    body: bytes
    tag: str
    ended: bool

    @classmethod
    def of(cls, job: Job) -> "JobBody":
        """The job's JSON and its entity tag."""
        body = bytes(JsonReply(job_shape(job)).body)
        return cls(body, entity_tag(body), job.status in FINAL)

    @classmethod
    def of_ended(cls, body: bytes) -> "JobBody":
        """An ended job whose JSON is known already."""
        return cls(body, entity_tag(body), True)
