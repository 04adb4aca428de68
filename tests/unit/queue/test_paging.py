"""Cursors of the list of jobs."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.queue.read.paging import Cursor

times = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))


@given(times, st.uuids(), st.integers(0, 2**31 - 1))
def test_cursor_round_trips(created_at: datetime, job_id: UUID, skip: int) -> None:
    """A cursor keeps moment (to the microsecond), job and offset through a URL."""
    cursor = Cursor(created_at, job_id, skip)
    text = cursor.encode()
    assert Cursor.decode(text) == cursor
    assert len(text) == (40 if skip else 32)
    assert text.replace("-", "").replace("_", "").isalnum()


@given(st.text())
def test_junk_is_refused(text: str) -> None:
    """Any other text is a ValueError, never another error or a wrong place."""
    try:
        cursor = Cursor.decode(text)
    except ValueError:
        return
    assert cursor.encode() == text


@given(st.binary(min_size=24, max_size=24) | st.binary(min_size=28, max_size=28).map(lambda raw: raw + bytes(2)))
def test_random_bytes_are_a_place_or_refused(raw: bytes) -> None:
    """Random bytes of the right length decode to a place or are refused."""
    text = base64.urlsafe_b64encode(raw).decode()
    try:
        cursor = Cursor.decode(text)
    except ValueError:
        return
    assert cursor.encode() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "A" * 31,
        "A" * 33,
        "A" * 28,
        "A" * 36,
        "é" * 32,
        "-" * 31 + "+",
        "/" + "A" * 31,
        "f" + "_" * 31,
        " " * 32,
    ],
)
def test_refused_texts(text: str) -> None:
    """Wrong lengths, other alphabets and moments beyond the calendar are refused."""
    with pytest.raises(ValueError, match="no cursor of this list"):
        Cursor.decode(text)
