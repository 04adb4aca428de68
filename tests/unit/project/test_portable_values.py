"""Text in jsonb, and times in a single form."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from iidq.portable_values import is_storable, iso_milliseconds, storable_text


@pytest.mark.parametrize(("text", "stored"), [("a\0b", "a�b"), ("\ud800", "�"), ("é😀", "é😀")])
def test_characters_that_jsonb_refuses_are_replaced(text: str, stored: str) -> None:
    """NUL and lone surrogates become U+FFFD; every other text is kept."""
    assert storable_text(text) == stored
    assert is_storable(text) == (text == stored)


def test_a_time_has_milliseconds_and_z() -> None:
    """Times of any zone are written in UTC."""
    moment = datetime(2025, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone(timedelta(hours=2)))
    assert iso_milliseconds(moment) == "2025-01-02T01:04:05.678Z"
    assert iso_milliseconds(datetime(2025, 1, 2, tzinfo=UTC)) == "2025-01-02T00:00:00.000Z"
