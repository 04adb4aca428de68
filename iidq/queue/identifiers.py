"""Job ids: UUID version 7 (RFC 9562, section 5.7), time-ordered and unguessable."""

import hashlib
import os
import re
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last_ms = 0
_REST = (1 << 62) - 1
_REPLACED_ID = re.compile(r"\w[\w.:@-]{0,254}", re.ASCII)


def new_job_id() -> UUID:
    """48 bits of milliseconds, then 74 random bits. Never smaller in time than the one before in this process."""
    global _last_ms
    with _lock:
        _last_ms = max(_last_ms, time.time_ns() // 1_000_000)
        milliseconds = _last_ms
    random_bits = int.from_bytes(os.urandom(10))
    version_and_first = 0x7000 | random_bits >> 68
    variant_and_rest = 0b10 << 62 | random_bits & _REST
    return UUID(int=milliseconds << 80 | version_and_first << 64 | variant_and_rest)


def derived_job_ids(batch_id: UUID, count: int) -> list[UUID]:
    """Ids of a batch's jobs, always the same for one ``batch_id``: in order, and none tells another or the batch's.

    Of up to 4,096 jobs: 12 of the bits that the standard leaves free hold the place within the batch, 62 are a digest.
    """
    milliseconds = batch_id.int >> 80
    ids = []
    for index in range(count):
        digest = hashlib.sha256(batch_id.bytes + index.to_bytes(2)).digest()
        high = (milliseconds << 16) | 0x7000 | index
        low = (0b10 << 62) | (int.from_bytes(digest[:8]) >> 2)
        ids.append(UUID(int=(high << 64) | low))
    return ids


def parse_job_id(text: str) -> UUID | None:
    """The id in ``text``, or None where the text is no job's id (only the canonical form is one)."""
    try:
        job_id = UUID(text)
    except ValueError:
        return None
    return job_id if str(job_id) == text.lower() else None


def find_job_id(text: str) -> UUID | None:
    """The id of the job that a client asks for, or None where the text is no job's id.

    Clients of the replaced system still ask for its ``jobId``, a short text. Imported jobs have an id made of it, as
    ``iidq_imported_id`` in migrations/0001_job.sql makes it.
    """
    job_id = parse_job_id(text)
    if job_id is None and _REPLACED_ID.fullmatch(text):
        return UUID(bytes=hashlib.md5(text.encode(), usedforsecurity=False).digest())
    return job_id
