"""The replaced system's synchronous calls: the same form, the bare result, no queue and no database."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.queue.job import JobType
from iidq.web.reply.wire import JsonReply
from iidq.web.request.bodies import read_submission
from iidq.web.service import service_of


async def verify(request: Request) -> Response:
    """POST /api/verify."""
    return await _run(request, JobType.VERIFY)


async def proof(request: Request) -> Response:
    """POST /api/proof."""
    return await _run(request, JobType.PROOF)


async def _run(request: Request, job_type: JobType) -> Response:
    service = service_of(request)
    submission = await read_submission(request, service.rules, max_upload_bytes=service.settings.max_upload_bytes)
    return JsonReply(await service.synchronous.run(job_type, submission))


ROUTES = [
    Route("/api/verify", verify, methods=["POST"]),
    Route("/api/proof", proof, methods=["POST"]),
]
