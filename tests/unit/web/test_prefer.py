"""The ``Prefer`` header, as RFC 7240 writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.web.request.header_fields import MAX_WAIT_SECONDS, NO_PREFERENCES, Preferences, parse_prefer


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], NO_PREFERENCES),
        ([""], NO_PREFERENCES),
        (["respond-async"], Preferences(None, True)),
        (["Respond-Async"], Preferences(None, True)),
        (["wait=10"], Preferences(10, False)),
        (["WAIT = 10"], Preferences(10, False)),
        (['wait="10"'], Preferences(10, False)),
        (["respond-async, wait=10"], Preferences(10, True)),
        (["respond-async", "wait=10"], Preferences(10, True)),
        (['return=minimal; foo="some, thing", wait=5'], Preferences(5, False)),
        (["wait=5; x=1;, ,respond-async"], Preferences(5, True)),
        (["wait=5, wait=9"], Preferences(5, False)),
        (["wait=0"], Preferences(0, False)),
        (["wait=100000"], Preferences(MAX_WAIT_SECONDS, False)),
    ],
)
def test_preferences_are_read_as_the_rfc_says(fields: list[str], expected: Preferences) -> None:
    """Names in any case, values quoted or not, several fields, the first of two; long waits are lowered."""
    assert parse_prefer(fields) == expected


@pytest.mark.parametrize(
    "text", ["wait", "wait=", "wait=-1", "wait=1.5", "wait=ten", "wait=" + "9" * 30, "respond-async=no", "(", '"wait=1']
)
def test_what_makes_no_sense_is_ignored(text: str) -> None:
    """A preference is no demand: a bad one is as if it were not there, and the next one still counts."""
    assert parse_prefer([text]) == NO_PREFERENCES
    assert parse_prefer([f"{text}, respond-async"]).respond_async == (text != "respond-async=no")


@pytest.mark.parametrize(
    ("preferences", "applied"),
    [(NO_PREFERENCES, ""), (Preferences(60, False), "wait=60"), (Preferences(0, True), "respond-async, wait=0")],
)
def test_what_was_applied_is_told(preferences: Preferences, applied: str) -> None:
    """In the form of the request, with the value that counted."""
    assert preferences.applied == applied
    assert parse_prefer([applied]) == preferences


@pytest.mark.parametrize("text", ["a" + ";" * 1000 + '"', "a" + "; " * 500 + '"', "a" + " " * 1000 + '"', 'a="' * 300])
def test_hostile_texts_are_read_as_quickly(text: str) -> None:
    """No text makes the reader try its parts over and over: it would not return before the suite's time is up."""
    assert parse_prefer([text]) == NO_PREFERENCES


@given(st.lists(st.text(st.characters(codec="latin-1"), max_size=200), max_size=4))
def test_any_text_is_read_in_bounds(fields: list[str]) -> None:
    """Whatever a client sends, the result is in bounds, and nothing raises."""
    wait = parse_prefer(fields).wait_seconds
    assert wait is None or 0 <= wait <= MAX_WAIT_SECONDS
