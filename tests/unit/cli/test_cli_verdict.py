"""Verdicts and reasons of results, for people and for exit codes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.cli.verification.verdict_words import checks, exit_code, reason, registration, step_of, verdict_of, worst

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["status", "result", "report"]), inner),
)


@given(result=_JSON, status=_JSON)
def test_no_result_is_too_strange(result: Any, status: Any) -> None:
    """A foreign service's result gives a verdict or none, and never raises an error."""
    job = {"result": result, "status": status, "progress": status}
    assert verdict_of(job) in (None, "OK", "WARN", "FAIL")
    assert isinstance(reason(job), str)
    assert isinstance(step_of(job), str)
    if isinstance(result, dict):
        checks(result)
        registration(result)


def test_the_worst_of_many_is_told() -> None:
    """FAIL is worse than no verdict, no verdict worse than WARN, WARN worse than OK; no question is no fault."""
    codes = [exit_code(verdict) for verdict in ("OK", "WARN", None, "FAIL")]
    assert codes == [0, 3, 2, 1]
    assert [worst(codes[: count + 1]) for count in range(4)] == codes
    assert worst(reversed(codes)) == 1
    assert worst([]) == 0


def test_a_proof_has_its_verdict_elsewhere() -> None:
    """A proof's verdict is read from its `verification`."""
    assert verdict_of({"result": {"status": "x", "verification": {"status": "WARN"}}}) == "WARN"
    assert verdict_of({"result": {"status": "DONE"}}) is None


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"status": "failed", "error": "manifest.missing: no"}, "manifest.missing: no"),
        ({"status": "cancelled"}, "cancelled"),
        ({}, "there is no verdict"),
        ({"result": {"status": "OK", "checks": {"creatorOk": True}}}, ""),
        ({"result": {"status": "FAIL", "checks": {"creatorOk": False, "manifestOk": False}}}, "creatorOk; manifestOk"),
    ],
)
def test_what_speaks_against_it_is_told_in_a_line(job: dict[str, Any], said: str) -> None:
    """The reason is the error of a job without a verdict, else the failed checks."""
    assert reason(job) == said


def test_the_time_of_registration_is_readable() -> None:
    """The time of registration is shown in UTC; a time beyond all calendars is left out."""
    told = registration({"onchain": {"creator": "0x1", "timestamp": 1759774786}})
    assert told == {"creator": "0x1", "since": "2025-10-06 18:19:46+00:00"}
    assert registration({"onchain": {"creator": "0x1", "timestamp": 10**30}}) == {}
    assert registration({"onchain": {"creator": "0x0", "timestamp": 0}}) == {}
