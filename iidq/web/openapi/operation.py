"""An operation of the document, and parts of several operations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from iidq.web.openapi.examples import COMPLETED
from iidq.web.openapi.responses import Json, response
from iidq.web.request.header_fields import MAX_WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path."""

    method: str
    """HTTP method in lower case."""
    path: str
    """Path template, such as ``/livez``."""
    id: str
    """``operationId``, unique in the document."""
    tag: str
    """Section of the document."""
    summary: str
    """Title."""
    description: str
    """Text below the title."""
    replies: Mapping[int, str | Json]
    """By status: the name of a shared response, or a response object."""
    parameters: tuple[Json, ...] = ()
    """Parameter objects."""
    body: Json | None = None
    """Request body object; None without a body."""
    needs_key: bool = False
    """A set ``API_KEY`` is required, whatever its scope."""

    def as_json(self) -> Json:
        """Return the OpenAPI operation object."""
        replies = {
            str(status): response(reply) if isinstance(reply, str) else reply
            for status, reply in sorted(self.replies.items())
        }
        return {
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "description": self.description,
            **({"parameters": list(self.parameters)} if self.parameters else {}),
            **({"requestBody": self.body} if self.body else {}),
            "responses": replies,
        }


def query_parameter(name: str, schema: Mapping[str, Any]) -> Json:
    """Return a query parameter with the schema's description."""
    rest = {key: value for key, value in schema.items() if key != "description"}
    return {
        "name": name,
        "in": "query",
        "description": schema["description"],
        "allowEmptyValue": True,
        "schema": rest,
    }


def header_parameter(name: str, description: str, schema: Json, example: str) -> Json:
    """Return an optional request header."""
    return {"name": name, "in": "header", "description": description, "schema": schema, "example": example}


JOB_ID: Final[Json] = {
    "name": "jobId",
    "in": "path",
    "required": True,
    "description": "The job's id, or the jobId of a job imported from the replaced system. Any other text is 404.",
    "schema": {"type": "string", "minLength": 1},
    "example": COMPLETED["id"],
}
PREFER: Final = header_parameter(
    "Prefer",
    f"RFC 7240: `respond-async`, or `wait=N` to wait N seconds, at most {MAX_WAIT_SECONDS}. Anything else is ignored.",
    {"type": "string"},
    "wait=10",
)
BAD_BODY: Final[dict[int, str | Json]] = {
    400: "BadRequest",
    408: "RequestTimeout",
    413: "TooLarge",
    415: "UnsupportedMediaType",
}
