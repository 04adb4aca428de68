"""The ``Idempotency-Key`` header: a request that is sent again gets the first one's job, not a second job."""

import hashlib
import re

from starlette.requests import Request

from iidq.errors import FieldFault, InvalidInput
from iidq.queue.job import IdempotencyKey, JobType
from iidq.web.submission import Submission

_HEADER = "Idempotency-Key"
_FORM = re.compile(r"[!-~]{1,255}")


def read_idempotency_key(request: Request) -> str | None:
    """The header's value, or None without one; raises :class:`InvalidInput` for another form."""
    text = request.headers.get(_HEADER)
    if text is not None and not _FORM.fullmatch(text):
        raise InvalidInput([FieldFault(_HEADER, "expected 1 to 255 printable ASCII characters without spaces")])
    return text


def idempotency_key(request: Request, text: str, submission: Submission, job_type: JobType) -> IdempotencyKey:
    """The key as the store knows it: nobody can come upon another caller's job by guessing a key.

    A caller is who presents an API key, or else the client's address.
    """
    presented = request.headers.get("x-api-key") or request.headers.get("authorization")
    caller = f"key {presented}" if presented else f"address {request.client.host if request.client else ''}"
    scope = hashlib.sha256(f"{job_type.value} {caller}".encode()).hexdigest()
    return IdempotencyKey(scope, text, submission.fingerprint(job_type))
