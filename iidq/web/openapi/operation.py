"""One operation of the document, and the parts that several of them share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from iidq.web.openapi.examples import COMPLETED
from iidq.web.openapi.responses import Json, response
from iidq.web.request.header_fields import MAX_WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. ``replies`` names a shared response, or holds one, by status.

    ``needs_key``: with ``API_KEY`` set, whatever its scope.
    """

    method: str
    path: str
    id: str
    tag: str
    summary: str
    description: str
    replies: Mapping[int, str | Json]
    parameters: tuple[Json, ...] = ()
    body: Json | None = None
    needs_key: bool = False

    def as_json(self) -> Json:
        """The OpenAPI operation object."""
        replies = {
            str(status): response(told) if isinstance(told, str) else told
            for status, told in sorted(self.replies.items())
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
    """A parameter of the query; the schema's description is its own."""
    rest = {key: value for key, value in schema.items() if key != "description"}
    return {
        "name": name,
        "in": "query",
        "description": schema["description"],
        "allowEmptyValue": True,
        "schema": rest,
    }


def header_parameter(name: str, description: str, schema: Json, example: str) -> Json:
    """A request header that may be left out."""
    return {"name": name, "in": "header", "description": description, "schema": schema, "example": example}


JOB_ID: Final[Json] = {
    "name": "jobId",
    "in": "path",
    "required": True,
    "description": "The job's id, or the jobId that the replaced system gave to an imported job. Anything else is 404.",
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
