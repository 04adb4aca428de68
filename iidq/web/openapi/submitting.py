"""Operations that submit jobs, batches and synchronous calls."""

from typing import Final

from iidq.queue.job import MAX_BATCH_JOBS
from iidq.web.openapi.examples import COMPLETED, FORM, PROVEN, REAL, SUBMISSION, named
from iidq.web.openapi.operation import BAD_BODY, PREFER, Operation, header_parameter
from iidq.web.openapi.responses import JSON, Json, reply
from iidq.web.openapi.schemas import ref
from iidq.web.reply.wire import JOBS_PATH
from iidq.web.request.header_fields import KEY_PATTERN

_IDEMPOTENCY_KEY = header_parameter(
    "Idempotency-Key",
    "A repeated request with the same key receives the job of the first one.",
    {"type": "string", "pattern": KEY_PATTERN},
    "order-4711",
)
_TWO_JOBS: Final[list[Json]] = [
    {"type": "verify", **SUBMISSION},
    {"type": "proof", **SUBMISSION, "fileName": "song.wav"},
]
_TWO_IDS: Final = (REAL["accepted"]["jobId"], REAL["proofAccepted"]["jobId"])
_ACCEPTED_BATCH: Final[Json] = {
    "mode": "async",
    "status": "queued",
    "message": "2 jobs queued successfully",
    "jobIds": list(_TWO_IDS),
    "pollUrls": [f"{JOBS_PATH}/{job_id}" for job_id in _TWO_IDS],
}
_SUBMISSION_BODY: Final[Json] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": ref("SubmissionForm"), "examples": named(file=FORM, hash=SUBMISSION)},
        JSON: {"schema": ref("Submission"), "examples": named(hash=SUBMISSION)},
    },
}
_JOB_LINKS: Final[Json] = {
    name: {"operationId": operation, "parameters": {"jobId": "$response.body#/jobId"}}
    for name, operation in {"read": "getJob", "watch": "watchJob", "cancel": "cancelJob", "retry": "retryJob"}.items()
}


def _submit(kind: str, id_: str, summary: str, accepted: Json, ended: Json, sync_result: Json) -> Operation:
    done = reply(
        "Queued; the job is durable. Or, with `Prefer: wait=N`, the ended job itself. Or the result at once, because "
        "the queue was not available.",
        {"oneOf": [ref("Accepted"), ref("Job"), ref("SyncResult")]},
        optional_headers=("Location", "Preference-Applied"),
        queued=accepted,
        ended=ended,
        sync={"mode": "sync", "result": sync_result},
    )
    later = reply("Queued, by `Prefer`.", "Accepted", "Location", "Preference-Applied", queued={**accepted})
    return Operation(
        "post",
        f"{JOBS_PATH}/{kind}",
        id_,
        "Submit",
        summary,
        "Send the file, or its SHA-256 as `contentHash`. Without a database the result comes at once "
        "(`SYNC_FALLBACK`), and 422 and 503 are as for the synchronous calls.",
        {
            200: {**done, "links": _JOB_LINKS},
            202: {**later, "links": _JOB_LINKS},
            **BAD_BODY,
            409: "RowConflict",
            422: "Unprocessable",
            503: "Unavailable",
        },
        (_IDEMPOTENCY_KEY, PREFER),
        _SUBMISSION_BODY,
    )


def _now(kind: str, id_: str, summary: str, schema: str, result: Json) -> Operation:
    return Operation(
        "post",
        f"/api/{kind}",
        id_,
        "Synchronous",
        summary,
        "The same fields as a submission; the reply is the bare result. Works without queue and database.",
        {200: reply("The result.", schema, result=result), **BAD_BODY, 422: "PermanentFault", 503: "Unavailable"},
        body=_SUBMISSION_BODY,
    )


SUBMITTING: Final = (
    _submit("verify", "submitVerification", "Request a verdict", REAL["accepted"], COMPLETED, REAL["verifyResult"]),
    _submit("proof", "submitProof", "Request a portable proof", REAL["proofAccepted"], PROVEN, REAL["proof"]),
    Operation(
        "post",
        f"{JOBS_PATH}/batch",
        "submitBatch",
        "Submit",
        "Request many verdicts or proofs",
        f"Up to {MAX_BATCH_JOBS} jobs by hash, all queued or none; faults are named like `jobs[3].chainId`.",
        {
            200: reply("Queued; the jobs are durable.", "AcceptedBatch", queued=_ACCEPTED_BATCH),
            **BAD_BODY,
            409: "RowConflict",
            422: "IdempotencyConflict",
            503: "Unavailable",
        },
        (_IDEMPOTENCY_KEY,),
        {
            "required": True,
            "content": {JSON: {"schema": ref("Batch"), "examples": named(two={"jobs": _TWO_JOBS})}},
        },
        needs_key=True,
    ),
    _now("verify", "verifyNow", "Verify at once", "VerifyResult", REAL["verifyResult"]),
    _now("proof", "proveNow", "Prove at once", "Proof", REAL["proof"]),
)
