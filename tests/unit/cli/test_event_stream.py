"""Server-sent events, read from any chunks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.cli.event_stream import MAX_EVENT_BYTES, Event, EventStreamReader, EventStreamTooLong

_NAMES = st.sampled_from(["progress", "completed", ""])
_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))


@given(
    events=st.lists(st.tuples(_NAMES, _TEXTS)),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    data=st.data(),
)
def test_events_are_the_same_however_they_are_cut(events: list[tuple[str, str]], end: str, data: st.DataObject) -> None:
    """Events with any text (also U+2028, no line end here), any line end and comments are the same, cut anywhere."""
    text = "".join(f": alive{end}id: 7{end}event: {name}{end}data: {value}{end}{end}" for name, value in events)
    body = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    reader = EventStreamReader()
    read = [event for piece in pieces for event in reader.feed(piece)]
    # A final CR may be half of a CRLF, decided by the next line.
    read += reader.feed(b": end\n")
    assert read == [Event(name or "message", value) for name, value in events]


def test_several_data_lines_are_one_text() -> None:
    """Several data lines are joined by line feeds; fields without a colon and unknown fields are passed over."""
    assert EventStreamReader().feed(b"data: a\ndata:b\ndata\nretry: 1\nx\n\n\n") == [Event("message", "a\nb\n")]


def test_a_job_with_any_characters_is_read() -> None:
    """A job with characters that JSON leaves unescaped is read whole."""
    job = {"fileName": "a\u2028b\x85c"}
    body = f"event: completed\ndata: {json.dumps(job, ensure_ascii=False)}\n\n".encode()
    [event] = EventStreamReader().feed(body)
    assert json.loads(event.data) == job


@pytest.mark.parametrize("piece", [b"x" * (1 << 20), b"data: " + b"x" * (1 << 20) + b"\n"])
def test_an_endless_event_is_given_up(piece: bytes) -> None:
    """A stream that never ends a line or an event fills no memory."""
    reader = EventStreamReader()
    with pytest.raises(EventStreamTooLong):
        for _ in range(MAX_EVENT_BYTES // len(piece) + 2):
            reader.feed(piece)
