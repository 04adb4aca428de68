"""The OpenAPI document against the described code: routes, rules, shapes and examples."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from starlette.routing import Route

from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.guard.access import OPEN_PATHS
from iidq.web.openapi.document import OPERATIONS, openapi_document
from iidq.web.openapi.schemas import REPLIES
from iidq.web.pages import PAGE_ROUTE
from iidq.web.reply import shapes
from iidq.web.reply.wire import JOBS_PATH
from iidq.web.request.submission import REQUIRED, SCHEMAS, TEXT_PATTERNS, SubmissionRules
from tests.openapi_schemas import DocumentSchemas

SETTINGS = Settings(_env_file=None, database_url="postgresql://x/y", rpc_url="http://rpc.invalid/", api_key="sesame")
DOCUMENT: dict[str, Any] = openapi_document(SETTINGS)
CLOSED = DocumentSchemas(DOCUMENT, closed=True)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    kind, name = value["$ref"].split("/")[-2:]
    found: dict[str, Any] = DOCUMENT["components"][kind][name]
    return found


def unnamed(path: str) -> str:
    """Return a path without the names of parameters and without a final slash."""
    return re.sub(r"\{[^}]*\}", "{}", path).removesuffix("/")


def test_each_route_is_described_and_nothing_else() -> None:
    """Each route is an operation of the document, and each operation is a route; pages are no API."""
    served = set()
    for route in create_app(SETTINGS).routes:
        assert isinstance(route, Route), f"{route} is not described: only plain routes can be"
        assert route.methods
        if route.name.startswith(PAGE_ROUTE):
            continue
        served |= {(unnamed(route.path), method.lower()) for method in route.methods - {"HEAD"}}
    assert {(unnamed(path), method) for path, method, _ in operations()} == served


def test_changes_of_rows_may_be_refused_by_an_operators_rule() -> None:
    """Every POST under the jobs' path lists 409 and 422 with an example of ``database.row_refused``."""
    for path, method, operation in operations():
        if method != "post" or not path.startswith(JOBS_PATH):
            continue
        for status in ("409", "422"):
            [content] = resolved(operation["responses"][status])["content"].values()
            codes = [example["value"].get("code") for example in content["examples"].values()]
            assert "database.row_refused" in codes, f"{path} {status}"


def test_each_rule_is_described_and_nothing_else() -> None:
    """The checked fields are the fields of the document; the form has the file in addition."""
    assert SubmissionRules(SETTINGS).checks.keys() == SCHEMAS.keys()
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["SubmissionForm"]["properties"].keys() == {"file", *SCHEMAS}
    assert schemas["Submission"]["properties"].keys() == SCHEMAS.keys()
    assert schemas["Batch"]["properties"]["jobs"]["items"]["properties"].keys() == {"type", *SCHEMAS} - {"share"}
    assert set(REQUIRED) <= SCHEMAS.keys() >= TEXT_PATTERNS.keys()


def test_each_shape_is_in_the_document() -> None:
    """Each reply type is in the document."""
    types = {name for name, value in inspect.getmembers(shapes) if hasattr(value, "__required_keys__")}
    assert {shape.__name__ for shape in REPLIES} <= types
    assert types <= DOCUMENT["components"]["schemas"].keys()


def accepts(name: str, value: object) -> bool:
    try:
        SubmissionRules(SETTINGS).checks[name](value)
    except ValueError:
        return False
    return True


# Fields with a format of iidq (URIs, file names) need more words than a schema.
DECIDED = [name for name, schema in SCHEMAS.items() if "format" not in schema]


def allowed(schema: Mapping[str, Any]) -> st.SearchStrategy[object]:
    match schema:
        case {"type": "integer", "minimum": least, "maximum": most}:
            return st.integers(least, most)
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "string", "pattern": pattern}:
            # In Python $ also matches before a final line break.
            return st.from_regex(pattern.removesuffix("$") + r"\Z")
    raise AssertionError(f"no values for {schema}")


@pytest.mark.parametrize("name", DECIDED)
def test_what_a_schema_allows_its_rule_accepts(name: str) -> None:
    """Each value allowed by a field's schema is accepted by its rule."""

    @given(allowed(SCHEMAS[name]))
    def check(value: object) -> None:
        assert accepts(name, value)

    check()


@pytest.mark.parametrize("name", DECIDED)
def test_what_a_rule_accepts_its_schema_allows(name: str) -> None:
    """Each value accepted by a field's rule is allowed by its schema, also values that are nearly right or of another
    type.
    """
    schema = Draft202012Validator(dict(SCHEMAS[name]))
    text = Draft202012Validator({"type": "string", "pattern": TEXT_PATTERNS.get(name, "(?!)")})
    near = st.from_regex(r"0x[0-9a-fA-F]{38,66}\n?", fullmatch=True) | st.from_regex(r"[0-9]{1,18}") | st.text()
    values = (
        near | st.integers() | st.booleans() | st.none() | st.sampled_from(["true", "FALSE", "0", 2**53, 2**53 - 1])
    )

    @given(values)
    def check(value: object) -> None:
        if accepts(name, value):
            assert schema.is_valid(value) or text.is_valid(value)

    check()


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_schemas_are_schemas(name: str) -> None:
    """Each schema is valid JSON Schema 2020-12, and its references exist."""
    schema = DOCUMENT["components"]["schemas"][name]
    Draft202012Validator.check_schema(schema)
    for place in re.findall(r'"\$ref": "([^"]*)"', json.dumps(schema)):
        assert place.removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"]


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, method, operation in operations():
        if "requestBody" in operation:
            for media_type, content in operation["requestBody"]["content"].items():
                yield f"{method} {path} {media_type}", content
        for status, reply in operation["responses"].items():
            for content in resolved(reply).get("content", {}).values():
                yield f"{method} {path} {status}", content


@pytest.mark.parametrize(("place", "content"), list(contents()))
def test_each_body_has_examples_that_its_schema_allows(place: str, content: dict[str, Any]) -> None:
    """Each request body and each reply has examples, allowed by the schema."""
    examples = (
        [content["example"]] if "example" in content else [each["value"] for each in content["examples"].values()]
    )
    assert examples
    for example in examples:
        CLOSED.validate(example, content["schema"])


def test_each_parameter_has_an_example_or_a_schema_that_says_all() -> None:
    """Each parameter has a description, and an example or a limiting schema."""
    for _path, _method, operation in operations():
        for parameter in operation.get("parameters", ()):
            assert parameter["description"]
            assert "example" in parameter or parameter["schema"].keys() & {"enum", "pattern", "maximum", "format"}


def test_operations_have_names_of_their_own_and_links_lead_to_them() -> None:
    """Each operation has a unique name, and links lead to existing operations."""
    names = [operation["operationId"] for _path, _method, operation in operations()]
    assert len(set(names)) == len(names) == len(OPERATIONS)
    linked = set(re.findall(r'"operationId": "(\w+)", "parameters": \{"jobId"', json.dumps(DOCUMENT)))
    assert linked
    assert linked <= set(names)


@pytest.mark.parametrize("scope", ["operate", "all"])
def test_the_key_is_described_as_it_is_asked_for(scope: str) -> None:
    """Without a key in the settings no operation needs a key; with the scope ``all``, every operation but the open
    paths.
    """
    with_key = openapi_document(SETTINGS.model_copy(update={"api_key_scope": scope}))
    keyed = {path for path, methods in with_key["paths"].items() for each in methods.values() if "security" in each}
    if scope == "all":
        assert keyed == with_key["paths"].keys() - OPEN_PATHS
    else:
        assert {path.rpartition("/")[2] for path in keyed} == {"batch", "cancel", "retry", "pause", "resume", "metrics"}
    without = openapi_document(SETTINGS.model_copy(update={"api_key": None}))
    assert "securitySchemes" not in without["components"]
    assert not any("security" in each for methods in without["paths"].values() for each in methods.values())


def test_limits_follow_the_settings() -> None:
    """The document's limits follow the settings of the serving process."""
    changed = openapi_document(
        SETTINGS.model_copy(
            update={"max_upload_bytes": 4711, "rate_limit_submit_per_minute": 0, "rate_limit_read_per_minute": 0}
        )
    )
    assert (
        "at most 4711 bytes" in changed["components"]["schemas"]["SubmissionForm"]["properties"]["file"]["description"]
    )
    assert not any("429" in each["responses"] for methods in changed["paths"].values() for each in methods.values())
