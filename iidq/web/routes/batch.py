"""POST /batch: many jobs by hash in one request, all queued or none."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.errors import FieldFault, InvalidInput
from iidq.queue.identifiers import derived_job_ids, new_job_id
from iidq.queue.job import MAX_BATCH_JOBS, JobType
from iidq.web.guard.access import with_key
from iidq.web.reply.wire import JOBS_PATH, JsonReply, batch_shape
from iidq.web.request.bodies import read_json
from iidq.web.request.header_fields import idempotency_key, read_idempotency_key
from iidq.web.request.submission import Submission, SubmissionRules
from iidq.web.request_context import context_of
from iidq.web.service import service_of

MAX_BATCH_BYTES: Final = 4 << 20
"""Largest body: ten times the size of a thousand usual jobs."""


async def submit_batch(request: Request) -> Response:
    """POST /batch: without a database 503, as a thousand verifications take too long for a request."""
    service = service_of(request)
    key_text = read_idempotency_key(request)
    document = await read_json(request, max_bytes=MAX_BATCH_BYTES)
    # Checking a thousand manifest URIs takes some 50 ms.
    checked = await asyncio.to_thread(check_batch, document, service.rules)
    key = None if key_text is None else idempotency_key(request, key_text, "batch", _fingerprint(checked))
    batch_id = new_job_id()
    jobs = [
        replace(submission.as_job(job_type), id=job_id)
        for (job_type, submission), job_id in zip(checked, derived_job_ids(batch_id, len(checked)), strict=True)
    ]
    # Under a known key this is the id of the first request's batch.
    queued_id = await service.enqueuer.enqueue_batch(batch_id, jobs, key)
    return JsonReply(batch_shape(derived_job_ids(queued_id, len(jobs)), context_of(request).path_prefix))


def check_batch(document: Mapping[str, object], rules: SubmissionRules) -> list[tuple[JobType, Submission]]:
    """Return the checked jobs in order. Raise :class:`InvalidInput` with faults named like ``jobs[3].chainId``."""
    jobs = document.get("jobs")
    if not isinstance(jobs, list) or not jobs:
        raise InvalidInput([FieldFault("jobs", f"is required; expected an array of 1 to {MAX_BATCH_JOBS} objects")])
    if len(jobs) > MAX_BATCH_JOBS:
        raise InvalidInput([FieldFault("jobs", f"has {len(jobs)} entries; expected at most {MAX_BATCH_JOBS}")])
    checked: list[tuple[JobType, Submission]] = []
    faults: list[FieldFault] = []
    for index, fields in enumerate(jobs):
        try:
            checked.append(_check_job(fields, rules))
        except InvalidInput as invalid:
            faults += [_within(index, fault) for fault in invalid.faults]
    if faults:
        raise InvalidInput(faults)
    return checked


def _check_job(fields: object, rules: SubmissionRules) -> tuple[JobType, Submission]:
    if not isinstance(fields, dict):
        raise InvalidInput([FieldFault("", "expected an object")])
    given = {name: value for name, value in fields.items() if value is not None}
    faults = []
    if given.get("type") not in list(JobType):
        faults.append(FieldFault("type", f"expected {' or '.join(JobType)}"))
    if _asks_to_share(given.get("share")):
        faults.append(FieldFault("share", "is not possible within a batch; expected false, or no share at all"))
    try:
        submission = rules.read(given)
    except InvalidInput as invalid:
        raise InvalidInput([*faults, *invalid.faults]) from None
    if faults:
        raise InvalidInput(faults)
    return JobType(given["type"]), submission


def _asks_to_share(share: object) -> bool:
    return share is True or (isinstance(share, str) and share.lower() == "true")


def _within(index: int, fault: FieldFault) -> FieldFault:
    if fault.field == "file":
        # A batch has no files.
        return FieldFault(f"jobs[{index}].contentHash", "is required; expected 0x followed by 64 hex digits")
    return FieldFault(f"jobs[{index}]" + (f".{fault.field}" if fault.field else ""), fault.message)


def _fingerprint(batch: Sequence[tuple[JobType, Submission]]) -> bytes:
    return hashlib.sha256(b"".join(submission.fingerprint(job_type) for job_type, submission in batch)).digest()


ROUTES = [Route(f"{JOBS_PATH}/batch", with_key(submit_batch), methods=["POST"])]
