"""Operations for operators: control, probes, metrics, and the document itself."""

from typing import Final

from iidq import __version__
from iidq.web.openapi.examples import CANCELLED, QUEUED, error, named
from iidq.web.openapi.operation import JOB_ID, Operation
from iidq.web.openapi.responses import CONFLICTING_ROW, JSON, Json, reply, text_reply
from iidq.web.reply.wire import JOBS_PATH
from iidq.web.routes.queue_control import MAX_REASON_LENGTH

_READY: Final[Json] = {
    "status": "ready",
    "database": "ok",
    "circuit": "closed",
    "redis": {"state": "up", "since": "2026-11-24T00:50:26.013Z"},
    "queue": {"workers": 2, "listeningWorkers": 2, "paused": False},
}
_FAULT: Final = (
    'role iidq lacks DELETE on table iidq_queue_count: GRANT DELETE ON "public"."iidq_queue_count" TO "iidq"'
)
_PAUSE: Final[Json] = {
    "type": "object",
    "properties": {
        "reason": {"type": ["string", "null"], "maxLength": MAX_REASON_LENGTH, "description": "For people."}
    },
}


def _control(step: str, id_: str, summary: str, description: str, after: Json, refusal: str) -> Operation:
    return Operation(
        "post",
        f"{JOBS_PATH}/{{jobId}}/{step}",
        id_,
        "Steer",
        summary,
        description,
        {
            200: reply("The job as it is now.", "Job", job=after),
            404: "JobNotFound",
            409: reply(
                "The job is in another state; or a unique index or foreign key of the operator's refuses the change.",
                "Error",
                refused=error(refusal),
                row=CONFLICTING_ROW,
            ),
            422: "RowRefused",
            503: "Unavailable",
        },
        (JOB_ID,),
        needs_key=True,
    )


OPERATING: Final = (
    _control(
        "cancel",
        "cancelJob",
        "Cancel a job",
        "Ends a waiting or running job; a running attempt is interrupted within a second.",
        CANCELLED,
        "A completed job cannot be cancelled; only a queued or processing one can",
    ),
    _control(
        "retry",
        "retryJob",
        "Retry a job",
        "Queues an ended job again, as a new one.",
        QUEUED,
        "A queued job cannot be retried; only one that has ended can",
    ),
    Operation(
        "post",
        f"{JOBS_PATH}/pause",
        "pauseQueue",
        "Steer",
        "Pause the queue",
        "No job is claimed until the queue is resumed; running jobs continue.",
        {
            200: reply("Paused.", "QueueControl", paused={"paused": True, "reason": "maintenance"}),
            400: "BadRequest",
            408: "RequestTimeout",
            409: "RowConflict",
            413: "TooLarge",
            422: "RowRefused",
            503: "Unavailable",
        },
        body={"content": {JSON: {"schema": _PAUSE, "examples": named(why={"reason": "maintenance"})}}},
        needs_key=True,
    ),
    Operation(
        "post",
        f"{JOBS_PATH}/resume",
        "resumeQueue",
        "Steer",
        "Resume the queue",
        "Jobs are claimed again.",
        {
            200: reply("Resumed.", "QueueControl", resumed={"paused": False, "reason": None}),
            409: "RowConflict",
            422: "RowRefused",
            503: "Unavailable",
        },
        needs_key=True,
    ),
    Operation(
        "get",
        "/livez",
        "getLiveness",
        "Operate",
        "Is the process alive?",
        "Independent of the database and other services.",
        {200: reply("Alive.", "Liveness", alive={"status": "ok"})},
    ),
    Operation(
        "get",
        "/readyz",
        "getReadiness",
        "Operate",
        "Should requests be sent here?",
        "Not ready while the database is unreachable, refuses the login or is not migrated, nor while the process "
        "stops. `faults` lists refusals of Postgres towards the API or workers; some requests or jobs then fail, and "
        "the status is `degraded`.",
        {
            200: reply(
                "Ready.",
                "Readiness",
                ready=_READY,
                degraded={**_READY, "status": "degraded", "faults": [_FAULT]},
            ),
            503: reply(
                "Not ready.",
                "Readiness",
                "Retry-After",
                unavailable={
                    "status": "unavailable",
                    "database": "unavailable",
                    "circuit": "open",
                    "redis": {"state": "off", "since": None},
                },
            ),
        },
    ),
    Operation(
        "get",
        "/api/health",
        "getHealth",
        "Operate",
        "How is the service?",
        "Always 200 while the process serves.",
        {
            200: reply(
                "State of the service.",
                "Health",
                ok={"status": "ok", "database": "ok", "version": __version__},
                degraded={"status": "degraded", "database": "unavailable", "version": __version__},
            )
        },
    ),
    Operation(
        "get",
        "/metrics",
        "getMetrics",
        "Operate",
        "Metrics",
        "For Prometheus, in its text format or, by `Accept`, OpenMetrics.",
        {200: text_reply("The metrics.", "text/plain", "iidq_database_up 1.0\n")},
        needs_key=True,
    ),
    Operation(
        "get",
        "/api/docs.json",
        "getDocument",
        "Documentation",
        "This document",
        "OpenAPI 3.1, made from the code that validates.",
        {200: reply("The document.", {"type": "object"}, document={"openapi": "3.1.1"})},
    ),
    Operation(
        "get",
        "/api/docs",
        "getDocumentation",
        "Documentation",
        "This document, as a page",
        "Works offline and without scripts. With API_KEY_SCOPE=all, a browser without the key receives 401 with a "
        "sign-in page.",
        {200: text_reply("The page.", "text/html", "<!doctype html>…")},
    ),
    Operation(
        "get",
        "/api/docs/style.css",
        "getDocumentationStyle",
        "Documentation",
        "The page's style sheet",
        "Dark or light, by the browser's preference.",
        {200: text_reply("The style sheet.", "text/css", "body { … }")},
    ),
)
