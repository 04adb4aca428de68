"""The schemas of the OpenAPI document as checks."""

from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

_ROOT = "urn:document"


class DocumentSchemas:
    """Check values against schemas of the document; ``closed`` refuses undescribed members."""

    def __init__(self, document: dict[str, Any], *, closed: bool = False) -> None:
        self._closed = closed
        components = {"components": _closed(document["components"]) if closed else document["components"]}
        self._registry: Registry[Any] = Registry().with_resource(_ROOT, DRAFT202012.create_resource(components))

    def validate(self, value: object, schema: dict[str, Any]) -> None:
        """Raise jsonschema's ValidationError if the schema forbids the value; references go into the document."""
        absolute = _absolute(_closed(schema) if self._closed else schema)
        Draft202012Validator(absolute, registry=self._registry).validate(value)


def _absolute(value: Any) -> Any:
    match value:
        case {"$ref": str(place)}:
            return {**value, "$ref": _ROOT + place}
        case dict():
            return {key: _absolute(part) for key, part in value.items()}
        case list():
            return [_absolute(part) for part in value]
        case _:
            return value


def _closed(value: Any) -> Any:
    match value:
        # Results left by other systems are not checked here.
        case {"title": "Other result"}:
            return False
        case {"type": "object", "properties": dict(members)}:
            inner = {name: _closed(member) for name, member in members.items()}
            return {"additionalProperties": False, **value, "properties": inner}
        case dict():
            return {key: _closed(part) for key, part in value.items()}
        case list():
            return [_closed(part) for part in value]
        case _:
            return value
