"""How an attempt ended, as it will stand in the row. Pure."""

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from uuid import UUID

from iidq.errors import PermanentFault
from iidq.portable_values import storable_text as storable_text  # for the queue's other modules
from iidq.queue.job import ClaimedJob, JobStatus

# Of JSON without blanks; iidq_broken_rules in migrations/0003_counts.sql leaves room for those of jsonb.
_MAX_RESULT_BYTES = 1 << 20


_STRICT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


OutcomeKind = Literal["completed", "failed", "retried", "released"]


class ResultTooLarge(PermanentFault):
    """A result does not fit into a row."""

    code = "result.too_large"


class Outcome(NamedTuple):
    """The end of one attempt. ``status`` queued without a failure is a release; with one it is a retry.

    ``result`` is JSON text; ``delay_seconds`` is how long a retry waits, None to keep the place in line.
    """

    id: UUID
    attempt: int
    status: JobStatus
    result: str | None = None
    failure: str | None = None
    delay_seconds: float | None = None

    @classmethod
    def completed(cls, job: ClaimedJob, result: Mapping[str, Any]) -> "Outcome":
        """The attempt found out; raises ValueError where the result is no JSON, ResultTooLarge beyond 1 MiB."""
        return cls(job.id, job.attempt, JobStatus.COMPLETED, result=encode_result(result))

    @classmethod
    def failed(cls, job: ClaimedJob, failure: str) -> "Outcome":
        """It could not be found out, and trying again cannot help or was tried often enough."""
        return cls(job.id, job.attempt, JobStatus.FAILED, failure=storable_text(failure))

    @classmethod
    def retried(cls, job: ClaimedJob, failure: str, delay_seconds: float) -> "Outcome":
        """It could not be found out this time; charged, and tried again after the delay."""
        return cls(job.id, job.attempt, JobStatus.QUEUED, failure=storable_text(failure), delay_seconds=delay_seconds)

    @classmethod
    def released(cls, job: ClaimedJob) -> "Outcome":
        """Given back uncharged, at its old place in line."""
        return cls(job.id, job.attempt, JobStatus.QUEUED)

    @property
    def kind(self) -> OutcomeKind:
        """What the end was, in one word."""
        match self.status:
            case JobStatus.COMPLETED:
                return "completed"
            case JobStatus.FAILED:
                return "failed"
            case _:
                return "released" if self.failure is None else "retried"

    def as_json(self) -> str:
        """One object of the document that the store hands to Postgres; the result goes in as it is."""
        fields = f'"id":"{self.id.hex}","attempt":{self.attempt},"status":"{self.status.value}"'
        if self.result is not None:
            fields += f',"result":{self.result}'
        if self.failure is not None:
            fields += f',"failure":{json.dumps(self.failure)}'
        if self.delay_seconds is not None:
            fields += f',"delay_seconds":{self.delay_seconds!r}'
        return "{" + fields + "}"


def encode_result(result: Mapping[str, Any]) -> str:
    """JSON text that jsonb takes: no NaN; NUL and halves of surrogate pairs, which JSON allows, become U+FFFD."""
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
