"""JSON of each reply: names, types and meaning. Pure.

mypy checks the functions in ``wire.py`` against the types, and :mod:`iidq.web.openapi.schemas` makes
``/api/docs.json`` from the same types: a member built but not described, or the reverse, fails the type check.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, WithJsonSchema

# pydantic accepts the standard library's TypedDict only from Python 3.12 on.
from typing_extensions import TypedDict

from iidq.queue.job import JobStatus, JobType

TIME_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"

Time = Annotated[str, Field(pattern=TIME_PATTERN, examples=["2026-11-24T00:50:26.013Z"])]
"""ISO 8601 in UTC, with milliseconds."""

JobId = Annotated[
    str,
    Field(
        pattern="^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$",
        description="A UUID of version 7, impossible to guess.",
        examples=["01a20ab7-d307-702e-8fe6-dfee29bc1bf7"],
    ),
]
ContentHash = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$", description="SHA-256 of the file, in lower case.")]
Count = Annotated[int, Field(ge=0)]
Result = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "description": "Set once the job is `completed`. Imported results may have another shape.",
            "anyOf": [
                {"$ref": "#/components/schemas/VerifyResult"},
                {"$ref": "#/components/schemas/Proof"},
                {"title": "Other result", "type": "object"},
            ],
        }
    ),
]


class Accepted(TypedDict):
    """A queued submission: the job's row is durable."""

    mode: Literal["async"]
    jobId: JobId
    status: Literal["queued"]
    message: str
    pollUrl: Annotated[str, Field(description="Path of the job on the same host; also in `Location`.")]


class AcceptedBatch(TypedDict):
    """Queued submissions: all rows are durable. Ids and URLs are in the order of the batch."""

    mode: Literal["async"]
    status: Literal["queued"]
    message: str
    jobIds: list[JobId]
    pollUrls: list[str]


class AttemptFault(TypedDict):
    """Failure of an attempt."""

    attempt: Annotated[int, Field(ge=0)]
    at: Annotated[Time | None, Field(description="Null if the row was written by plain SQL without a time.")]
    error: Annotated[str, Field(description="`code: message`.")]


class Callback(TypedDict):
    """Delivery of a job's end to its `callbackUrl`."""

    url: Annotated[str, Field(description="The `callbackUrl`, without its query.")]
    state: Annotated[
        Literal["waiting", "pending", "delivered", "gave_up"],
        Field(description="`waiting` until the job ends, `pending` until the receiver accepts."),
    ]
    attempts: Annotated[Count, Field(description="Attempts begun for this end of the job.")]
    nextAt: Annotated[Time | None, Field(description="Time of the next attempt, while `pending`.")]
    lastStatus: Annotated[int | None, Field(description="HTTP status of the receiver's last answer.")]
    lastError: Annotated[str | None, Field(description="Why the last attempt failed: `code: message`.")]
    deliveredAt: Time | None


class Job(TypedDict):
    """One job. Unset values are null."""

    id: JobId
    jobId: Annotated[JobId, Field(description="The same as `id`.")]
    type: JobType
    contentHash: ContentHash
    manifestUri: str
    registryAddress: Annotated[str, Field(pattern="^0x[0-9a-fA-F]{40}$")]
    rpcUrl: Annotated[str | None, Field(description="Without its credentials.")]
    status: JobStatus
    result: Result | None
    error: Annotated[str | None, Field(description="Why the job failed: `code: message`. Null unless it `failed`.")]
    retryCount: Annotated[Count, Field(description="Failures so far that were followed by another attempt.")]
    progress: Annotated[
        int, Field(ge=0, le=100, description="10 hash known, 30 manifest, 50 signer, 70 registry, 100.")
    ]
    startedAt: Time | None
    completedAt: Annotated[Time | None, Field(description="Time of the job's end: completed, failed or cancelled.")]
    createdAt: Time
    updatedAt: Time
    chainId: int | None
    fileName: str | None
    attempt: Annotated[Count, Field(description="Claims so far.")]
    maxAttempts: Annotated[Count, Field(description="`MAX_RETRY_ATTEMPTS` at the job's creation.")]
    runAt: Annotated[Time, Field(description="Earliest time of the next attempt.")]
    errors: Annotated[list[AttemptFault], Field(description="The last failed attempts, at most 20, oldest first.")]
    callback: Annotated[Callback | None, Field(description="Null without a `callbackUrl`.")]


class JobPage(TypedDict):
    """A page of jobs, newest first."""

    jobs: list[Job]
    count: Annotated[Count, Field(description="Length of this page.")]
    nextCursor: Annotated[str | None, Field(description="For the parameter `cursor`; null on the last page.")]


class Stats(TypedDict):
    """Number of jobs in each state; zeros while the database is unreachable."""

    available: Annotated[bool, Field(description="False while the database is unreachable.")]
    waiting: Annotated[Count, Field(description="Ready to run.")]
    active: Count
    completed: Count
    failed: Count
    delayed: Annotated[Count, Field(description="Queued for a later time, as after a failed attempt.")]
    cancelled: Count
    workers: Annotated[Count, Field(description="Live worker processes.")]
    oldestWaitingSeconds: Annotated[float, Field(ge=0)] | None
    state: (
        Annotated[
            str, Field(json_schema_extra={"enum": ["running", "idle", "paused", "no workers", "idle, no workers"]})
        ]
        | None
    )
    pauseReason: str | None


class QueueControl(TypedDict):
    """Whether jobs are claimed."""

    paused: bool
    reason: str | None


class Liveness(TypedDict):
    """Liveness of the process."""

    status: Literal["ok"]


DatabaseState = Literal["ok", "not migrated", "refused", "unavailable"]


class QueueSigns(TypedDict):
    """State of the queue's workers."""

    workers: Annotated[Count, Field(description="Live worker processes.")]
    listeningWorkers: Annotated[Count, Field(description="Workers notified of new jobs at once; the others poll.")]
    paused: bool


class RedisSigns(TypedDict):
    """The optional Redis accelerator."""

    state: Annotated[
        Literal["up", "open", "off"],
        Field(description="Open: Redis is unreachable, until a probe reaches it. Off: not configured."),
    ]
    since: Annotated[Time | None, Field(description="Time of the last change; null if off.")]


class Readiness(TypedDict):
    """Whether requests should be sent here."""

    status: Annotated[
        Literal["ready", "degraded", "unavailable", "stopping"],
        Field(description="Degraded: some requests or jobs fail until an operator fixes the `faults`."),
    ]
    database: DatabaseState
    circuit: Annotated[
        Literal["closed", "open"],
        Field(
            description="Open: Postgres is not used until a probe reaches it. If `database` is ok meanwhile, reads "
            "continue and writes are refused, as no synchronous standby confirms them."
        ),
    ]
    redis: Annotated[RedisSigns, Field(description="For people; not a reason to send requests elsewhere.")]
    queue: NotRequired[
        Annotated[QueueSigns | None, Field(description="For people; absent unless the service is ready.")]
    ]
    faults: NotRequired[
        Annotated[
            list[str],
            Field(description="Faults that an operator must fix, with their remedies; absent without faults."),
        ]
    ]


class Health(TypedDict):
    """For people."""

    status: Literal["ok", "degraded"]
    database: DatabaseState
    version: str


class FieldError(TypedDict):
    """Fault of a field."""

    field: Annotated[str, Field(description="`file` is also the field of a missing file-or-hash.")]
    message: Annotated[str, Field(description="The fault, and the expected value.")]


class ValidationError(TypedDict):
    """Every fault of the input at once."""

    error: Literal["Validation failed"]
    errors: Annotated[list[FieldError], Field(min_length=1)]


class Error(TypedDict):
    """The common form of an error."""

    error: Annotated[str, Field(description="One sentence for people.")]
    code: NotRequired[
        Annotated[str, Field(description="Stable, for machines: `manifest.malformed`, `rpc.unavailable`.")]
    ]
    correlationId: Annotated[str, Field(description="Also in `X-Correlation-ID`, and in the service's log.")]


class JobNotFound(TypedDict):
    """No job has this id."""

    error: Literal["Job not found"]


class Unauthorized(TypedDict):
    """The key is missing or wrong."""

    error: Literal["Unauthorized"]


class TooManyRequests(TypedDict):
    """The client's limit is used up."""

    error: Literal["Too Many Requests"]
    message: str
    retryAfter: Annotated[int, Field(ge=0, description="Seconds; also the header `Retry-After`.")]


class SyncResult(TypedDict):
    """The result itself, because the queue was not available."""

    mode: Literal["sync"]
    result: Result
