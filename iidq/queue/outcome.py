"""The end of an attempt, in the form in which it is stored. Pure."""

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from uuid import UUID

from iidq.errors import PermanentFault
from iidq.portable_values import storable_text as storable_text  # for the queue's other modules
from iidq.queue.job import ClaimedJob, JobStatus

# For JSON without blanks; iidq_broken_rules in migrations/0003_counts.sql allows for the blanks of jsonb.
_MAX_RESULT_BYTES = 1 << 20


_STRICT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


OutcomeKind = Literal["completed", "failed", "retried", "released"]


class ResultTooLarge(PermanentFault):
    """A result does not fit into a row."""

    code = "result.too_large"


class Outcome(NamedTuple):
    """The end of one attempt. ``status`` queued without a failure is a release, with a failure a retry."""

    id: UUID
    """Id of the job."""
    attempt: int
    """Number of the attempt; with ``id`` the fence."""
    status: JobStatus
    """Next state: completed, failed or queued."""
    result: str | None = None
    """Verdict or proof as JSON text; set exactly for completed."""
    failure: str | None = None
    """Error of the attempt; None for a success and a release."""
    delay_seconds: float | None = None
    """Wait before a retry; None keeps the place in line."""

    @classmethod
    def completed(cls, job: ClaimedJob, result: Mapping[str, Any]) -> "Outcome":
        """Return a success. Raise ValueError if the result is no JSON, ResultTooLarge beyond 1 MiB."""
        return cls(job.id, job.attempt, JobStatus.COMPLETED, result=encode_result(result))

    @classmethod
    def failed(cls, job: ClaimedJob, failure: str) -> "Outcome":
        """Return the final failure of a job."""
        return cls(job.id, job.attempt, JobStatus.FAILED, failure=storable_text(failure))

    @classmethod
    def retried(cls, job: ClaimedJob, failure: str, delay_seconds: float) -> "Outcome":
        """Return a counted failure, retried after the delay."""
        return cls(job.id, job.attempt, JobStatus.QUEUED, failure=storable_text(failure), delay_seconds=delay_seconds)

    @classmethod
    def released(cls, job: ClaimedJob) -> "Outcome":
        """Return a release: not counted, at the old place in line."""
        return cls(job.id, job.attempt, JobStatus.QUEUED)

    @property
    def kind(self) -> OutcomeKind:
        """Kind of the end, in one word."""
        match self.status:
            case JobStatus.COMPLETED:
                return "completed"
            case JobStatus.FAILED:
                return "failed"
            case _:
                return "released" if self.failure is None else "retried"

    def as_json(self) -> str:
        """Return the outcome as an object of the JSON document for Postgres."""
        fields = f'"id":"{self.id.hex}","attempt":{self.attempt},"status":"{self.status.value}"'
        if self.result is not None:
            fields += f',"result":{self.result}'
        if self.failure is not None:
            fields += f',"failure":{json.dumps(self.failure)}'
        if self.delay_seconds is not None:
            fields += f',"delay_seconds":{self.delay_seconds!r}'
        return "{" + fields + "}"


def encode_result(result: Mapping[str, Any]) -> str:
    """Return JSON text that jsonb takes: no NaN; NUL and halves of surrogate pairs become U+FFFD."""
    text = _STRICT.encode(result)
    if "\\u" in text:
        text = json.dumps(_storable(json.loads(text)), separators=(",", ":"))
    if len(text) > _MAX_RESULT_BYTES:
        raise ResultTooLarge(f"the result takes {len(text)} bytes; expected at most {_MAX_RESULT_BYTES}")
    return text


def _storable(value: Any) -> Any:
    match value:
        case str():
            return storable_text(value)
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {storable_text(name): _storable(item) for name, item in value.items()}
        case _:
            return value
