"""Replies to errors: a status, one sentence, the correlation id, and nothing internal."""

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from iidq.errors import DatabaseRefusal, IdempotencyConflict, InvalidInput, PermanentFault, RowRefused, TemporaryFault
from iidq.observability import logs
from iidq.observability.redaction import redact_url
from iidq.web.reply import shapes
from iidq.web.reply.wire import JsonReply
from iidq.web.request_context import context_of
from iidq.web.service import service_of

RETRY_AFTER_SECONDS: Final = 5
"""``Retry-After`` of a 503 if the fault sets no time."""
_REFUSAL_SHOWN_SECONDS: Final = 60.0
"""How long /readyz shows a refused request, as later requests may not meet the same cause."""
_CLIENT_CLOSED_REQUEST: Final = 499
"""nginx's status for a client that has disconnected, used in logs only."""

ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]


def error_reply(request: Request, status: int, error: str, *, code: str | None = None, **headers: str) -> JsonReply:
    """Return an error in its common form. Names of ``headers`` have underscores: ``retry_after``."""
    request_id = context_of(request).correlation_id
    body: shapes.Error = {"error": error, "correlationId": request_id}
    if code:
        body = {"error": error, "code": code, "correlationId": request_id}
    return JsonReply(body, status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def job_not_found() -> JsonReply:
    """Return 404 for anything that is no job's id."""
    body: shapes.JobNotFound = {"error": "Job not found"}
    return JsonReply(body, 404)


async def _on_invalid_input(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidInput)
    errors: list[shapes.FieldError] = [{"field": fault.field, "message": fault.message} for fault in error.faults]
    body: shapes.ValidationError = {"error": "Validation failed", "errors": errors}
    return JsonReply(body, 400)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reply = error_reply(request, error.status_code, error.detail)
    reply.headers.update(error.headers or {})
    return reply


async def _on_permanent_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, PermanentFault)
    return error_reply(request, 422, redact_url(error.message), code=error.code)


async def _on_idempotency_conflict(request: Request, error: Exception) -> Response:
    assert isinstance(error, IdempotencyConflict)
    return error_reply(request, 422, error.message, code=error.code)


async def _on_temporary_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, TemporaryFault)
    seconds = math.ceil(error.retry_after_seconds or RETRY_AFTER_SECONDS)
    return error_reply(request, 503, redact_url(error.message), code=error.code, retry_after=str(seconds))


async def _on_database_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, DatabaseRefusal)
    service_of(request).database.faults.failed("requests", error, RETRY_AFTER_SECONDS, _REFUSAL_SHOWN_SECONDS)
    # Objects and rights are named only to operators: in the log, /readyz and `iidq doctor`.
    sentence = "The service's database refuses this request; try again later, or tell the service's operator"
    return error_reply(request, 503, sentence, code=error.code, retry_after=str(RETRY_AFTER_SECONDS))


async def _on_row_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RowRefused)
    if request.method == "GET":
        # A read changes no row, so this is a fault of the service.
        raise error
    # The rule is named only in the log.
    which = "this request" if error.item is None else f"jobs[{error.item}]"
    reason = "another row" if error.conflict else "a rule"
    sentence = f"The service's database refuses {which} because of {reason}; ask the service's operator"
    return error_reply(request, 409 if error.conflict else 422, sentence, code=error.code)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    logs.client_gone(context_of(request).correlation_id, request.method, request.url.path)
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


EXCEPTION_HANDLERS: Final[dict[Any, ErrorHandler]] = {
    InvalidInput: _on_invalid_input,
    HTTPException: _on_http_exception,
    IdempotencyConflict: _on_idempotency_conflict,
    PermanentFault: _on_permanent_fault,
    TemporaryFault: _on_temporary_fault,
    DatabaseRefusal: _on_database_refusal,
    RowRefused: _on_row_refused,
    ClientDisconnect: _on_disconnect,
}
