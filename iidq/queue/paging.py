"""A place in the list of jobs, newest first, as an opaque text for clients. Pure."""

import base64
import binascii
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from iidq.queue.job import Job

_FORM = struct.Struct(">q16s")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last job that a page showed; the next page begins right after it."""

    created_at: datetime
    id: UUID

    @classmethod
    def of(cls, job: Job) -> "Cursor":
        """The place of this job."""
        return cls(job.created_at, job.id)

    def encode(self) -> str:
        """URL-safe text, 32 characters."""
        microseconds = (self.created_at - _EPOCH) // timedelta(microseconds=1)
        return base64.urlsafe_b64encode(_FORM.pack(microseconds, self.id.bytes)).decode()

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """The inverse of :meth:`encode`; raises ValueError for any other text."""
        try:
            raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
            microseconds, job_id = _FORM.unpack(raw)
            cursor = cls(_EPOCH + timedelta(microseconds=microseconds), UUID(bytes=job_id))
        except (binascii.Error, struct.error, OverflowError, UnicodeEncodeError) as error:
            raise ValueError("no cursor of this list") from error
        # The decoder takes + and / beside - and _.
        if cursor.encode() != text:
            raise ValueError("no cursor of this list")
        return cursor
