"""Replies of many operations, as ``#/components/responses``; mostly errors."""

from collections.abc import Sequence
from typing import Any, Final

from iidq.web.openapi.examples import REAL, error, named
from iidq.web.openapi.schemas import ref

Json = dict[str, Any]

JSON: Final = "application/json"

_SECONDS: Final[Json] = {"type": "integer", "minimum": 0}

HEADERS: Final[dict[str, Json]] = {
    "X-Correlation-ID": {
        "description": "The request's id: the id sent by the client, if plain, otherwise a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Retry-After": {"description": "Seconds.", "required": True, "schema": _SECONDS},
    "Location": {"description": "The job.", "required": True, "schema": {"type": "string", "format": "uri-reference"}},
    "ETag": {
        "description": "For `If-None-Match`.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[^"]+"$'},
    },
    "Preference-Applied": {
        "description": "The honoured preferences.",
        "required": True,
        "schema": {"type": "string"},
        "example": "wait=10",
    },
    "WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}},
    "RateLimit": {
        "description": "Requests left to the client (draft-ietf-httpapi-ratelimit-headers): `r` more in `t` seconds.",
        "schema": {"type": "string", "pattern": '^"(submit|read)";r=[0-9]+;t=[0-9]+$'},
        "example": '"submit";r=99;t=60',
    },
    "RateLimit-Policy": {
        "description": "The limit: `q` requests in `w` seconds.",
        "schema": {"type": "string", "pattern": '^"(submit|read)";q=[0-9]+;w=[0-9]+$'},
        "example": '"submit";q=100;w=60',
    },
    "RateLimit-Limit": {"description": "The limit, as in draft 06.", "schema": _SECONDS},
    "RateLimit-Remaining": {"schema": _SECONDS},
    "RateLimit-Reset": {"description": "Seconds.", "schema": _SECONDS},
}
RATE_LIMIT_HEADERS: Final = tuple(name for name in HEADERS if name.startswith("RateLimit"))


def header(name: str) -> Json:
    """Return a reference to a header of the document."""
    return {"$ref": f"#/components/headers/{name}"}


def response(name: str) -> Json:
    """Return a reference to a shared reply of the document."""
    return {"$ref": f"#/components/responses/{name}"}


def reply(
    description: str, schema: str | Json, *headers: str, optional_headers: Sequence[str] = (), **examples: Any
) -> Json:
    """Return a reply in JSON with these headers, and examples by name."""
    shape = ref(schema) if isinstance(schema, str) else schema
    always = {name: header(name) for name in ("X-Correlation-ID", *headers)}
    sometimes = {name: {**HEADERS[name], "required": False} for name in optional_headers}
    return {
        "description": description,
        "headers": always | sometimes,
        "content": {JSON: {"schema": shape, "examples": named(**examples)}},
    }


def text_reply(description: str, media_type: str, example: str) -> Json:
    """Return a reply that is not JSON."""
    content = {media_type: {"schema": {"type": "string"}, "example": example}}
    return {"description": description, "headers": {"X-Correlation-ID": header("X-Correlation-ID")}, "content": content}


_BAD_INPUT: Final[Json] = {"anyOf": [ref("ValidationError"), ref("Error")]}

_NO_MANIFEST: Final[Json] = error("example.org has no such manifest (404)", "manifest.not_found")

_KEY_CONFLICT: Final[Json] = error(
    "this Idempotency-Key was used for another request; expected a new key", "idempotency.conflict"
)

_REFUSED_ROW: Final[Json] = error(
    "The service's database refuses this request because of a rule; ask the service's operator", "database.row_refused"
)
CONFLICTING_ROW: Final[Json] = error(
    "The service's database refuses this request because of another row; ask the service's operator",
    "database.row_refused",
)

RESPONSES: Final[dict[str, Json]] = {
    "ValidationFailed": reply(
        "Every fault of the input at once.",
        "ValidationError",
        validation=REAL["validation"],
    ),
    "BadRequest": reply(
        "Every fault of the fields at once; or a body that does not match its Content-Type.",
        _BAD_INPUT,
        validation=REAL["validation"],
        malformed=error("Malformed request body: it ends before its closing boundary"),
    ),
    "Unauthorized": reply(
        "The API key is missing or wrong.", "Unauthorized", "WWW-Authenticate", unauthorized={"error": "Unauthorized"}
    ),
    "OtherPage": reply(
        "The request comes from a web page of an origin that `CORS_ORIGINS` does not name.",
        "Error",
        page=error("Forbidden: a page of another origin may not change the queue. Name its origin in CORS_ORIGINS"),
    ),
    "JobNotFound": reply("No job has this id.", "JobNotFound", unknown={"error": "Job not found"}),
    "RequestTimeout": reply(
        "The client sent nothing for too long.",
        "Error",
        idle=error("Request Timeout: no byte of the body came for 30 s"),
    ),
    "TooLarge": reply(
        "The file or the body is too large.",
        "Error",
        file=error("Payload Too Large: the file may have 1073741824 bytes"),
    ),
    "UriTooLong": reply(
        "Path and query are too long.",
        "Error",
        long=error("URI Too Long: expected at most 8192 bytes of path and query"),
    ),
    "UnsupportedMediaType": reply(
        "Neither a form nor JSON, or compressed.",
        "Error",
        text=error("Unsupported Media Type: expected multipart/form-data or application/json"),
    ),
    "RowConflict": reply(
        "A unique index or foreign key added by the operator refuses the change.", "Error", row=CONFLICTING_ROW
    ),
    "RowRefused": reply("A constraint or trigger added by the operator refuses the change.", "Error", row=_REFUSED_ROW),
    "IdempotencyConflict": reply(
        "The `Idempotency-Key` belongs to another request; or a constraint or trigger added by the operator "
        "refuses a job.",
        "Error",
        conflict=_KEY_CONFLICT,
        row=_REFUSED_ROW,
    ),
    "Unprocessable": reply(
        "The `Idempotency-Key` belongs to another request; or a constraint or trigger added by the operator "
        "refuses the job; or, without a database, as for the synchronous calls.",
        "Error",
        conflict=_KEY_CONFLICT,
        row=_REFUSED_ROW,
        manifest=_NO_MANIFEST,
    ),
    "PermanentFault": reply(
        "The inputs can never be verified, so a repetition cannot help.",
        "Error",
        manifest=_NO_MANIFEST,
        registry=error("the registry address holds no code on chain 1", "registry.no_code"),
    ),
    "TooManyRequests": reply(
        "The client's limit is used up.",
        "TooManyRequests",
        "Retry-After",
        *RATE_LIMIT_HEADERS,
        limited={
            "error": "Too Many Requests",
            "message": "Rate limit exceeded: at most 100 submissions per minute. Please try again later.",
            "retryAfter": 10,
        },
    ),
    "HeadersTooLarge": reply(
        "Too many headers.",
        "Error",
        many=error("Request Header Fields Too Large: expected at most 100 headers"),
    ),
    "InternalError": reply(
        "A fault of the service; its log has the correlation id.", "Error", internal=error("Internal Server Error")
    ),
    "Unavailable": reply(
        "The database, a gateway or an RPC endpoint is unavailable, or the service is busy: try again later.",
        "Error",
        "Retry-After",
        database=error("the database cannot be reached", "database.unavailable"),
        endpoint=error("rpc.example.org did not answer", "rpc.unavailable"),
    ),
}
