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
    """Return 48 bits of milliseconds and 74 random bits; the time never goes back within a process."""
    global _last_ms
    with _lock:
        _last_ms = max(_last_ms, time.time_ns() // 1_000_000)
        milliseconds = _last_ms
    random_bits = int.from_bytes(os.urandom(10))
    version_and_first = 0x7000 | random_bits >> 68
    variant_and_rest = 0b10 << 62 | random_bits & _REST
    return UUID(int=milliseconds << 80 | version_and_first << 64 | variant_and_rest)


def derived_job_ids(batch_id: UUID, count: int) -> list[UUID]:
    """Return the ids of a batch's jobs, in order and always the same for one ``batch_id``.

    No id can be derived from another. At most 4,096 jobs: 12 bits hold the index within the batch, 62 a digest.
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
    """Return the id in ``text``, or None for anything but the canonical form of a UUID."""
    try:
        job_id = UUID(text)
    except ValueError:
        return None
    return job_id if str(job_id) == text.lower() else None


def find_job_id(text: str) -> UUID | None:
    """Return the id of the job in a client's request, or None if the text cannot be an id.

    Clients of the replaced system send a ``jobId``, a short text. The id of an imported job is derived from the
    text, as ``iidq_imported_id`` in migrations/0001_job.sql does.
    """
    job_id = parse_job_id(text)
    if job_id is None and _REPLACED_ID.fullmatch(text):
        return UUID(bytes=hashlib.md5(text.encode(), usedforsecurity=False).digest())
    return job_id
