"""Schemas of the document, from the reply types, the results' JSON Schema and the submission rules."""

import json
from importlib.resources import files
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from iidq.queue.job import MAX_BATCH_JOBS, JobType
from iidq.web.reply import shapes
from iidq.web.request.submission import REQUIRED, SCHEMAS, TEXT_PATTERNS

COMPONENTS: Final = "#/components/schemas/"

REPLIES: Final = (
    shapes.Accepted,
    shapes.AcceptedBatch,
    shapes.SyncResult,
    shapes.Job,
    shapes.JobPage,
    shapes.Stats,
    shapes.QueueControl,
    shapes.Liveness,
    shapes.Readiness,
    shapes.Health,
    shapes.ValidationError,
    shapes.Error,
    shapes.JobNotFound,
    shapes.Unauthorized,
    shapes.TooManyRequests,
)


def ref(name: str) -> dict[str, Any]:
    """Return a reference to a schema of the document."""
    return {"$ref": COMPONENTS + name}


def component_schemas(*, max_upload_bytes: int) -> dict[str, Any]:
    """Return every named schema of the document."""
    return {
        "SubmissionForm": submission_form(max_upload_bytes),
        "Submission": submission_json(),
        "Batch": batch_json(),
        **_reply_schemas(),
        **_result_schemas(),
    }


def submission_form(max_upload_bytes: int) -> dict[str, Any]:
    """Return the fields of a multipart form, with a file or its hash."""
    file = {
        "type": "string",
        "contentMediaType": "application/octet-stream",
        "description": f"The file, at most {max_upload_bytes} bytes; hashed as it arrives and never stored. Its name "
        "has no `..`, slash, backslash or control character.",
    }
    return {
        "type": "object",
        "description": "Fields may come before or after the file. Unknown ones are ignored.",
        "required": list(REQUIRED),
        "oneOf": [{"required": ["file"]}, {"required": ["contentHash"]}],
        "properties": {"file": file, **SCHEMAS},
    }


def submission_json() -> dict[str, Any]:
    """Return the same fields in a JSON object without the file; null counts as absent."""
    required = (*REQUIRED, "contentHash")
    properties = {
        name: schema if name in required else _optional(name, dict(schema)) for name, schema in SCHEMAS.items()
    }
    return {
        "type": "object",
        "description": "Unknown members are ignored.",
        "required": list(required),
        "properties": properties,
    }


def batch_json() -> dict[str, Any]:
    """Return the body of a batch: jobs by hash, each with a type, none shared."""
    submission = submission_json()
    members = {name: schema for name, schema in submission["properties"].items() if name != "share"}
    job = {
        **submission,
        "required": ["type", *submission["required"]],
        "properties": {"type": {"enum": list(JobType)}, **members},
    }
    return {
        "type": "object",
        "required": ["jobs"],
        "properties": {"jobs": {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_JOBS, "items": job}},
    }


def _optional(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    choices = [schema, {"type": "null"}]
    if name in TEXT_PATTERNS:
        choices.insert(1, {"type": "string", "format": f"{name}-text", "pattern": TEXT_PATTERNS[name]})
    return {"description": schema.pop("description"), "anyOf": choices}


class _Untitled(GenerateJsonSchema):
    """Omit titles, which would repeat the names of members."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _reply_schemas() -> dict[str, Any]:
    _, schema = TypeAdapter.json_schemas(
        [(shape, "serialization", TypeAdapter(shape)) for shape in REPLIES],
        ref_template=COMPONENTS + "{model}",
        schema_generator=_Untitled,
    )
    schemas: dict[str, Any] = schema["$defs"]
    return schemas


def _result_schemas() -> dict[str, Any]:
    """Return the parts of ``report.schema.json`` as components."""
    text = files("iidq.provenance").joinpath("report.schema.json").read_text(encoding="utf-8")
    report: dict[str, Any] = json.loads(text)
    parts = {_component_name(name): part for name, part in report.pop("$defs").items()}
    del report["$schema"], report["$id"]
    moved: dict[str, Any] = _moved({**parts, "Report": report})
    return moved


def _component_name(name: str) -> str:
    return name[0].upper() + name[1:]


def _moved(value: Any) -> Any:
    match value:
        case {"$ref": str(place)}:
            name = _component_name(place.rpartition("/")[2]) if place != "#" else "Report"
            return {**{key: _moved(part) for key, part in value.items()}, "$ref": COMPONENTS + name}
        case dict():
            return {key: _moved(part) for key, part in value.items()}
        case list():
            return [_moved(part) for part in value]
        case _:
            return value
