"""Control by operators: cancel and retry a job, pause and resume the queue. A set ``API_KEY`` is required."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.database.connections import Connection
from iidq.errors import FieldFault, InvalidInput
from iidq.queue import control
from iidq.queue.identifiers import find_job_id
from iidq.queue.job import Job
from iidq.queue.notify import channels
from iidq.queue.read import readers
from iidq.web.guard.access import with_key
from iidq.web.reply import shapes
from iidq.web.reply.error_replies import error_reply, job_not_found
from iidq.web.reply.wire import JOBS_PATH, JsonReply, job_shape
from iidq.web.request.bodies import read_optional_json
from iidq.web.request.submission import is_plain_text
from iidq.web.service import service_of

MAX_REASON_LENGTH = 500
"""Characters of a pause's reason."""

Control = Callable[[Connection, UUID], Awaitable[bool | None]]


async def cancel(request: Request) -> Response:
    """POST /{jobId}/cancel: end a waiting or running job; a running attempt is interrupted within a second."""
    return await _change(request, control.cancel, "cannot be cancelled; only a queued or processing one can")


async def retry(request: Request) -> Response:
    """POST /{jobId}/retry: queue an ended job again."""
    return await _change(request, control.retry, "cannot be retried; only one that has ended can")


async def _change(request: Request, control_job: Control, refusal: str) -> Response:
    job_id = find_job_id(request.path_params["job_id"])
    if job_id is None:
        return job_not_found()

    async def change(connection: Connection) -> tuple[bool | None, Job | None]:
        done = await control_job(connection, job_id)
        if done is None:
            # No such job. Behind a pooler the error has also ended the transaction.
            return None, None
        if done:
            await channels.announce_changes(connection, [job_id])
        return done, await readers.find(connection, job_id)

    service = service_of(request)
    done, job = await service.database.write(change)
    if done and service.accelerator.ended_jobs is not None:
        await service.accelerator.ended_jobs.forget([job_id])
    if job is None:
        return job_not_found()
    if not done:
        return error_reply(request, 409, f"A {job.status} job {refusal}")
    return JsonReply(job_shape(job))


async def pause(request: Request) -> Response:
    """POST /pause: stop claims; running jobs continue. Optional JSON body ``{"reason": …}``."""
    reason = (await read_optional_json(request)).get("reason")
    if reason is not None and not is_plain_text(reason, MAX_REASON_LENGTH):
        raise InvalidInput([FieldFault("reason", f"expected text of at most {MAX_REASON_LENGTH} characters")])
    await service_of(request).database.write(lambda connection: control.pause(connection, reason))
    body: shapes.QueueControl = {"paused": True, "reason": reason}
    return JsonReply(body)


async def resume(request: Request) -> Response:
    """POST /resume: continue claims."""
    await service_of(request).database.write(control.resume)
    body: shapes.QueueControl = {"paused": False, "reason": None}
    return JsonReply(body)


ROUTES = [
    Route(f"{JOBS_PATH}/pause", with_key(pause), methods=["POST"]),
    Route(f"{JOBS_PATH}/resume", with_key(resume), methods=["POST"]),
    Route(f"{JOBS_PATH}/{{job_id}}/cancel", with_key(cancel), methods=["POST"]),
    Route(f"{JOBS_PATH}/{{job_id}}/retry", with_key(retry), methods=["POST"]),
]
