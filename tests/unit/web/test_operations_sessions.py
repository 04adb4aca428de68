"""Sessions of the operations page: accepted texts, refused texts, and lifetime."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.web.operations.operations_access import SESSION_SECONDS, Sessions

NOW = 1_700_000_000.0
SESSIONS = Sessions(b"open sesame")


def test_a_session_lasts_twelve_hours() -> None:
    """A session lasts twelve hours to the second, in any process with the same key."""
    session = SESSIONS.open(NOW)
    assert SESSION_SECONDS == 12 * 3600
    assert Sessions(b"open sesame").ends_at(session, NOW) == NOW + SESSION_SECONDS
    assert SESSIONS.ends_at(session, NOW + SESSION_SECONDS - 1) == NOW + SESSION_SECONDS
    assert SESSIONS.ends_at(session, NOW + SESSION_SECONDS) is None


def test_another_key_knows_none_of_them() -> None:
    """Changing or removing API_KEY ends all sessions."""
    session = SESSIONS.open(NOW)
    for key in (b"open sesamf", b"", b"open sesame "):
        assert Sessions(key).ends_at(session, NOW) is None


def test_sessions_differ() -> None:
    """Two sessions of the same second differ, and do not contain the key."""
    first, second = SESSIONS.open(NOW), SESSIONS.open(NOW)
    assert first != second
    assert "sesame" not in first


@given(st.text(max_size=300))
def test_no_text_is_a_session(text: str) -> None:
    """Any other text in a cookie is refused without an error."""
    assert SESSIONS.ends_at(text, NOW) is None


@pytest.mark.parametrize("end", ["", "soon", "nan", "inf", "-1", "1e999", "1_0", "\u00b2", "\u0663", "9" * 100])
def test_a_signed_end_that_is_no_time(end: str) -> None:
    """A signed text without a time is no session, and raises no error."""
    keyless = Sessions(b"")
    content = f"{end}.nonce"
    signed = f"{content}.{base64.urlsafe_b64encode(keyless._signature(content)).decode().rstrip('=')}"
    ends_at = keyless.ends_at(signed, NOW)
    assert ends_at is None or (end.isdigit() and ends_at == float(end))


@given(st.integers(0, 200), st.characters(codec="utf-8"))
def test_a_changed_session_is_none(place: int, replacement: str) -> None:
    """A session with any changed character is no session."""
    session = SESSIONS.open(NOW)
    place %= len(session)
    changed = session[:place] + replacement + session[place + 1 :]
    assert (SESSIONS.ends_at(changed, NOW) is None) == (changed != session)


def test_a_csrf_token_belongs_to_its_session() -> None:
    """A CSRF token is valid for its own session only, and is no session."""
    mine, other = SESSIONS.open(NOW), SESSIONS.open(NOW)
    token = SESSIONS.csrf_token(mine)
    assert SESSIONS.is_csrf_token(mine, token)
    for wrong in ("", mine, other, SESSIONS.csrf_token(other), token[:-1], f"{token}é"):
        assert not SESSIONS.is_csrf_token(mine, wrong)
    assert SESSIONS.ends_at(token, NOW) is None


@pytest.mark.parametrize("text", ["", ".", "..", "1.2.3", f"{int(NOW) + 60}.x."])
def test_near_misses(text: str) -> None:
    """A text in the right form without the signature is no session."""
    assert SESSIONS.ends_at(text, NOW) is None
