"""The package's JSON Schema, as a check of results."""

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = json.loads(files("iidq.provenance").joinpath("report.schema.json").read_text(encoding="utf-8"))
_REPORT = Draft202012Validator(SCHEMA)
_RESULTS = {name: _REPORT.evolve(schema=SCHEMA["$defs"][name]) for name in ("verifyResult", "proof")}


def valid(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result, a verification's or a proof; fail if the schema does not allow the result."""
    _RESULTS["proof" if "verification" in result else "verifyResult"].validate(result)
    codes = [check["code"] for check in result["report"]["checks"]]
    known = [each["const"] for each in SCHEMA["$defs"]["check"]["properties"]["code"]["anyOf"]]
    assert codes == known
    return result
