"""The words and exit codes of a result on the command line. Pure.

``provenance/verdict.py`` has the same words for reports and ``web/pages/verify/verdict.js`` for browsers: each audience
needs other sentences, and a test keeps the cases equal.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from iidq.provenance.conclusion import HEADLINES, conclusion_of

NO_VERDICT: Final = 2
"""Exit code of a command without an answer."""
EXIT_CODES: Final = {"OK": 0, "FAIL": 1, "WARN": 3}
COLOURS: Final = {"OK": "green", "FAIL": "red", "WARN": "yellow"}
# For a result without the members that determine its case.
_PLAIN_HEADLINES: Final = {
    "OK": "this is what its creator registered",
    "WARN": "this is its creator's content, but not everything agrees",
    "FAIL": "nothing shows that this is what its creator registered",
}
# A manifest URI that is safe in a command. It comes from a chain, so its text may be hostile.
_USABLE_URI: Final = re.compile(r"(?i:ipfs|https?)://[\x21-\x7e]{1,2040}")
SIGNS: Final = {"passed": "✓", "failed": "✗", "notChecked": "·"}
_BADNESS: Final = (0, EXIT_CODES["WARN"], NO_VERDICT, EXIT_CODES["FAIL"])
_STEPS: Final = {
    10: "fetching the manifest",
    30: "recovering the signer",
    50: "reading the registry",
    70: "comparing",
    90: "storing the result",
}


class CheckLine(NamedTuple):
    """A check of a result."""

    outcome: str
    """``passed``, ``failed``, ``notChecked``, or another service's word."""
    text: str
    """Code and message; the name alone for a service without reports."""


def verdict_of(job: Mapping[str, Any]) -> str | None:
    """Return OK, WARN or FAIL of a verify job, a proof job or a synchronous reply; None if there is no verdict."""
    result = job.get("result")
    if not isinstance(result, dict):
        return None
    verification = result.get("verification")
    verdict = verification.get("status") if isinstance(verification, dict) else result.get("status")
    return verdict if isinstance(verdict, str) and verdict in EXIT_CODES else None


def exit_code(verdict: str | None) -> int:
    """Return 0 for OK, 1 for FAIL, 3 for WARN, 2 for None."""
    return NO_VERDICT if verdict is None else EXIT_CODES[verdict]


def worst(codes: Iterable[int]) -> int:
    """Return the worst exit code: FAIL is worse than no verdict, no verdict is worse than WARN."""
    return max(codes, key=_BADNESS.index, default=0)


def why_not(job: Mapping[str, Any]) -> str:
    """Return the reason why a job has no verdict."""
    return str(job.get("error") or job.get("status") or "there is no verdict")


def headline(result: Mapping[str, Any], verdict: str) -> str:
    """Return the sentence to print first for a result with ``verdict``."""
    conclusion = conclusion_of(result)
    return _PLAIN_HEADLINES[verdict] if conclusion is None else HEADLINES[conclusion]


def registered_manifest(result: Mapping[str, Any], given: str) -> str | None:
    """Return the registered manifest URI if worth a try instead of ``given``, else None."""
    if conclusion_of(result) not in ("otherManifest", "otherSigner", "manifestUriDiffers"):
        return None
    uri: str = result["onchain"]["manifestURI"]
    return uri if uri != given and _USABLE_URI.fullmatch(uri) else None


def reason(job: Mapping[str, Any]) -> str:
    """Return a line with the reason for a verdict other than OK; empty for OK."""
    verdict = verdict_of(job)
    if verdict is None:
        return why_not(job)
    failed = [check.text for check in checks(job["result"]) if check.outcome == "failed"]
    if verdict != "OK" and (conclusion := conclusion_of(job["result"])):
        return f"{HEADLINES[conclusion]} ({', '.join(text.partition(':')[0] for text in failed)})"
    return "; ".join(failed)


def checks(result: Mapping[str, Any]) -> list[CheckLine]:
    """Return all checks of a result, including omitted checks."""
    report = result.get("report")
    listed = report.get("checks") if isinstance(report, dict) else None
    if isinstance(listed, list):
        return [
            CheckLine(str(check.get("outcome")), f"{check.get('code')}: {check.get('message')}")
            for check in listed
            if isinstance(check, dict)
        ]
    # A service without reports has these flags.
    flags = result.get("verification") or result.get("checks") or {}
    passed = {name: value for name, value in flags.items() if isinstance(value, bool)}
    return [CheckLine("passed" if value else "failed", name) for name, value in passed.items()]


def registration(result: Mapping[str, Any]) -> dict[str, str]:
    """Return creator and time of the registration; empty for unregistered content."""
    onchain = result.get("onchain")
    if not isinstance(onchain, dict):
        return {}
    seconds = onchain.get("timestamp")
    if not isinstance(seconds, int) or not 0 < seconds < 1 << 34:
        return {}
    moment = datetime.fromtimestamp(seconds, UTC)
    return {"creator": str(onchain.get("creator")), "since": moment.isoformat(sep=" ", timespec="seconds")}


def step_of(job: Mapping[str, Any]) -> str:
    """Return the present step of a job in words."""
    progress = job.get("progress")
    if job.get("status") == "queued" or not isinstance(progress, int):
        return "waiting in line"
    return next((text for at, text in reversed(_STEPS.items()) if progress >= at), "starting")
