"""Endpoints of jobs: submit, read one, list, count; and the replaced system's synchronous calls."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.errors import DatabaseBusy, DatabaseRefusal, DatabaseUnavailable
from iidq.observability import metrics
from iidq.queue.identifiers import find_job_id
from iidq.queue.job import JobType
from iidq.queue.read import queue_health, readers
from iidq.web.reply import shapes
from iidq.web.reply.conditional import JobBody, job_reply
from iidq.web.reply.error_replies import job_not_found
from iidq.web.reply.wire import JOBS_PATH, JsonReply, accepted_reply, job_shape, processed_shape, stats_shape
from iidq.web.request.bodies import read_submission
from iidq.web.request.header_fields import Preferences, idempotency_key, read_idempotency_key, read_preferences
from iidq.web.request.listing import read_listing
from iidq.web.request.submission import Submission
from iidq.web.request_context import context_of
from iidq.web.service import Service, service_of
from iidq.web.waiting import awaited_job, preferred_reply


async def verify(request: Request) -> Response:
    """POST /verify: queue a verification."""
    return await _submit(request, JobType.VERIFY)


async def proof(request: Request) -> Response:
    """POST /proof: queue the making of a proof."""
    return await _submit(request, JobType.PROOF)


async def _submit(request: Request, job_type: JobType) -> Response:
    """Reply 200 without preferences, as the replaced system; otherwise as :func:`preferred_reply`."""
    service = service_of(request)
    # Before the body: a bad header can be refused without reading a gigabyte.
    key_text = read_idempotency_key(request)
    preferences = _preferences(request, service)
    submission = await read_submission(request, service.rules, max_upload_bytes=service.settings.max_upload_bytes)
    key = None
    if key_text is not None:
        key = idempotency_key(request, key_text, job_type.value, submission.fingerprint(job_type))
    try:
        job_id = await service.enqueuer.enqueue(submission.as_job(job_type, key))
    except DatabaseUnavailable as error:
        # A job that could be queued in a moment does not justify a verification in this process.
        if service.settings.sync_fallback == "off" or isinstance(error, DatabaseBusy):
            raise
        return await _process_at_once(service, job_type, submission)
    if preferences.applied:
        return await preferred_reply(request, job_id, job_type, preferences)
    return accepted_reply(job_id, job_type, context_of(request).path_prefix)


def _preferences(request: Request, service: Service) -> Preferences:
    preferences = read_preferences(request)
    if preferences.wait_seconds:
        service.watching.expect()
    return preferences


async def _process_at_once(service: Service, job_type: JobType, submission: Submission) -> Response:
    """Synchronous fallback: return the result without a job.

    ``Idempotency-Key``, ``callbackUrl`` and ``Prefer`` have no effect (RFC 7240, section 2). If the connection broke
    after the insert was sent, a job may exist unknown to the client; a worker then repeats the work without harm.
    """
    metrics.synchronous_fallback()
    return JsonReply(processed_shape(await service.synchronous.run(job_type, submission)))


async def show(request: Request) -> Response:
    """GET /{jobId}: reply at once, or with ``Prefer: wait`` after a change or the job's end."""
    job_id = find_job_id(request.path_params["job_id"])
    if job_id is None:
        return job_not_found()
    service = service_of(request)
    preferences = _preferences(request, service)
    awaited = await awaited_job(request, job_id, preferences) if preferences.wait_seconds else None
    job = await service.job_reads.find(job_id) if awaited is None else JobBody.of(awaited)
    return job_not_found() if job is None else job_reply(request, job, preferences)


async def list_jobs(request: Request) -> Response:
    """GET /: newest first; ``nextCursor`` is null on the last page."""
    listing = read_listing(request.query_params)
    page = await service_of(request).lists.run(
        lambda connection: readers.list_jobs(
            connection,
            status=listing.status,
            type=listing.type,
            content_hash=listing.content_hash,
            limit=listing.limit,
            offset=listing.offset,
            after=listing.after,
        )
    )
    body: shapes.JobPage = {
        "jobs": [job_shape(job) for job in page.jobs],
        "count": len(page.jobs),
        "nextCursor": None if page.next is None else page.next.encode(),
    }
    return JsonReply(body)


async def stats(request: Request) -> Response:
    """GET /stats: counts, or zeros without a database."""
    try:
        counts = await service_of(request).overviews.run(queue_health.read_health)
    except DatabaseBusy:
        raise
    except (DatabaseUnavailable, DatabaseRefusal):
        return JsonReply(stats_shape(None))
    return JsonReply(stats_shape(counts))


async def verify_now(request: Request) -> Response:
    """POST /api/verify: the bare result, without queue and database."""
    return await _run_now(request, JobType.VERIFY)


async def prove_now(request: Request) -> Response:
    """POST /api/proof: the bare proof, without queue and database."""
    return await _run_now(request, JobType.PROOF)


async def _run_now(request: Request, job_type: JobType) -> Response:
    service = service_of(request)
    submission = await read_submission(request, service.rules, max_upload_bytes=service.settings.max_upload_bytes)
    return JsonReply(await service.synchronous.run(job_type, submission))


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
    Route("/api/verify", verify_now, methods=["POST"]),
    Route("/api/proof", prove_now, methods=["POST"]),
]
