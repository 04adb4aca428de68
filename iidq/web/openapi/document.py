"""The whole OpenAPI 3.1 document under the settings of a process.

The document is made from the code that validates: fields and limits from :mod:`iidq.web.request.submission` and
:mod:`iidq.web.request.listing`, replies from :mod:`iidq.web.reply.shapes`, results from ``report.schema.json``.
"""

from typing import Any, Final

from iidq import __version__
from iidq.settings import Settings
from iidq.web.guard.access import OPEN_PATHS
from iidq.web.guard.admission import SUBMISSIONS, UNLIMITED_PATHS
from iidq.web.openapi.operating import OPERATING
from iidq.web.openapi.operation import Operation
from iidq.web.openapi.reading import READING
from iidq.web.openapi.responses import HEADERS, RATE_LIMIT_HEADERS, RESPONSES, header, response
from iidq.web.openapi.schemas import component_schemas
from iidq.web.openapi.submitting import SUBMITTING

OPENAPI_VERSION: Final = "3.1.1"

OPERATIONS: Final = (*SUBMITTING, *READING, *OPERATING)

_DESCRIPTION: Final = """\
Is this file the one that its creator registered? Send the file, or its SHA-256, together with the URI of its signed
manifest and the address of the content registry. The result is a verdict (`OK`, `WARN` or `FAIL`) or a portable proof.

Each submission is a job in a queue. A `FAIL` verdict is a result, so the job is `completed`; `failed` means that no
verdict could be reached. Times are ISO 8601 in UTC, unset values are null, and members are only ever added."""

_TAGS: Final = {
    "Submit": "Queue verifications and proofs.",
    "Read": "Read jobs and their results.",
    "Steer": "For operators.",
    "Synchronous": "The calls of older clients: no queue, the bare result.",
    "Operate": "For probes, scrapers and people.",
    "Documentation": "This description.",
}
_SECURITY_SCHEMES: Final = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_SECURITY: Final[list[dict[str, list[str]]]] = [{name: []} for name in _SECURITY_SCHEMES]


def openapi_document(settings: Settings) -> dict[str, Any]:
    """Return the document, with the keys and limits of these settings."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, settings)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "iidq",
            "version": __version__,
            "summary": "A verification queue for content provenance",
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": component_schemas(max_upload_bytes=settings.max_upload_bytes),
            "responses": RESPONSES,
            "headers": HEADERS,
            **({"securitySchemes": _SECURITY_SCHEMES} if settings.api_key else {}),
        },
    }


def _operation(operation: Operation, settings: Settings) -> dict[str, Any]:
    described = operation.as_json()
    replies = described["responses"]
    if _needs_key(operation, settings):
        described["security"] = _SECURITY
        replies["401"] = response("Unauthorized")
    if settings.api_key is None and operation.method == "post" and operation.path not in SUBMISSIONS:
        replies["403"] = response("OtherPage")
    if _is_limited(operation, settings):
        for status, reply in replies.items():
            if "$ref" not in reply:
                replies[status] = {
                    **reply,
                    "headers": reply["headers"] | {name: header(name) for name in RATE_LIMIT_HEADERS},
                }
        replies["429"] = response("TooManyRequests")
    for status, name in (("414", "UriTooLong"), ("431", "HeadersTooLarge"), ("500", "InternalError")):
        replies.setdefault(status, response(name))
    described["responses"] = dict(sorted(replies.items()))
    return described


def _needs_key(operation: Operation, settings: Settings) -> bool:
    everywhere = settings.api_key_scope == "all" and operation.path not in OPEN_PATHS
    return settings.api_key is not None and (operation.needs_key or everywhere)


def _is_limited(operation: Operation, settings: Settings) -> bool:
    submits = operation.method == "post" and operation.path in SUBMISSIONS
    limit = settings.rate_limit_submit_per_minute if submits else settings.rate_limit_read_per_minute
    return limit > 0 and operation.path not in UNLIMITED_PATHS
