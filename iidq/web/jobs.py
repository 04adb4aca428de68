"""The queue's endpoints: submit, read one, list, count."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.errors import DatabaseUnavailable
from iidq.queue import store
from iidq.queue.identifiers import parse_job_id
from iidq.queue.job import JobType
from iidq.queue.paging import Cursor
from iidq.web.bodies import read_submission
from iidq.web.idempotency import idempotency_key, read_idempotency_key
from iidq.web.listing import read_listing
from iidq.web.replies import job_not_found
from iidq.web.service import service_of
from iidq.web.wire import JOBS_PATH, JsonReply, accepted_shape, job_shape, poll_url, stats_shape


async def verify(request: Request) -> Response:
    """POST /verify: queue a verification."""
    return await _submit(request, JobType.VERIFY)


async def proof(request: Request) -> Response:
    """POST /proof: queue the making of a proof."""
    return await _submit(request, JobType.PROOF)


async def _submit(request: Request, job_type: JobType) -> Response:
    service = service_of(request)
    # Before the body: a header can be refused without reading a gigabyte.
    key_text = read_idempotency_key(request)
    submission = await read_submission(request, service.rules, max_upload_bytes=service.settings.max_upload_bytes)
    key = None if key_text is None else idempotency_key(request, key_text, submission, job_type)
    job_id = await service.enqueuer.enqueue(submission.as_job(job_type, key))
    return JsonReply(accepted_shape(job_id, job_type), headers={"Location": poll_url(job_id)})


async def show(request: Request) -> Response:
    """GET /{jobId}."""
    job_id = parse_job_id(request.path_params["job_id"])
    if job_id is None:
        return job_not_found()
    job = await service_of(request).database.run(lambda connection: store.find(connection, job_id))
    return job_not_found() if job is None else JsonReply(job_shape(job))


async def list_jobs(request: Request) -> Response:
    """GET /: newest first; ``nextCursor`` is null on the last page."""
    asked = read_listing(request.query_params)
    jobs = await service_of(request).database.run(
        lambda connection: store.list_jobs(
            connection,
            status=asked.status,
            type=asked.type,
            content_hash=asked.content_hash,
            limit=asked.limit + 1,
            offset=asked.offset,
            after=asked.after,
        )
    )
    page = jobs[: asked.limit]
    next_cursor = Cursor.of(page[-1]).encode() if len(jobs) > asked.limit else None
    return JsonReply({"jobs": [job_shape(job) for job in page], "count": len(page), "nextCursor": next_cursor})


async def stats(request: Request) -> Response:
    """GET /stats: also an answer where there is no database."""
    try:
        counts = await service_of(request).database.run(store.count)
    except DatabaseUnavailable:
        return JsonReply(stats_shape(None))
    return JsonReply(stats_shape(counts))


ROUTES = [
    Route(f"{JOBS_PATH}/verify", verify, methods=["POST"]),
    Route(f"{JOBS_PATH}/proof", proof, methods=["POST"]),
    Route(f"{JOBS_PATH}/stats", stats, methods=["GET"]),
    Route(JOBS_PATH, list_jobs, methods=["GET"]),
    Route(f"{JOBS_PATH}/", list_jobs, methods=["GET"]),
    Route(f"{JOBS_PATH}/{{job_id}}", show, methods=["GET"]),
]
