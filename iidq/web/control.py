"""What operators steer: cancel and retry a job, pause and resume the queue. With ``API_KEY`` set, these need it."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.database import Connection
from iidq.errors import FieldFault, InvalidInput
from iidq.queue import store
from iidq.queue.identifiers import parse_job_id
from iidq.queue.job import Job
from iidq.web.access import ApiKey, unauthorized
from iidq.web.bodies import read_optional_json
from iidq.web.replies import error_reply, job_not_found
from iidq.web.service import service_of
from iidq.web.wire import JOBS_PATH, JsonReply, job_shape

_LONGEST_REASON = 500

Endpoint = Callable[[Request], Awaitable[Response]]
Step = Callable[[Connection, UUID], Awaitable[bool | None]]


def _with_key(endpoint: Endpoint) -> Endpoint:
    async def guarded(request: Request) -> Response:
        if not ApiKey(service_of(request).settings).admits(request.headers):
            return unauthorized()
        return await endpoint(request)

    return guarded


async def cancel(request: Request) -> Response:
    """POST /{jobId}/cancel: end a job that waits or runs; a running attempt is interrupted within a second."""
    return await _steer(request, store.cancel, "cannot be cancelled; only a queued or processing one can")


async def retry(request: Request) -> Response:
    """POST /{jobId}/retry: put a job that ended back in line."""
    return await _steer(request, store.retry, "cannot be retried; only one that has ended can")


async def _steer(request: Request, step: Step, refusal: str) -> Response:
    job_id = parse_job_id(request.path_params["job_id"])
    if job_id is None:
        return job_not_found()

    async def steer(connection: Connection) -> tuple[bool | None, Job | None]:
        return await step(connection, job_id), await store.find(connection, job_id)

    done, job = await service_of(request).database.run(steer)
    if job is None:
        return job_not_found()
    if not done:
        return error_reply(request, 409, f"A {job.status} job {refusal}")
    return JsonReply(job_shape(job))


async def pause(request: Request) -> Response:
    """POST /pause: no job is claimed until resumed; running ones go on. Optional JSON body ``{"reason": …}``."""
    reason = (await read_optional_json(request)).get("reason")
    if reason is not None and (not isinstance(reason, str) or len(reason) > _LONGEST_REASON or "\0" in reason):
        raise InvalidInput([FieldFault("reason", f"expected text of at most {_LONGEST_REASON} characters")])
    text = reason if isinstance(reason, str) else None
    await service_of(request).database.run(lambda connection: store.pause(connection, text))
    return JsonReply({"paused": True, "reason": text})


async def resume(request: Request) -> Response:
    """POST /resume: claims go on."""
    await service_of(request).database.run(store.resume)
    return JsonReply({"paused": False, "reason": None})


ROUTES = [
    Route(f"{JOBS_PATH}/pause", _with_key(pause), methods=["POST"]),
    Route(f"{JOBS_PATH}/resume", _with_key(resume), methods=["POST"]),
    Route(f"{JOBS_PATH}/{{job_id}}/cancel", _with_key(cancel), methods=["POST"]),
    Route(f"{JOBS_PATH}/{{job_id}}/retry", _with_key(retry), methods=["POST"]),
]
