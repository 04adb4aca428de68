"""Examples of the document: replies of a real run (``examples.json``), and usual errors."""

import json
from importlib.resources import files
from typing import Any, Final

_CORRELATION_ID: Final = "6f2206181a8b4554941baec00eff9d09"

REAL: Final[dict[str, Any]] = json.loads(
    files("iidq.web.openapi").joinpath("examples.json").read_text(encoding="utf-8")
)

COMPLETED: Final[dict[str, Any]] = REAL["completedJob"]
PROVEN: Final[dict[str, Any]] = {**COMPLETED, "type": "proof", "result": REAL["proof"]}
QUEUED: Final[dict[str, Any]] = {
    **COMPLETED,
    "status": "queued",
    "result": None,
    "progress": 0,
    "startedAt": None,
    "completedAt": None,
    "updatedAt": COMPLETED["createdAt"],
    "attempt": 0,
}
PROCESSING: Final[dict[str, Any]] = {
    **QUEUED,
    "status": "processing",
    "progress": 50,
    "startedAt": COMPLETED["startedAt"],
    "updatedAt": COMPLETED["startedAt"],
    "attempt": 1,
}
CANCELLED: Final[dict[str, Any]] = {**QUEUED, "status": "cancelled", "completedAt": COMPLETED["completedAt"]}
FAILED: Final[dict[str, Any]] = {
    **COMPLETED,
    "status": "failed",
    "result": None,
    "progress": 10,
    "error": "manifest.not_found: example.org has no such manifest (404)",
    "errors": [
        {
            "attempt": 1,
            "at": COMPLETED["completedAt"],
            "error": "manifest.not_found: example.org has no such manifest (404)",
        }
    ],
}

SUBMISSION: Final[dict[str, Any]] = {
    "contentHash": COMPLETED["contentHash"],
    "registryAddress": COMPLETED["registryAddress"],
    "manifestURI": COMPLETED["manifestUri"],
}
FORM: Final[dict[str, Any]] = {
    "file": "the file's bytes",
    "registryAddress": COMPLETED["registryAddress"],
    "manifestURI": COMPLETED["manifestUri"],
}


def error(text: str, code: str | None = None) -> dict[str, Any]:
    """Return an error in its common form."""
    return {"error": text, **({"code": code} if code else {}), "correlationId": _CORRELATION_ID}


def named(**values: Any) -> dict[str, Any]:
    """Return the ``examples`` of a media type."""
    return {name: {"value": value} for name, value in values.items()}
