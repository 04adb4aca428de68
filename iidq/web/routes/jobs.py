"""The queue's endpoints: submit, read one, list, count."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.errors import DatabaseBusy, DatabaseRefusal, DatabaseUnavailable
from iidq.observability import metrics
from iidq.queue.identifiers import find_job_id
from iidq.queue.job import JobType
from iidq.queue.read import queue_health, readers
from iidq.web.reply import shapes
from iidq.web.reply.conditional import awaited_job, job_reply
from iidq.web.reply.job_body import JobBody
from iidq.web.reply.replies import job_not_found
from iidq.web.reply.wire import JOBS_PATH, JsonReply, job_shape, processed_shape, stats_shape
from iidq.web.request.bodies import read_submission
from iidq.web.request.idempotency import idempotency_key, read_idempotency_key
from iidq.web.request.listing import read_listing
from iidq.web.request.submission import Submission
from iidq.web.service import Service, service_of
from iidq.web.waiting import read_preferences, submission_reply


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
    preferences = read_preferences(request)
    submission = await read_submission(request, service.rules, max_upload_bytes=service.settings.max_upload_bytes)
    key = None if key_text is None else idempotency_key(request, key_text, submission, job_type)
    try:
        job_id = await service.enqueuer.enqueue(submission.as_job(job_type, key))
    except DatabaseUnavailable as error:
        # A job that could be queued in a moment is not worth a verification in this process.
        if service.settings.sync_fallback == "off" or isinstance(error, DatabaseBusy):
            raise
        return await _process_at_once(service, job_type, submission)
    return await submission_reply(request, job_id, job_type, preferences)


async def _process_at_once(service: Service, job_type: JobType, submission: Submission) -> Response:
    """The synchronous fallback: the result itself, from this very process.

    There is no job, so the submission's ``Idempotency-Key`` is not remembered, its ``callbackUrl`` is not called, and
    nothing of ``Prefer`` can be honoured (a server may ignore it: RFC 7240, section 2).

    If the connection died after the insert was sent, a job may have been stored although nobody was told its id: a
    worker then does the same work once more, which has no effect but its row (and that a repetition under the same
    key finds this job). To find out first would take the database that is away.
    """
    metrics.synchronous_fallback()
    return JsonReply(processed_shape(await service.synchronous.run(job_type, submission)))


async def show(request: Request) -> Response:
    """GET /{jobId}: at once, or with ``Prefer: wait`` once there is something new, or the end."""
    job_id = find_job_id(request.path_params["job_id"])
    if job_id is None:
        return job_not_found()
    preferences = read_preferences(request)
    awaited = await awaited_job(request, job_id, preferences) if preferences.wait_seconds else None
    job = await service_of(request).job_reads.find(job_id) if awaited is None else JobBody.of(awaited)
    return job_not_found() if job is None else job_reply(request, job, preferences)


async def list_jobs(request: Request) -> Response:
    """GET /: newest first; ``nextCursor`` is null on the last page."""
    asked = read_listing(request.query_params)
    page = await service_of(request).lists.run(
        lambda connection: readers.list_jobs(
            connection,
            status=asked.status,
            type=asked.type,
            content_hash=asked.content_hash,
            limit=asked.limit,
            offset=asked.offset,
            after=asked.after,
        )
    )
    body: shapes.JobPage = {
        "jobs": [job_shape(job) for job in page.jobs],
        "count": len(page.jobs),
        "nextCursor": None if page.next is None else page.next.encode(),
    }
    return JsonReply(body)


async def stats(request: Request) -> Response:
    """GET /stats: also an answer where there is no database."""
    try:
        counts = await service_of(request).overviews.run(queue_health.read_health)
    except DatabaseBusy:
        raise
    except (DatabaseUnavailable, DatabaseRefusal):
        return JsonReply(stats_shape(None))
    return JsonReply(stats_shape(counts))


SUBMIT = [
    Route(f"{JOBS_PATH}/verify", verify, methods=["POST"]),
    Route(f"{JOBS_PATH}/proof", proof, methods=["POST"]),
]
SHOW = Route(f"{JOBS_PATH}/{{job_id}}", show, methods=["GET"])
ROUTES = [
    *SUBMIT,
    Route(f"{JOBS_PATH}/stats", stats, methods=["GET"]),
    Route(JOBS_PATH, list_jobs, methods=["GET"]),
    SHOW,
]
