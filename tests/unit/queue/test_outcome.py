"""Postgres takes every outcome of an attempt."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.queue.job import ClaimedJob, JobStatus, JobType
from iidq.queue.outcome import Outcome, ResultTooLarge, encode_result, storable_text
from iidq.subject import Subject

# Text as JSON from the internet may contain NUL and halves of surrogate pairs.
any_text = st.text(st.characters())
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text
results = st.dictionaries(
    any_text,
    st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(any_text, inner), max_leaves=6),
)
clean_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def job(attempt: int = 1) -> ClaimedJob:
    return ClaimedJob(
        id=UUID(int=7),
        attempt=attempt,
        type=JobType.VERIFY,
        subject=Subject("0x" + "0" * 64, "ipfs://x", "0x" + "0" * 40),
        retry_count=0,
        max_attempts=3,
    )


@given(results)
def test_encoded_results_are_jsonb(result: dict[str, Any]) -> None:
    """No encoded result holds NUL, halves of surrogate pairs, NaN, which jsonb refuses, or more than ASCII."""
    text = encode_result(result)
    assert text.isascii()
    decoded = json.loads(text, parse_constant=pytest.fail)
    assert _no_unstorable_character(decoded)


def _no_unstorable_character(value: object) -> bool:
    match value:
        case str():
            return "\0" not in value and bool(value.encode() or True)
        case list():
            return all(_no_unstorable_character(item) for item in value)
        case dict():
            return all(_no_unstorable_character(part) for item in value.items() for part in item)
        case _:
            return True


@given(st.dictionaries(clean_text, clean_text | st.lists(clean_text) | st.integers()))
def test_clean_results_round_trip(result: dict[str, Any]) -> None:
    """A result that jsonb can hold is read back unchanged."""
    assert json.loads(encode_result(result)) == result


@given(any_text)
def test_storable_text_changes_bad_characters_alone(text: str) -> None:
    """Each NUL and each half of a surrogate pair becomes one U+FFFD; all other characters keep their place."""
    storable = storable_text(text)
    assert len(storable) == len(text)
    for was, became in zip(text, storable, strict=True):
        assert became == ("\ufffd" if was == "\0" or 0xD800 <= ord(was) <= 0xDFFF else was)


@pytest.mark.parametrize(
    ("given_text", "stored"),
    [
        ("a\0b", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("\udc00x", "\ufffdx"),
        ("\U0001f600", "\U0001f600"),
        ("\\u0000", "\\u0000"),
    ],
    ids=["NUL", "high half", "low half", "whole pair", "backslash-u spelled out"],
)
def test_text_in_results(given_text: str, stored: str) -> None:
    """Names and values alike are mended, and text that only looks like an escape is unchanged."""
    assert json.loads(encode_result({given_text: [given_text]})) == {stored: [stored]}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_no_json_are_refused(number: float) -> None:
    """NaN and the infinities are an error of the handler, not a broken row."""
    with pytest.raises(ValueError, match="Out of range float"):
        encode_result({"x": {"y": [number]}})


def test_outcomes_say_which_attempt_they_end() -> None:
    """Every outcome has id and attempt, the fence, and the new values of the row."""
    claimed = job(attempt=4)
    done = Outcome.completed(claimed, {"status": "OK"})
    assert done == Outcome(claimed.id, 4, JobStatus.COMPLETED, result='{"status":"OK"}')
    assert Outcome.failed(claimed, "a\0: b") == Outcome(claimed.id, 4, JobStatus.FAILED, failure="a\ufffd: b")
    again = Outcome.retried(claimed, "a: b", 2.5)
    assert again == Outcome(claimed.id, 4, JobStatus.QUEUED, failure="a: b", delay_seconds=2.5)
    assert Outcome.released(claimed) == Outcome(claimed.id, 4, JobStatus.QUEUED)


@given(results, any_text, st.floats(0, 300))
def test_document_of_an_outcome_is_json(result: dict[str, Any], failure: str, delay_seconds: float) -> None:
    """An outcome's document is a JSON object with just the set fields."""
    claimed = job(attempt=2)
    fence = {"id": claimed.id.hex, "attempt": 2}
    completed = Outcome.completed(claimed, result)
    assert completed.result is not None
    assert json.loads(completed.as_json()) == fence | {"status": "completed", "result": json.loads(completed.result)}
    assert json.loads(Outcome.retried(claimed, failure, delay_seconds).as_json()) == fence | {
        "status": "queued",
        "failure": storable_text(failure),
        "delay_seconds": delay_seconds,
    }
    assert json.loads(Outcome.released(claimed).as_json()) == fence | {"status": "queued"}


def test_a_result_that_no_row_takes_fails_its_job() -> None:
    """A result above 1 MiB fails its job for good, before the statement shared by many outcomes."""
    room = (1 << 20) - len('{"x":""}')
    assert len(encode_result({"x": "a" * room})) == 1 << 20
    with pytest.raises(ResultTooLarge, match="1048577 bytes; expected at most 1048576") as refused:
        Outcome.completed(job(), {"x": "a" * (room + 1)})
    assert not refused.value.temporary
