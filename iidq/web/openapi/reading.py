"""Operations that read jobs."""

import json
from typing import Final

from iidq.web.openapi.examples import COMPLETED, FAILED, PROCESSING, PROVEN, QUEUED, REAL
from iidq.web.openapi.operation import JOB_ID, PREFER, Operation, header_parameter, query_parameter
from iidq.web.openapi.responses import Json, header, reply, text_reply
from iidq.web.reply.wire import JOBS_PATH
from iidq.web.request.listing import PARAMETERS

_IF_NONE_MATCH = header_parameter(
    "If-None-Match", "The `ETag` of the reply that the client has.", {"type": "string"}, '"5d41402abc4b2a76b9719d91"'
)

_LAST_EVENT_ID = header_parameter(
    "Last-Event-ID",
    "The id of the client's last event; browsers send this header by themselves.",
    {"type": "string"},
    "1-queued",
)

_STATS_AWAY: Final[Json] = {
    **dict.fromkeys(REAL["stats"], 0),
    "available": False,
    **dict.fromkeys(("oldestWaitingSeconds", "state", "pauseReason")),
}


def _not_modified() -> Json:
    headers = {name: header(name) for name in ("X-Correlation-ID", "ETag")}
    return {"description": "The client has the same bytes already.", "headers": headers}


def _event(name: str, job: Json) -> str:
    return f"id: {job['attempt']}-{job['status']}\nevent: {name}\ndata: {json.dumps(job, separators=(',', ':'))}\n\n"


READING: Final = (
    Operation(
        "get",
        JOBS_PATH,
        "listJobs",
        "Read",
        "List jobs, newest first",
        "With or without a slash at the end. Each parameter may be given once; an empty one counts as absent. A page "
        "searches a bounded number of jobs: it may have fewer than `limit`, or none, and still a `nextCursor`. Only a "
        "null `nextCursor` is the end.",
        {
            200: reply(
                "A page.",
                "JobPage",
                page={"jobs": [COMPLETED], "count": 1, "nextCursor": "AAZg_EVjsVcBogtVWQJ7gJRwa0hFZSXV"},
            ),
            400: "ValidationFailed",
            503: "Unavailable",
        },
        tuple(query_parameter(name, schema) for name, schema in PARAMETERS.items()),
    ),
    Operation(
        "get",
        f"{JOBS_PATH}/stats",
        "getStats",
        "Read",
        "Count jobs",
        "Zeros while the database is unreachable.",
        {200: reply("The counts.", "Stats", counts=REAL["stats"], away=_STATS_AWAY), 503: "Unavailable"},
    ),
    Operation(
        "get",
        f"{JOBS_PATH}/{{jobId}}",
        "getJob",
        "Read",
        "Read one job",
        "To wait without polling, send `Prefer: wait=N`: the reply comes when the job has ended or no longer matches "
        "`If-None-Match`, or after N seconds.",
        {
            200: reply(
                "The job.",
                "Job",
                "ETag",
                optional_headers=("Retry-After", "Preference-Applied"),
                completed=COMPLETED,
                proof=PROVEN,
                queued=QUEUED,
                processing=PROCESSING,
                failed=FAILED,
            ),
            304: _not_modified(),
            404: "JobNotFound",
            503: "Unavailable",
        },
        (JOB_ID, PREFER, _IF_NONE_MATCH),
    ),
    Operation(
        "get",
        f"{JOBS_PATH}/{{jobId}}/events",
        "watchJob",
        "Read",
        "Watch one job",
        "Server-sent events: `progress` for each change, then a last event `completed`, `failed` or `cancelled`, even "
        "after the job's end. Each event's `data` is the job, its `id` is for `Last-Event-ID`.",
        {
            200: text_reply(
                "The stream; it ends with the job.",
                "text/event-stream",
                _event("progress", PROCESSING) + _event("completed", COMPLETED),
            ),
            204: {
                "description": "The client has received the last event already.",
                "headers": {"X-Correlation-ID": header("X-Correlation-ID")},
            },
            404: "JobNotFound",
            503: "Unavailable",
        },
        (JOB_ID, _LAST_EVENT_ID),
    ),
)
