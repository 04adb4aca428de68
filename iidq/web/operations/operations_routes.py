"""The operations page, ``/admin/queues``: the page, its data, and the changes by operators."""

from datetime import datetime
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.database.connections import Connection
from iidq.errors import FieldFault, InvalidInput
from iidq.observability.redaction import redact_url
from iidq.queue import control
from iidq.queue.identifiers import find_job_id
from iidq.queue.notify import channels
from iidq.queue.read import readers
from iidq.queue.read.browsing import JobState, Search, browse, find_lease
from iidq.queue.read.paging import Cursor
from iidq.queue.read.readers import REACH
from iidq.settings import Settings
from iidq.web.guard.access import Endpoint
from iidq.web.operations.operations_access import (
    CLOSED,
    OPERATIONS_PATH,
    OperationsAccess,
    clear_session,
    set_session,
    sign_in_required,
)
from iidq.web.operations.operations_snapshot import Snapshots, camel
from iidq.web.pages import PAGE_ROUTE, page_reply, render
from iidq.web.reply.conditional import has_seen
from iidq.web.reply.error_replies import job_not_found
from iidq.web.reply.wire import JsonReply, job_shape
from iidq.web.request.bodies import read_optional_json
from iidq.web.request.submission import is_plain_text
from iidq.web.routes import queue_control
from iidq.web.service import service_of

PAGE_JOBS: Final = 50
"""Jobs on one page."""
RETRY_BATCH: Final = 200
"""Failures retried by one request; the page repeats it while there are more."""
MAX_SEARCH_LENGTH: Final = 2048
"""Characters of a search text or a cause."""

_DATA: Final = f"{OPERATIONS_PATH}/data"


class OperationsPage:
    """Endpoints of the page with state; all requests of a process share a snapshot."""

    def __init__(self, settings: Settings) -> None:
        self.access = OperationsAccess(settings)
        self._snapshots = Snapshots()
        self._shell = render("operations/operations.html")
        self._closed = render("operations/operations-closed.html", reason=CLOSED)

    async def page(self, request: Request) -> Response:
        """GET: the page without its data; 403 if closed, 404 for a text that is no job's id."""
        if self.access.is_closed(request):
            return page_reply(request, self._closed, 403)
        job_id = request.path_params.get("job_id")
        return page_reply(request, self._shell, 200 if job_id is None or find_job_id(job_id) else 404)

    async def session(self, request: Request) -> Response:
        """GET: kind of access, and the session's CSRF token; without a key a session is opened at once."""
        session = self.access.session(request)
        opened = None
        if session is None and self.access.kind == "loopback":
            session = opened = self.access.open_session()
        token = session and self.access.csrf_token(session)
        reply = JsonReply({"access": self.access.kind, "signedIn": session is not None, "csrfToken": token})
        if opened is not None:
            set_session(reply, request, opened)
        return reply

    async def sign_in(self, request: Request) -> Response:
        """POST ``{"key": …}``: open a session for the API key."""
        key = (await read_optional_json(request)).get("key")
        if not is_plain_text(key) or not self.access.admits(key):
            return sign_in_required(request)
        opened = self.access.open_session()
        token = self.access.csrf_token(opened)
        reply = JsonReply({"access": self.access.kind, "signedIn": True, "csrfToken": token})
        set_session(reply, request, opened)
        return reply

    async def snapshot(self, request: Request) -> Response:
        """GET: the newest snapshot, or 304."""
        body, tag = await self._snapshots.read(service_of(request))
        headers = {"ETag": tag, "Cache-Control": "no-cache, private"}
        if has_seen(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)


def routes(settings: Settings) -> list[Route]:
    """Return the routes of page, data and changes."""
    operations = OperationsPage(settings)
    access = operations.access
    return [
        _route(OPERATIONS_PATH, operations.page),
        _route(f"{OPERATIONS_PATH}/jobs", operations.page),
        _route(f"{OPERATIONS_PATH}/jobs/{{job_id}}", operations.page),
        _route(f"{_DATA}/session", access.within(operations.session)),
        _route(f"{_DATA}/sign-in", access.within(operations.sign_in), "POST"),
        _route(f"{_DATA}/sign-out", access.changing(sign_out), "POST"),
        _route(f"{_DATA}/snapshot", access.seeing(operations.snapshot)),
        _route(f"{_DATA}/jobs", access.seeing(list_jobs)),
        _route(f"{_DATA}/jobs/{{job_id}}", access.seeing(show_job)),
        _route(f"{_DATA}/jobs/{{job_id}}/cancel", access.changing(queue_control.cancel), "POST"),
        _route(f"{_DATA}/jobs/{{job_id}}/retry", access.changing(queue_control.retry), "POST"),
        _route(f"{_DATA}/failures/retry", access.changing(retry_failures), "POST"),
        _route(f"{_DATA}/pause", access.changing(queue_control.pause), "POST"),
        _route(f"{_DATA}/resume", access.changing(queue_control.resume), "POST"),
    ]


def _route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
    return Route(path, endpoint, methods=[method], name=f"{PAGE_ROUTE}operations")


async def sign_out(request: Request) -> Response:
    """POST: delete the browser's session."""
    reply = JsonReply({"signedIn": False})
    clear_session(reply, request)
    return reply


async def list_jobs(request: Request) -> Response:
    """GET ``?state=&cause=&search=&cursor=``: one page of jobs."""
    query = request.query_params
    faults: list[FieldFault] = []
    state, after = None, None
    try:
        state = JobState(query["state"]) if query.get("state") else None
    except ValueError:
        faults.append(FieldFault("state", f"expected one of {', '.join(JobState)}"))
    try:
        after = Cursor.decode(query["cursor"]) if query.get("cursor") else None
    except ValueError:
        faults.append(FieldFault("cursor", "expected the nextCursor of an earlier page"))
    texts = {name: query.get(name, "") for name in ("cause", "search")}
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
    """GET: the job as in the API, and its lease."""
    job_id = find_job_id(request.path_params["job_id"])
    if job_id is None:
        return job_not_found()
    database = service_of(request).database
    job = await database.run(lambda connection: readers.find(connection, job_id))
    holder = await database.run(lambda connection: find_lease(connection, job_id))
    if job is None or holder is None:
        return job_not_found()
    shown = camel({name: getattr(holder, name) for name in holder.__slots__})
    return JsonReply({"job": job_shape(job), "holder": shown})


async def retry_failures(request: Request) -> Response:
    """POST ``{"cause": …, "before": …}``: retry the earliest failures of one cause, at most ``RETRY_BATCH``.

    ``before`` is null at first, then the value in the first reply, so that new failures are not retried again.
    """
    cause, before = _read_retry(await read_optional_json(request))

    async def retry(connection: Connection) -> tuple[list[UUID], datetime]:
        ids, moment = await control.retry_failures(connection, cause, batch=RETRY_BATCH, before=before)
        if ids:
            await channels.announce_changes(connection, ids)
        return ids, moment

    service = service_of(request)
    retried, moment = await service.database.write(retry)
    if retried and service.accelerator.ended_jobs is not None:
        await service.accelerator.ended_jobs.forget(retried)
    return JsonReply({"retried": len(retried), "more": len(retried) == RETRY_BATCH, "before": moment.isoformat()})


def _read_retry(body: dict[str, object]) -> tuple[str, datetime | None]:
    cause, before = body.get("cause"), None
    faults: list[FieldFault] = []
    if not cause or not is_plain_text(cause, MAX_SEARCH_LENGTH):
        faults.append(FieldFault("cause", "expected a cause as the page shows it"))
    try:
        before = None if body.get("before") is None else datetime.fromisoformat(str(body["before"]))
        # Other years exceed the range of Python, Postgres or a time zone.
        if before is not None and (before.tzinfo is None or not 1970 <= before.year <= 9998):
            raise ValueError("no offset, or a year out of range")
    except ValueError:
        faults.append(FieldFault("before", "expected what the first reply said"))
    if faults:
        raise InvalidInput(faults)
    return str(cause), before
