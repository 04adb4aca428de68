"""A place in the list of jobs, newest first, with an opaque text form for clients. Pure."""

import base64
import binascii
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from iidq.queue.job import Job

_FORM = struct.Struct(">q16s")
# A multiple of three bytes, so that the text needs no padding.
_FORM_WITH_SKIP = struct.Struct(">q16sI2x")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row that a page looked at; the next page begins right after."""

    created_at: datetime
    """Creation time of the row; in operators' lists the time by which the list is ordered."""
    id: UUID
    """Id of the row."""
    skip: int = 0
    """Matches that the next page skips before its first job: the rest of an offset."""

    @classmethod
    def of(cls, job: Job) -> "Cursor":
        """Return the place of this job."""
        return cls(job.created_at, job.id)

    def encode(self) -> str:
        """Return URL-safe text: 32 characters, or 40 with a ``skip``."""
        place = (self.created_at - _EPOCH) // timedelta(microseconds=1), self.id.bytes
        raw = _FORM_WITH_SKIP.pack(*place, self.skip) if self.skip else _FORM.pack(*place)
        return base64.urlsafe_b64encode(raw).decode()

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Return the cursor of an encoded text. Raise ValueError for any other text."""
        try:
            raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
            form = _FORM_WITH_SKIP if len(raw) == _FORM_WITH_SKIP.size else _FORM
            microseconds, job_id, *skip = form.unpack(raw)
            cursor = cls(_EPOCH + timedelta(microseconds=microseconds), UUID(bytes=job_id), *skip)
        except (binascii.Error, struct.error, OverflowError, UnicodeEncodeError) as error:
            raise ValueError("no cursor of this list") from error
        # The decoder also takes + and / for - and _.
        if cursor.encode() != text:
            raise ValueError("no cursor of this list")
        return cursor
