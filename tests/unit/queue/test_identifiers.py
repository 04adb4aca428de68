"""Job ids: UUID version 7, RFC 9562."""

import threading
import time
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.queue.identifiers import find_job_id, new_job_id, parse_job_id


def test_ids_have_the_form_of_version_7() -> None:
    """Version and variant bits are RFC 9562's, and the first 48 bits are the present time in milliseconds."""
    before = time.time_ns() // 1_000_000
    made = new_job_id()
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == RFC_4122
    assert before <= made.int >> 80 <= after


def test_ids_never_go_back_in_time_even_when_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id made after the clock was set back does not sort before earlier ids."""
    first = new_job_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert new_job_id().int >> 80 >= first.int >> 80


def test_ids_are_unguessable_and_unique_across_threads() -> None:
    """Ids made at the same moment in several threads differ, in far more than a counter's bits."""
    made: list[UUID] = []
    threads = [threading.Thread(target=lambda: made.extend(new_job_id() for _ in range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    random_parts = {job_id.int & ((1 << 62) - 1) for job_id in made}
    assert len(random_parts) == len(made) == 2000
    # A counter would leave the upper half of the bits alike.
    assert len({part >> 31 for part in random_parts}) > 1990


@given(st.uuids())
def test_canonical_text_is_an_id(job_id: UUID) -> None:
    """The canonical text of an id, in either case, is read back."""
    assert parse_job_id(str(job_id)) == job_id
    assert parse_job_id(str(job_id).upper()) == job_id


@given(st.uuids(), st.sampled_from(["{%s}", "urn:uuid:%s", " %s", "%s\n", "%s0"]))
def test_other_spellings_are_no_ids(job_id: UUID, spelling: str) -> None:
    """A job id has a single spelling: braces, URNs, blanks and bare hex are refused."""
    assert parse_job_id(spelling % job_id) is None
    assert parse_job_id(job_id.hex) is None


@given(st.text())
def test_junk_is_no_id(text: str) -> None:
    """Any text is an id or none, and raises no error."""
    found = parse_job_id(text)
    assert found is None or str(found) == text.lower()


def test_ids_of_the_replaced_system_are_found() -> None:
    """A short text gives the id of the imported job; a UUID is the id."""
    assert find_job_id("1234567890") == UUID("e807f1fc-f82d-132f-9bb0-18ca6738a19f")
    assert find_job_id(str(UUID(int=7))) == UUID(int=7)


@pytest.mark.parametrize("text", ["", " 7", "7\n", "a/b", "٧", "\0", "7" * 256, "..", "-7"])
def test_what_no_system_gave_out_is_no_id(text: str) -> None:
    """A text that no system made as an id is refused without a query."""
    assert find_job_id(text) is None
