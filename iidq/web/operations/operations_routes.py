"""The operations page, ``/admin/queues``: the page itself, what it shows, and what it lets operators do."""

from datetime import datetime
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.database.pool import Connection
from iidq.errors import FieldFault, InvalidInput
from iidq.observability.redaction import redact_url
from iidq.queue import control as steering
from iidq.queue.identifiers import find_job_id
from iidq.queue.notify import announcements
from iidq.queue.read import readers
from iidq.queue.read.browsing import JobState, Search, browse, find_holder
from iidq.queue.read.job_pages import REACH
from iidq.queue.read.paging import Cursor
from iidq.settings import Settings
from iidq.web.operations.operations_access import (
    CLOSED,
    OPERATIONS_PATH,
    Endpoint,
    OperationsAccess,
    clear_session,
    set_session,
    unauthorized,
)
from iidq.web.operations.operations_snapshot import Snapshots, camel
from iidq.web.pages import PAGE_ROUTE, page_reply, render
from iidq.web.reply.entity_tags import has_seen
from iidq.web.reply.replies import job_not_found
from iidq.web.reply.wire import JsonReply, job_shape
from iidq.web.request.bodies import read_optional_json
from iidq.web.request.plain_text import is_plain_text
from iidq.web.routes import queue_control
from iidq.web.service import service_of

PAGE_JOBS: Final = 50
RETRY_BATCH: Final = 200
"""Failures that one request retries; the page asks again while there are more."""
MAX_SEARCH_LENGTH: Final = 2048

_DATA: Final = f"{OPERATIONS_PATH}/data"


def routes(settings: Settings) -> list[Route]:
    """The page under these settings, its data, and its changes; each process shares one snapshot."""
    access = OperationsAccess(settings)
    snapshots = Snapshots()
    shell = render("operations/operations.html")
    closed = render("operations/operations-closed.html", reason=CLOSED)

    async def page(request: Request) -> Response:
        if access.is_closed(request):
            return page_reply(request, closed, 403)
        # The script asks for the job; what cannot be one's id needs no asking.
        job_id = request.path_params.get("job_id")
        return page_reply(request, shell, 200 if job_id is None or find_job_id(job_id) else 404)

    async def session(request: Request) -> Response:
        """GET: who is asked for what, and the CSRF token of who has signed in; without a key nobody has to."""
        known = access.session(request)
        opened = None
        if known is None and access.kind == "loopback":
            known = opened = access.open_session()
        reply = JsonReply(
            {
                "access": access.kind,
                "signedIn": known is not None,
                "csrfToken": known and access.csrf_token(known),
            }
        )
        if opened is not None:
            set_session(reply, request, opened)
        return reply

    async def sign_in(request: Request) -> Response:
        """POST ``{"key": …}``: a session for whoever knows the API key."""
        key = (await read_optional_json(request)).get("key")
        if not is_plain_text(key) or not access.admits(key):
            return unauthorized(request)
        opened = access.open_session()
        reply = JsonReply({"access": access.kind, "signedIn": True, "csrfToken": access.csrf_token(opened)})
        set_session(reply, request, opened)
        return reply

    async def sign_out(request: Request) -> Response:
        """POST: the browser forgets its session."""
        reply = JsonReply({"signedIn": False})
        clear_session(reply, request)
        return reply

    async def snapshot(request: Request) -> Response:
        """GET: the newest snapshot, or 304."""
        body, tag = await snapshots.read(service_of(request))
        headers = {"ETag": tag, "Cache-Control": "no-cache, private"}
        if has_seen(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    def route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
        return Route(path, endpoint, methods=[method], name=f"{PAGE_ROUTE}operations")

    return [
        *(
            route(path, page)
            for path in (OPERATIONS_PATH, f"{OPERATIONS_PATH}/jobs", f"{OPERATIONS_PATH}/jobs/{{job_id}}")
        ),
        route(f"{_DATA}/session", access.within(session)),
        route(f"{_DATA}/sign-in", access.within(sign_in), "POST"),
        route(f"{_DATA}/sign-out", access.changing(sign_out), "POST"),
        route(f"{_DATA}/snapshot", access.seeing(snapshot)),
        route(f"{_DATA}/jobs", access.seeing(list_jobs)),
        route(f"{_DATA}/jobs/{{job_id}}", access.seeing(show_job)),
        route(f"{_DATA}/jobs/{{job_id}}/cancel", access.changing(queue_control.cancel), "POST"),
        route(f"{_DATA}/jobs/{{job_id}}/retry", access.changing(queue_control.retry), "POST"),
        route(f"{_DATA}/failures/retry", access.changing(retry_failures), "POST"),
        route(f"{_DATA}/pause", access.changing(queue_control.pause), "POST"),
        route(f"{_DATA}/resume", access.changing(queue_control.resume), "POST"),
    ]


async def list_jobs(request: Request) -> Response:
    """GET ``?state=&cause=&search=&cursor=``: one page of jobs."""
    asked = request.query_params
    faults: list[FieldFault] = []
    state, after = None, None
    try:
        state = JobState(asked["state"]) if asked.get("state") else None
    except ValueError:
        faults.append(FieldFault("state", f"expected one of {', '.join(JobState)}"))
    try:
        after = Cursor.decode(asked["cursor"]) if asked.get("cursor") else None
    except ValueError:
        faults.append(FieldFault("cursor", "expected the nextCursor of an earlier page"))
    texts = {name: asked.get(name, "") for name in ("cause", "search")}
    for name, text in texts.items():
        if not is_plain_text(text, MAX_SEARCH_LENGTH):
            faults.append(FieldFault(name, f"expected text of at most {MAX_SEARCH_LENGTH} characters"))
    if faults:
        raise InvalidInput(faults)
    found = await service_of(request).lists.run(
        lambda connection: browse(
            connection,
            limit=PAGE_JOBS,
            state=state,
            cause=texts["cause"] or None,
            search=Search.read(texts["search"]),
            after=after,
            reach=REACH,
        )
    )
    jobs = [camel({name: getattr(job, name) for name in job.__slots__}) for job in found.jobs]
    for job in jobs:
        job["error"] = job["error"] and redact_url(job["error"])
    next_cursor = found.next.encode() if found.next else None
    return JsonReply({"jobs": jobs, "nextCursor": next_cursor, "cut": found.cut, "reach": REACH})


async def show_job(request: Request) -> Response:
    """GET: the job as everybody sees it, and who runs it."""
    job_id = find_job_id(request.path_params["job_id"])
    if job_id is None:
        return job_not_found()
    database = service_of(request).database
    job = await database.run(lambda connection: readers.find(connection, job_id))
    holder = await database.run(lambda connection: find_holder(connection, job_id))
    if job is None or holder is None:
        return job_not_found()
    shown = camel({name: getattr(holder, name) for name in holder.__slots__})
    return JsonReply({"job": job_shape(job), "holder": shown})


async def retry_failures(request: Request) -> Response:
    """POST ``{"cause": …, "before": …}``: the earliest failures of one cause go back in line, ``RETRY_BATCH`` at most.

    ``before`` is null at first, and then what the reply to the first request said: what fails again is left alone.
    """
    body = await read_optional_json(request)
    cause, before = body.get("cause"), None
    faults: list[FieldFault] = []
    if not cause or not is_plain_text(cause, MAX_SEARCH_LENGTH):
        faults.append(FieldFault("cause", "expected a cause as the page shows it"))
    try:
        before = None if body.get("before") is None else datetime.fromisoformat(str(body["before"]))
        # Other years leave what times Python, Postgres or a time zone can hold.
        if before is not None and (before.tzinfo is None or not 1970 <= before.year <= 9998):
            raise ValueError("no offset, or another age")
    except ValueError:
        faults.append(FieldFault("before", "expected what the first reply said"))
    if faults:
        raise InvalidInput(faults)

    async def retry(connection: Connection) -> tuple[list[UUID], datetime]:
        ids, moment = await steering.retry_failures(connection, str(cause), batch=RETRY_BATCH, before=before)
        if ids:
            await announcements.announce_changes(connection, ids)
        return ids, moment

    service = service_of(request)
    retried, moment = await service.database.write(retry)
    if retried and service.accelerator.ended_jobs is not None:
        await service.accelerator.ended_jobs.forget(retried)
    return JsonReply({"retried": len(retried), "more": len(retried) == RETRY_BATCH, "before": moment.isoformat()})
