"""The ``Idempotency-Key`` header: a request that is sent again gets the first one's job, not a second job."""

import hashlib
import re

from starlette.requests import Request

from iidq.errors import FieldFault, InvalidInput
from iidq.queue.job import IdempotencyKey, JobType
from iidq.web.guard.access import presented_keys
from iidq.web.request.submission import Submission
from iidq.web.request_context import exchange_of

_HEADER = "Idempotency-Key"
_HEADER_BYTES = _HEADER.lower().encode()
_FORM = re.compile(r"[!-~]{1,255}")
KEY_PATTERN = f"^{_FORM.pattern}$"


def read_idempotency_key(request: Request) -> str | None:
    """The header's value, or None without one; raises :class:`InvalidInput` for another form."""
    if _HEADER_BYTES not in exchange_of(request).headers:
        return None
    texts = request.headers.getlist(_HEADER)
    if len(texts) > 1 or not _FORM.fullmatch(texts[0]):
        raise InvalidInput([FieldFault(_HEADER, "expected one key of 1 to 255 printable ASCII characters, no spaces")])
    return texts[0]


def idempotency_key(request: Request, text: str, submission: Submission, job_type: JobType) -> IdempotencyKey:
    """The key as the store knows it: nobody can come upon another caller's job by guessing a key."""
    return IdempotencyKey(_scope(request, job_type.value), text, submission.fingerprint(job_type))


def batch_key(request: Request, text: str, fingerprint: bytes) -> IdempotencyKey:
    """The key of a whole batch, whose jobs make the ``fingerprint``."""
    return IdempotencyKey(_scope(request, "batch"), text, fingerprint)


def _scope(request: Request, endpoint: str) -> str:
    # A caller is who presents an API key, or else the client's address.
    keys = presented_keys(request.headers)
    caller = b"key " + keys[0] if keys else b"address " + exchange_of(request).client_address.encode()
    return hashlib.sha256(f"{endpoint} ".encode() + caller).hexdigest()
