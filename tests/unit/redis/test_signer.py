"""Signed values cannot be made, swapped or prolonged without the key."""

from hypothesis import given
from hypothesis import strategies as st

from iidq.redis.signer import Signer

SIGNER = Signer(b"k" * 32)
NOW = 1_800_000_000.0


@given(st.text(), st.binary(), st.floats(min_value=0.001, max_value=3600).map(lambda seconds: round(seconds, 3)))
def test_a_value_comes_back_under_its_name_within_its_time(name: str, value: bytes, lasts_seconds: float) -> None:
    """A value is returned under its name until its end, and not afterwards."""
    signed = SIGNER.sign(name, value, now=NOW, lasts_seconds=lasts_seconds)
    assert SIGNER.verify(name, signed, now=NOW, lasts_seconds=lasts_seconds) == value
    assert SIGNER.verify(name, signed, now=NOW + lasts_seconds, lasts_seconds=lasts_seconds) is None


@given(st.binary(), st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_noticed(value: bytes, place: int, change: int) -> None:
    """A changed byte in the proof, the end or the value makes a value invalid."""
    signed = bytearray(SIGNER.sign("a", value, now=NOW, lasts_seconds=10))
    signed[place % len(signed)] ^= change
    assert SIGNER.verify("a", bytes(signed), now=NOW, lasts_seconds=10) is None


@given(st.binary(max_size=100))
def test_what_was_never_signed_is_nothing(forged: bytes) -> None:
    """Any bytes without a signature are no value."""
    assert SIGNER.verify("a", forged, now=NOW, lasts_seconds=10) is None


def test_no_other_name_key_or_time() -> None:
    """A value is invalid under another name, with another key, and beyond the lifetime of its kind."""
    signed = SIGNER.sign("a", b"x", now=NOW, lasts_seconds=10)
    assert SIGNER.verify("b", signed, now=NOW, lasts_seconds=10) is None
    assert Signer(b"l" * 32).verify("a", signed, now=NOW, lasts_seconds=10) is None
    assert SIGNER.verify("a", signed, now=NOW, lasts_seconds=9) is None
    assert Signer(b"l" * 32).namespace != SIGNER.namespace
